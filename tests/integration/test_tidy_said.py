"""What is said of files that were acted on: at a drop, before and after an undo."""

import errno
import os
from pathlib import Path

import pytest
from support import PixelEncoder, ingest, once, run_command, write
from tidy_support import applied, fill, in_tables, on_disk

from vecsearch.analysis.tidy import disk
from vecsearch.cli import command
from vecsearch.errors import NotConfirmed, VecsearchError
from vecsearch.library import Library
from vecsearch.postgres import database, drop
from vecsearch.vocabulary import FileState

pytestmark = [once, pytest.mark.usefixtures("own_trash")]


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    return fill(library, tmp_path / "photos")


def test_a_drop_says_what_undo_can_no_longer_bring_back(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = (
        "Without collection 'images', undo can no longer bring back 6 files that duplicates "
        "--apply moved or replaced by links."
    )
    applied(library, "hardlink", tmp_path)
    write(library, "UPDATE vecsearch_internal.file_actions SET state = 'undone' WHERE number = 1")
    plan = library.collection().tidy.plan("move", keep="largest", to=tmp_path / "moved")
    moved = len(library.collection().tidy.apply(plan))
    lost = lost.replace("6 files", f"{moved + 2} files")
    code, _, err = run_command(library, "drop", "images")
    assert (code, "add --yes" in err) == (1, True)
    with monkeypatch.context() as patched:
        patched.setattr(command, "is_terminal", lambda: True)
        code, _, err = run_command(library, "drop", "images", input="n\n")
    assert (code, f"{lost} To bring them back first: vecsearch undo\n" in err) == (1, True)
    with database.writing(library.engine) as connection:
        assert drop.drop(connection, "images") == [lost]
        connection.rollback()
    code, _, err = run_command(library, "drop", "images", "--yes")
    assert (code, err.startswith(f"{lost}\nDropped collection")) == (0, True)


def test_a_repair_that_removes_a_collection_says_so_too(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    applied(library, "trash", tmp_path)
    write(library, "DROP TABLE images CASCADE")
    lost = "undo can no longer bring back 6 files that duplicates --apply sent to the trash."
    asked: list[str] = []

    def confirm(sentence: str) -> bool:
        asked.append(sentence)
        return False

    with pytest.raises(NotConfirmed):
        library.repair("images", confirm=confirm)
    assert asked[0].endswith(lost)
    (done,) = library.repair("images", confirm=lambda _: True)
    assert done.done.endswith(lost)


def test_a_drop_of_what_was_undone_says_nothing(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    applied(library, "move", tmp_path)
    library.collection().tidy.undo()
    assert library.collection().tidy.lost_by_drop() is None
    assert library.collection().drop() == []


def test_undo_needs_a_yes_where_nobody_can_answer(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(library, "move", tmp_path)
    before = on_disk(tmp_path / "moved")
    code, out, err = run_command(library, "undo")
    assert (code, out) == (1, "")
    assert "this brings 6 files back. That needs a yes: add --yes. Nothing was undone." in err
    assert on_disk(tmp_path / "moved") == before
    code, _, err = run_command(library, "undo", "--yes")
    assert (code, "Brought 6 files back." in err) == (0, True)
    # Of a run with nothing left there is no question.
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    code, _, err = run_command(library, "undo", "1")
    assert (code, "Run 1 has nothing to undo." in err, "Undo it?" in err) == (1, True, False)
    code, _, err = run_command(library, "undo", "7", "--yes")
    assert (code, "No run is 7." in err) == (1, True)


def test_before_anything_was_done_undo_says_so(library: Library, photos: Path) -> None:
    code, out, err = run_command(library, "undo", "--list")
    assert (code, out, err) == (0, "", "No files were acted on yet, so there is nothing to undo.\n")


def test_errors_of_undo_name_the_collection(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder(), collection="other")
    for run in [], ["7"]:
        code, _, err = run_command(library, "undo", *run, "--yes", "--collection", "other")
        assert (code, err.endswith(": vecsearch undo --list --collection other\n")) == (1, True)


@pytest.mark.parametrize("action", ["move", "trash"])
def test_what_somebody_brought_back_is_settled_as_undone(
    library: Library, photos: Path, tmp_path: Path, action: str
) -> None:
    rows = in_tables(library)
    applied(library, action, tmp_path)
    back = photos / "copies" / "000 copy.png"
    # The file that was moved is still where it went.
    back.write_bytes((photos / "kept" / "000.png").read_bytes())
    assert {entry.reason for entry in library.collection().tidy.undoable()} == {None}
    done = library.collection().tidy.undo()
    assert {entry.state for entry in done} == {FileState.undone}
    assert in_tables(library) == rows


def test_a_file_that_is_gone_for_good_is_named_with_where_it_would_be(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    applied(library, "move", tmp_path)
    moved, place = tmp_path / "moved" / "000 copy.png", photos / "copies" / "000 copy.png"
    moved.unlink()
    reason = f"It is no longer at {moved}, nor back at {place}."
    code, out, err = run_command(library, "undo", "--yes", "--format", "json")
    assert (code, "Brought 5 files back." in err) == (1, True)
    assert reason in out
    place.write_bytes((photos / "kept" / "000.png").read_bytes())
    code, _, err = run_command(library, "undo", "--yes")
    assert (code, "Brought 1 file back." in err) == (0, True)


def test_a_folder_beside_those_of_the_images_is_remarked_on(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    tidy = library.collection().tidy
    note = (
        f"{photos}/dups is in {photos}, as all images of the collection are. If that is the folder "
        "that you ingest, the next ingest adds the files again: name a folder elsewhere with --to."
    )
    assert tidy.plan("move", keep="largest", to=photos / "dups").notes == [note]
    assert tidy.plan("move", keep="largest", to=photos / "new" / "dups").notes != []
    assert tidy.plan("move", keep="largest", to=tmp_path / "photos-2").notes == []
    assert tidy.plan("trash", keep="largest").notes == []
    words = ("duplicates", "--apply", "move", "--to", photos / "dups", "--keep", "largest")
    code, _, err = run_command(library, *words)
    assert (code, note in err) == (1, True)
    # An image behind a URL, or in an archive, is in no folder.
    url = "UPDATE images SET path = 'zip:///album.zip/a.png' WHERE path LIKE '%/others/000.png'"
    write(library, url)
    assert tidy.plan("move", keep="largest", to=photos / "dups").notes == [note]
    # Images elsewhere: then it is not this folder that was ingested.
    write(library, "UPDATE images SET path = '/elsewhere/1.png' WHERE path LIKE '%/others/001.png'")
    assert tidy.plan("move", keep="largest", to=photos / "dups").notes == []


def test_paths_for_xargs_are_those_of_files_that_are_acted_on(
    library: Library, photos: Path
) -> None:
    asked = ("duplicates", "--keep", "largest", "--apply", "hardlink", "--format", "paths")
    copies = sorted(map(str, (photos / "copies").iterdir()))
    _, planned, err = run_command(library, *asked, "--dry-run")
    assert sorted(planned.splitlines()) == copies
    _, done, err = run_command(library, *asked, "--yes")
    assert (sorted(done.splitlines()), "3 duplicates left alone" in err) == (copies, True)
    _, again, err = run_command(library, *asked[:-1], "csv", "--yes")
    assert ("There is nothing to do.\n" in err, again.count(",left,")) == (True, 6)
    Path(copies[0]).unlink()
    Path(copies[0]).write_bytes(b"another picture")
    for option in ("--dry-run", "--yes"):
        _, back, _ = run_command(library, "undo", "--format", "paths", option)
        assert sorted(back.splitlines()) == copies[1:]


def moves_until_full(patched: pytest.MonkeyPatch, files: int) -> None:
    """Let so many files be moved, and no more."""
    move, left = disk.move, files

    def moving(source: str, target: str, sha256: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target, sha256)

    patched.setattr(disk, "move", moving)


def test_a_full_disk_names_the_run_that_it_ended(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    tidy, full = library.collection().tidy, r"No space left on device\. It is as it was; "
    with pytest.MonkeyPatch.context() as patched:
        moves_until_full(patched, 0)
        with pytest.raises(VecsearchError, match=f"{full}.* stays. Make room, and retry.$"):
            applied(library, "move", tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        moves_until_full(patched, 2)
        acted = f"{full}what was done before .* retry. To undo it: vecsearch undo 2$"
        with pytest.raises(VecsearchError, match=acted):
            applied(library, "move", tmp_path)
    applied(library, "move", tmp_path)
    with pytest.MonkeyPatch.context() as patched:
        moves_until_full(patched, 1)
        undone = f"{full}what was brought back .* To bring back the rest: vecsearch undo 2$"
        with pytest.raises(VecsearchError, match=undone):
            tidy.undo(2)
    (back,) = tidy.undo(2)
    assert back.state is FileState.undone


def test_where_nothing_was_done_no_undo_is_named(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    words = ["duplicates", "--apply", "move", "--to", tmp_path / "moved", "--keep", "largest"]

    def refuse(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(disk, "move", refuse)
        code, out, err = run_command(library, *words, "--yes", "--format", "ndjson")
    assert (code, out.count('"reason": "Permission denied."')) == (1, 6)
    assert "Nothing was done.\n6 duplicates left alone; see the reasons." in err
    assert "vecsearch undo" not in err
