"""kill -9 of every long command at random moments; then the same command again.

    python -m reliability.kills PICTURES [--times 50] [--only WORD]

The moments are spread evenly over the time that the command takes undisturbed. Half of the tries
kill the command alone, and leave its children and its server to themselves; the others kill its
process group. A try survives if the command, repeated, ends with exit 0 and all is as after an
undisturbed run: rows, embeddings, thumbnails, tags, errors, indexes, files, and nothing else.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from older import old_corpus
from reliability.contents import Contents, compare, contents
from reliability.figures import Attempt, Outcome
from reliability.frame import RERUNS, Done, Place, Workshop, kill, main
from support import alembic_upgrade, clustered

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import database

VECTORS = "vectors.npz"
# Within this time of a killed command's end, what it left must be gone or give way.
AGAIN_S = 1.0


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        words: its arguments; {folder} is a folder of the try's own.
        template: the data folder that it starts from; None: there is none.
        resume: how it is repeated if it asks for that.
        gone: what it says if it had already done its work; such a repeat counts as done.
        files: whether it writes files, which are compared, too.

    """

    words: tuple[str | Path, ...]
    template: Callable[[], Path] | None
    resume: str = ""
    gone: str = ""
    files: bool = False


@dataclass
class Expected:
    """What an undisturbed run leaves, and how long it takes."""

    rows: Contents
    files: dict[str, str]
    seconds: float


@dataclass
class Kills:
    """Kills a case's command, repeats it, and compares with an undisturbed run."""

    shop: Workshop
    case: Case
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: Expected | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        expected = self.expected()
        while True:
            moment = chance.uniform(0, expected.seconds)
            with self._place() as place:
                process = place.start(*self._words(place))
                time.sleep(moment)
                if kill(process, group=chance.random() < 1 / 2):
                    outcome = self._again(place, expected)
                    if outcome.failure:
                        outcome.fail(f"killed after {moment:.2f} of {expected.seconds:.2f} s")
                    return outcome
            # It was faster than the undisturbed one, and had ended.

    def expected(self) -> Expected:
        """Return what an undisturbed run leaves; it is made once."""
        with self.lock:
            self.known = self.known or self._undisturbed()
            return self.known

    def _again(self, place: Place, expected: Expected) -> Outcome:
        outcome = Outcome()
        for rerun in range(RERUNS):
            done = place.run(*self._words(place))
            if self.case.resume and self.case.resume in done.stderr and done.status:
                done = place.run(*self._words(place), self.case.resume)
            outcome.worst["rerun_s"] = max(done.seconds, outcome.worst.get("rerun_s", 0))
            if self._is_done(done):
                break
            outcome.first_rerun_failed = True
            outcome.counts[f"rerun: {done.said}"[:160]] += 1
            if rerun == RERUNS - 1:
                outcome.fail(f"rerun {RERUNS}: {done.said}")
                return outcome
            time.sleep(AGAIN_S)
        with place.url() as url:
            difference = compare(contents(url), expected.rows)
        outcome.lost, outcome.doubled = difference.lost, difference.doubled
        if difference:
            outcome.fail(difference.words)
        if (found := self._files(place)) != expected.files:
            names = sorted(found.items() ^ expected.files.items())
            outcome.fail(f"files differ: {', '.join(name for name, _ in names)}")
        if strays := len(place.processes()):
            outcome.fail(f"{strays} processes left over")
        return outcome

    def _undisturbed(self) -> Expected:
        with self._place() as place:
            done = place.must(*self._words(place))
            with place.url() as url:
                return Expected(contents(url), self._files(place), done.seconds)

    def _place(self) -> AbstractContextManager[Place]:
        return self.shop.copy(self.case.template and self.case.template())

    def _words(self, place: Place) -> list[str]:
        return [str(word).format(folder=place.data.parent) for word in self.case.words]

    def _is_done(self, done: Done) -> bool:
        return done.status == 0 or bool(self.case.gone and self.case.gone in done.stderr)

    def _files(self, place: Place) -> dict[str, str]:
        if not self.case.files:
            return {}
        return {
            file.name: content_hash(file)
            for file in place.data.parent.iterdir()
            if file != place.data
        }


def content_hash(file: Path) -> str:
    """Return the hash of a file's contents; of an archive, its members', without their times."""
    if file.suffix == ".npz":
        with np.load(file) as archive:
            members = [(name, archive.get(name)) for name in sorted(archive.files)]
        content = b"".join(
            name.encode() + (value if isinstance(value, bytes) else value.tobytes())
            for name, value in members
        )
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Templates:
    """The data folders that commands start from."""

    def __init__(self, shop: Workshop, vectors: int = 12_000, dimensions: int = 256) -> None:
        self.shop, self.size = shop, (vectors, dimensions)

    def empty(self) -> Path:
        """A database with tables and no collection."""
        return self.shop.template("empty", lambda place: place.must("db", "upgrade"))

    def begun(self) -> Path:
        """A collection of one folder of pictures."""

        def fill(place: Place) -> None:
            first = min(self.shop.photos.iterdir())
            place.must("ingest", first, *self.shop.encoder)

        return self.shop.template("begun", fill)

    def whole(self) -> Path:
        """A collection of all pictures."""
        return self.shop.template(
            "whole", lambda place: place.must("ingest", self.shop.photos, *self.shop.encoder)
        )

    def vectors(self) -> Path:
        """A collection of vectors without an index."""
        return self.shop.template(
            "vectors", lambda place: place.must("import", self.file(), "--index", "none")
        )

    def file(self) -> Path:
        """A file of vectors to import, in clusters as those of pictures are."""
        file = self.shop.folder / VECTORS
        with self.shop.making:
            if not file.exists():
                paths = np.array([f"/photos/{number:06}.jpg" for number in range(self.size[0])])
                vectors = clustered(*self.size, seed=1).astype(np.float32)
                np.savez(file, paths=paths, embeddings=vectors)
        return file

    def old(self) -> Path:
        """A database of the second revision, with a collection."""

        def fill(place: Place) -> None:
            with place.url() as url, Library.open(Settings.load(database_url=url)) as library:
                with database.writing(library.engine) as connection:
                    alembic_upgrade(connection, "0002")
                library.engine.dispose()
                old_corpus(library, "images", self.size[0])

        return self.shop.template("old", fill)


def cases(shop: Workshop, templates: Templates) -> dict[str, Case]:
    """Return the commands to kill, by the name of the fault."""
    few = sorted(shop.photos.iterdir())[:5]
    train: tuple[str | Path, ...] = ("train", "autoencoder", *few, "--image-size", "32")
    found = {
        "ingest, first of all": Case(("ingest", shop.photos, *shop.encoder), None),
        "ingest, new collection": Case(("ingest", shop.photos, *shop.encoder), templates.empty),
        "ingest, more pictures": Case(("ingest", shop.photos), templates.begun),
        "train autoencoder": Case(
            (*train, "--epochs", "9", "--seed", "1", "-o", "{folder}/ae.safetensors"),
            None,
            resume="--resume",
            gone="exists, and a collection may depend on it",
            files=True,
        ),
        "refresh": Case(("refresh",), templates.whole),
        "drop": Case(("drop", "images", "--yes"), templates.whole, gone="There is no collection"),
        "db upgrade": Case(("db", "upgrade"), templates.old),
        "export": Case(("export", "{folder}/e.npz"), templates.vectors, files=True),
    }
    for method in ("hnsw", "compact"):
        create = ("index", "create", "--method", method)
        found[f"index create {method}"] = Case(create, templates.vectors)
        words = ("import", templates.file(), "--index", method)
        found[f"import {method}"] = Case(words, templates.empty)
    return found


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    return {
        f"kill -9 of {name}": Kills(shop, case)
        for name, case in cases(shop, Templates(shop)).items()
    }


if __name__ == "__main__":
    main("kills", faults)
