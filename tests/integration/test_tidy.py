"""`duplicates --apply` and `undo`: what happens to files and rows, and what must never."""

import errno
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import PixelEncoder, citus, ingest, once, run_command, scalar, write
from tidy_support import (
    applied,
    apply,
    fill,
    in_tables,
    killed_at,
    on_disk,
    undo_all,
)

from vecsearch.analysis.tidy import journal
from vecsearch.errors import DatabaseBusy, InvalidInput, VecsearchError
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.vocabulary import FileAction, FileState

pytestmark = pytest.mark.usefixtures("own_trash")
ACTIONS = list(FileAction)


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    """Three groups of an original, a copy and a small one, with compact vectors."""
    return fill(library, tmp_path / "photos", compact=True)


@citus
@pytest.mark.parametrize("action", ACTIONS)
def test_files_and_rows_are_as_before_after_undo(
    library: Library, photos: Path, tmp_path: Path, action: FileAction
) -> None:
    # What people wrote follows to the row that stays, where it has no such key.
    note = "UPDATE images SET metadata = CAST(:json AS jsonb) WHERE path = :path"
    write(library, note, json='{"a": 1, "b": 2}', path=str(photos / "copies" / "000 copy.png"))
    write(library, note, json='{"b": 3}', path=str(photos / "kept" / "000.png"))
    files, rows = on_disk(photos), in_tables(library)
    done = applied(library, action, tmp_path)
    assert {entry.state for entry in done} == {FileState.done}
    # A link may only take the place of a file of the same bytes.
    assert len(done) == (3 if action.links else 6)
    copy, kept = photos / "copies" / "001 copy.png", photos / "kept" / "001.png"
    assert kept.read_bytes() == files[str(kept)][0]
    match action:
        case FileAction.trash:
            assert len(list((tmp_path / "data" / "Trash" / "files").iterdir())) == 6
        case FileAction.move:
            assert {file.name for file in (tmp_path / "moved").iterdir()} == {
                name for number in range(3) for name in (f"00{number}.png", f"00{number} copy.png")
            }
        case FileAction.hardlink:
            assert copy.samefile(kept)
            assert not copy.is_symlink()
        case FileAction.symlink:
            assert copy.readlink() == kept
    if not action.links:
        assert not copy.exists()
        assert scalar(library, "SELECT count(*) FROM images") == 6
        merged = "SELECT metadata FROM images WHERE path LIKE '%/kept/000.png'"
        assert scalar(library, merged) == {"a": 1, "b": 3}
        assert library.repair() == []
    undone = library.collection().tidy.undo()
    assert {entry.state for entry in undone} == {FileState.undone}
    assert on_disk(photos) == files
    assert in_tables(library) == rows
    assert library.repair() == []
    # An ingest finds nothing that has changed.
    (run,) = library.collection().tidy.runs()
    assert (run.files, run.done, run.undone) == (len(done), 0, len(done))


@once
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("undoing", [False, True])
def test_killed_at_each_step_nothing_is_lost(
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: FileAction,
    undoing: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = fill(library, tmp_path / "photos", groups=1, small=False)
    files, rows = on_disk(photos), in_tables(library)
    act = partial(apply, action)
    for step in range(1, 200):
        if undoing:
            act(library)
        has_ended = killed_at(step, library.url, undo_all if undoing else act)
        contents = {file.read_bytes() for file in tmp_path.rglob("*.png*")}
        assert contents >= {content for content, _, _ in files.values()}
        undo_all(library)
        assert on_disk(photos) == files
        assert in_tables(library) == rows
        write(library, "DELETE FROM vecsearch_internal.file_actions")
        if has_ended:
            assert step > 4
            return
    pytest.fail("it never ended")


def reasons(library: Library, action: str, tmp_path: Path) -> dict[str, str]:
    to = tmp_path / "moved" if action == "move" else None
    tidy = library.collection().tidy
    plan = tidy.plan(action, keep="largest", prefer=f"{tmp_path}/photos/kept", to=to)
    return {"/".join(left.path.split("/")[-2:]): left.reason for left in plan.untouched}


@once
def test_what_has_changed_or_is_gone_is_left_alone(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    (photos / "copies" / "000 copy.png").write_bytes(b"another picture")
    (photos / "copies" / "001 copy.png").unlink()
    (photos / "kept" / "002.png").unlink()
    (photos / "small" / "000.png").unlink()
    (photos / "small" / "000.png").symlink_to(photos / "kept" / "000.png")
    found = reasons(library, "move", tmp_path)
    assert found == {
        "copies/000 copy.png": "It has changed since it was ingested.",
        "small/000.png": "It is a symbolic link.",
    }


@once
def test_what_changes_between_plan_and_action_is_left_alone(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    tidy = library.collection().tidy
    kept = str(photos / "kept")
    plan = tidy.plan("move", keep="largest", prefer=kept, to=tmp_path / "moved")
    (photos / "copies" / "000 copy.png").write_bytes(b"another picture")
    (photos / "kept" / "001.png").unlink()
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "002 copy.png").write_bytes(b"somebody's")
    left = {entry.path: entry.reason for entry in tidy.apply(plan) if entry.state == "left"}
    assert {"/".join(path.split("/")[-2:]): reason for path, reason in left.items()} == {
        "copies/000 copy.png": "It has changed since it was ingested.",
        "copies/001 copy.png": f"The image that is kept, {kept}/001.png: It is gone.",
        "small/001.png": f"The image that is kept, {kept}/001.png: It is gone.",
        "copies/002 copy.png": f"There is another file at {tmp_path}/moved/002 copy.png.",
    }
    assert (photos / "copies" / "000 copy.png").read_bytes() == b"another picture"
    assert (photos / "copies" / "001 copy.png").exists()
    assert (tmp_path / "moved" / "002 copy.png").read_bytes() == b"somebody's"


@once
def test_one_file_by_two_paths_is_no_copy_of_itself(library: Library, tmp_path: Path) -> None:
    photos = fill(library, tmp_path / "photos", groups=1)
    shutil.rmtree(photos / "copies")
    (photos / "copies").symlink_to(photos / "kept")
    (photos / "kept" / "000 copy.png").hardlink_to(photos / "kept" / "000.png")
    # `copies/000 copy.png` is `kept/000 copy.png`, a second name of the image that is kept.
    found = reasons(library, "hardlink", tmp_path)
    assert found["copies/000 copy.png"] == "It is a hard link to the one that is kept already."
    (photos / "kept" / "000 copy.png").unlink()
    (photos / "kept" / "000.png").rename(photos / "kept" / "000 copy.png")
    (photos / "kept" / "000.png").symlink_to(photos / "kept" / "000 copy.png")
    # The link is not kept, so the file that it names is.
    assert reasons(library, "trash", tmp_path) == {"kept/000.png": "It is a symbolic link."}


@once
def test_a_chain_does_not_take_what_its_other_end_does_not_show(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy = library.collection().tidy
    whole = tidy.plan("trash", keep="largest", prefer=str(photos / "kept"))
    assert len(whole.files) == 6
    # A chain has brought them together: none is like the first.
    monkeypatch.setattr("vecsearch.analysis.duplicates.confirm.Confirmer.differences", _far)
    plan = tidy.plan("trash", keep="largest", prefer=str(photos / "kept"))
    assert {file.path.split("/")[-2] for file in plan.files} <= {"copies"}
    # Of another order, the first need not be the one that is kept.
    with pytest.raises(InvalidInput, match="--order is for showing groups"):
        tidy.plan("trash", keep="largest", order="newest")


def _far(_self: object, pairs: Any) -> list[float]:
    made = list(pairs)
    # As candidates they are confirmed; compared with the first of their group they are not.
    _far.calls = getattr(_far, "calls", 0) + 1  # type: ignore[attr-defined]
    return [0.0 if _far.calls % 2 else 1.5 for _ in made]  # type: ignore[attr-defined]


@once
def test_a_full_disk_ends_the_run_and_loses_nothing(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, rows = on_disk(photos), in_tables(library)
    left = 3

    def full(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def crossing(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    copied = shutil.copyfile

    def copyfile(source: str, target: str) -> None:
        full()
        copied(source, target)

    with monkeypatch.context() as patched:
        # The folder is on another, small file system.
        patched.setattr(os, "replace", _once_crossing(crossing))
        patched.setattr(shutil, "copyfile", copyfile)
        with pytest.raises(VecsearchError, match=r"No space left on device\. It is as it was"):
            applied(library, "move", tmp_path)
    assert len(list((tmp_path / "moved").iterdir())) == 3
    assert scalar(library, "SELECT count(*) FROM images") == 9
    library.collection().tidy.undo()
    assert on_disk(photos) == files
    assert in_tables(library) == rows


def _once_crossing(crossing: Any) -> Any:
    real = os.replace

    def replace(source: str, target: str) -> None:
        # A copy that has arrived is renamed in its own folder.
        if Path(source).parent != Path(target).parent:
            crossing()
        real(source, target)

    return replace


@once
def test_undo_leaves_what_stands_in_its_way(library: Library, photos: Path, tmp_path: Path) -> None:
    applied(library, "move", tmp_path)
    taken = photos / "copies" / "000 copy.png"
    taken.write_bytes(b"a new picture of this name")
    done = library.collection().tidy.undo()
    stuck = {entry.path: entry.reason for entry in done if entry.state is FileState.done}
    assert stuck == {str(taken): f"There is another file at {taken}."}
    assert taken.read_bytes() == b"a new picture of this name"
    taken.unlink()
    (again,) = library.collection().tidy.undo()
    assert again.state is FileState.undone
    with pytest.raises(InvalidInput, match="nothing to undo"):
        library.collection().tidy.undo()


@once
def test_a_trash_that_was_emptied_is_said(
    library: Library, photos: Path, tmp_path: Path, own_trash: Path
) -> None:
    applied(library, "trash", tmp_path)
    shutil.rmtree(own_trash)
    code, out, err = run_command(library, "undo", "--yes", "--format", "ndjson")
    assert code == 1
    assert "6 files could not be brought back" in err
    assert out.count('"reason": "It is no longer in the trash, nor back at /') == 6


@once
def test_what_was_changed_where_it_was_moved_to_is_said(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    applied(library, "move", tmp_path)
    moved = tmp_path / "moved" / "000 copy.png"
    before = moved.read_bytes()
    moved.write_bytes(b"changed")
    (stuck,) = [each for each in library.collection().tidy.undo() if each.state == "done"]
    assert stuck.reason == f"It has changed since it was moved: {moved}."
    moved.write_bytes(before)
    (again,) = library.collection().tidy.undo()
    assert again.state is FileState.undone
    with pytest.raises(InvalidInput, match=r"^No run is 99\. See what was done"):
        library.collection().tidy.undo(99)


@once
@pytest.mark.parametrize("action", ["hardlink", "symlink"])
def test_an_ingest_that_met_links_is_undone_too(
    library: Library, photos: Path, tmp_path: Path, action: str
) -> None:
    files = on_disk(photos)
    when = "SELECT array_agg(modified_at ORDER BY id) FROM images"
    before = scalar(library, when)
    applied(library, action, tmp_path)
    ingest(library.engine, [photos], PixelEncoder())
    assert scalar(library, when) != before
    library.collection().tidy.undo()
    assert on_disk(photos) == files
    assert scalar(library, when) == before


@once
@pytest.mark.parametrize("inside", ["copies", "copies/more"])
def test_files_are_not_moved_to_where_an_ingest_finds_them(
    library: Library, photos: Path, inside: str
) -> None:
    with pytest.raises(InvalidInput, match="so that the next ingest would add the files again"):
        library.collection().tidy.plan("move", keep="largest", to=photos / inside)


@once
def test_two_commands_do_not_act_at_once(library: Library, photos: Path, tmp_path: Path) -> None:
    with (
        journal.claim(library.engine, "images"),
        pytest.raises(DatabaseBusy, match="Another command acts on the files"),
    ):
        applied(library, "trash", tmp_path)
    assert len(on_disk(photos)) == 12


@once
def test_the_command_shows_asks_acts_and_undoes(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    files = on_disk(photos)
    words = ["duplicates", "--apply", "move", "--to", tmp_path / "moved", "--keep", "largest"]
    words += ["--prefer", photos / "kept"]
    code, out, err = run_command(library, *words, "--dry-run", "--format", "ndjson")
    assert (code, out.count('"dry_run": true')) == (0, 6)
    code, out, err = run_command(library, *words)
    assert code == 1
    assert "This will move 6 files to " in err
    assert "and keep 3 images. That needs a yes: add --yes. Nothing was done." in err
    assert on_disk(photos) == files
    code, out, err = run_command(library, *words, "--yes", "--format", "ndjson")
    assert (code, out.count('"state": "done"')) == (0, 6)
    assert "Moved 6 files to" in err
    assert "To undo it: vecsearch undo 1" in err
    code, out, _ = run_command(library, "undo", "--list", "--format", "ndjson")
    assert '"run": 1' in out
    code, out, err = run_command(library, "undo", "--yes", "--format", "ndjson")
    assert (code, "Brought 6 files back." in err) == (0, True)
    assert on_disk(photos) == files


@once
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--apply", "trash"], "--apply needs --keep"),
        (["--apply", "move", "--keep", "oldest"], "--apply move --to FOLDER"),
        (["--apply", "trash", "--keep", "oldest", "--to", "x"], "--to is for --apply move"),
        (["--dry-run"], "are for --apply"),
        (["--prefer", "x"], "--prefer is for --keep"),
        (["--apply", "trash", "--keep", "oldest", "--order", "newest"], "--order is for showing"),
    ],
)
def test_options_that_do_not_go_together(
    library: Library, photos: Path, words: list[str], message: str
) -> None:
    code, _, err = run_command(library, "duplicates", *words)
    assert code in {1, 2}
    assert message in " ".join(err.replace("│", " ").split())


@once
def test_a_preferred_folder_is_kept(library: Library, photos: Path, tmp_path: Path) -> None:
    tidy = library.collection().tidy
    plan = tidy.plan("trash", keep="largest", prefer=str(photos / "small"))
    assert {file.kept_path.split("/")[-2] for file in plan.files} == {"small"}


@once
def test_a_collection_that_is_dropped_takes_its_journal(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    applied(library, "move", tmp_path)
    library.collection().drop()
    with database.reading(library.engine) as connection:
        assert journal.entries(connection, "images", *FileState) == []
