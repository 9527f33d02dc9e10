"""Real Postgres servers for tests, from the wheel: by socket as users get them, and by TCP."""

import signal
import socket
import subprocess
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vecsearch.postgres.embedded import initdb, launching, postmaster, server

KINDS = ("embedded-18", "tcp-18", "embedded-16", "tcp-16")
# What --servers takes.
SETS = ("one", "marked", "all")


def kinds(choice: str, marks: Container[str]) -> tuple[str, ...]:
    """Return the kinds of server that a test with these marks runs against.

    Args:
        choice: one of SETS.
        marks: the names of the test's marks, of which `every_server` and `once` count.

    """
    every = {"one": False, "marked": "every_server" in marks, "all": True}[choice]
    return KINDS if every and "once" not in marks else KINDS[:1]


@contextmanager
def running(kind: str, folder: Path) -> Iterator[str]:
    """Run a server and yield the URL of its maintenance database."""
    how, version = kind.split("-")
    handle = initialise(folder / "postgres", int(version))
    if how == "embedded":
        with server.lease(folder) as url:
            yield url
    else:
        with listening(handle) as url:
            yield url


@dataclass
class Handle:
    """A server of a test's own.

    Attributes:
        folder: of its database.
        binary: `postgres`; None: the wheel's.
        process: while it runs.

    """

    folder: Path
    binary: Path | None = None
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, port: int) -> None:
        def options(_: str) -> list[str]:
            return ["-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories="]

        launched = launching.launch(self.folder, options, self.binary)
        self.process = launched.process
        while (found := postmaster.find(self.folder)) is None or not found.is_ready:
            assert self.process.poll() is None, launched.printed()
            time.sleep(0.01)

    def kill(self) -> None:
        """Shut it down at once, as after a crash."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()


def initialise(folder: Path, version: int, binary: Path | None = None) -> Handle:
    """Create the folder of a database of this major version."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    initdb.create(folder, version)
    return Handle(folder, binary)


@contextmanager
def listening(handle: Handle) -> Iterator[str]:
    """Run a server on a free port of 127.0.0.1 and yield the URL of its database postgres."""
    port = free_port()
    handle.start(port)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        handle.kill()


@contextmanager
def stopped(handle: Handle, url: str) -> Iterator[None]:
    """Kill a listening server, and start it again on the same port."""
    handle.kill()
    try:
        yield
    finally:
        handle.start(int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
