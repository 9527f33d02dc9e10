"""Start the server again when it has ended under a command, or under `vecsearch serve`."""

import threading
from pathlib import Path

from vecsearch.errors import DatabaseUnavailable, VecsearchError
from vecsearch.postgres.embedded import server

# A page shows an error rather than wait for a long recovery.
PATIENCE_S = 4.0


class Revival:
    """Starts a data folder's server again, once for all threads that miss it.

    The process holds a lease of the server, whose URL stays.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._error: VecsearchError | None = None
        self._is_over = False

    def end(self) -> None:
        """Start the server no more: its lease is about to end."""
        with self._lock:
            self._is_over = True

    def __call__(self) -> None:
        """Return when the server takes connections.

        Raises:
            DatabaseUnavailable: it does not start, or not soon; it goes on starting then.

        """
        with self._lock:
            if self._is_over:
                raise DatabaseUnavailable("The library is closed. Open it again: Library.open()")
            if self._running is None or not self._running.is_alive():
                self._error = None
                self._running = threading.Thread(target=self._revive, name="revival", daemon=True)
                self._running.start()
            running = self._running
        running.join(PATIENCE_S)
        if running.is_alive():
            raise DatabaseUnavailable(
                "The embedded database has ended and is starting again. Retry in a moment."
            )
        if self._error is not None:
            raise self._error

    def _revive(self) -> None:
        try:
            server.revive(self._data_dir)
        except VecsearchError as error:
            self._error = error
