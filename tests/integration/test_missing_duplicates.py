"""Near-duplicates whose files are gone: never kept, never among those that could go."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from support import PixelEncoder, ingest, once, picture, run_command
from tidy_support import fill

from vecsearch.analysis.duplicates.groups import Duplicates
from vecsearch.imaging.sources import existence
from vecsearch.library import Library
from vecsearch.vocabulary import KeepRule

pytestmark = once


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    """Two groups of an original, a copy and a small one."""
    return fill(library, tmp_path / "photos", groups=2)


def could_go(found: Duplicates, folder: Path) -> dict[str, tuple[bool | None, bool | None]]:
    """Return by path in the folder whether an image could go, and whether it is missing."""
    return {
        str(Path(image.path).relative_to(folder)): (image.could_go, image.missing)
        for image in found.images
    }


@pytest.mark.parametrize("keep", list(KeepRule))
def test_what_is_printed_to_be_deleted_is_never_the_last_copy(
    library: Library, photos: Path, keep: KeepRule
) -> None:
    ruled = library.collection().duplicates(keep=keep, prefer=str(photos / "kept"))
    lost = [Path(image.path) for image in ruled.images if image.could_go is False]
    assert len(lost) == 2
    for file in lost:
        file.unlink()
    words = ("--keep", keep, "--prefer", photos / "kept", "--format", "paths0")
    code, out, err = run_command(library, "duplicates", *words)
    paths = out.split("\0")[:-1]
    assert (code, len(paths)) == (0, 2)
    for path in paths:
        Path(path).unlink()
    for group in ("000", "001"):
        left = [path for path in photos.rglob(f"{group}*") if path.parent.name != "others"]
        assert len(left) == 1
    forget = f"vecsearch forget {lost[0]} {lost[1]}"
    assert "The files of 2 rows are gone, and so neither kept nor among those that could go." in err
    assert forget in err
    # The command does what the note says.
    code, _, err = run_command(library, *forget.split()[1:], "--yes")
    assert code == 0, err
    assert library.status().collections[0].images == 6


def test_a_group_without_any_file_keeps_none_and_lets_none_go(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    # As a drive that is not mounted.
    photos.rename(tmp_path / "elsewhere")
    found = library.collection().duplicates(keep="largest")
    assert set(could_go(found, photos).values()) == {(None, True)}
    code, out, err = run_command(library, "duplicates", "--keep", "largest", "-f", "paths")
    assert (code, out) == (0, "")
    assert "The files of 6 rows are gone" in err
    assert f"if their files are gone for good: vecsearch forget {photos}\n" in err
    plan = library.collection().tidy.plan("trash", keep="largest")
    assert (plan.files, plan.untouched) == ([], [])
    assert len(plan.notes) == 1
    (tmp_path / "elsewhere").rename(photos)
    back = library.collection().duplicates(keep="largest")
    assert {missing for _, missing in could_go(back, photos).values()} == {False}


def test_rows_and_json_say_which_files_are_gone(library: Library, photos: Path) -> None:
    shutil.rmtree(photos / "kept")
    (photos / "small" / "000.png").unlink()
    (photos / "copies" / "001 copy.png").unlink()
    code, out, err = run_command(library, "duplicates", "--keep", "largest", "-f", "json")
    rows = {str(Path(row["path"]).relative_to(photos)): row for row in json.loads(out)}
    assert code == 0
    assert {path: (row["could_go"], row["missing"]) for path, row in rows.items()} == {
        "copies/000 copy.png": (False, False),
        "kept/000.png": (None, True),
        "small/000.png": (None, True),
        "small/001.png": (False, False),
        "copies/001 copy.png": (None, True),
        "kept/001.png": (None, True),
    }
    assert f"vecsearch ingest --prune {photos}\n" in err
    out = run_command(library, "duplicates", "--keep", "largest", "-f", "table")[1]
    assert "missing" in out


def test_an_image_that_was_chosen_does_not_go_if_all_others_are_gone(
    library: Library, photos: Path
) -> None:
    shutil.rmtree(photos / "kept")
    shutil.rmtree(photos / "small")
    chosen = [
        image.id
        for image in library.collection().duplicates().images
        if Path(image.path).parent.name == "copies"
    ]
    plan = library.collection().tidy.plan("trash", gone=set(chosen))
    assert plan.files == []
    assert all(each.reason.endswith("It is gone.") for each in plan.untouched)
    assert len(plan.untouched) == 2
    # With one other that is there, it may.
    shutil.copy(photos / "copies" / "000 copy.png", photos / "000.png")
    ingest(library.engine, [photos / "000.png"], PixelEncoder())
    plan = library.collection().tidy.plan("trash", gone=set(chosen))
    assert [file.kept_path for file in plan.files] == [str(photos / "000.png")]


@pytest.mark.parametrize("keep", list(KeepRule))
def test_a_link_is_not_kept_in_the_place_of_the_file_that_it_names(
    library: Library, photos: Path, keep: KeepRule
) -> None:
    tidy = library.collection().tidy
    tidy.apply(tidy.plan("symlink", keep="largest", prefer=str(photos / "kept")))
    ingest(library.engine, [photos], PixelEncoder())
    words = ("--keep", keep, "--prefer", photos / "copies", "--format", "paths0")
    code, out, _ = run_command(library, "duplicates", *words)
    paths = [Path(path) for path in out.split("\0")[:-1]]
    assert (code, len(paths)) == (0, 4)
    assert {path.parent.name for path in paths if path.is_symlink()} == {"copies"}
    for path in paths:
        path.unlink()
    left = [path for path in photos.rglob("*.png") if path.parent.name != "others"]
    assert len(left) == 2
    assert not any(path.is_symlink() for path in left)


def test_members_of_an_archive_are_looked_up_in_it(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    picture(1, (64, 48)).save(folder / "a.png")
    with ZipFile(tmp_path / "album.zip", "w") as archive:
        archive.write(folder / "a.png", "a.png")
    ingest(library.engine, [folder, tmp_path / "album.zip"], PixelEncoder())
    found = library.collection().duplicates(keep="newest", max_distance=0.0)
    assert {image.missing for image in found.images} == {False}
    with ZipFile(tmp_path / "album.zip", "w") as archive:
        archive.writestr("b.txt", "nothing")
    found = library.collection().duplicates(keep="newest", max_distance=0.0)
    assert {image.path: image.could_go for image in found.images} == {
        str(folder / "a.png"): False,
        f"zip://{tmp_path}/album.zip/a.png": None,
    }


def test_only_images_of_groups_are_looked_up_and_only_to_keep_one(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def gone(paths: Iterable[str]) -> set[str]:
        asked.extend(paths)
        return set()

    monkeypatch.setattr(existence, "gone", gone)
    chosen: Any = library.collection()
    chosen.duplicates()
    chosen.refresh(["duplicates"])
    assert asked == []
    chosen.duplicates(keep="oldest")
    assert len(asked) == 6
    assert not any("/others/" in path for path in asked)
