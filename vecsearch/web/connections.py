"""uvicorn, with bounds: how many connections, how long each may take, how much is logged."""

import logging
import resource
import socket
import time
from asyncio import BaseTransport, TimerHandle, Transport
from functools import cache
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vecsearch.render.visible import visible
from vecsearch.vocabulary import counted

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

# Connections at once, and those that are accepted at once.
MOST, BACKLOG = 1_000, 128
# A connection that is not being answered has so long to bring a whole request head.
HEAD_S = 15.0
# A caller may leave an answer unread for so long.
UNREAD_S = 30.0
# More lines a minute are counted, and not written.
LOG_LINES = 60
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Retry-After: 5\r\nConnection: close\r\nContent-Length: 55\r\n\r\n"
    b"All connections are in use. Try again in a few seconds."
)


@cache
def most_connections() -> tuple[int, int]:
    """Return how many connections may be open, and how many are accepted at once.

    Half of the files that this process may open are for connections. Those in excess are closed a
    moment after they were accepted, when more may have been accepted: three eighths are for these.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST, BACKLOG
    return min(MOST, files // 2), min(BACKLOG, files // 8)


class Connection(H11Protocol):
    """A connection that makes room for others, and is closed if it is too slow.

    Of too many connections, the one that has brought no request for longest is closed. So slow or
    silent ones, however many, keep nobody out who sends a request at once.
    """

    since = 0.0
    _head: TimerHandle | None = None
    _unread: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Start to wait for a request, and close another connection if there are too many."""
        assert isinstance(transport, Transport)  # noqa: S101 - for the type checker
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > most_connections()[0]:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Handle what arrived; a whole head ends the wait for it."""
        super().data_received(data)
        if not self._is_waiting:
            self._cancel(self._head)

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have arrived already.

        What is left of the body of this one is read and forgotten meanwhile.
        """
        super().on_response_complete()
        if self._is_waiting:
            self._await_head()

    def pause_writing(self) -> None:
        """Wait until the caller reads, for a while."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        self._cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._cancel(self._head, self._unread)

    @staticmethod
    def _cancel(*timers: TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()

    @property
    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_dispensable(self) -> bool:
        """Whether it brought no request, or only the head of one without access."""
        if self._is_waiting:
            return True
        return self.cycle.more_body and not self.cycle.scope["state"].get("admitted", False)

    def _await_head(self) -> None:
        self._cancel(self._head)
        self.since = self.loop.time()
        self._head = self.loop.call_later(HEAD_S, self.transport.abort)

    def _make_room(self) -> None:
        others: Any = self.connections  # uvicorn's set of all protocols
        dispensable = (each for each in others if each is not self and each.is_dispensable)
        oldest: Connection | None = min(dispensable, key=lambda each: each.since, default=None)
        closed = oldest or self
        # It is lost a moment later; until then nobody should choose it again.
        others.discard(closed)
        if oldest is None:
            self.transport.write(_FULL)
            self.transport.close()
        else:
            oldest.transport.abort()


class Sparing(logging.Filter):
    """Lets a number of records pass in a minute; the next one says how many did not."""

    def __init__(self, most: int = LOG_LINES) -> None:
        super().__init__()
        self._most = most
        self._passed = self._dropped = 0
        self._minute = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to write a record."""
        now = time.monotonic()
        if now - self._minute >= 60:  # noqa: PLR2004 - seconds
            if self._dropped:
                record.msg = f"Left out {counted(self._dropped, 'line')}. {record.getMessage()}"
                record.args = None
            self._minute, self._passed, self._dropped = now, 0, 0
        self._passed += 1
        self._dropped += self._passed > self._most
        return self._passed <= self._most


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Server(uvicorn.Server):
    """Stops when it is interrupted, and at once when it is interrupted again."""

    def handle_exit(self, sig: int, frame: "FrameType | None") -> None:
        """Handle a signal; `run` returns, where uvicorn's own would raise each signal again."""
        del sig, frame
        if self.should_exit:
            self.force_exit = True
            # Requests that are cut off now are no errors.
            logging.disable()
        self.should_exit = True


def run(app: "FastAPI", listening: socket.socket, *, behind_proxies: bool) -> None:
    """Serve requests until the process is interrupted.

    Args:
        app: the application.
        listening: the socket.
        behind_proxies: whether a proxy on this machine is believed for whom it asks.

    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    handler.addFilter(Sparing())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=most_connections()[1],
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=behind_proxies,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    _Server(config).run(sockets=[listening])
