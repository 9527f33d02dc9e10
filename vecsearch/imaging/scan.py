"""Find image files: walk folders without opening any file."""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vecsearch.errors import InvalidInput, first_line
from vecsearch.imaging.formats import SUFFIXES

JUNK_FOLDERS = frozenset(
    {"@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "System Volume Information"}
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class File:
    """A file that looks like an image, not opened yet.

    Attributes:
        path: absolute path; symbolic links are not resolved.
        relative: the path relative to the root under which it was found.
        file_size: bytes.
        modified_at: modification time in microseconds, the precision of the database.

    """

    path: str
    relative: str
    file_size: int
    modified_at: datetime

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return os.path.basename(self.path)  # noqa: PTH119 - as strings: this runs per file

    @property
    def label(self) -> str:
        """The name of the folder the file is in."""
        return label(self.path)


@dataclass(frozen=True)
class Unreadable:
    """A file or folder that cannot be read, with the reason as a sentence for users."""

    path: str
    reason: str


class Walk:
    """The image files under some paths; iterate once, then read `unreadable` and `skipped`.

    Folders are walked in order of name. Links to folders are followed last, and no folder is
    entered twice, so links cannot loop. Hidden files and folders, and other systems' junk folders,
    are skipped unless they are roots. A root that is a file is used with any suffix.

    Attributes:
        roots: the absolute paths to walk.
        unreadable: folders that could not be listed and files that could not be examined.
        skipped: number of files skipped because they have no image suffix.

    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.roots = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - resolves no links
        self.unreadable: list[Unreadable] = []
        self.skipped = 0
        for root in self.roots:
            if not os.path.exists(root):  # noqa: PTH110 - strings throughout
                raise InvalidInput(f"{shown(root)} does not exist. Check the path.")
            if storable(root) is None:
                raise InvalidInput(f"The name {shown(root)} is not valid UTF-8. Rename it.")

    def __iter__(self) -> Iterator[File]:
        entered: set[tuple[int, int]] = set()
        folders = deque((root, root) for root in self.roots)
        links: deque[tuple[str, str]] = deque()
        while folders or links:
            path, root = (folders or links).popleft()
            try:
                info = os.stat(path)  # noqa: PTH116 - strings throughout
                if not stat.S_ISDIR(info.st_mode):
                    yield from self._file(path, root, info)
                    continue
                if (info.st_dev, info.st_ino) in entered:
                    continue
                entered.add((info.st_dev, info.st_ino))
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self._leave(path, os_reason(error))
                continue
            below: list[tuple[str, str]] = []
            for entry in entries:
                if entry.name.startswith(".") or entry.name in JUNK_FOLDERS:
                    continue
                try:
                    if entry.is_dir():
                        (links if entry.is_symlink() else below).append((entry.path, root))
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                        yield from self._file(entry.path, root, entry.stat())
                    else:
                        self.skipped += 1
                except OSError as error:
                    dangling = entry.is_symlink() and isinstance(error, FileNotFoundError)
                    reason = "It is a broken link." if dangling else os_reason(error)
                    self._leave(entry.path, reason)
            folders.extendleft(reversed(below))

    def _leave(self, path: str, reason: str) -> None:
        self.unreadable.append(Unreadable(shown(path), reason))

    def _file(self, path: str, root: str, info: os.stat_result) -> Iterator[File]:
        if not stat.S_ISREG(info.st_mode):
            self._leave(path, "It is not a regular file.")
            return
        if storable(path) is None:
            self._leave(path, "Its name is not valid UTF-8; rename it.")
            return
        relative = path[len(root) :].lstrip(os.sep) or os.path.basename(path)  # noqa: PTH119
        yield File(path, relative, info.st_size, _modified_at(info))


def find(path: str) -> File | None:
    """Return the file at `path`; None if there is none, or it cannot be examined."""
    try:
        info = os.stat(path)  # noqa: PTH116 - strings throughout
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    return File(path, os.path.basename(path), info.st_size, _modified_at(info))  # noqa: PTH119


def label(path: str) -> str:
    """Return the name of the folder that a file is in."""
    return os.path.basename(os.path.dirname(path))  # noqa: PTH119, PTH120 - strings: runs per file


def storable(path: str) -> str | None:
    """Return the path if the database can store it; None if it is not valid UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return None
    return path


def shown(path: str) -> str:
    """Return the path in a form that can be printed and stored: invalid UTF-8 is escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def is_gone(path: str) -> bool:
    """Return whether nothing exists at `path`; one that cannot be examined counts as existing."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _modified_at(info: os.stat_result) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=info.st_mtime_ns // 1000)
    except OverflowError:
        return _EPOCH  # beyond the year 9999, from a broken clock


def os_reason(error: OSError) -> str:
    """Return the system's reason for an error, as a sentence."""
    return sentence(error.strerror or error)


def sentence(text: object) -> str:
    """Return the first line of a text or an error, with a full stop at its end."""
    return f"{first_line(text)}."
