"""What `undo` brings back, wherever it was and whatever has changed meanwhile."""

import errno
import os
from pathlib import Path

import pytest
from support import check_vectors, once, scalar, versions
from tidy_support import applied, fill, in_tables, on_disk, use_trash_of

from vecsearch.library import Library
from vecsearch.search.query import Query
from vecsearch.vocabulary import FileState

pytestmark = once


def test_rows_come_back_to_an_index_that_was_built_meanwhile(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_trash_of(tmp_path / "data", monkeypatch)
    fill(library, tmp_path / "photos", compact=True)
    ids = "SELECT array_agg(id ORDER BY id) FROM images"
    before = scalar(library, ids)
    done = applied(library, "trash", tmp_path)
    library.collection().set_ranking("compact", dims=6)
    library.collection().tidy.undo()
    assert scalar(library, ids) == before
    copy = done[0]
    nearest = library.collection().ask(Query(id=copy.kept, k=3)).hits
    assert copy.id in {hit.id for hit in nearest}
    (version,) = versions(library)
    check_vectors(library.engine, version)


def test_a_file_behind_a_link_to_another_drive_comes_back(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import send2trash.plat_other as freedesktop

    use_trash_of(tmp_path / "data", monkeypatch)
    drive, is_mount = tmp_path / "drive", os.path.ismount
    (drive / "album").mkdir(parents=True)
    (tmp_path / "photos").symlink_to(drive / "album")
    photos = fill(library, tmp_path / "photos", groups=1)
    files, rows = on_disk(photos), in_tables(library)
    with monkeypatch.context() as patched:
        patched.setattr(
            os.path, "ismount", lambda path: os.fsdecode(path) == str(drive) or is_mount(path)
        )
        patched.setattr(
            freedesktop, "get_dev", lambda path: os.path.realpath(path).startswith(bytes(drive))
        )
        applied(library, "trash", tmp_path)
        trash = drive / f".Trash-{os.getuid()}"
        assert len(list((trash / "files").iterdir())) == 2
        done = library.collection().tidy.undo()
    assert {entry.state for entry in done} == {FileState.undone}
    assert on_disk(photos) == files
    assert in_tables(library) == rows
    assert list((trash / "info").iterdir()) == []


def test_a_file_that_cannot_leave_its_drive_has_no_copy_on_another(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill(library, tmp_path / "photos", groups=1, small=False)
    files, rows = on_disk(photos), in_tables(library)
    replace, unlink = os.replace, os.unlink

    def crossing(source: str, target: str) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    def refuse(path: str | Path) -> None:
        if Path(path).is_relative_to(photos):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", crossing)
        patched.setattr(os, "unlink", refuse)
        (left,) = applied(library, "move", tmp_path)
    assert (left.state, left.reason) == (FileState.left, "Permission denied.")
    assert list((tmp_path / "moved").iterdir()) == []
    assert on_disk(photos) == files
    assert in_tables(library) == rows


def test_a_folder_that_cannot_be_synced_does_not_hide_what_was_done(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = fill(library, tmp_path / "photos", groups=1, small=False)
    files = on_disk(photos)

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    (moved,) = applied(library, "move", tmp_path)
    assert (moved.state, moved.reason) == (FileState.done, None)
    (back,) = library.collection().tidy.undo()
    assert back.state is FileState.undone
    assert on_disk(photos) == files
