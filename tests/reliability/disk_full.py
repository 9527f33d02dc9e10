"""A full disk under the database, and under the cache.

    python -m reliability.disk_full PICTURES [--times 10] [--only WORD]

The database lies on a small filesystem in memory, of which a random part is left free, from a tenth
of a megabyte to more than the command needs. The command has to do its work, or to stop with a
sentence that names the disk; what is stored must be readable, and what the index finds, right. Once
there is room, the same command has to end with exit 0, and all must be as after an undisturbed run.
Mounting needs root.
"""

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from reliability.contents import Contents, answers, compare, contents
from reliability.figures import Attempt, Outcome
from reliability.frame import RERUNS, Done, Place, Workshop, main
from reliability.kills import Templates, content_hash

MB = 2**20
# Room for the server's own files beyond a template's: its log of changes grows by 16 MB.
ROOM = 512 * MB
NAMED = ("no space", "full", "disk")
# A command that stops for want of room stops within this time.
AT_MOST_S = 60.0
# Sizes of the cache's disk; an exported encoder takes 19 MB.
CACHE_MB = (1, 4, 10, 16, 20)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a small filesystem in a folder."""
    options = f"size={size},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, free: int) -> Path:
    """Fill a folder's filesystem up to some free bytes; return the file that does."""
    filler = folder / "filler"
    there = os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, there.f_bavail * there.f_frsize - free))
    return filler


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def names_the_disk(done: Done) -> bool:
    """Whether a command says that the disk is full."""
    return any(word in done.said.lower() for word in NAMED)


@dataclass
class UnderDatabase:
    """Runs a command with too little room for the database."""

    shop: Workshop
    words: tuple[str | Path, ...]
    template: Callable[[], Path | None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: tuple[Contents, str] | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        with self.lock:
            expected, file = self.known = self.known or self._undisturbed()
        with self._on_disk() as place:
            outcome = Outcome()
            free = int(MB * 10 ** chance.uniform(-1, 2))
            filler = fill(place.data.parent, free)
            done = place.run(*self._words(place))
            self._judge(done, outcome, free)
            whole = place.run("status", "--format", "json")
            if whole.status and not names_the_disk(whole):
                outcome.fail(f"with {free / MB:.1f} MB free, then status: {whole.said}")
            filler.unlink()
            for rerun in range(RERUNS):
                again = place.run(*self._words(place))
                if again.status == 0:
                    break
                outcome.first_rerun_failed = True
                outcome.counts[f"rerun: {again.said}"[:120]] += 1
                if rerun == RERUNS - 1:
                    outcome.fail(f"with room again: {again.said}")
                    return outcome
            self._compare(place, outcome, expected, file)
            return outcome

    def _judge(self, done: Done, outcome: Outcome, free: int) -> None:
        outcome.worst["stopped_s"] = done.seconds
        if done.status == 0:
            outcome.counts["had room"] += 1
            return
        if names_the_disk(done):
            outcome.counts["named the disk"] += 1
        else:
            outcome.counts[f"said: {done.said}"[:120]] += 1
            outcome.fail(f"with {free / MB:.1f} MB free: {done.said}")
        if done.seconds > AT_MOST_S:
            outcome.fail(f"stopped after {done.seconds:.0f} s")

    def _compare(self, place: Place, outcome: Outcome, expected: Contents, file: str) -> None:
        with place.url() as url:
            difference = compare(contents(url), expected)
            outcome.lost, outcome.doubled = difference.lost, difference.doubled
            if difference:
                outcome.fail(difference.words)
            try:
                outcome.worst["missed_by_index"] = answers(url)
            except psycopg.Error as error:
                outcome.fail(f"unreadable: {error}")
        if self._written(place) != file:
            outcome.fail("the file differs")
        if left := [file.name for file in place.data.parent.glob(".*")]:
            outcome.fail(f"left over: {', '.join(left)}")

    def _undisturbed(self) -> tuple[Contents, str]:
        with self._on_disk() as place:
            place.must(*self._words(place))
            with place.url() as url:
                return contents(url), self._written(place)

    @contextmanager
    def _on_disk(self) -> Iterator[Place]:
        template = self.template()
        size = (size_of(template) if template else 0) + ROOM
        with self.shop.copy(None) as place, disk(place.data.parent, size):
            if template:
                subprocess.run(["cp", "-a", template, place.data], check=True)
            try:
                yield place
            finally:
                place.end()

    def _words(self, place: Place) -> list[str]:
        return [str(word).format(folder=place.data.parent) for word in self.words]

    def _written(self, place: Place) -> str:
        # A dump has the time in it.
        file = place.data.parent / "e.npz"
        return content_hash(file) if file.exists() else ""


@dataclass
class UnderCache:
    """Ingests with too little room for the exported encoder; it must be exported later."""

    shop: Workshop
    template: Callable[[], Path]
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: Contents | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        words = ("ingest", self.shop.photos, *self.shop.encoder)
        with self.lock:
            self.known = self.known or self._undisturbed(words)
        outcome = Outcome()
        with self.shop.copy(self.template()) as place:
            cache = place.data.parent / "cache"
            cache.mkdir()
            there = {"VECSEARCH_CACHE_DIR": str(cache)}
            size = int(MB * chance.choice(CACHE_MB) * chance.uniform(0.8, 1.2))
            with disk(cache, size):
                done = place.run(*words, **there)
                outcome.counts["stored" if done.status == 0 else f"said: {done.said}"[:120]] += 1
                if done.status and not names_the_disk(done):
                    outcome.fail(f"with {size / MB:.1f} MB: {done.said}")
                larger = f"remount,size={ROOM}"
                subprocess.run(["mount", "-o", larger, cache], check=True)
                again = place.run(*words, **there)
                if again.status:
                    outcome.first_rerun_failed = True
                    outcome.fail(f"with room again: {again.said}")
                    return outcome
                other = ("--collection", "other")
                other_done = place.run(*words, *other, **there)
                if other_done.status or not list(cache.rglob("model.bin")):
                    outcome.fail(
                        f"with {size / MB:.1f} MB first, not exported later: {other_done.said}"
                    )
                place.must("drop", "other", "--yes")
            with place.url() as url:
                difference = compare(contents(url), self.known)
            outcome.lost, outcome.doubled = difference.lost, difference.doubled
            # Torch's last digits are not OpenVINO's.
            if difference.lost or difference.doubled:
                outcome.fail(difference.words)
        return outcome

    def _undisturbed(self, words: tuple[str | Path, ...]) -> Contents:
        with self.shop.copy(self.template()) as place:
            place.must(*words)
            with place.url() as url:
                return contents(url)


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    templates = Templates(shop)
    commands: dict[str, tuple[tuple[str | Path, ...], Callable[[], Path | None]]] = {
        "first start and ingest": (("ingest", shop.photos, *shop.encoder), lambda: None),
        "ingest": (("ingest", shop.photos), templates.begun),
        "import": (("import", templates.file()), templates.empty),
        "index create hnsw": (("index", "create", "--method", "hnsw"), templates.vectors),
        "index create compact": (("index", "create", "--method", "compact"), templates.vectors),
        "refresh": (("refresh",), templates.whole),
        "export": (("export", "{folder}/e.npz"), templates.vectors),
        "db dump": (("db", "dump", "{folder}/e.dump"), templates.vectors),
    }
    found: dict[str, Attempt] = {
        f"disk full under the database: {name}": UnderDatabase(shop, words, template)
        for name, (words, template) in commands.items()
    }
    found["disk full under the cache: ingest"] = UnderCache(shop, templates.empty)
    return found


if __name__ == "__main__":
    main("disk_full", faults, times=10)
