"""Find image files: walk folders, and list what is behind URLs and in containers."""

import os
import stat
import threading
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vecsearch.errors import InvalidInput, first_line
from vecsearch.imaging import stalls
from vecsearch.imaging.formats import RAW
from vecsearch.imaging.skipping import Skip, is_entered, skipped_as
from vecsearch.imaging.sources import containers, remote

GIVEN_UP = "Not tried, because its file system has stopped answering."
# Files that the walking thread hands over at once.
_PART = 500
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


class Unanswered(Unreadable):
    """One whose file system made no progress for `vecsearch.imaging.stalls.STALL_S` seconds."""

    @classmethod
    def at(cls, path: str) -> Self:
        """Return it for a path."""
        return cls(path, f"It did not answer within {stalls.STALL_S:.0f} s.")


class Walk:
    """The image files under some paths; iterate once, then read `unreadable` and `skipped`.

    Folders are walked in order of name. Links to folders are followed last, and no folder is
    entered twice, so links cannot loop. Hidden files and folders, and other systems' junk folders,
    are skipped unless they are roots. A root that is a file is used with any suffix. A folder whose
    file system stalls is unreadable, and so are all folders of one that stalls too often.

    Attributes:
        named: the paths to walk, as they were given.
        roots: the same paths, absolute.
        unreadable: folders that could not be listed and files that could not be examined.
        skipped: number of files skipped, by why.
        devices: where the files are, and what has stalled.

    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.named = [*paths]
        self.roots = [absolute(path) for path in self.named]
        self.unreadable: list[Unreadable] = []
        self.skipped: Counter[Skip] = Counter()
        self.devices = stalls.Devices()
        self._folders = [root for root in self.roots if not remote.is_url(root)]
        there = stalls.answers(self._folders, os.path.exists, unanswered=True)
        for root, exists in zip(self._folders, there, strict=True):
            if not exists:
                raise InvalidInput(f"{shown(root)} does not exist. Check the path.")
            if storable(root) is None:
                raise InvalidInput(f"The name {shown(root)} is not valid UTF-8. Rename it.")
        self._urls = remote.examine(filter(remote.is_url, self.roots))
        _require_readable(self._folders, self._urls)

    def __iter__(self) -> Iterator[File]:
        yield from self._walk_folders()
        for root, info in self._urls.items():
            yield from self._walk_url(root, info)

    def _walk_url(self, root: str, info: remote.Info) -> Iterator[File]:
        def left(url: str, reason: str) -> None:
            self.unreadable.append(Unreadable(shown(url), reason))

        for file in remote.walk(root, info, enters=is_entered, left=left):
            if file.url != root and (skip := skipped_as(file.url)) is not None:
                self.skipped[skip] += 1
            else:
                yield File(file.url, _relative(file.url, root), file.size, file.modified_at)

    def _walk_folders(self) -> Iterator[File]:
        roots = deque((root, root) for root in self._folders)
        walker = _Walker(roots, deque(), set(), self.devices)
        with stalls.Watch() as watch:
            while not walker.is_done:
                try:
                    watch.run(walker)
                except stalls.Stalled:
                    found = [*walker.found]
                    walker = walker.left()
                else:
                    found = walker.found
                yield from found
            self.unreadable += walker.unreadable
            self.skipped += walker.skipped


class _Walker:
    """A walk in a thread, a part of the files at a time; one that stalls is left behind.

    Args:
        folders: paths to walk, each with its root.
        links: links to folders, which come last, likewise.
        entered: device and inode of each folder that has been entered.
        devices: see `Walk`.

    Attributes:
        found: the files of this part.
        unreadable: see `Walk`.
        skipped: see `Walk`.
        is_done: whether this part is the last one.

    """

    def __init__(
        self,
        folders: deque[tuple[str, str]],
        links: deque[tuple[str, str]],
        entered: set[tuple[int, int]],
        devices: stalls.Devices,
    ) -> None:
        self.found: list[File] = []
        self.unreadable: list[Unreadable] = []
        self.skipped: Counter[Skip] = Counter()
        self.is_done = False
        self._folders = folders
        self._links = links
        self._entered = entered
        self._devices = devices
        self._lock = threading.Lock()
        self._is_left = False
        self._folder = _Folder("", "", devices)
        self._files = self._walk()

    @property
    def steps(self) -> Hashable:
        return self._folder.path, len(self._folder.entries), self._folder.entry, len(self.found)

    def run(self) -> None:
        self.found = found = []
        for file in self._files:
            found.append(file)
            if len(found) == _PART:
                return
        self.is_done = True

    def left(self) -> "_Walker":
        """Return the walk of what comes after the folder that stalls."""
        # Should the call return after all, then this walk ends at the next folder.
        with self._lock:
            self._is_left = True
        folder = self._folder
        after = _Walker(self._folders, self._links, self._entered.copy(), self._devices)
        after.skipped = self.skipped.copy()
        reason = Unanswered.at(folder.path).reason
        after.unreadable = [*self.unreadable, Unreadable(shown(folder.path), reason)]
        # A link may lead to any device.
        links = [] if folder.entry is None else [folder.entry.path]
        if not any(stalls.answers(links, os.path.islink, unanswered=False)):
            self._devices.stalled(folder.parent if folder.device is None else folder.device)
        return after

    def _next(self) -> bool:
        """Turn to the next folder; return whether there is one."""
        with self._lock:
            if self._is_left:
                return False
            done = self._folder
            self.unreadable += done.unreadable
            self.skipped += done.skipped
            self._links += done.links
            self._folders.extendleft(reversed(done.below))
            if not self._folders and not self._links:
                return False
            self._folder = _Folder(*(self._folders or self._links).popleft(), self._devices)
            return True

    def _walk(self) -> Iterator[File]:
        while self._next():
            folder = self._folder
            try:
                info = self._entered_now(folder)
            except OSError as error:
                folder.leave(folder.path, sentence(error))
                continue
            if info is not None and (file := folder.file(folder.path, info)) is not None:
                yield file
            for entry in folder.entries:
                folder.entry = entry
                try:
                    if entry.is_dir():
                        place = folder.links if entry.is_symlink() else folder.below
                        place.append((entry.path, folder.root))
                    elif (skip := skipped_as(entry.name)) is not None:
                        folder.skipped[skip] += 1
                    elif (file := folder.file(entry.path, entry.stat())) is not None:
                        yield file
                except OSError as error:
                    dangling = entry.is_symlink() and isinstance(error, FileNotFoundError)
                    reason = "It is a broken link." if dangling else sentence(error)
                    folder.leave(entry.path, reason)

    def _entered_now(self, folder: "_Folder") -> os.stat_result | None:
        """List a folder, unless it has been entered or is given up; of a file, return its facts."""
        if self._devices.is_given_up(folder.parent):
            folder.leave(folder.path, GIVEN_UP)
            return None
        info = os.stat(folder.path)  # noqa: PTH116 - strings throughout
        if not stat.S_ISDIR(info.st_mode):
            return info
        known = (info.st_dev, info.st_ino)
        if known in self._entered:
            return None
        folder.device = info.st_dev
        if self._devices.is_given_up(folder.device):
            folder.leave(folder.path, GIVEN_UP)
            return None
        self._entered.add(known)
        self._devices.met(folder.path, info.st_dev)
        entries = folder.entries
        with os.scandir(folder.path) as listing:
            for entry in listing:
                # Not all at once: each is a step.
                if is_entered(entry.name):
                    entries.append(entry)
        entries.sort(key=lambda entry: entry.name)
        return None


class _Folder:
    """A folder, or a root that is a file, and what has been found in it.

    Attributes:
        device: its device, once that is known.
        entries: what it lists.
        entry: the one that is being examined.
        below, links: folders in it, and links to some, each with its root.
        unreadable: files in it that cannot be examined, or itself.
        skipped: see `Walk`.

    """

    def __init__(self, path: str, root: str, devices: stalls.Devices) -> None:
        self.path = path
        self.root = root
        self.devices = devices
        self.device: int | None = None
        self.entries: list[os.DirEntry[str]] = []
        self.entry: os.DirEntry[str] | None = None
        self.below: list[tuple[str, str]] = []
        self.links: list[tuple[str, str]] = []
        self.unreadable: list[Unreadable] = []
        self.skipped: Counter[Skip] = Counter()

    @property
    def parent(self) -> str | None:
        """The folder that lists it; None for a root."""
        return None if self.path == self.root else os.path.dirname(self.path)  # noqa: PTH120

    def leave(self, path: str, reason: str) -> None:
        self.unreadable.append(Unreadable(shown(path), reason))

    def file(self, path: str, info: os.stat_result) -> File | None:
        if not stat.S_ISREG(info.st_mode):
            self.leave(path, "It is not a regular file.")
            return None
        if info.st_dev != self.device:
            self.devices.met(path, info.st_dev)
        if storable(path) is None:
            self.leave(path, "Its name is not valid UTF-8; rename it.")
            return None
        return File(path, _relative(path, self.root), info.st_size, _modified_at(info))


def absolute(path: str | Path) -> str:
    """Return a path as it is stored: a URL, or an absolute path, whose links are not resolved.

    Raises:
        InvalidInput: see `vecsearch.imaging.sources.remote.normalised`.

    """
    named = os.fspath(path)
    if named.startswith("file://"):
        named = url2pathname(urlsplit(named).path)
    if remote.is_url(named):
        return remote.normalised(named)
    if (kind := containers.at(named)) is not None:
        return kind.location(named)
    return os.path.abspath(named)  # noqa: PTH100 - strings throughout


def _require_readable(paths: Sequence[str], urls: Mapping[str, remote.Info]) -> None:
    """Check that what it takes to read the files that were named is installed.

    Raises:
        InvalidInput: it is not.

    """
    files = [url for url, info in urls.items() if info["type"] == "file"]
    raws = [path for path in paths if skipped_as(path) is Skip.raw]
    are_folders = stalls.answers(raws, os.path.isdir, unanswered=True)
    files += [path for path, is_folder in zip(raws, are_folders, strict=True) if not is_folder]
    for path in files:
        if skipped_as(path) is Skip.raw:
            raise InvalidInput(f"{shown(path)} cannot be read. {RAW.needs}")


def _relative(path: str, root: str) -> str:
    return path[len(root) :].lstrip(os.sep) or os.path.basename(path)  # noqa: PTH119 - likewise


def find(path: str) -> File | None:
    """Return the file at `path`; None if there is none, or it cannot be examined."""
    if remote.is_url(path):
        found = remote.find(path)
        if found is None:
            return None
        return File(path, _relative(path, path), found.size, found.modified_at)
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


def _modified_at(info: os.stat_result) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=info.st_mtime_ns // 1000)
    except OverflowError:
        return _EPOCH  # beyond the year 9999, from a broken clock


def sentence(text: object) -> str:
    """Return the first line of a text or an error, with a full stop at its end."""
    return f"{first_line(text)}."
