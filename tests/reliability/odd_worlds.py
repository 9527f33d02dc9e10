"""Folders that no program expects: changing, moving, oddly named, out of time, stalled.

    python -m reliability.odd_worlds PICTURES [--times 10] [--only WORD]

An ingest meets them, and has to end with exit 0. Then the world stands still, and another ingest
has to leave what one into a new database leaves: the same rows for all files that can be read, an
error for each that cannot. Shares are mounted as root.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
from reliability.figures import Attempt, Outcome
from reliability.frame import Place, Workshop, ended, main
from reliability.kills import Templates
from reliability.share import Manner, Shared, mounted

# A run that is not over by now hangs.
AT_MOST_S = 120.0
YEARS_S = 365 * 86_400
LONGEST_NAME, LONGEST_PATH = 200, 4_000


class Stored(NamedTuple):
    """What a database holds of files: the digest of each row, and the paths with an error."""

    rows: dict[str, str]
    errors: set[str]


def stored(place: Place) -> Stored:
    """Return what a place holds of files."""
    query = "SELECT path, md5(concat(sha256, width, height, label, embedding)) FROM images"
    with place.url() as url, psycopg.connect(url) as connection:
        rows: dict[str, str] = dict(connection.execute(query).fetchall())
        errors = connection.execute("SELECT path FROM ingest_errors").fetchall()
    return Stored(rows, {path for (path,) in errors})


@dataclass
class World:
    """An odd world, in which an ingest runs.

    Attributes:
        prepare: changes the folder of pictures before anything is ingested.
        meanwhile: changes it, again and again, while an ingest runs.

    """

    shop: Workshop
    template: Callable[[], Path]
    prepare: Callable[[Path, random.Random], None] = lambda _folder, _chance: None
    meanwhile: Callable[[Path, random.Random], None] | None = None
    # What happens to rows that are there already.
    between: Callable[[Place, Path, random.Random], None] | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        with self.shop.copy(self.template()) as place:
            folder = place.data.parent / "photos"
            shutil.copytree(self.shop.photos, folder)
            self.prepare(folder, chance)
            self._run(place, folder, chance, outcome)
            if self.between:
                self.between(place, folder, chance)
            # Nobody changes anything now.
            for _ in range(2):
                self._run(place, folder, None, outcome)
            found = stored(place)
            with self.shop.copy(self.template()) as other:
                self._run(other, folder, None, outcome)
                self._compare(found, stored(other), outcome)
        return outcome

    def _run(
        self, place: Place, folder: Path, chance: random.Random | None, outcome: Outcome
    ) -> None:
        started = time.monotonic()
        process = place.start("ingest", folder, "--prune", "--yes")
        ends = started + AT_MOST_S
        while chance and self.meanwhile and process.poll() is None and time.monotonic() < ends:
            with suppress(OSError):
                self.meanwhile(folder, chance)
            time.sleep(chance.uniform(0, 0.02))
        done = ended(process, started, max(1.0, ends - time.monotonic()))
        outcome.worst["run_s"] = max(done.seconds, outcome.worst.get("run_s", 0))
        if done.status:
            outcome.fail(f"{'in' if chance else 'after'} the odd world: {done.said}")

    def _compare(self, found: Stored, expected: Stored, outcome: Outcome) -> None:
        lost = expected.rows.keys() - found.rows.keys()
        # A file that could be read once and cannot any more may keep its row, with an error.
        more = found.rows.keys() - expected.rows.keys() - found.errors
        wrong = [path for path, row in expected.rows.items() if found.rows.get(path, row) != row]
        outcome.lost, outcome.doubled = len(lost), len(more)
        outcome.worst["longest_path"] = max(len(path.encode()) for path in expected.rows)
        outcome.counts["files with a row"] += len(expected.rows)
        outcome.counts["files with an error"] += len(expected.errors)
        outcome.counts["rows of files that became unreadable"] += len(
            found.rows.keys() & found.errors
        )
        for what, paths in (("lost", lost), ("doubled", more), ("wrong", wrong)):
            if paths:
                outcome.fail(f"{len(paths)} {what}, such as {min(paths)[-80:]!r}")
        if unnamed := expected.errors - found.errors:
            outcome.fail(f"{len(unnamed)} without an error, such as {min(unnamed)[-80:]!r}")


def some_file(folder: Path, chance: random.Random) -> Path:
    """Return one of ten pictures, those of one folder: less than a tenth of all."""
    few = min(path for path in folder.iterdir() if path.is_dir())
    return chance.choice(sorted(few.iterdir()))


def changed(folder: Path, chance: random.Random) -> None:
    """Change a picture: another's content, half of it, gone, or something that is no picture."""
    file = some_file(folder, chance)
    others = (path for path in folder.rglob("*.jpg") if path.parent != file.parent)
    other = chance.choice(sorted(others))
    what = chance.randrange(8)
    if what == 0:
        shutil.copyfile(other, file)
    elif what == 1:
        os.truncate(file, file.stat().st_size // 2)
    elif what == 2:
        file.rename(file.with_name(f"{chance.randrange(10)} {file.name[-12:]}"))
    else:
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        else:
            file.unlink()
        if what == 3:
            file.mkdir()
        elif what == 4:
            file.symlink_to(file.name)
        elif what == 5:
            file.symlink_to("/proc/kmsg")
        elif what == 6:
            os.mkfifo(file)
        else:
            shutil.copyfile(other, file)


def moved(folder: Path, chance: random.Random) -> None:
    """Move a folder of pictures to and fro."""
    here = min(path for path in folder.iterdir() if path.is_dir())
    here.rename(folder / f"0 moved {chance.randrange(4)}")


def piped(folder: Path, chance: random.Random) -> None:
    """Put pipes, which nobody writes to, and sockets among the pictures."""
    for number in range(3):
        os.mkfifo(some_file(folder, chance).with_name(f"pipe {number}.jpg"))


def named(folder: Path, chance: random.Random) -> None:
    """Give pictures names that no one should choose, and one the longest path there is."""
    some = min(path for path in folder.iterdir() if path.is_dir())
    hostile = [
        b"\xff\xfe not UTF-8.jpg",
        b"two\nlines.jpg",
        b"\x1b[31mred\x07.jpg",
        "\u202egpj.right to left".encode() + b".jpg",
        b" .jpg",
        b"-rf --prune.jpg",
        b"'; DROP TABLE images; --.jpg",
        b"%s %n {0} $HOME `id` \\.jpg",
        b"a\tb\\t\\N.jpg",
        "é e\u0301 \U0001f408.jpg".encode(),
    ]
    hostile += [
        b"r" + bytes(chance.choice([*range(1, 47), *range(48, 256)]) for _ in range(40)) + b".jpg"
        for _ in range(10)
    ]
    source = next(some.iterdir())
    for name in hostile:
        shutil.copyfile(source, os.fsencode(some) + b"/" + name)
    # Longer than the system takes at once, so from folder to folder.
    here = os.open(some, os.O_RDONLY)
    length = len(os.fsencode(some))
    while length + LONGEST_NAME < LONGEST_PATH:
        os.mkdir("d" * LONGEST_NAME, dir_fd=here)
        below = os.open("d" * LONGEST_NAME, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, length = below, length + LONGEST_NAME + 1
    file = os.open("f.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, source.read_bytes())
    os.close(file)
    os.close(here)


def out_of_time(place: Place, folder: Path, chance: random.Random) -> None:
    """Set rows in the future, and the times of files to anything; change some to earlier times."""
    with place.url() as url, psycopg.connect(url) as connection:
        connection.execute("UPDATE images SET ingested_at = now() + interval '10 years'")
        connection.execute("UPDATE vecsearch_internal.changes SET at = now() + interval '10 years'")
    now = time.time()
    files = sorted(folder.rglob("*.jpg"))
    for file in files:
        moment = chance.choice([0, -YEARS_S * 60, now + YEARS_S, now + 60 * YEARS_S, now - 1])
        os.utime(file, (moment, moment))
    for file in chance.sample(files, 20):
        before = file.stat()
        # The same size, and an earlier time.
        content = chance.choice(files).read_bytes()[: before.st_size]
        file.write_bytes(content.ljust(before.st_size, b"\0"))
        os.utime(file, (before.st_mtime - 1, before.st_mtime - 1))


@dataclass
class OnShare:
    """Ingests a share some of whose files behave in a manner, beside an ordinary folder."""

    shop: Workshop
    template: Callable[[], Path]
    manner: Manner | None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        photos = sorted(self.shop.photos.rglob("*.*"))[::12]
        odd = set(chance.sample(photos, 3)) if self.manner else set()
        files = {
            f"{photo.parent.name} {photo.name}": Shared(photo.read_bytes() + b"shared", self.manner)
            if photo in odd and self.manner
            else Shared(photo.read_bytes() + b"shared")
            for photo in photos
        }
        with self.shop.copy(self.template()) as place:
            share = place.data.parent / "share"
            share.mkdir()
            with mounted(share, files, listed=self.manner is not None):
                started = time.monotonic()
                process = place.start("ingest", self.shop.photos, share)
                done = ended(process, started, AT_MOST_S)
                outcome.worst["run_s"] = done.seconds
            found = stored(place)
            self._judge(done.status, done.said, found, len(odd), outcome)
        return outcome

    def _judge(self, status: int, said: str, found: Stored, odd: int, outcome: Outcome) -> None:
        ordinary = sum(1 for _ in self.shop.photos.rglob("*.*"))
        shared = sum("/share/" in path for path in found.rows)
        failed = sum("/share" in path for path in found.errors)
        outcome.counts["files of the share with a row"] += shared
        outcome.counts["with an error"] += failed
        if status:
            outcome.fail(f"the run: {said}")
        outcome.lost = ordinary - (len(found.rows) - shared)
        if outcome.lost:
            outcome.fail(f"{outcome.lost} pictures beside the share are lost")
        if failed != max(odd, 1):
            outcome.fail(f"{failed} errors for {max(odd, 1)} that cannot be read")


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    templates = Templates(shop)
    world = partial(World, shop, templates.begun)
    share = partial(OnShare, shop, templates.begun)
    return {
        "pictures that change during the run": world(meanwhile=changed),
        "a folder that moves during the run": world(meanwhile=moved),
        "pipes among the pictures": world(piped),
        "hostile names and a path of 4,000 bytes": world(named),
        "clocks that go backwards": world(between=out_of_time),
        "a share that refuses 3 files": share(Manner.REFUSED),
        "a share that fails to read 3 files": share(Manner.FAILING),
        "a share that stalls at 3 files": share(Manner.STALLED),
        "a share that stalls at its listing": share(None),
    }


if __name__ == "__main__":
    main("odd_worlds", faults, times=10)
