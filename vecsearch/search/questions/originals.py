"""The ingested files themselves, read only while they are unchanged."""

import hashlib
import os
import stat
from typing import IO

from vecsearch.errors import ImageNotFound
from vecsearch.imaging.sources.remote import is_url
from vecsearch.search.gallery import StoredImage


def open_original(image: StoredImage) -> IO[bytes]:
    """Open the file of a stored image if its bytes are those that were ingested.

    So a row gives nobody access to another file: neither to one that replaced the image at its
    path, nor to any path in a row that was imported without its file.

    Raises:
        ImageNotFound: the file is gone or changed, or was never ingested.

    """
    if image.sha256 is None:
        raise ImageNotFound(
            f"{image.path} was imported without its file. Ingest it, into the same collection."
        )
    if is_url(image.path):
        raise ImageNotFound(
            f"{image.path} is not fetched. Only its thumbnail and its row are available."
        )
    try:
        file = open(image.path, "rb", opener=_open)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise ImageNotFound(
            f"{image.path} cannot be read on this machine: {error.strerror}. "
            "Only its thumbnail and its row are available."
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
        raise ImageNotFound(f"{image.path} has changed since it was ingested. Ingest it again.")
    file.seek(0)
    return file


def _open(path: str, flags: int) -> int:
    """Open a file; if the path is now a pipe, do not wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _may_be(file: IO[bytes], size: int | None) -> bool:
    """Check that a file is regular and of this size, before it is read: a device has no end."""
    info = os.fstat(file.fileno())
    return stat.S_ISREG(info.st_mode) and size in {None, info.st_size}
