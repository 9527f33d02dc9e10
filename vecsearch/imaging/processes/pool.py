"""A few workers that wait for requests, started when they are needed and replaced when they die."""

import atexit
import os
import threading
from collections.abc import Sequence
from typing import Any

from vecsearch.imaging.processes.channel import Message
from vecsearch.imaging.processes.process import Answer, Ended, Process


class Pool:
    """Workers of one kind; any thread may ask.

    Args:
        module: see `Process`.
        size: how many there are at most; who asks waits for one.

    """

    def __init__(self, module: str, size: int) -> None:
        self.size = size
        self._module = module
        self._idle: list[Process] = []
        self._turns = threading.BoundedSemaphore(size)
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            # Two processes cannot share a worker.
            os.register_at_fork(after_in_child=self._forget)

    def ask(
        self,
        fields: dict[str, Any],
        blobs: Sequence[bytes | bytearray] = (),
        *,
        seconds: float,
        answer: Answer | None = None,
    ) -> Message:
        """Return a worker's reply; see `Process.ask`.

        A crash is tried again by another worker: somebody else may have killed the first.
        """
        with self._turns:
            try:
                return self._ask(fields, blobs, seconds, answer)
            except Ended as ended:
                if not ended.in_time:
                    raise
            return self._ask(fields, blobs, seconds, answer)

    def close(self) -> None:
        """End the workers that wait; others are started if somebody asks."""
        while self._idle:
            self._idle.pop().kill()

    def _ask(
        self,
        fields: dict[str, Any],
        blobs: Sequence[bytes | bytearray],
        seconds: float,
        answer: Answer | None,
    ) -> Message:
        worker = self._waiting() or Process(self._module)
        try:
            reply = worker.ask(fields, blobs, seconds=seconds, answer=answer)
        except BaseException:
            worker.kill()
            raise
        if reply[0].get("is_last"):
            worker.kill()
        else:
            self._idle.append(worker)
        return reply

    def _waiting(self) -> Process | None:
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return None
            if worker.is_alive():
                return worker
            worker.kill()

    def _forget(self) -> None:
        self._idle.clear()
        self._turns = threading.BoundedSemaphore(self.size)
