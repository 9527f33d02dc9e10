"""Pictures with duplicates, what is on disk and in the tables, and commands killed at each step."""

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support import PixelEncoder, ingest, picture

from vecsearch.analysis.tidy import journal
from vecsearch.analysis.tidy.journal import Entry
from vecsearch.config import Settings
from vecsearch.errors import DatabaseBusy, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database, schema
from vecsearch.vocabulary import FileAction, FileState

KILLED = 9
# Calls of the system that an action makes, before and after each of which it may be killed.
CALLS = ("rename", "replace", "link", "symlink", "unlink", "utime")
# Its steps in the database.
STEPS = ("begin", "mark", "take_row", "return_row")


def use_trash_of(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send files to the trash in a folder that is as well the user's data."""
    # The package reads it when it is imported.
    import send2trash.plat_other as freedesktop

    monkeypatch.setenv("XDG_DATA_HOME", str(data))
    monkeypatch.setattr(freedesktop, "XDG_DATA_HOME", os.fsencode(data))
    monkeypatch.setattr(freedesktop, "HOMETRASH_B", os.fsencode(data / "Trash"))
    monkeypatch.setattr(freedesktop, "get_dev", lambda _: 0)


def fill(
    library: Library,
    folder: Path,
    groups: int = 3,
    *,
    small: bool = True,
    compact: bool = False,
) -> Path:
    """Ingest groups: a picture, a copy of its file and, if asked, a small one; and as many others.

    Those in `kept` are the largest and the oldest, and share what their metadata say.
    """
    for number in range(groups):
        original = folder / "kept" / f"{number:03}.png"
        original.parent.mkdir(parents=True, exist_ok=True)
        picture(number, (128, 96)).save(original)
        copy = folder / "copies" / f"{number:03} copy.png"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(original, copy)
        copy.chmod(0o640)
        less = folder / "small" / f"{number:03}.png"
        if small:
            less.parent.mkdir(exist_ok=True)
            picture(number).save(less)
        other = folder / "others" / f"{number:03}.png"
        other.parent.mkdir(exist_ok=True)
        picture(1_000 + number).save(other)
        made = (original, copy, *([less] if small else []), other)
        for age, file in enumerate(made, start=1):
            os.utime(file, (1_700_000_000 + age, 1_700_000_000 + age))
    ingest(library.engine, [folder], PixelEncoder())
    if compact:
        library.collection().create_index("compact", dims=8)
    return folder


def on_disk(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return each file's content, modification time and mode; all are regular files."""
    found = {}
    for file in sorted(folder.rglob("*")):
        assert not file.is_symlink()
        if file.is_file():
            info = file.stat()
            assert info.st_nlink == 1
            found[str(file)] = (file.read_bytes(), info.st_mtime_ns, info.st_mode)
    return found


def in_tables(library: Library, name: str = "images") -> dict[str, list[Any]]:
    """Return the rows of a collection, of its compact vectors and tags, and the thumbnails."""
    with database.reading(library.engine) as connection:
        compacts = catalog.compact_versions(connection, name)
        tables = [f"vecsearch.{name}", "vecsearch_internal.tags", "vecsearch_internal.thumbnails"]
        tables += [schema.sql_name(each.table) for each in compacts]
        return {
            table: sorted(
                connection.scalars(sa.text(f"SELECT CAST(t AS text) FROM {table} AS t")).all()
            )
            for table in tables
        }


def killed_at(step: int, url: str, act: Callable[[Library], object]) -> bool:
    """Run something in another process, which dies at a step; return whether it had ended before.

    Args:
        step: from 1.
        url: of the library's database.
        act: a function that can be imported.

    """
    context = multiprocessing.get_context("forkserver")
    # Python 3.11 has no path of ours in the server that forks, and says nothing of what it lacks.
    context.set_forkserver_preload(["pytest", "vecsearch.cli", "vecsearch.library"])
    # The server that forks has the environment of the test that started it.
    child = context.Process(target=_run, args=(step, url, act, dict(os.environ)))
    child.start()
    child.join()
    assert child.exitcode in {0, KILLED}
    return child.exitcode == 0


def _run(
    step: int, url: str, act: Callable[[Library], object], environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    left = step

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            for now in (False, True):
                left -= 1
                if not left:
                    os._exit(KILLED)
                if not now:
                    result = call(*arguments, **options)
            return result

        return made

    settings = Settings.load(database_url=url, data_dir=Path.cwd() / "unused")
    with Library.open(settings) as library:
        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        for name in STEPS:
            setattr(journal, name, dying(getattr(journal, name)))
        act(library)


def apply(action: FileAction, library: Library) -> None:
    """Act on the duplicates of `photos` in the current folder, and keep those in `photos/kept`."""
    tidy = library.collection().tidy
    to = "moved" if action is FileAction.move else None
    tidy.apply(tidy.plan(action, keep="largest", prefer="photos/kept", to=to))


def applied(library: Library, action: str, tmp_path: Path) -> list[Entry]:
    """Act on the duplicates in `photos`, keep those in its folder `kept`; return the journal."""
    tidy = library.collection().tidy
    to = tmp_path / "moved" if action == "move" else None
    return tidy.apply(tidy.plan(action, keep="largest", prefer=f"{tmp_path}/photos/kept", to=to))


def undo_all(library: Library) -> None:
    """Undo every run that has something to undo."""
    while True:
        try:
            done = library.collection().tidy.undo()
            assert any(entry.state is FileState.undone for entry in done), done
        except InvalidInput:
            return
        except DatabaseBusy:
            # The server has not noticed yet that a killed command is gone.
            threading.Event().wait(0.02)
