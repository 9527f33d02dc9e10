"""Runs at the same time, over the same files and over overlapping ones."""

import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from support import PixelEncoder, counts, every_server, ingest, picture, scalar, write

from vecsearch.config import Settings
from vecsearch.encoders.base import Identity
from vecsearch.errors import CollectionNotFound, DatabaseError, EncoderMismatch
from vecsearch.imaging.sources import existence
from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library
from vecsearch.postgres import database

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("small_chunks")
Outcome = Summary | DatabaseError


def together(*runs: Callable[[], Summary]) -> list[Outcome]:
    """Make all the runs at once; another run's being quicker is the only error they may have."""

    def outcome(run: Callable[[], Summary]) -> Outcome:
        try:
            return run()
        except DatabaseError as error:
            if not str(error).startswith("Another run has changed the same images"):
                raise
            return error

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(outcome, runs))


class MeetingEncoder(PixelEncoder):
    """Lets both runs survey the folder before either of them writes."""

    def __init__(self, barrier: Barrier) -> None:
        super().__init__()
        self.barrier: Barrier | None = barrier

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        if self.barrier is not None:
            self.barrier.wait(60)
            self.barrier = None
        return super().embed(batch)


def check(library: Library, folder: Path) -> None:
    """Check that one more run finds nothing amiss, and that the table equals the folder."""
    encoder = PixelEncoder()
    ingest(library.engine, [folder], encoder, prune=True)
    files = list(folder.glob("**/*.png"))
    again = ingest(library.engine, [folder], encoder, prune=True)
    assert counts(again) == {"unchanged": len(files)}
    with database.reading(library.engine) as connection:
        rows = connection.execute(sa.text("SELECT path, embedding::real[] AS numbers FROM images"))
        stored = {row.path: row.numbers for row in rows}
    assert stored == {str(file): encoder.expected(file).tolist() for file in files}


@every_server
def test_two_first_runs_over_the_same_files_make_one_collection(
    library: Library, photos: Path
) -> None:
    barrier = Barrier(2)
    outcomes = together(
        *[lambda: ingest(library.engine, [photos], MeetingEncoder(barrier)) for _ in range(2)]
    )
    assert added(outcomes) == [12, 12]
    assert [status.images for status in library.collections()] == [12]
    check(library, photos)


def added(outcomes: list[Outcome]) -> list[int]:
    """Return how many rows the runs say that they added, and how many they found stored."""
    summaries = [outcome for outcome in outcomes if isinstance(outcome, Summary)]
    assert len(summaries) == len(outcomes)
    return [sum(getattr(summary, name) for summary in summaries) for name in ("added", "unchanged")]


def test_each_of_five_runs_counts_what_it_stored_itself(library: Library, photos: Path) -> None:
    barrier = Barrier(5)
    outcomes = together(
        *[lambda: ingest(library.engine, [photos], MeetingEncoder(barrier)) for _ in range(5)]
    )
    assert added(outcomes) == [12, 48]
    # Once more: one run finds other pictures at known places, and what moved has moved for all.
    for number in range(3):
        picture(100 + number).save(photos / "cats" / f"0{2 * number + 1}.png")
    (photos / "dogs").rename(photos / "wolves")
    picture(50).save(photos / "wolves" / "50.png")
    barrier = Barrier(2)
    outcomes = together(
        *[lambda: ingest(library.engine, [photos], MeetingEncoder(barrier)) for _ in range(2)]
    )
    sums: Counter[str] = Counter()
    for outcome in outcomes:
        assert isinstance(outcome, Summary)
        sums.update(counts(outcome))
    assert sums == {"added": 1, "updated": 3, "moved": 6, "unchanged": 16}
    check(library, photos)


def test_of_two_first_runs_with_two_encoders_one_is_refused(library: Library, photos: Path) -> None:
    class Other(MeetingEncoder):
        identity = Identity("timm", "other", "other", "1" * 64, {})

    barrier = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(ingest, library.engine, [photos], encoder(barrier))
            for encoder in (MeetingEncoder, Other)
        ]
    errors = [error for error in (future.exception() for future in futures) if error]
    assert [type(error) for error in errors] == [EncoderMismatch]
    assert [status.images for status in library.collections()] == [12]


@every_server
def test_runs_that_meet_the_same_copies_in_another_order_do_not_block_each_other(
    library: Library, tmp_path: Path
) -> None:
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    (tmp_path / "0").mkdir()
    picture(0).save(tmp_path / "0" / "0.png")
    ingest(library.engine, [tmp_path / "0"], PixelEncoder())
    for turn in range(1, 9):
        # One run embeds the first and copies the second from it, the other the other way round.
        picture(turn).save(first)
        shutil.copy(first, second)
        barrier = Barrier(2)
        outcomes = together(
            partial(ingest, library.engine, [first, second], MeetingEncoder(barrier)),
            partial(ingest, library.engine, [second, first], MeetingEncoder(barrier)),
        )
        assert any(isinstance(outcome, Summary) for outcome in outcomes)
        check(library, tmp_path)


def test_runs_over_overlapping_folders_agree_in_the_end(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    cats, dogs = photos / "cats", photos / "dogs"
    for turn in range(6):
        for number, file in enumerate(sorted(photos.glob("**/*.png"))):
            match (number + turn) % 4:
                case 0:
                    picture(100 * turn + number).save(file)
                case 1:
                    shutil.copy(file, dogs / f"copy {turn} {number}.png")
                case 2:
                    file.rename(cats / f"moved {turn} {number}.png")
        together(
            lambda: ingest(library.engine, [photos], PixelEncoder(), prune=True),
            lambda: ingest(library.engine, [dogs, cats], PixelEncoder(), prune=True),
            lambda: ingest(library.engine, [cats], PixelEncoder()),
        )
        check(library, photos)


def test_runs_that_meet_the_same_broken_files_do_not_block_each_other(
    library: Library, photos: Path
) -> None:
    for turn in range(4):
        for number in range(12):
            (photos / f"{number}.png").write_text(f"{turn} no picture")
        files = sorted(photos.glob("*.png"))
        outcomes = together(
            partial(ingest, library.engine, files, PixelEncoder()),
            partial(ingest, library.engine, files[::-1], PixelEncoder()),
        )
        assert all(isinstance(outcome, Summary) for outcome in outcomes)
        assert len(library.collection().errors()) == 12


@every_server
def test_writers_do_not_wait_for_an_index_that_is_built_meanwhile(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    library.collection().create_index("hnsw")
    file = tmp_path / "exported.parquet"
    library.collection().export_file(file)
    write(library, "DELETE FROM images WHERE path LIKE '%/dogs/%'")
    name = library.engine.url.database
    write(library, f"ALTER DATABASE {name} SET lock_timeout = '1s'")
    library.engine.dispose()
    # The lock that CREATE INDEX CONCURRENTLY holds while it waits for the writers' snapshots.
    with database.writing(library.engine) as building:
        building.execute(sa.text("LOCK TABLE vecsearch.images IN SHARE UPDATE EXCLUSIVE MODE"))
        ingested = ingest(library.engine, [photos / "dogs"], PixelEncoder())
        assert counts(ingested) == {"added": 6}
        assert library.collection().import_file(file).updated == 12


@every_server
def test_two_runs_set_up_an_empty_database_together(
    empty_database_url: str, photos: Path, small_model: str, weights: Path
) -> None:
    barrier = Barrier(2)

    def run() -> Summary:
        with Library.open(Settings.load(database_url=empty_database_url)) as library:
            barrier.wait(60)
            return library.collection().ingest([photos], model=small_model, weights=weights)

    outcomes = together(run, run)
    assert all(isinstance(outcome, Summary) for outcome in outcomes)
    with Library.open(Settings.load(database_url=empty_database_url)) as library:
        assert [status.images for status in library.collections()] == [12]
        assert counts(library.collection().ingest([photos])) == {"unchanged": 12}


def test_a_row_that_another_run_brings_back_is_not_pruned(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    file = photos / "cats" / "03.png"
    file.unlink()
    other = Thread(target=lambda: ingest(library.engine, [photos], PixelEncoder()))
    is_gone = existence.is_gone

    def restored(path: str) -> bool:
        gone = is_gone(path)
        if gone and not file.exists():
            picture(99).save(file)
            other.start()
            other.join(1)  # it must wait for this run, or be done before it looks
        return gone

    monkeypatch.setattr(existence, "is_gone", restored)
    ingest(library.engine, [photos], PixelEncoder(), prune=True)
    other.join(60)
    assert scalar(library, "SELECT count(*) FROM images") == 12


def test_an_ingest_whose_collection_is_dropped_meanwhile_says_so(
    library: Library, photos: Path, small_model: str, weights: Path
) -> None:
    images = library.collection()
    dropped: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if progress.summary.added and not dropped:
            dropped.append(progress)
            library.collection().drop()

    sentence = "Collection 'images' was dropped or renamed during the ingest"
    with pytest.raises(CollectionNotFound, match=sentence):
        images.ingest(photos, model=small_model, weights=weights, on_progress=on_progress)
    assert dropped
    assert library.collections() == []
    done = images.ingest(photos, model=small_model, weights=weights)
    assert done.added == len(list(photos.rglob("*.png")))
