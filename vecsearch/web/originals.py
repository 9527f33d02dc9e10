"""The files that rows were made from: as they were then, or not at all."""

import hashlib
import os
import stat
from typing import IO

from vecsearch.errors import ImageNotFound
from vecsearch.search.gallery import StoredImage

# Pillow's names of formats, as HTTP calls them.
MEDIA_TYPES = {
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "DIB": "image/bmp",
    "GIF": "image/gif",
    "HEIF": "image/heif",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}


def open_original(image: StoredImage) -> IO[bytes]:
    """Open the file of a row, at its beginning, if it holds the very bytes that were ingested.

    So nobody can read another file by way of a row: not one that took the path over, nor one that
    a row imported without its file names.

    Raises:
        ImageNotFound: it is gone, changed, or was never seen.

    """
    if image.sha256 is None:
        raise ImageNotFound(
            f"{image.path} was imported without its file. Ingest the file to see it here."
        )
    try:
        file = open(image.path, "rb", opener=_open)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise ImageNotFound(
            f"{image.path} cannot be read on this machine: {error.strerror}. "
            "Its thumbnail and its row remain."
        ) from error
    try:
        same = (
            _may_be(file, image.file_size)
            and hashlib.file_digest(file, "sha256").hexdigest() == image.sha256
        )
    except OSError:
        same = False
    if not same:
        file.close()
        raise ImageNotFound(
            f"{image.path} has changed since it was ingested. Run: vecsearch ingest {image.path}"
        )
    file.seek(0)
    return file


def _open(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe that took the path over."""
    return os.open(path, flags | os.O_NONBLOCK)


def _may_be(file: IO[bytes], size: int | None) -> bool:
    """Tell, before it is read, whether a file can be the one of this size; a device has no end."""
    info = os.fstat(file.fileno())
    return stat.S_ISREG(info.st_mode) and size in {None, info.st_size}
