"""Read and hash files from outside: never more than they say they have, and no pipe."""

import hashlib
import os
import stat
from dataclasses import dataclass

from vecsearch.imaging.scan import Unreadable, os_reason

# Larger files are not read; beyond this, the limit grows with that of the pixels.
MOST_BYTES, BYTES_PER_PIXEL = 512_000_000, 4
CHANGED = "It changed while it was being read; ingest it again."
_PIECE = 1 << 20


@dataclass(frozen=True)
class Source:
    """A file that was read: its SHA-256 in hex, and its bytes, if they were few enough to keep."""

    path: str
    sha256: str
    content: bytes | bytearray | None = None


def most_bytes(max_pixels: int) -> int:
    """Return the size of the largest file that is read."""
    return max(MOST_BYTES, BYTES_PER_PIXEL * max_pixels)


def hashed(path: str, *, keep: int, most: int) -> Source | Unreadable:
    """Read and hash the file at `path` in bounded memory; keep its bytes if they are so few."""
    opened = _open(path, most)
    if isinstance(opened, Unreadable):
        return opened
    descriptor, size = opened
    digest, kept = hashlib.sha256(), bytearray()
    left = size
    try:
        while left:
            piece = os.read(descriptor, min(left, _PIECE))
            if not piece:
                return Unreadable(path, CHANGED)
            left -= len(piece)
            digest.update(piece)
            if size <= keep:
                kept += piece
        if size and os.read(descriptor, 1):
            return Unreadable(path, CHANGED)
    except OSError as error:
        return Unreadable(path, os_reason(error))
    finally:
        os.close(descriptor)
    return Source(path, digest.hexdigest(), bytes(kept) if size <= keep else None)


def read(path: str, *, most: int) -> bytes | Unreadable:
    """Return the bytes of the file at `path`."""
    found = hashed(path, keep=most, most=most)
    if isinstance(found, Unreadable):
        return found
    return bytes(found.content or b"")


def content(source: Source, *, most: int) -> bytes | bytearray | Unreadable:
    """Return a file's bytes, read again unless they were kept; they must be as they were."""
    if source.content is not None:
        return source.content
    again = hashed(source.path, keep=most, most=most)
    if isinstance(again, Unreadable):
        return again
    if again.sha256 != source.sha256 or again.content is None:
        return Unreadable(source.path, CHANGED)
    return again.content


def bytes_sha256(content: bytes | bytearray) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def _open(path: str, most: int) -> tuple[int, int] | Unreadable:
    """Return a descriptor of a regular file and its size."""
    descriptor = None
    try:
        # What was a file when it was found may be a pipe now, whose writer never comes.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
        info = os.fstat(descriptor)
    except (OSError, ValueError) as error:
        if descriptor is not None:
            os.close(descriptor)
        return Unreadable(path, os_reason(error) if isinstance(error, OSError) else f"{error}.")
    reason = None
    if not stat.S_ISREG(info.st_mode):
        reason = "It is not a regular file."
    elif info.st_size > most:
        reason = (
            f"It has {info.st_size / 1e6:,.0f} MB; the limit is {most / 1e6:,.0f} MB, "
            "and grows with --max-pixels."
        )
    if reason is None:
        return descriptor, info.st_size
    os.close(descriptor)
    return Unreadable(path, reason)
