"""What a run does with a folder, file by file."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from support import (
    PixelEncoder,
    citus,
    counts,
    every_server,
    ingest,
    never_loaded,
    once,
    one_server,
    picture,
    write,
)

from vecsearch.errors import DatabaseUnavailable, EncoderError, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database

pytestmark = citus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@pytest.fixture
def ingested(library: Library, photos: Path, small_model: str, weights: Path) -> Library:
    summary = library.collection().ingest([photos], model=small_model, weights=weights)
    assert counts(summary) == {"added": 12}
    return library


def touch(file: Path) -> None:
    """Give a file a time that it cannot have had."""
    os.utime(file, (1_000_000_000, 1_000_000_000))


def stored(library: Library, columns: str = "path") -> list[tuple[Any, ...]]:
    with database.reading(library.engine) as connection:
        rows = connection.execute(sa.text(f"SELECT {columns} FROM images ORDER BY path"))
        return [tuple(row) for row in rows]


def by_path(library: Library, column: str) -> dict[str, Any]:
    return {row[0]: row[1] for row in stored(library, f"path, {column}")}


def test_a_second_run_changes_nothing(ingested: Library, photos: Path) -> None:
    assert counts(ingested.collection().ingest([photos])) == {"unchanged": 12}


def test_a_run_without_news_waits_for_nobody_and_leaves_the_table_alone(
    library: Library, photos: Path
) -> None:
    broken = photos / "cats" / "01.png"
    broken.write_text("no picture")
    ingest(library.engine, [photos], PixelEncoder())
    touch(broken)
    sent: list[str] = []
    sa.event.listen(
        library.engine,
        "before_cursor_execute",
        lambda *event: sent.append(" ".join(event[2].split())),
    )
    summary = ingest(library.engine, [photos], never_loaded())
    assert counts(summary) == {"unchanged": 11, "failed": 1}
    assert not [
        text for text in sent if text.startswith(("DELETE FROM vecsearch.images", "ANALYZE ("))
    ]
    sent.clear()
    broken.unlink()
    ingest(library.engine, [photos], never_loaded())
    assert not [text for text in sent if "advisory" in text]


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_no_tables_in_its_session(
    ingested: Library, photos: Path, fails: bool
) -> None:
    def report(_: object) -> None:
        if fails:
            raise InvalidInput("Enough.")

    with suppress(InvalidInput):
        ingested.collection().ingest([photos], on_progress=report)
    with ingested.engine.connect() as connection:
        left = sa.text("SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 't'")
        assert connection.scalars(left).all() == []


@every_server
def test_a_renamed_folder_moves_its_rows(ingested: Library, photos: Path) -> None:
    renamed = photos.rename(photos.with_name("pictures"))
    assert counts(ingested.collection().ingest([renamed])) == {"moved": 12}
    assert counts(ingested.collection().ingest([renamed])) == {"unchanged": 12}


@every_server
def test_changed_deleted_and_copied(ingested: Library, photos: Path) -> None:
    picture(99).save(photos / "dogs" / "00.png")
    (photos / "dogs" / "02.png").unlink()
    shutil.copy(photos / "cats" / "01.png", photos / "cats" / "copy.png")
    summary = ingested.collection().ingest([photos], prune=True)
    assert counts(summary) == {"updated": 1, "pruned": 1, "copied": 1, "unchanged": 10}


@one_server
def test_a_moved_file_keeps_its_metadata_and_a_copy_starts_without(
    library: Library, photos: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    write(library, "UPDATE images SET metadata = jsonb_build_object('was', path)")
    first, second = photos / "cats" / "01.png", photos / "cats" / "03.png"
    moved = first.rename(photos / "moved.png")
    copied = Path(shutil.copy(second, photos / "copied.png"))
    summary = ingest(library.engine, [photos], never_loaded())
    assert counts(summary) == {"moved": 1, "copied": 1, "unchanged": 11}
    metadata = by_path(library, "metadata")
    assert metadata[str(moved)] == {"was": str(first)}
    assert metadata[str(copied)] == {}
    assert metadata[str(second)] == {"was": str(second)}
    assert str(first) not in metadata


def test_a_changed_file_keeps_its_metadata(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    write(library, "UPDATE images SET metadata = '{\"kept\": true}'")
    picture(99).save(photos / "cats" / "01.png")
    assert counts(ingest(library.engine, [photos], PixelEncoder()))["updated"] == 1
    assert {str(row) for (row,) in stored(library, "metadata")} == {"{'kept': True}"}


def test_a_touched_file_is_unchanged_and_not_embedded(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    touch(photos / "cats" / "01.png")
    assert counts(ingest(library.engine, [photos], never_loaded())) == {"unchanged": 12}
    # And its new time is remembered: it is not opened again.
    (photos / "cats" / "01.png").write_bytes(bytes((photos / "cats" / "01.png").stat().st_size))
    touch(photos / "cats" / "01.png")
    assert counts(ingest(library.engine, [photos], never_loaded())) == {"unchanged": 12}


@pytest.mark.usefixtures("small_chunks")
def test_content_that_is_there_many_times_is_embedded_once(library: Library, photos: Path) -> None:
    for number in range(20):
        shutil.copy(photos / "cats" / "01.png", photos / f"copy {number}.png")
    encoder = PixelEncoder()
    assert counts(ingest(library.engine, [photos], encoder)) == {"added": 12, "copied": 20}
    assert len(encoder.embedded) == len(set(encoder.embedded)) == 12


def test_a_new_file_at_the_place_of_a_moved_one_takes_neither_its_row_nor_its_vector(
    library: Library, photos: Path
) -> None:
    encoder = PixelEncoder()
    ingest(library.engine, [photos], encoder)
    file = photos / "cats" / "01.png"
    moved = file.rename(photos / "zoo.png")
    picture(99).save(file)
    summary = ingest(library.engine, [photos], encoder)
    assert summary.updated == 1
    assert summary.added + summary.copied == 1
    embeddings = by_path(library, "embedding::real[]")
    for path in (file, moved):
        assert embeddings[str(path)] == encoder.expected(path).tolist()


def test_a_file_that_is_named_twice_is_one_file(library: Library, photos: Path) -> None:
    file = photos / "cats" / "01.png"
    summary = ingest(library.engine, [file, photos, file, photos / "cats"], PixelEncoder())
    assert counts(summary) == {"added": 12}


@once
@pytest.mark.parametrize(
    "name",
    [
        "two words.png",
        'it\'s "quoted".png',
        "line\nbreak\ttab.png",
        "back\\slash\\N.png",
        "per%cent _under%s :colon.png",
        "Ünïcödé 猫 🐈.png",
        "e\u0301 decomposed.png",
        "-dash.png",
        "{brace},(paren);--.png",
    ],
)
def test_a_file_may_be_called_anything(library: Library, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name.removesuffix(".png")
    folder.mkdir()
    picture(1).save(folder / name)
    for expected in ({"added": 1}, {"unchanged": 1}):
        summary = ingest(library.engine, [folder], PixelEncoder(), prune=True)
        assert counts(summary) == expected
    assert stored(library, "path, label") == [(str(folder / name), folder.name)]
    moved = (folder / name).rename(folder / "plain.png")
    assert counts(ingest(library.engine, [folder], never_loaded(), prune=True)) == {"moved": 1}
    moved.unlink()
    assert counts(ingest(library.engine, [folder], never_loaded(), prune=True)) == {"pruned": 1}


@once
@pytest.mark.parametrize(
    "collection",
    "seen pending embedded known records matches best excluded order user table".split(),
)
def test_a_collection_may_have_any_name_that_is_allowed(
    library: Library, photos: Path, collection: str
) -> None:
    shutil.copy(photos / "cats" / "01.png", photos / "copy.png")
    summary = ingest(library.engine, [photos], PixelEncoder(), collection=collection)
    assert counts(summary) == {"added": 12, "copied": 1}
    (photos / "cats" / "03.png").rename(photos / "moved.png")
    touch(photos / "copy.png")
    records = photos / "records.csv"
    records.write_text("path,animal\nmoved.png,cat\n")
    summary = ingest(
        library.engine,
        [photos],
        never_loaded(),
        collection=collection,
        metadata_file=records,
        prune=True,
    )
    assert counts(summary) == {"moved": 1, "unchanged": 12}
    hits = (
        library.collection(collection)
        .query(photos / "moved.png", where="metadata->>'animal' = 'cat'")
        .hits
    )
    assert [hit.path for hit in hits] == [str(photos / "moved.png")]


class FailingEncoder(PixelEncoder):
    """Fails once it has embedded so many."""

    def __init__(self, limit: int, error: BaseException) -> None:
        super().__init__()
        self.limit = limit
        self.error = error

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        if len(self.embedded) >= self.limit:
            raise self.error
        return super().embed(batch)


@pytest.mark.usefixtures("small_chunks")
def test_an_encoder_that_fails_at_once_leaves_no_collection(library: Library, photos: Path) -> None:
    with pytest.raises(EncoderError, match="no more"):
        ingest(library.engine, [photos], FailingEncoder(0, EncoderError("no more")))
    with database.reading(library.engine) as connection:
        assert catalog.find_collection(connection, "images") is None
    assert library.collections() == []


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("error", [EncoderError("no more"), KeyboardInterrupt("no more")])
def test_what_was_stored_before_a_failure_stays_and_the_next_run_carries_on(
    library: Library, photos: Path, error: BaseException
) -> None:
    with pytest.raises(type(error), match="no more"):
        ingest(library.engine, [photos], FailingEncoder(6, error))
    assert len(stored(library)) == 6
    # On the same session, with what the failed run left in it.
    encoder = PixelEncoder()
    assert counts(ingest(library.engine, [photos], encoder)) == {"added": 6, "unchanged": 6}
    assert len(encoder.embedded) == 6


@pytest.mark.usefixtures("small_chunks")
def test_a_server_that_goes_away_in_the_middle_is_one_sentence_and_keeps_what_is_stored(
    library: Library, server_url: str, photos: Path
) -> None:
    class Terminator(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            if len(self.embedded) == 6:
                # Batches are embedded ahead of those that are being written.
                while not library.collections() or len(stored(library)) < 6:
                    pass
                with psycopg.connect(server_url) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                        " WHERE datname = %s",
                        [library.engine.url.database],
                    )
            return super().embed(batch)

    with pytest.raises(DatabaseUnavailable) as caught:
        ingest(library.engine, [photos], Terminator())
    assert "\n" not in str(caught.value)
    assert len(stored(library)) == 6
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 6, "unchanged": 6}


def test_a_path_that_does_not_exist_stops_before_anything_is_written(library: Library) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        library.collection().ingest(["/no/such/folder"])
    assert library.collections() == []
