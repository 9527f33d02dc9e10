"""Videos, whose pictures are key frames, one a second at most; FFmpeg runs in worker processes.

The location of one is video:///folder/holiday.mp4/00:01:02.480: below its video, by its time from
the start, so that the order of paths is that of time.
"""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from vecsearch.errors import InvalidInput
from vecsearch.imaging import stalls
from vecsearch.imaging.formats import is_installed
from vecsearch.imaging.processes.decoding import WORKERS
from vecsearch.imaging.processes.process import Ended

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv"),
    *(".asf", ".flv", ".3gp", ".3g2", ".ogv"),
)
# Named at 100 hours, frames would no longer be in order.
_MOST_MS = 360_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Entries = dict[str, dict[str, Any]]


class Video:
    """A video, with the methods of an fsspec file system that `remote` calls.

    It is read when its frames are listed, so that one that cannot be read keeps no other from that.

    Raises:
        InvalidInput: a package is missing.

    """

    def __init__(self, path: str) -> None:
        if not is_installed("av"):
            raise InvalidInput("Videos need a package: pip install 'vecsearch[video]'")
        self._path = path
        self._lock = threading.Lock()
        modified = _EPOCH + timedelta(microseconds=os.stat(path).st_mtime_ns // 1_000)  # noqa: PTH116 - a string
        self._about = {"type": "file", "modified": modified}

    def info(self, name: str) -> dict[str, Any]:
        """Return the name, type, size and modification time of a frame; the last is its video's.

        Raises:
            FileNotFoundError: there is none.
            OSError: the video cannot be read.

        """
        if not name:
            return {"name": name, "type": "directory"}
        with self._lock:
            found = self._frames.get(name)
        if found is None:
            raise FileNotFoundError(name)
        return found

    def walk(
        self,
        top: str,
        *,
        detail: bool,  # noqa: ARG002 - fsspec's
        on_error: Callable[[Exception], None],
    ) -> Iterator[tuple[str, Entries, Entries]]:
        """Yield the one folder that a video is: its path, no folders, its frames."""
        try:
            with self._lock:
                frames = self._frames
        except OSError as error:
            on_error(error)
        else:
            yield top, {}, frames

    def cat_file(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of a frame, an image file, from `start` to before `end` at most."""
        ms = _ms(name)
        if ms is None:
            raise FileNotFoundError(name)
        _, (content,) = self._ask({"do": "frame", "path": self._path, "ms": ms})
        return bytes(content[start:end])

    @cached_property
    def _frames(self) -> Entries:
        reply, _ = self._ask({"do": "frames", "path": self._path})
        return {
            name: {"name": name, "size": size, **self._about}
            for ms, size in reply["frames"]
            if ms < _MOST_MS
            for name in (_name(ms),)
        }

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytearray]]:
        try:
            # As long as reading makes progress, the worker asks for more time.
            fields, blobs = WORKERS.ask(
                request, seconds=stalls.STALL_S, answer=lambda _: ({}, stalls.STALL_S)
            )
        except Ended as ended:
            raise OSError(ended.words) from ended
        if "reason" in fields:
            raise OSError(fields["reason"])
        return fields, blobs


def _name(ms: int) -> str:
    seconds, ms = divmod(ms, 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def _ms(name: str) -> int | None:
    """Return the milliseconds of a frame's name; None if it is none."""
    digits = name.replace(":", "").replace(".", "")
    if not digits.isdecimal() or not digits.isascii() or len(digits) != len("HHMMSSmmm"):
        return None
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    ms = ((hours * 60 + minutes) * 60 + seconds) * 1_000 + int(digits[6:])
    return ms if _name(ms) == name else None
