"""Files that hold pictures and are entered when they are named: zip archives and videos.

The location of a picture in one is SCHEME:///folder/file/name: below its file, as in a folder, so
that a run's scope is a prefix here, too.
"""

import os
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vecsearch.imaging import stalls
from vecsearch.imaging.sources.archives import Archive
from vecsearch.imaging.sources.videos import SUFFIXES, Video

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Container:
    """A kind of files that hold pictures.

    Attributes:
        noun: what users call one.
        scheme: of the locations of what is in them.
        suffixes: of their names, in small letters.
        open: opens the file at a path, to be read as an fsspec file system.
        format: of all that is in them; None if there are files of several formats, told by suffix.

    """

    noun: str
    scheme: str
    suffixes: tuple[str, ...]
    open: "Callable[[str], Archive | Video]"
    format: str | None = None

    def location(self, path: str) -> str:
        """Return the location of such a file, or of what is in one, by a path."""
        return f"{self.scheme}://{os.path.abspath(path)}"  # noqa: PTH100 - strings, as elsewhere

    def split(self, url: str) -> tuple[str, str] | None:
        """Return the path of the file, and the name inside; None if the URL names no such file."""
        # The first name that ends so is the file's, so that a location alone tells what is inside;
        # where nothing inside is a folder, the last one is, as folders may be named so, too.
        suffixes = "|".join(map(re.escape, self.suffixes))
        above = ".*?" if self.format is None else ".*"
        found = re.fullmatch(
            rf"{self.scheme}://({above}(?:{suffixes}))(?:/(.*))?", url, re.DOTALL | re.IGNORECASE
        )
        return None if found is None else (found[1], found[2] or "")


KINDS = (
    Container("zip archive", "zip", (".zip",), Archive),
    Container("video", "video", SUFFIXES, Video, format="VIDEO"),
)


def at(path: str) -> Container | None:
    """Return what a path of this machine is that of, by its name; the file need not exist."""
    lower = path.lower()
    kind = next((kind for kind in KINDS if lower.endswith(kind.suffixes)), None)
    if kind is None or stalls.answers([path], os.path.isdir, unanswered=False)[0]:
        return None
    return kind


def of(url: str) -> Container | None:
    """Return what a URL leads into; None if it is another URL, or a path."""
    scheme, colon, _ = url.partition("://")
    return next((kind for kind in KINDS if colon and kind.scheme == scheme.lower()), None)


def opened(url: str) -> "tuple[Archive | Video, str] | None":
    """Return the container of a location, and the name inside; None if it is another URL.

    Raises:
        OSError: it cannot be opened, or is none.
        InvalidInput: a package is missing.

    """
    kind = of(url)
    if kind is None:
        return None
    found = kind.split(url)
    if found is None:
        raise OSError(f"It names no file that ends in {', '.join(kind.suffixes)}")
    path, name = found
    info = os.stat(path)  # noqa: PTH116 - strings, as elsewhere
    if not stat.S_ISREG(info.st_mode):
        raise OSError("It is not a regular file")
    return _open(kind, path, (info.st_ino, info.st_size, info.st_mtime_ns)), name


# Opened once for all its pictures, as long as it is the same file.
@lru_cache(maxsize=8)
def _open(kind: Container, path: str, _state: tuple[int, ...]) -> "Archive | Video":
    return kind.open(path)
