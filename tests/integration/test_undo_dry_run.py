"""`undo --dry-run` shows what undo would do, and leaves files, rows and the journal as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import once, run_command
from tidy_support import applied, fill, in_tables

from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.vocabulary import FileAction, FileState

pytestmark = [once, pytest.mark.usefixtures("own_trash")]


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    return fill(library, tmp_path / "photos")


def everything(library: Library, folder: Path) -> Any:
    files = [
        (str(file), file.is_symlink(), file.lstat().st_mtime_ns, file.lstat().st_ino)
        for file in sorted(folder.rglob("*"))
        if not file.is_dir()
    ]
    return files, in_tables(library), library.collection().tidy.runs()


@pytest.mark.parametrize("action", list(FileAction))
def test_it_shows_what_undo_then_brings_back_and_does_nothing(
    library: Library, photos: Path, tmp_path: Path, action: FileAction
) -> None:
    applied(library, action, tmp_path)
    before = everything(library, tmp_path)
    code, out, err = run_command(library, "undo", "--dry-run", "--format", "ndjson")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, len(rows)) == (0, 3 if action.links else 6)
    assert f"Would bring {len(rows)} files back." in err
    assert {(row["dry_run"], row["state"], row["reason"]) for row in rows} == {(True, "done", None)}
    assert everything(library, tmp_path) == before
    done = library.collection().tidy.undo()
    assert [row["path"] for row in rows] == [entry.path for entry in done]
    with pytest.raises(InvalidInput, match="nothing to undo"):
        library.collection().tidy.undoable(1)


@pytest.mark.parametrize("action", list(FileAction))
def test_the_reasons_why_not_are_those_of_undo(
    library: Library, photos: Path, tmp_path: Path, action: FileAction, own_trash: Path
) -> None:
    applied(library, action, tmp_path)
    in_the_way, brought_back, lost = (
        photos / "copies" / f"00{number} copy.png" for number in range(3)
    )
    for file in (in_the_way, brought_back, lost):
        file.unlink(missing_ok=True)
    in_the_way.write_bytes(b"another picture")
    shutil.copy(photos / "kept" / "001.png", brought_back)
    for place in (own_trash / "files", tmp_path / "moved"):
        for file in (brought_back, lost):
            (place / file.name).unlink(missing_ok=True)
    before = everything(library, tmp_path)
    shown = {entry.path: entry.reason for entry in library.collection().tidy.undoable()}
    assert everything(library, tmp_path) == before
    done = library.collection().tidy.undo()
    assert shown == {
        entry.path: entry.reason if entry.state is FileState.done else None for entry in done
    }
    assert {Path(path) for path, reason in shown.items() if reason} == {in_the_way, lost}
