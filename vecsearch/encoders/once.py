"""A value that is computed on first use, once for all threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from vecsearch.errors import EncoderError, InvalidInput

T = TypeVar("T")


class Once(Generic[T]):
    """Makes a value once for all threads.

    Threads that wait while the value is made get the same value, or the same failure: they do not
    each try again. After an `EncoderError` or an `InvalidInput`, a later call raises the same
    error, or tries again if `retry` is set. After any other failure, a later call tries again.

    Args:
        retry: whether a call after any failure tries again.

    """

    def __init__(self, *, retry: bool = False) -> None:
        self._retry = retry
        self._lock = threading.Lock()
        self._future: Future[T] | None = None

    def get(self, make: Callable[[], T]) -> T:
        """Return the value; the first call makes it, and calls at the same time wait for that.

        Raises:
            Exception: whatever `make` raised.

        """
        with self._lock:
            future = self._future
            if future is not None:
                is_mine = False
            else:
                is_mine, future = True, Future()
                self._future = future
        if is_mine:
            self._make(future, make)
        return future.result()

    def _make(self, future: "Future[T]", make: Callable[[], T]) -> None:
        try:
            value = make()
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks the future
            # Reset it first, so that a caller who sees the failure and retries does not find it.
            if self._retry or not isinstance(error, EncoderError | InvalidInput):
                with self._lock:
                    self._future = None
            future.set_exception(error)
        else:
            future.set_result(value)
