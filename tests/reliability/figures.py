"""The figures of a fault: each try's outcome, counted, and kept in a file as it goes."""

import json
import os
import platform
import random
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"


@dataclass
class Outcome:
    """What became of one try.

    Attributes:
        lost: rows that were reported or should be there, and are not.
        doubled: rows that are there and should not be.
        failure: why it did not survive; empty: it did.
        first_rerun_failed: whether the same command, run again, did not end with exit 0 at once.
        counts: what else happened, to be added up.
        worst: measurements, of which the largest counts.

    """

    lost: int = 0
    doubled: int = 0
    failure: str = ""
    first_rerun_failed: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Note why it did not survive."""
        self.failure = f"{self.failure}; {why}" if self.failure else why


Attempt = Callable[[random.Random], Outcome]


@dataclass
class Tally:
    """The figures of one fault: a line of a results file."""

    fault: str
    code: str = ""
    seed: int = 1
    tried: int = 0
    survived: int = 0
    lost: int = 0
    doubled: int = 0
    first_rerun_failed: int = 0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    machine: str = ""

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Count a try."""
        self.tried += 1
        self.survived += not outcome.failure
        self.lost += outcome.lost
        self.doubled += outcome.doubled
        self.first_rerun_failed += outcome.first_rerun_failed
        self.seconds = round(self.seconds + seconds, 1)
        self.counts = dict(Counter(self.counts) + outcome.counts)
        for name, value in outcome.worst.items():
            self.worst[name] = round(max(value, self.worst.get(name, value)), 3)
        if outcome.failure:
            self.failures.append(f"try {self.tried}: {outcome.failure}"[:400])

    def line(self) -> str:
        """Return the figures as JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if value != {}})


def tallies(file: Path) -> dict[str, Tally]:
    """Return the figures of a results file by fault."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {tally.fault: tally for line in lines if (tally := Tally(**json.loads(line)))}


def record(file: Path, tally: Tally) -> None:
    """Write one fault's figures into a results file, in place of its earlier ones."""
    kept = {**tallies(file), tally.fault: tally}
    partial = file.with_suffix(".partial")
    partial.write_text("".join(one.line() + "\n" for one in kept.values()))
    partial.replace(file)


def code() -> str:
    """Return the commit that last changed the product; + if it has changed since."""
    product = ("--", "vecsearch", "migrations", "pyproject.toml")
    git = ["git", "-C", str(PROJECT)]
    log = subprocess.check_output([*git, "log", "-1", "--format=%h", *product], text=True)
    changed = subprocess.check_output([*git, "status", "--porcelain", *product], text=True)
    return log.strip() + ("+" if changed else "")


def machine() -> str:
    """Return the machine and versions in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    user = "as root" if os.geteuid() == 0 else "as a user"
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, {platform.system()}"
        f" {platform.release().split('-')[0]}, Python {platform.python_version()}, {user}"
    )


def tries(
    fault: str,
    attempt: Attempt,
    *,
    times: int,
    seed: int = 1,
    jobs: int = 1,
    file: Path | None = None,
) -> Tally:
    """Try a fault until it was tried so often, those of an earlier run included.

    Args:
        fault: its name, in the results and on the page.
        attempt: does the damage; given a generator of random numbers of its own.
        times: how often in all.
        seed: each try's numbers follow from it, the fault and the try's number.
        jobs: tries at once.
        file: where the figures are kept; None: nowhere.

    """
    tally = Tally(fault, code=code() if file else "", seed=seed)
    if file and (before := tallies(file).get(fault)):
        tally = before if (before.code, before.seed) == (tally.code, seed) else tally
    tally.machine = machine()

    def one(number: int) -> tuple[Outcome, float]:
        started = time.monotonic()
        try:
            outcome = attempt(random.Random(f"{seed}/{fault}/{number}"))
        except Exception as error:  # noqa: BLE001  # any fault of a try is its outcome
            outcome = Outcome(failure=f"{type(error).__name__}: {error}")
            if not isinstance(error, RuntimeError):
                traceback.print_exc()
        return outcome, time.monotonic() - started

    with ThreadPoolExecutor(jobs) as pool:
        for outcome, seconds in pool.map(one, range(tally.tried, times)):
            tally.add(outcome, seconds)
            if file:
                record(file, tally)
            if outcome.failure:
                print(f"{fault}: {tally.failures[-1]}", file=sys.stderr, flush=True)
    return tally
