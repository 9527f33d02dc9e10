"""The worker's side: what `vecsearch.imaging.processes.process` starts runs `serve`."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from vecsearch.imaging.processes.channel import Channel, Message

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # there, only time is limited


def serve(job: Callable[[Channel, Message], None]) -> None:
    """Do a job for each request, until the parent is gone.

    A job sends its own replies. One that raises ends the worker.
    """
    channel = _begin()
    with suppress(EOFError, OSError):
        channel.send({"ready": True})
        while True:
            job(channel, channel.receive())


def bound_memory(size: int) -> None:
    """Bound what this process allocates, where the system can; a larger bound may follow."""
    _bound("RLIMIT_DATA", size)


def out_of_memory() -> str:
    """Say how much was too much, where there is room to say so again."""
    size = resource.getrlimit(resource.RLIMIT_DATA)[0]
    bound_memory(2 * size)
    return f"more than {size / 1e6:,.0f} MB of memory, its limit"


def bound_time(seconds: float) -> None:
    """Bound the processor time from now on, for a worker whose parent is gone and cannot."""
    if resource is not None:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        _bound("RLIMIT_CPU", int(spent.ru_utime + spent.ru_stime + seconds) + 1)


def ask(channel: Channel, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the parent's answer to a question."""
    channel.send({"ask": fields})
    return channel.receive()[0]


def _begin() -> Channel:
    # The terminal sends Ctrl-C to the worker, too; it ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound("RLIMIT_CORE", 0)
    end = socket.socket(fileno=os.dup(0))
    # Libraries in C write warnings about odd files to stderr.
    nothing = os.open(os.devnull, os.O_RDWR)
    sys.stderr.flush()
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return Channel(end)


def _bound(name: str, value: int) -> None:
    limit = getattr(resource, name, None)
    if limit is not None:
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, hard))
