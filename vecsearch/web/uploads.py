"""Uploaded query images, kept in a folder, so that the address of an answer can be shared."""

import os
import re
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from vecsearch.errors import ImageNotFound, ImageUnreadable, VecsearchError
from vecsearch.imaging import pictures, scan
from vecsearch.imaging.pictures import Made, Wanted
from vecsearch.imaging.processes import decoding
from vecsearch.search.questions.pictures import Picture

_THUMBNAIL = ".thumbnail"
# A partial file may still be written by another server, unless it is older than this.
_PARTIAL, _PARTIAL_S = "partial-", 3600.0


class Uploads:
    """Pictures by the SHA-256 of their bytes; the least recently used are deleted first.

    Args:
        folder: created if it does not exist, readable by its owner alone.
        capacity: bytes of all pictures together.
        max_pixels: larger pictures are refused.

    """

    def __init__(self, folder: Path, capacity: int, max_pixels: int) -> None:
        self._folder = folder
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._writing = threading.Lock()
        # Some workers remain for searches.
        self._decoding = threading.BoundedSemaphore(decoding.WORKERS.size // 2)

    def keep(self, picture: Picture) -> None:
        """Keep a picture.

        Raises:
            ImageUnreadable: it cannot be decoded.
            VecsearchError: it cannot be written.

        """
        small = self._thumbnail(picture)
        name = picture.sha256
        try:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._folder.chmod(0o700)
                self._write(name + _THUMBNAIL, small)
                self._write(name, picture.content)
                self._forget_oldest(but=name)
        except OSError as error:
            raise VecsearchError(
                f"The picture cannot be written to {self._folder}: {error.strerror}. "
                "Free some space there, or give the server write access."
            ) from error

    def find(self, name: str) -> Picture:
        """Return a picture that was kept; its name is its hash.

        Raises:
            ImageNotFound: it was never kept, or has been deleted.

        """
        return Picture.hashed(self._read(name), name)

    def thumbnail(self, name: str) -> bytes:
        """Return a kept picture's thumbnail; see `find`."""
        return self._read(name, _THUMBNAIL)

    def _thumbnail(self, picture: Picture) -> bytes:
        if not picture.content:
            raise ImageUnreadable("The file is empty. Choose another picture.")
        source = pictures.of_bytes(picture.content, "The picture", picture.sha256)
        with self._decoding:
            made = pictures.make(source, Wanted(thumbnail=True), max_pixels=self._max_pixels)
        if not isinstance(made, Made) or made.thumbnail is None:
            reason = made.reason if isinstance(made, scan.Unreadable) else ""
            raise ImageUnreadable(f"{reason} Choose another picture.")
        return made.thumbnail.image

    def _read(self, name: str, suffix: str = "") -> bytes:
        file = self._folder / f"{name}{suffix}"
        try:
            if re.fullmatch(r"[0-9a-f]{64}", name):
                content = file.read_bytes()
                os.utime(file)
                return content
        except OSError:
            pass
        raise ImageNotFound("The uploaded picture is no longer kept. Choose it again.")

    def _write(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(
            dir=self._folder, prefix=_PARTIAL, delete=False
        ) as partial:
            try:
                partial.write(content)
                partial.flush()
                Path(partial.name).replace(self._folder / name)
            except BaseException:
                Path(partial.name).unlink(missing_ok=True)
                raise

    def _forget_oldest(self, but: str) -> None:
        kept = self._listing()
        excess = sum(size for files in kept.values() for _, size, _ in files) - self._capacity
        kept.pop(but, None)  # another server with the same folder may have deleted it
        # The age of a picture counts from its last use; its thumbnail is deleted with it.
        for files in sorted(kept.values(), key=lambda files: max(files)[0]):
            for _, size, file in files if excess > 0 else []:
                file.unlink(missing_ok=True)
                excess -= size

    def _listing(self) -> dict[str, list[tuple[float, int, Path]]]:
        """Return the last use, the size and the path of each file, by the name of its picture."""
        found = defaultdict(list)
        for file in self._folder.iterdir():
            try:
                info = file.stat()
            except FileNotFoundError:
                continue  # another server with the same folder has deleted it
            if file.name.startswith(_PARTIAL) and info.st_mtime > time.time() - _PARTIAL_S:
                continue
            name = file.name.removesuffix(_THUMBNAIL)
            found[name].append((info.st_mtime, info.st_size, file))
        return found
