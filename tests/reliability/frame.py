"""What the scripts of this folder share: a database to damage, tries with a seed, their figures.

    cd tests
    python -m reliability.kills PICTURES [--times 50] [--seed 1] [--jobs 1] [--only WORD]

Every script takes these arguments. PICTURES is a folder of images, of which 250 small ones are
copied. Figures go to results/NAME.json, a line for each fault, written after every try; a run that
is started again goes on where it ended, and starts anew if the product's code has changed.
`python -m reliability.report` makes docs/reliability.md of them.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reliability.figures import RESULTS, Attempt, tries

# A command that takes longer hangs.
PATIENCE_S = 300.0
RERUNS = 3
MODEL = ("--model", "tf_efficientnet_lite0")


@dataclass(frozen=True)
class Done:
    """A command that ended, or was killed because it hung."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def said(self) -> str:
        """The last line that it wrote to stderr; the folder of the try as an ellipsis."""
        last = (self.stderr.strip().splitlines() or [f"nothing, status {self.status}"])[-1]
        return re.sub(r"/\S*/try\d+", "…", last)


@dataclass(frozen=True)
class Place:
    """A data folder, and the command as a user runs it there."""

    data: Path
    environment: Mapping[str, str]

    def start(self, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
        """Start a command, in a process group of its own."""
        command = shutil.which("vecsearch", path=self.environment["PATH"])
        assert command, "vecsearch is not on the PATH"
        return subprocess.Popen(
            [command, *map(str, arguments)],
            env={**self.environment, "VECSEARCH_DATA_DIR": str(self.data), **variables},
            cwd=self.data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )

    def run(self, *arguments: str | Path, **variables: str) -> Done:
        """Run a command to its end."""
        started = time.monotonic()
        return ended(self.start(*arguments, **variables), started)

    def must(self, *arguments: str | Path) -> Done:
        """Run a command that has to succeed: it only prepares."""
        done = self.run(*arguments)
        if done.status:
            raise RuntimeError(f"vecsearch {' '.join(map(str, arguments))}: {done.stderr}")
        return done

    @contextmanager
    def url(self) -> Iterator[str]:
        """Yield the URL of the embedded server, which runs meanwhile."""
        from vecsearch.postgres.embedded import server

        with server.lease(self.data) as url:
            yield url

    def postmaster(self) -> int | None:
        """Return the process of the server of this folder, if it lives."""
        with suppress(OSError, ValueError, IndexError):
            process = int((self.data / "postgres/postmaster.pid").read_text().splitlines()[0])
            # The first process of a server works in its data folder.
            folder = Path(f"/proc/{process}/cwd").resolve()
            return process if folder == (self.data / "postgres").resolve() else None
        return None

    def end(self) -> None:
        """End everything that runs on this folder, and remove it."""
        if process := self.postmaster():
            os.kill(process, signal.SIGQUIT)
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_until(lambda: not self.processes(), within=10)
        shutil.rmtree(self.data, ignore_errors=True)

    def processes(self) -> list[int]:
        """Return the commands that run on this folder, and their server."""
        mark = os.fsencode(f"VECSEARCH_DATA_DIR={self.data}") + b"\0"
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with suppress(OSError):
                    if mark in (folder / "environ").read_bytes() + b"\0":
                        found.append(int(folder.name))
        return found


def ended(process: subprocess.Popen[str], started: float, within: float = PATIENCE_S) -> Done:
    """Wait for a command; kill it if it hangs."""
    try:
        stdout, stderr = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += f"\nIt hung, and was killed after {time.monotonic() - started:.0f} s."
    return Done(process.returncode, stdout, stderr, time.monotonic() - started)


def kill(process: subprocess.Popen[str], *, group: bool) -> bool:
    """Kill a command, with its children or alone; return whether it still ran."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    # Children that live on may still hold the other ends.
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
    return process.wait() == -signal.SIGKILL


def wait_until(condition: Callable[[], object], within: float = PATIENCE_S) -> bool:
    """Wait until something holds; return whether it came to hold."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@dataclass
class Workshop:
    """A folder to work in: pictures, the databases that tries start from, their copies."""

    folder: Path
    pictures: Path
    environment: dict[str, str]
    encoder: Sequence[str | Path] = MODEL
    templates: dict[str, Path] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))
    # Held while something is made that tries share.
    making: threading.RLock = field(default_factory=threading.RLock)

    @cached_property
    def photos(self) -> Path:
        """250 small pictures at most, in the folders that they came from."""
        target = self.folder / "photos"
        suffixes = {".jpg", ".jpeg", ".png"}
        found = sorted(file for file in self.pictures.rglob("*") if file.suffix.lower() in suffixes)
        small = [file for file in found if file.stat().st_size < 200_000]
        # The same number of each label.
        for file in small[:: max(1, len(small) // 250)][:250]:
            copy = target / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return target

    def new(self) -> Place:
        """Return a place whose data folder is not there yet."""
        folder = self.folder / f"try{next(self.numbers)}"
        folder.mkdir()
        return Place(folder / "data", self.environment)

    def template(self, name: str, fill: Callable[[Place], object]) -> Path:
        """Return a data folder whose server is stopped, made by `fill` if it is not there yet."""
        with self.making:
            if name not in self.templates:
                place = Place(self.folder / name / "data", self.environment)
                place.data.parent.mkdir()
                fill(place)
                place.must("db", "stop")
                self.templates[name] = place.data
            return self.templates[name]

    @contextmanager
    def copy(self, template: Path | None) -> Iterator[Place]:
        """Yield a place that begins as a template is, or empty, and remove it at the end."""
        place = self.new()
        if template:
            # -a: the files belong to the server's user.
            subprocess.run(["cp", "-a", "--reflink=auto", template, place.data], check=True)
        try:
            yield place
        finally:
            place.end()
            shutil.rmtree(place.data.parent, ignore_errors=True)


@contextmanager
def workshop(pictures: Path, parent: Path | None = None) -> Iterator[Workshop]:
    """Yield a workshop, and remove its folder at the end."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="reliability-") as name:
        folder = Path(name)
        # As root, Postgres runs as another user, who must get at the data folders.
        folder.chmod(0o755)
        environment = {
            **{name: value for name, value in os.environ.items() if "VECSEARCH" not in name},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "VECSEARCH_CACHE_DIR": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "500",
        }
        yield Workshop(folder, pictures, environment)


def main(name: str, faults: Callable[[Workshop], Mapping[str, Attempt]], **defaults: Any) -> None:
    """Try the faults of a script, as its arguments say, and print their figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path, help="a folder of images")
    parser.add_argument("--times", type=int, default=defaults.get("times", 50))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="tries at once")
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    parser.add_argument("--afresh", action="store_true", help="forget the figures so far")
    parser.add_argument("--no-record", action="store_true", help="only print the figures")
    given = parser.parse_args()
    file = None if given.no_record else RESULTS / f"{name}.json"
    if file and given.afresh:
        file.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))
    with workshop(given.pictures, given.folder) as shop:
        for fault, attempt in faults(shop).items():
            if given.only in fault:
                tally = tries(
                    fault,
                    attempt,
                    times=given.times,
                    seed=given.seed,
                    jobs=given.jobs,
                    file=file,
                )
                print(tally.line(), flush=True)
