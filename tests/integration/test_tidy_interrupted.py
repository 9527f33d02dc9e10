"""A run that died in the middle of a file: what the next command finds, and what it cannot find."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support import PixelEncoder, ingest, once, picture, run_command, scalar
from tidy_support import applied, fill, in_tables, on_disk

from vecsearch.analysis.tidy import acting, journal
from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.vocabulary import FileState

pytestmark = [once, pytest.mark.usefixtures("own_trash")]


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    return fill(library, tmp_path / "photos", groups=1, small=False)


class Died(BaseException):
    """The process ends here."""


def die(*_: object, **__: object) -> NoReturn:
    raise Died


def died(library: Library, action: str, tmp_path: Path, owner: Any, call: str) -> None:
    """Act on the copy, and die at a call."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, call, die)
        with pytest.raises(Died):
            applied(library, action, tmp_path)


@pytest.mark.parametrize(("action", "place"), [("move", "moved"), ("trash", "data")])
def test_a_file_on_a_drive_that_is_away_is_waited_for(
    library: Library, photos: Path, tmp_path: Path, action: str, place: str
) -> None:
    files, rows = on_disk(photos), in_tables(library)
    died(library, action, tmp_path, journal, "take_row")
    (tmp_path / place).rename(tmp_path / "away")
    for _ in range(2):
        code, out, err = run_command(library, "undo", "--yes", "--format", "json")
        assert (code, "1 file could not be brought back; see the reasons." in err) == (1, True)
        assert f"nor back at {photos}/copies/000 copy.png." in out
        assert in_tables(library) == rows
    (missing,) = library.collection().tidy.undoable()
    assert missing.reason is not None
    (tmp_path / "away").rename(tmp_path / place)
    (found,) = library.collection().tidy.undoable()
    assert found.reason is None
    (back,) = library.collection().tidy.undo()
    assert (back.state, back.reason) == (FileState.undone, None)
    assert on_disk(photos) == files
    assert in_tables(library) == rows


@pytest.mark.parametrize(("action", "call"), [("hardlink", "link"), ("symlink", "symlink")])
def test_a_file_set_aside_on_a_drive_that_is_away_is_waited_for(
    library: Library, photos: Path, tmp_path: Path, action: str, call: str
) -> None:
    files, tidy = on_disk(photos), library.collection().tidy
    died(library, action, tmp_path, os, call)
    assert [entry.reason for entry in tidy.undoable()] == [None]
    (photos / "copies").rename(tmp_path / "away")
    (stuck,) = tidy.undo()
    assert stuck.state is FileState.acting
    assert stuck.reason == f"It is neither at {stuck.path} nor at {stuck.target}."
    (tmp_path / "away").rename(photos / "copies")
    with pytest.raises(InvalidInput, match="has nothing to undo"):
        tidy.undo()
    assert on_disk(photos) == files


def test_a_link_to_a_drive_that_is_away_is_a_link(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    files, tidy = on_disk(photos), library.collection().tidy
    died(library, "symlink", tmp_path, acting.Tidy, "_finish")
    (photos / "kept").rename(tmp_path / "away")
    (stuck,) = tidy.undo()
    assert stuck.state is FileState.done
    (tmp_path / "away").rename(photos / "kept")
    (back,) = tidy.undo()
    assert back.state is FileState.undone
    assert on_disk(photos) == files


def test_a_file_that_cannot_be_brought_back_stops_no_other(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    files, tidy = on_disk(photos), library.collection().tidy
    died(library, "hardlink", tmp_path, os, "link")

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        (stuck,) = tidy.undo()
        assert (stuck.state, stuck.reason) == (FileState.acting, "Permission denied.")
    with pytest.raises(InvalidInput, match="has nothing to undo"):
        tidy.undo()
    assert on_disk(photos) == files


def test_the_row_of_another_picture_in_its_place_stays(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    died(library, "move", tmp_path, journal, "take_row")
    place = photos / "copies" / "000 copy.png"
    picture(7).save(place)
    ingest(library.engine, [photos], PixelEncoder())
    rows = in_tables(library)
    (stuck,) = library.collection().tidy.undo()
    assert stuck.reason == f"There is another file at {place}."
    assert in_tables(library) == rows
    assert scalar(library, "SELECT count(*) FROM images") == 3
