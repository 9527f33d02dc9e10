"""What a run may touch: pruning only under its roots, and nothing at all in a dry run."""

import shlex
import shutil
from pathlib import Path

import psycopg
import pytest
from support import PixelEncoder, citus, counts, ingest, once, picture

from vecsearch.config import Settings
from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library

pytestmark = citus


def paths(library: Library) -> set[str]:
    with library.sql("SELECT path FROM images") as (_, rows, _):
        return {path for (path,) in rows}


def rewrite(folder: Path) -> None:
    """Let every fate happen to some file of the folder of twelve."""
    cats, dogs = folder / "cats", folder / "dogs"
    picture(90).save(cats / "01.png")  # updated
    (cats / "03.png").unlink()  # pruned
    (cats / "05.png").rename(dogs / "moved.png")
    shutil.copy(cats / "07.png", dogs / "copied.png")
    for number in range(20, 30):
        picture(number).save(dogs / f"{number}.png")  # added
    (folder / "zoo").mkdir()
    for number in range(5):
        shutil.copy(
            dogs / f"2{number % 2}.png", folder / "zoo" / f"{number}.png"
        )  # copied, batches later
    shutil.copy(cats / "07.png", cats / "09.png")  # updated with what is known
    (folder / "old").mkdir()
    (dogs / "02.png").rename(folder / "old" / "02.png")
    picture(91).save(dogs / "02.png")  # moved away, and another in its place
    (dogs / "00.png").touch()  # unchanged, but opened


@once
@pytest.mark.parametrize(
    ("kept", "gone"),
    [
        ("photos2", "photos"),
        ("photos", "photos2"),
        ("phot_s", "photos"),
        ("photos", "phot_s"),
        ("photos", "ph%s"),
        ("ph%s", "photos"),
        ("photos", "photos/inner"),
    ],
)
def test_pruning_stays_under_the_given_roots(
    library: Library, tmp_path: Path, kept: str, gone: str
) -> None:
    for number, name in enumerate((kept, gone)):
        (tmp_path / name).mkdir(parents=True)
        picture(number).save(tmp_path / name / "1.png")
    assert counts(ingest(library.engine, [tmp_path], PixelEncoder())) == {"added": 2}
    for name in (kept, gone):
        (tmp_path / name / "1.png").unlink()
    summary = ingest(library.engine, [tmp_path / gone], PixelEncoder(), prune=True)
    assert counts(summary) == {"pruned": 1}
    assert paths(library) == {str(tmp_path / kept / "1.png")}


def test_without_prune_nothing_is_deleted(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    shutil.rmtree(photos / "cats")
    for dry_run in (True, False):
        summary = ingest(library.engine, [photos], PixelEncoder(), dry_run=dry_run)
        assert counts(summary) == {"unchanged": 6, "gone": 6}
        (note,) = summary.notes
        command = f"vecsearch ingest --prune {photos}"
        assert note == f"The files of 6 rows are gone. To delete these rows: {command}"
    assert len(paths(library)) == 12


def test_the_command_that_prunes_can_be_pasted(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a b", "-c", "d"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        for copy in range(2):
            picture(2 * number + copy).save(tmp_path / name / f"{copy}.png")
    ingest(library.engine, names, PixelEncoder(), collection="others")
    (tmp_path / "a b" / "0.png").unlink()
    (note,) = ingest(library.engine, names, PixelEncoder(), collection="others").notes
    sentence, command = note.split(": ")
    assert sentence == "The files of 1 row are gone. To delete these rows"
    assert command == "vecsearch ingest --prune 'a b' ./-c d --collection others"
    assert [(tmp_path / name).is_dir() for name in shlex.split(command)[3:6]] == [True] * 3
    # A long list would hide the command.
    (note,) = ingest(library.engine, [*names, *names], PixelEncoder(), collection="others").notes
    assert note.endswith("To delete these rows: the same command with --prune")


def test_a_root_that_is_a_file_prunes_nothing_beside_it(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    (photos / "cats" / "01.png").unlink()
    file = photos / "cats" / "03.png"
    assert counts(ingest(library.engine, [file], PixelEncoder(), prune=True)) == {"unchanged": 1}
    assert len(paths(library)) == 12


def test_one_collection_is_pruned_and_not_another(library: Library, photos: Path) -> None:
    for collection in ("images", "others"):
        ingest(library.engine, [photos], PixelEncoder(), collection=collection)
    shutil.rmtree(photos / "cats")
    summary = ingest(library.engine, [photos], PixelEncoder(), collection="others", prune=True)
    assert counts(summary) == {"unchanged": 6, "pruned": 6}
    assert len(paths(library)) == 12


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("batch_size", [2, 3, 32])
def test_a_dry_run_foretells_the_real_one(
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    prune: bool,
) -> None:
    monkeypatch.setattr("vecsearch.ingest.run.CHUNK_SIZE", batch_size)
    ingest(library.engine, [photos], PixelEncoder())
    rewrite(photos)
    foretold = ingest(library.engine, [photos], PixelEncoder(), prune=prune, dry_run=True)
    happened = ingest(library.engine, [photos], PixelEncoder(), prune=prune)
    assert foretold.counts() == happened.counts()
    assert min(
        happened.updated, happened.moved, happened.copied, happened.added, happened.unchanged
    )
    assert bool(happened.pruned) is prune


def test_a_first_dry_run_foretells_copies_however_far_apart(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.ingest.run.CHUNK_SIZE", 2)
    (photos / "zoo").mkdir()
    shutil.copy(photos / "cats" / "01.png", photos / "zoo")
    foretold = ingest(library.engine, [photos], PixelEncoder(), dry_run=True)
    assert counts(foretold) == {"added": 12, "copied": 1}


def everything(url: str) -> list[object]:
    """Return what is in the database, with the transactions that wrote it."""
    with psycopg.connect(url) as connection:
        found: list[object] = []
        found += connection.execute(
            "SELECT oid, xmin::text, relname, relfilenode FROM pg_class"
            " WHERE relpersistence <> 't' AND relname NOT LIKE 'pg\\_%' ORDER BY oid"
        ).fetchall()
        found += connection.execute("SELECT oid, extname FROM pg_extension").fetchall()
        found += connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' ORDER BY 1"
        ).fetchall()
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname IN ('vecsearch', 'vecsearch_internal') ORDER BY 1, 2"
        ).fetchall()
        for table in tables:
            rows = f"SELECT xmin::text, t.* FROM {'.'.join(table)} AS t ORDER BY 2"
            found += connection.execute(rows.encode()).fetchall()
    return found


def test_a_dry_run_writes_nothing(library: Library, database_url: str, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    (photos / "broken.png").write_text("not a picture")
    ingest(library.engine, [photos], PixelEncoder())
    (photos / "broken.png").unlink()
    rewrite(photos)
    (photos / "records.csv").write_text("path,animal\n01.png,cat\n")
    before = everything(database_url)
    summary = ingest(
        library.engine,
        [photos],
        PixelEncoder(),
        prune=True,
        dry_run=True,
        metadata_file=photos / "records.csv",
    )
    assert summary.pruned
    assert everything(database_url) == before
    # But a real one does: what is compared would tell.
    ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert everything(database_url) != before


def test_a_dry_run_on_a_database_without_tables_makes_none(
    empty_database_url: str, photos: Path
) -> None:
    before = everything(empty_database_url)
    (photos / "broken.png").symlink_to("nowhere")
    with Library.open(Settings.load(database_url=empty_database_url)) as library:
        summary = library.collection().ingest(
            [photos], dry_run=True, prune=True, model="no such model"
        )
        assert counts(summary) == {"added": 12, "failed": 1}
        assert library.collections() == []
    assert everything(empty_database_url) == before


def test_progress_counts_the_files_to_open(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.ingest.run.CHUNK_SIZE", 5)
    progress: list[Progress] = []
    ingest(library.engine, [photos], PixelEncoder(), progress=progress)
    assert [(step.done, step.total) for step in progress] == [
        (done, 12) for done in (0, 5, 10, 12, 12)
    ]
    (photos / "cats" / "01.png").write_text("not a picture")
    (photos / "notes.txt").touch()
    progress.clear()
    ingest(library.engine, [photos], PixelEncoder(), progress=progress)
    assert [(step.done, step.total) for step in progress] == [(0, 1), (1, 1), (1, 1)]
    assert progress[-1].summary == Summary(
        unchanged=11,
        failed=1,
        notes=(
            "Skipped 1 file without an image suffix.",
            "The files of 1 row cannot be read any more; the former content stays.",
        ),
    )
