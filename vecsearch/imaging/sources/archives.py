"""Pictures in zip archives, which `remote` reads like those behind any other URL.

The location of one is zip:///folder/album.zip/cats/1.jpg. Nothing is unpacked to disk.
"""

from collections.abc import Callable, Iterator
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

_ENCRYPTED = 1
# bzip2 and LZMA may unpack gigabytes at a time, however little is asked for.
_UNPACKED = {ZIP_STORED, ZIP_DEFLATED}
Entries = dict[str, dict[str, Any]]


class Archive:
    """An open zip archive, with the methods of an fsspec file system that `remote` calls.

    Threads may read from it at the same time.

    Raises:
        OSError: it is no zip archive.

    """

    def __init__(self, path: str) -> None:
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, NotImplementedError, ValueError, OverflowError):
            raise OSError("It is damaged, or no zip archive") from None
        self._refused: list[str] = []
        self._files: dict[str, ZipInfo] = {}
        # What is in each folder, by name.
        self._folders: dict[str, set[str]] = {"": set()}
        for item in self._zip.infolist():
            self._note(item)

    def _note(self, item: ZipInfo) -> None:
        name = item.filename.removesuffix("/")
        parts = name.split("/")
        is_taken = name in self._files or (name in self._folders and not item.is_dir())
        if is_taken or not {"", ".", ".."}.isdisjoint(parts):
            self._refused.append(item.filename)
            return
        above = ["/".join(parts[:end]) for end in range(len(parts) + item.is_dir())]
        if any(folder in self._files for folder in above):
            self._refused.append(item.filename)
            return
        for folder in above:
            self._folders.setdefault(folder, set())
        for folder, part in zip(above, parts, strict=False):
            self._folders[folder].add(part)
        if not item.is_dir():
            self._files[name] = item

    def info(self, name: str) -> dict[str, Any]:
        """Return the name, type, size and modification time of a file or folder.

        Raises:
            FileNotFoundError: there is none.

        """
        if name in self._folders:
            return {"name": name, "type": "directory"}
        item = self._files.get(name)
        if item is None:
            raise FileNotFoundError(name)
        year, month, day, hour, minute, second = item.date_time
        # Local to whoever made the archive; as text, since damaged ones have a month 0.
        modified = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{min(second, 59):02}"
        return {"name": name, "type": "file", "size": item.file_size, "modified": modified}

    def walk(
        self,
        top: str,
        *,
        detail: bool,  # noqa: ARG002 - fsspec's
        on_error: Callable[[Exception], None],
    ) -> Iterator[tuple[str, Entries, Entries]]:
        """Yield each folder's path, folders and files; the caller may remove folders."""
        if top == "" and self._refused:
            more = f" and {len(self._refused) - 1:,} more" if self._refused[1:] else ""
            on_error(
                OSError(
                    f"{self._refused[0]!r}{more} is left out: its name leads out of the archive, "
                    "or is there twice. Pack the archive again"
                )
            )
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            names = {name: f"{folder}/{name}".lstrip("/") for name in self._folders[folder]}
            entries = {name: self.info(path) for name, path in names.items()}
            below = {name: one for name, one in entries.items() if one["type"] == "directory"}
            yield folder, below, {name: entries[name] for name in entries.keys() - below.keys()}
            waiting += [names[name] for name in sorted(below, reverse=True)]

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of a file, from `start` to before `end` at most."""
        item = self._files.get(name)
        if item is None:
            raise FileNotFoundError(name)
        if item.flag_bits & _ENCRYPTED:
            raise OSError("It is encrypted with a password. Unpack the archive, and ingest that")
        if item.compress_type not in _UNPACKED:
            raise OSError("Its compression is not supported. Pack the archive with deflate")
        with self._zip.open(item) as file:
            file.seek(start)
            return file.read(end - start)
