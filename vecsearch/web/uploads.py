"""Query pictures, kept in a folder, so that a result's address can be opened again and shared."""

import os
import re
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from vecsearch.errors import ImageNotFound, ImageUnreadable, VecsearchError
from vecsearch.imaging import decode, scan, thumbnails
from vecsearch.search.embedder import Picture

_THUMBNAIL = ".thumbnail"
# Another server may be writing it, unless it is older than this.
_PARTIAL, _PARTIAL_S = "partial-", 3600.0


class Uploads:
    """Pictures by the SHA-256 of their bytes; of too many, the longest unused ones go.

    Args:
        folder: made if it is not there; only its owner may look into it.
        capacity: bytes, all pictures together.
        max_pixels: pictures with more are refused.

    """

    def __init__(self, folder: Path, capacity: int, max_pixels: int) -> None:
        self._folder = folder
        self._capacity = capacity
        self._max_pixels = max_pixels
        self._writing = threading.Lock()

    def keep(self, content: bytes) -> Picture:
        """Keep a picture's bytes.

        Raises:
            ImageUnreadable: they are none.
            VecsearchError: they cannot be written.

        """
        if not content:
            raise ImageUnreadable("No picture was chosen. Choose a file, drop one, or paste one.")
        small = self._thumbnail(content)
        picture = Picture(content)
        name = picture.sha256
        try:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._folder.chmod(0o700)
                self._write(name + _THUMBNAIL, small)
                self._write(name, content)
                self._forget_oldest(but=name)
        except OSError as error:
            raise VecsearchError(
                f"The picture cannot be kept in {self._folder}: {error.strerror}. "
                "Free some space there, or let the server write there."
            ) from error
        return picture

    def find(self, name: str) -> Picture:
        """Return a picture that was kept.

        Raises:
            ImageNotFound: it is not, or no more.

        """
        return Picture(self._read(name))

    def thumbnail(self, name: str) -> bytes:
        """Return a kept picture's thumbnail; see `find`."""
        return self._read(name, _THUMBNAIL)

    def _thumbnail(self, content: bytes) -> bytes:
        with decode.decoded(content, "The picture", max_pixels=self._max_pixels) as image:
            if isinstance(image, scan.Unreadable):
                raise ImageUnreadable(
                    f"This cannot be searched for. {image.reason} Choose another picture."
                )
            return thumbnails.make(image.pixels)

    def _read(self, name: str, suffix: str = "") -> bytes:
        file = self._folder / f"{name}{suffix}"
        try:
            if re.fullmatch(r"[0-9a-f]{64}", name):
                content = file.read_bytes()
                os.utime(file)
                return content
        except OSError:
            pass
        raise ImageNotFound("The picture of this address is not kept any more. Choose it again.")

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
        kept.pop(but, None)  # another server of the same folder may have been faster
        # A picture is as old as its last use, and its thumbnail goes with it.
        for files in sorted(kept.values(), key=lambda files: max(files)[0]):
            for _, size, file in files if excess > 0 else []:
                file.unlink(missing_ok=True)
                excess -= size

    def _listing(self) -> dict[str, list[tuple[float, int, Path]]]:
        """Return when each file was last used, and its bytes, by the picture's name."""
        found = defaultdict(list)
        for file in self._folder.iterdir():
            try:
                info = file.stat()
            except FileNotFoundError:
                continue  # another server of the same folder was faster
            if file.name.startswith(_PARTIAL) and info.st_mtime > time.time() - _PARTIAL_S:
                continue
            name = file.name.removesuffix(_THUMBNAIL)
            found[name].append((info.st_mtime, info.st_size, file))
        return found
