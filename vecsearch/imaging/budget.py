"""How many pixels this process decodes at once: a decoded picture is a hundred times its file."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Bounds the pixels that are decoded at once; one picture is always let in, however large.

    Pictures are let in first come, first served, so that small ones do not keep a large one out.

    Args:
        pixels: the bound.

    """

    def __init__(self, pixels: int) -> None:
        self._limit = pixels
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Wait until this many pixels fit, and hold them; a thread must not spend twice at once."""
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._fits(pixels))
                self._used += pixels
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()

    def _fits(self, pixels: int) -> bool:
        return not self._used or self._used + pixels <= self._limit


# For each processor: three phones' photos, and not three panoramas.
PIXELS_AT_ONCE = 36_000_000
DECODING = PixelBudget(PIXELS_AT_ONCE * (os.cpu_count() or 1))
