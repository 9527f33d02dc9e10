"""The embedded server killed under a command: -9, an immediate shutdown, one backend.

    python -m reliability.database_killed PICTURES [--times 20] [--only WORD]

An ingest or import may carry on by itself, or end with an error; then the same command again has to
end with exit 0. Either way everything must be as after an undisturbed run. A query and the page may
fail, but within five seconds and in a sentence; the page has to come back by itself. A server that
recovers for long is waited for, with a word.
"""

import os
import random
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from reliability.contents import Contents, compare, contents
from reliability.figures import Attempt, Outcome
from reliability.frame import RERUNS, Done, Place, Workshop, ended, main
from reliability.kills import AGAIN_S, Templates

from vecsearch.postgres.rows import image_id

# The longest that a query may take to say that its server is gone.
AT_MOST_S = 5.0
# The longest that the page may be without its database.
BACK_S = 30.0
# Seconds that a recovery has to take at least, and rows that are added until one does.
RECOVERY_S, REPLAYED = 10.0, 4_000_000
TOKEN = "reliability"  # noqa: S105  # of a page that lives as long as a try


def postmaster_killed(place: Place) -> bool:
    """Kill the postmaster as the system does when memory runs out."""
    return signalled(place.postmaster(), signal.SIGKILL)


def shut_down(place: Place) -> bool:
    """Shut the server down immediately, without a checkpoint."""
    return signalled(place.postmaster(), signal.SIGQUIT)


def backend_killed(place: Place) -> bool:
    """Kill one client's process of the server."""
    return signalled(backend(place.postmaster()), signal.SIGKILL)


KINDS: Mapping[str, Callable[[Place], bool]] = {
    "postmaster -9": postmaster_killed,
    "immediate shutdown": shut_down,
    "a backend -9": backend_killed,
}


def signalled(process: int | None, number: int) -> bool:
    """Send a signal; return whether the process was there."""
    with suppress(ProcessLookupError):
        if process:
            os.kill(process, number)
            return True
    return False


def backend(postmaster: int | None) -> int | None:
    """Return a process that serves a client, the youngest."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == postmaster and b"[local]" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return max(found, default=None)


@dataclass
class Writes:
    """Kills the server under a command that writes."""

    shop: Workshop
    words: tuple[str | Path, ...]
    template: Callable[[], Path]
    damage: Callable[[Place], bool]
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: tuple[Contents, float] | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        with self.lock:
            expected, seconds = self.known = self.known or self._undisturbed()
        while True:
            with self.shop.copy(self.template()) as place:
                started = time.monotonic()
                process = place.start(*self.words)
                time.sleep(chance.uniform(0, seconds))
                while process.poll() is None and not self.damage(place):
                    time.sleep(0.005)
                if process.poll() is not None:
                    process.communicate()
                    continue
                done = ended(process, started)
                return self._judged(place, done, expected)

    def _judged(self, place: Place, done: Done, expected: Contents) -> Outcome:
        outcome = Outcome(worst={"run_s": done.seconds})
        if done.status == 0:
            outcome.counts["carried on by itself"] += 1
        else:
            outcome.counts[f"ended: {done.said}"[:120]] += 1
            if "Traceback" in done.stderr or "--database-url" in done.said:
                outcome.fail(f"not a sentence of use: {done.said}")
        for rerun in range(RERUNS if done.status else 0):
            again = place.run(*self.words)
            if again.status == 0:
                break
            outcome.first_rerun_failed = True
            outcome.counts[f"rerun: {again.said}"[:120]] += 1
            if rerun == RERUNS - 1:
                outcome.fail(f"rerun {RERUNS}: {again.said}")
                return outcome
            time.sleep(AGAIN_S)
        with place.url() as url:
            difference = compare(contents(url), expected)
        outcome.lost, outcome.doubled = difference.lost, difference.doubled
        if difference:
            outcome.fail(difference.words)
        return outcome

    def _undisturbed(self) -> tuple[Contents, float]:
        with self.shop.copy(self.template()) as place:
            done = place.must(*self.words)
            with place.url() as url:
                return contents(url), done.seconds


@dataclass
class Queries:
    """Kills the server under a query, which has to say so soon, and is right the next time."""

    shop: Workshop
    template: Callable[[], Path]
    damage: Callable[[Place], bool]

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        words = ("query", next(self.shop.photos.rglob("*.*")), "--format", "json")
        with self.shop.copy(self.template()) as place:
            right = place.must(*words)
            while True:
                place.must("db", "start")
                started = time.monotonic()
                process = place.start(*words)
                time.sleep(chance.uniform(0, right.seconds))
                if not self.damage(place):
                    process.communicate()
                    continue
                killed = time.monotonic()
                done = ended(process, started)
                if done.status or time.monotonic() > killed + 0.05:
                    break
            outcome = Outcome(worst={"said_s": time.monotonic() - killed})
            outcome.counts["answered" if done.status == 0 else f"ended: {done.said}"[:120]] += 1
            if outcome.worst["said_s"] > AT_MOST_S:
                outcome.fail(f"{outcome.worst['said_s']:.1f} s until: {done.said}")
            if "Traceback" in done.stderr or "--database-url" in done.said:
                outcome.fail(f"not a sentence of use: {done.said}")
            again = place.run(*words)
            if again.status:
                outcome.first_rerun_failed = True
                outcome.fail(f"the next query: {again.said}")
            elif again.stdout != right.stdout:
                outcome.fail("the next query answers otherwise")
            return outcome


@contextmanager
def serving(place: Place, *options: str) -> Iterator[tuple[str, int]]:
    """Yield the address of a page that is served from a place, and its process."""
    process = place.start("serve", "--port", "0", "--token", TOKEN, *options)
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if address := re.search(r"http://[^/\s]+", line):
            break
    else:
        raise RuntimeError(f"serve: {said}")
    try:
        yield address[0], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        ended(process, time.monotonic())


def asked(address: str, path: str, within: float = 60) -> tuple[int, bytes]:
    """Ask the page for something; return its HTTP status and the answer."""
    request = urllib.request.Request(  # noqa: S310  # http, on this machine
        address + path, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=within) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@dataclass
class Page:
    """Kills the server under `serve`: answers within five seconds, and back by itself."""

    shop: Workshop
    template: Callable[[], Path]
    damage: Callable[[Place], bool]

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        with self.shop.copy(self.template()) as place, serving(place) as (address, _):
            photo = next(self.shop.photos.rglob("*.*"))
            path = f"/api/collections/images/images/{image_id(str(photo))}"
            assert asked(address, path)[0] == 200
            time.sleep(chance.uniform(0, 0.5))
            assert self.damage(place), "the server was not there"
            killed = time.monotonic()
            while (before := time.monotonic()) < killed + BACK_S:
                status, answer = asked(address, path)
                took = time.monotonic() - before
                outcome.worst["answer_s"] = max(took, outcome.worst.get("answer_s", 0))
                outcome.counts[f"status {status}"] += 1
                if status == 200 and before > killed + 0.5:
                    outcome.worst["back_s"] = time.monotonic() - killed
                    break
                if status not in {200, 503}:
                    outcome.fail(f"status {status}: {answer[:100]!r}")
                time.sleep(0.05)
            else:
                outcome.fail(f"not back after {BACK_S:.0f} s")
            if outcome.worst["answer_s"] > AT_MOST_S:
                outcome.fail(f"an answer took {outcome.worst['answer_s']:.1f} s")
        return outcome


@dataclass
class Recovery:
    """Kills a server that has much to replay: the next command waits for it, and says so."""

    shop: Workshop
    template: Callable[[], Path]

    def __call__(self, _: random.Random) -> Outcome:
        """Make one try."""
        outcome, written = Outcome(), 0
        with self.shop.copy(self.template()) as place:
            place.must("db", "start")
            url = place.must("db", "url").stdout.strip()
            with psycopg.connect(url, autocommit=True) as connection:
                for setting in ("max_wal_size = '64GB'", "checkpoint_timeout = '1d'"):
                    connection.execute(f"ALTER SYSTEM SET {setting}")
                connection.execute("SELECT pg_reload_conf()")
                connection.execute("CREATE TABLE replayed (key uuid PRIMARY KEY)")
            while outcome.worst.get("recovery_s", 0.0) < RECOVERY_S:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(
                        "INSERT INTO replayed SELECT gen_random_uuid() FROM generate_series(1, %s)",
                        [REPLAYED],
                    )
                written += REPLAYED
                assert postmaster_killed(place)
                done = place.run("status", "--format", "json")
                outcome.worst["recovery_s"] = done.seconds
                if done.status or (done.seconds > RECOVERY_S and "recovers" not in done.stderr):
                    outcome.fail(done.said)
                    return outcome
                place.must("db", "start")
            outcome.counts[done.said] += 1
            with psycopg.connect(url) as connection:
                rows = connection.execute("SELECT count(*) FROM replayed").fetchone()
            assert rows
            outcome.lost = written - rows[0]
        return outcome


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    templates = Templates(shop)
    found: dict[str, Attempt] = {}
    for kind, damage in KINDS.items():
        ingest = ("ingest", shop.photos)
        found[f"{kind} during ingest"] = Writes(shop, ingest, templates.begun, damage)
        words = ("import", templates.file())
        found[f"{kind} during import"] = Writes(shop, words, templates.empty, damage)
        found[f"{kind} during query"] = Queries(shop, templates.whole, damage)
        found[f"{kind} under serve"] = Page(shop, templates.whole, damage)
    found["postmaster -9, then a recovery of ten seconds"] = Recovery(shop, templates.whole)
    return found


if __name__ == "__main__":
    main("database_killed", faults, times=20)
