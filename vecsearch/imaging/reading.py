"""Read and hash files from outside: never more than they say they have, and no pipe."""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from vecsearch.imaging.scan import Unreadable, sentence

# Larger files are not read; beyond this, the limit grows with that of the pixels.
MOST_BYTES, BYTES_PER_PIXEL = 512_000_000, 4
CHANGED = "It changed while it was being read; ingest it again."
# Of a slow share, a piece arrives long before its file is given up.
_PIECE = 1 << 17


@dataclass(frozen=True)
class Source:
    """A file that was read: its SHA-256 in hex, and its bytes, if they were few enough to keep."""

    path: str
    sha256: str
    content: bytes | bytearray | None = None


def most_bytes(max_pixels: int) -> int:
    """Return the size of the largest file that is read."""
    return max(MOST_BYTES, BYTES_PER_PIXEL * max_pixels)


def hashed(
    path: str, *, keep: int, most: int, on_piece: Callable[[], None] = lambda: None
) -> Source | Unreadable:
    """Read and hash the file at `path` in bounded memory.

    Args:
        path: the file.
        keep: its bytes are kept if they are so few.
        most: a larger file is unreadable.
        on_piece: called after each piece.

    """
    opened = _open(path, most)
    if isinstance(opened, Unreadable):
        return opened
    file, size = opened
    try:
        with file:
            kept = bytearray() if size <= keep else None
            left, digest = size, hashlib.sha256()
            while left and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                digest.update(piece)
                if kept is not None:
                    kept += piece
                on_piece()
            if left or (size and file.read(1)):
                return Unreadable(path, CHANGED)
    except OSError as error:
        return Unreadable(path, sentence(error))
    return Source(path, digest.hexdigest(), kept)


def read(
    path: str, *, most: int, on_piece: Callable[[], None] = lambda: None
) -> bytes | Unreadable:
    """Return the bytes of the file at `path`; see `hashed`."""
    found = hashed(path, keep=most, most=most, on_piece=on_piece)
    return found if isinstance(found, Unreadable) else bytes(found.content or b"")


def too_large(size: int, most: int) -> str:
    """Return why a file of so many bytes is not read."""
    return (
        f"It has {size / 1e6:,.0f} MB; the limit is {most / 1e6:,.0f} MB, "
        "and grows with --max-pixels."
    )


def bytes_sha256(content: bytes | bytearray) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def _open(path: str, most: int) -> tuple[IO[bytes], int] | Unreadable:
    """Return a regular file, opened, and its size."""
    try:
        # What was a file when it was found may be a pipe now, whose writer never comes.
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes
    except OSError as error:
        return Unreadable(path, sentence(error))
    info = os.fstat(file.fileno())
    reason = None
    if not stat.S_ISREG(info.st_mode):
        reason = "It is not a regular file."
    elif info.st_size > most:
        reason = too_large(info.st_size, most)
    if reason is None:
        return file, info.st_size
    file.close()
    return Unreadable(path, reason)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
