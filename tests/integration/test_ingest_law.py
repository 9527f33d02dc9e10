"""The law of ingest: whatever happens to a folder, after a run the table equals it."""

import hashlib
import itertools
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import PixelEncoder, check_vectors, counts, ingest, picture

from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library
from vecsearch.postgres import catalog, database, schema, thumbnails
from vecsearch.postgres.rows import image_id, lock_collection
from vecsearch.search import status
from vecsearch.search.indexes import vectors
from vecsearch.search.indexes.projection import Projection
from vecsearch.vocabulary import Metric

NAMES = [f"{folder}/{number}.png" for folder in ("a", "b") for number in range(5)]
_numbers = itertools.count()


@dataclass(frozen=True)
class Operation:
    """Something a user does to a folder; what makes no sense at the time is not done."""

    what: str
    name: str
    other: str
    seed: int


@dataclass(frozen=True)
class Round:
    """What happens to the folder before a run, and how that run is made."""

    operations: list[Operation]
    prune: bool
    roots: tuple[str, ...]


FIRST = st.lists(st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, None]), min_size=10, max_size=10)
ROUNDS = st.lists(
    st.builds(
        Round,
        st.lists(
            st.builds(
                Operation,
                st.sampled_from("write write write break delete move copy touch swap".split()),
                st.sampled_from(NAMES),
                st.sampled_from(NAMES),
                st.integers(0, 8),
            ),
            min_size=1,
            max_size=12,
        ),
        st.booleans(),
        # Files come in another order, and some are named twice.
        st.sampled_from([(".",), ("b", "a"), ("b", ".")]),
    ),
    min_size=1,
    max_size=3,
)


class Folder:
    """A folder in which every write has a time of its own, so that no test needs to wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clock = itertools.count(1_700_000_000)
        for name in ("a", "b"):
            (path / name).mkdir(parents=True)

    def apply(self, operation: Operation) -> None:
        file, other = self.path / operation.name, self.path / operation.other
        match operation.what:
            case "write":
                picture(operation.seed, (8, 8)).save(file)
                self._stamp(file)
            case "break":
                file.write_bytes(b"not a picture" + bytes(operation.seed % 2))
                self._stamp(file)
            case "delete":
                file.unlink(missing_ok=True)
            case "move" if file.exists() and file != other:
                file.rename(other)
            case "copy" if file.exists() and file != other:
                shutil.copyfile(file, other)
                self._stamp(other)
            case "touch" if file.exists():
                self._stamp(file)
            case "swap" if file.exists() and other.exists() and file != other:
                aside = self.path / "aside"
                file.rename(aside)
                other.rename(file)
                aside.rename(other)

    def _stamp(self, file: Path) -> None:
        os.utime(file, (now := next(self._clock), now))

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of every file, by path."""
        return {
            str(file): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self.path.glob("*/*.png")
        }


def is_broken(path: str) -> bool:
    return Path(path).read_bytes().startswith(b"not a picture")


def rows(engine: sa.Engine, collection: str) -> dict[str, Any]:
    with database.reading(engine) as connection:
        table = catalog.get_collection(connection, collection).table
        numbers = sa.cast(table.c.embedding, sa.ARRAY(sa.REAL)).label("numbers")
        return {row.path: row for row in connection.execute(sa.select(table, numbers))}


class Run:
    """One collection that follows one folder, checked after every run."""

    def __init__(self, engine: sa.Engine, folder: Folder) -> None:
        self.engine = engine
        self.folder = folder
        self.encoder = PixelEncoder()
        self.collection = f"law_{next(_numbers)}"
        self.known: dict[str, Any] = {}
        self.embeddings: dict[str, Any] = {}
        self.compact: list[catalog.Compact] = []

    def exists(self) -> bool:
        with database.reading(self.engine) as connection:
            return catalog.find_collection(connection, self.collection) is not None

    def round(self, turn: Round) -> None:
        for operation in turn.operations:
            self.folder.apply(operation)
        files = self.folder.files()
        broken = {path for path in files if is_broken(path)}
        for path in files.keys() - broken:
            self.embeddings[files[path]] = self.encoder.expected(Path(path)).astype(np.float16)
        paths = [self.folder.path / root for root in turn.roots]
        predicted = self.run(paths, prune=turn.prune, dry_run=True)
        assert not self.encoder.embedded
        summary = self.run(paths, prune=turn.prune)

        rows_alone = summary.pruned + summary.gone
        assert sum(counts(summary).values()) - rows_alone == len(files)
        assert not (turn.prune and summary.gone)
        assert summary.failed == len(broken)
        if not broken:
            assert predicted.counts() == summary.counts()
        assert set(Counter(self.encoder.embedded).values()) <= {1}, "embedded twice"
        self.check(files, broken, prune=turn.prune)

        self.encoder.embedded.clear()
        again = self.run(paths, prune=turn.prune)
        assert counts(replace(again, failed=0)) == counts(
            Summary(unchanged=len(files) - len(broken), gone=summary.gone)
        )
        assert not self.encoder.embedded
        self.check(files, broken, prune=turn.prune)

    def run(self, paths: list[Path], *, prune: bool, dry_run: bool = False) -> Summary:
        progress: list[Progress] = []
        summary = ingest(
            self.engine,
            paths,
            self.encoder,
            collection=self.collection,
            progress=progress,
            prune=prune,
            dry_run=dry_run,
        )
        assert progress[-1].done == progress[-1].total == progress[-2].done
        assert [step.done for step in progress] == sorted(step.done for step in progress)
        return summary

    def check(self, files: dict[str, str], broken: set[str], *, prune: bool) -> None:
        stored = rows(self.engine, self.collection) if self.exists() else {}
        assert files.keys() - broken <= stored.keys()
        left_over = stored.keys() - (files.keys() - broken)
        # A file that cannot be read any more keeps the row it had; nothing else outlives a prune.
        assert left_over <= (broken if prune else self.known.keys())
        for path, row in stored.items():
            assert row.id == image_id(path)
            assert row.label == Path(path).parent.name
            assert np.array_equal(row.numbers, self.embeddings[row.sha256]), path
            if path in left_over:
                assert row.sha256 == self.known[path].sha256
            else:
                info = Path(path).stat()
                assert row.sha256 == files[path]
                assert row.file_size == info.st_size
                assert row.modified_at.timestamp() == info.st_mtime
        self.known = stored
        with database.reading(self.engine) as connection:
            assert not thumbnails.missing(connection, {row.sha256 for row in stored.values()})
            errors = status.list_errors(connection, self.collection)
        assert {error.path for error in errors} == broken
        assert all(error.error.endswith(".") for error in errors)
        if self.exists():
            self.check_compact()

    def check_compact(self) -> None:
        """Check the compact vectors of a projection in use, and of one that is being built."""
        if not self.compact:
            random = np.random.default_rng(0)
            axes = np.linalg.qr(random.normal(size=(48, 8)))[0].T.astype(np.float32)
            fitted = Projection(np.full(48, 0.1, np.float32), axes, sample=2, variance_kept=1.0)
            with database.writing(self.engine) as connection:
                lock_collection(connection, self.collection)
                self.compact = [vectors.register(connection, self.collection, fitted, Metric.l2)]
                table = catalog.get_collection(connection, self.collection).table
                vectors.fill(connection, schema.sql_name(table), self.compact[0], None)
                self.compact.append(
                    vectors.register(connection, self.collection, fitted, Metric.l2)
                )
        used, built = self.compact
        check_vectors(self.engine, used)
        check_vectors(self.engine, built, whole=False)


@settings(
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking would run for minutes
    deadline=None,
    max_examples=int(os.environ.get("LAW_EXAMPLES", "12")),
    suppress_health_check=list(HealthCheck),
)
@given(FIRST, ROUNDS)
def test_after_every_run_the_table_equals_the_folder(
    library: Library, tmp_path: Path, first: list[int | None], turns: list[Round]
) -> None:
    filling = [
        Operation("write", name, name, seed)
        for name, seed in zip(NAMES, first, strict=True)
        if seed is not None
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vecsearch.ingest.run.CHUNK_SIZE", 3)
        run = Run(library.engine, Folder(tmp_path / f"folder_{next(_numbers)}"))
        for turn in [Round(filling, False, (".",)), *turns]:
            run.round(turn)
