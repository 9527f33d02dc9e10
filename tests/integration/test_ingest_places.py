"""Files that swap names: vectors and metadata follow the picture."""

import os
import random
import shutil
from pathlib import Path

import pytest
from support import PixelEncoder, citus, counts, ingest, never_loaded, once, picture, write

from vecsearch.library import Library

pytestmark = [citus, pytest.mark.usefixtures("small_chunks")]


@pytest.fixture
def noted(library: Library, photos: Path) -> Library:
    """Twelve pictures, each with metadata that name the path where it was."""
    ingest(library.engine, [photos], PixelEncoder())
    write(library, "UPDATE images SET metadata = jsonb_build_object('was', path)")
    return library


def metadata(library: Library) -> dict[str, str | None]:
    """Return by path where the picture was when its metadata were set."""
    with library.sql("SELECT path, metadata->>'was' FROM images") as (_, rows, _):
        return {row[0]: row[1] for row in rows}


def swap(one: Path, other: Path) -> None:
    aside = one.rename(one.with_name("aside"))
    other.rename(one)
    aside.rename(other)


def check_vectors(library: Library, folder: Path) -> None:
    encoder = PixelEncoder()
    with library.sql("SELECT path, embedding::real[] FROM images") as (_, rows, _):
        stored = {row[0]: row[1] for row in rows}
    assert stored == {str(file): encoder.expected(file).tolist() for file in folder.rglob("*.png")}


def test_two_files_that_change_names_change_rows(noted: Library, photos: Path) -> None:
    first, last = photos / "cats" / "01.png", photos / "dogs" / "10.png"
    swap(first, last)
    for dry_run in (True, False):
        summary = ingest(noted.engine, [photos], never_loaded(), dry_run=dry_run)
        assert counts(summary) == {"updated": 2, "unchanged": 10}
    was = metadata(noted)
    assert was[str(first)] == str(last)
    assert was[str(last)] == str(first)
    check_vectors(noted, photos)
    assert counts(ingest(noted.engine, [photos], never_loaded())) == {"unchanged": 12}


def test_a_swapped_picture_without_metadata_leaves_none_behind(
    noted: Library, photos: Path
) -> None:
    first, last = photos / "cats" / "01.png", photos / "dogs" / "10.png"
    write(noted, f"UPDATE images SET metadata = '{{}}' WHERE path = '{last}'")
    swap(first, last)
    ingest(noted.engine, [photos], never_loaded())
    was = metadata(noted)
    assert was[str(first)] is None
    assert was[str(last)] == str(first)


@once
@pytest.mark.parametrize("seed", range(6))
def test_however_files_are_renamed_nothing_is_embedded_and_metadata_follow(
    noted: Library, photos: Path, tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed)
    old = sorted(photos.rglob("*.png"))
    names = choose.sample([*old, *(photos / "cats" / f"new {n}.png" for n in range(seed))], 12)
    for number, file in enumerate(old):
        file.rename(tmp_path / str(number))
    for number, name in enumerate(names):
        (tmp_path / str(number)).rename(name)
    foretold = ingest(noted.engine, [photos], never_loaded(), prune=True, dry_run=True)
    summary = ingest(noted.engine, [photos], never_loaded(), prune=True)
    assert summary.counts() == foretold.counts()
    assert metadata(noted) == {
        str(new): str(before) for before, new in zip(old, names, strict=True)
    }
    check_vectors(noted, photos)


def test_names_that_shift_by_one_are_embedded_for_the_new_picture_alone(
    library: Library, tmp_path: Path
) -> None:
    for number in range(20):
        picture(number).save(tmp_path / f"{number:03}.png")
    encoder = PixelEncoder()
    ingest(library.engine, [tmp_path], encoder)
    write(library, "UPDATE images SET metadata = jsonb_build_object('was', path)")
    for number in reversed(range(20)):
        (tmp_path / f"{number:03}.png").rename(tmp_path / f"{number + 1:03}.png")
    picture(99).save(tmp_path / "000.png")
    summary = ingest(library.engine, [tmp_path], encoder)
    assert counts(summary) == {"updated": 20, "copied": 1}
    assert len(encoder.embedded) == 21
    was = metadata(library)
    for number in range(20):
        assert was[str(tmp_path / f"{number + 1:03}.png")] == str(tmp_path / f"{number:03}.png")
    check_vectors(library, tmp_path)


def test_a_picture_that_replaces_another_brings_its_metadata(noted: Library, photos: Path) -> None:
    gone, file = photos / "cats" / "01.png", photos / "dogs" / "10.png"
    gone.rename(file)
    summary = ingest(noted.engine, [photos], never_loaded(), prune=True)
    assert counts(summary) == {"updated": 1, "pruned": 1, "unchanged": 10}
    assert metadata(noted)[str(file)] == str(gone)


def test_a_file_that_a_program_saves_by_renaming_keeps_its_metadata(
    noted: Library, photos: Path
) -> None:
    file, saved = photos / "cats" / "01.png", photos / "cats" / "01.tmp.png"
    picture(99).save(saved)
    assert counts(ingest(noted.engine, [photos], PixelEncoder())) == {"added": 1, "unchanged": 12}
    saved.rename(file)
    assert counts(ingest(noted.engine, [photos], never_loaded())) == {
        "updated": 1,
        "unchanged": 11,
        "gone": 1,
    }
    assert metadata(noted)[str(file)] == str(file)


def test_a_picture_that_was_edited_beside_a_backup_keeps_its_metadata_and_so_does_the_backup(
    noted: Library, photos: Path
) -> None:
    file, backup = photos / "cats" / "01.png", photos / "zoo.png"
    shutil.copy(file, backup)
    picture(99).save(file)
    summary = ingest(noted.engine, [photos], PixelEncoder())
    assert counts(summary) == {"updated": 1, "copied": 1, "unchanged": 11}
    was = metadata(noted)
    assert was[str(file)] == was[str(backup)] == str(file)
    check_vectors(noted, photos)


def test_a_copy_of_a_file_that_was_only_touched_starts_without_metadata(
    noted: Library, photos: Path
) -> None:
    file, copy = photos / "cats" / "01.png", photos / "zoo.png"
    shutil.copy(file, copy)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    summary = ingest(noted.engine, [photos], never_loaded())
    assert counts(summary) == {"copied": 1, "unchanged": 12}
    assert metadata(noted)[str(copy)] is None
    assert metadata(noted)[str(file)] == str(file)


def test_of_equal_pictures_each_moves_with_the_metadata_of_its_name(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    for number in range(8):
        picture(1).save(tmp_path / "old" / f"{number}.png")
    ingest(library.engine, [tmp_path], PixelEncoder())
    write(library, "UPDATE images SET metadata = jsonb_build_object('was', path)")
    # They come in another order, in chunks of three.
    for number in range(8):
        (tmp_path / f"{7 - number}").mkdir()
        file = tmp_path / "old" / f"{number}.png"
        file.rename(tmp_path / f"{7 - number}" / file.name)
    assert counts(ingest(library.engine, [tmp_path], never_loaded())) == {"moved": 8}
    for path, was in metadata(library).items():
        assert was == str(tmp_path / "old" / Path(path).name)


def test_files_of_one_size_that_change_places_are_told_apart(
    library: Library, tmp_path: Path
) -> None:
    # Uncompressed: every file has the same size.
    for number in range(9):
        picture(number).save(tmp_path / f"{number}.bmp")
    ingest(library.engine, [tmp_path], PixelEncoder())
    write(library, "UPDATE images SET metadata = jsonb_build_object('was', path)")
    swap(tmp_path / "0.bmp", tmp_path / "8.bmp")
    picture(50).save(tmp_path / "1.bmp")
    os.utime(tmp_path / "2.bmp", (1_000_000_000, 1_000_000_000))
    encoder = PixelEncoder()
    summary = ingest(library.engine, [tmp_path], encoder)
    assert counts(summary) == {"updated": 3, "unchanged": 6}
    assert len(encoder.embedded) == 1
    was = metadata(library)
    assert was.pop(str(tmp_path / "0.bmp")) == str(tmp_path / "8.bmp")
    assert was.pop(str(tmp_path / "8.bmp")) == str(tmp_path / "0.bmp")
    assert all(path == before for path, before in was.items())
