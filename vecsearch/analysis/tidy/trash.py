"""The system's trash: files sent there, and found there again.

On Linux as freedesktop.org's Trash specification 1.0 lays it out; on macOS by name alone.
"""

import os
import sys
from collections.abc import Iterator
from configparser import ConfigParser, Error
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from vecsearch.analysis.tidy.disk import LeftAlone, check, has_content


def send(path: str, sha256: str) -> None:
    """Move a file with this content to the trash.

    Raises:
        LeftAlone: it has changed, or its file system has no trash.

    """
    from send2trash import send2trash

    check(path, sha256)
    try:
        send2trash(path)
    except OSError as error:
        raise LeftAlone(f"It cannot go to the trash: {error.strerror or error}.") from error


def find(path: str, sha256: str) -> str | None:
    """Return where in the trash the file is that was at `path` and has this content, if it is."""
    for found in _named(path):
        if has_content(str(found), sha256):
            return str(found)
    return None


def forget(trashed: str) -> None:
    """Remove what the trash notes of a file that has left it."""
    with suppress(OSError):
        _info(Path(trashed)).unlink()


def _named(path: str) -> Iterator[Path]:
    """Yield files in the trash that were at this path, the last ones first."""
    if sys.platform == "darwin":
        name = Path(path)
        yield from sorted((Path.home() / ".Trash").glob(f"{name.stem}*{name.suffix}"))
        return
    for trash, top in _folders(path):
        with suppress(OSError):
            infos = sorted((trash / "info").iterdir(), key=_changed, reverse=True)
            for info in infos:
                if info.suffix == ".trashinfo" and _origin(info, top) == path:
                    yield trash / "files" / info.name.removesuffix(".trashinfo")


def _folders(path: str) -> Iterator[tuple[Path, Path]]:
    """Yield the trashes that a file may be in, and the folders that their paths are relative to."""
    home = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    yield home / "Trash", home
    # Below a folder that is a link, a file is on the drive that the link leads to.
    folder = Path(os.path.realpath(Path(path).parent))
    while not os.path.ismount(folder):
        folder = folder.parent
    yield folder / ".Trash" / str(os.getuid()), folder
    yield folder / f".Trash-{os.getuid()}", folder


def _origin(info: Path, top: Path) -> str | None:
    read = ConfigParser(interpolation=None)
    try:
        read.read_string(info.read_text(errors="surrogateescape"))
        noted = unquote(read["Trash Info"]["Path"], errors="surrogateescape")
        # It leads out of `top` where a folder of the path is a link.
        return os.path.normpath(top / noted)
    except (OSError, Error, KeyError):
        return None


def _info(trashed: Path) -> Path:
    return trashed.parent.parent / "info" / f"{trashed.name}.trashinfo"


def _changed(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return 0
