"""Real Postgres servers for tests, from the wheel: by socket as users get them, and by TCP.

A cluster of Citus is not in a wheel: tests use the one whose coordinator `CITUS_VARIABLE` names.
"""

import functools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from vecsearch.postgres.embedded import initdb, launching, postmaster, server

KINDS = ("embedded-18", "tcp-18", "embedded-16", "tcp-16")
CITUS = "citus"
CITUS_VARIABLE = "VECSEARCH_TEST_CITUS_URL"
SHARDS = 4
# What --servers takes.
SETS = ("one", "marked", "all")


def kinds(choice: str, marks: Container[str]) -> tuple[str, ...]:
    """Return the kinds of server that a test with these marks runs against.

    Args:
        choice: one of SETS.
        marks: the names of the test's marks, of which `every_server`, `once`, `citus`,
            `citus_alone` and `one_server` count.

    """
    if "citus_alone" in marks:
        return (CITUS,)
    every = {"one": False, "marked": "every_server" in marks, "all": True}[choice]
    found = KINDS if every and "once" not in marks else KINDS[:1]
    return (*found, CITUS) if CITUS in marks and "one_server" not in marks else found


@contextmanager
def running(kind: str, folder: Path) -> Iterator[str]:
    """Run a server and yield the URL of its maintenance database."""
    if kind == CITUS:
        yield _coordinator()
        return
    how, version = kind.split("-")
    handle = initialise(folder / "postgres", int(version))
    if how == "embedded":
        with server.lease(folder) as url:
            yield url
    else:
        with listening(handle) as url:
            yield url


def _coordinator() -> str:
    """Return the URL of a Citus coordinator's maintenance database, or skip the test."""
    url = os.environ.get(CITUS_VARIABLE)
    if not url:
        pytest.skip(f"no cluster of Citus: set {CITUS_VARIABLE} to a superuser's URL")
    return url


def with_database(url: str, name: str) -> str:
    """Return `url` with another database."""
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


@functools.cache
def nodes(url: str) -> list[str]:
    """Return the URLs of a cluster's servers, the coordinator first; of another server, its own."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('pg_dist_node')").fetchone() == (None,):
            return [url]
        workers = connection.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid <> 0 ORDER BY 1, 2"
        ).fetchall()
    parsed = sa.make_url(url)
    return [
        url,
        *(
            parsed.set(host=host, port=port).render_as_string(hide_password=False)
            for host, port in workers
        ),
    ]


def create_database(url: str, name: str, template: str = "template1") -> None:
    """Create a database on every node of a server; Citus' own tables are cloned with the rest.

    On a cluster, the collections that are made in it are in shards.
    """
    cluster = nodes(url)
    for node in cluster:
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
            if len(cluster) > 1:
                connection.execute(
                    f"ALTER DATABASE {name} SET vecsearch.shards = {SHARDS}".encode()
                )


def drop_database(url: str, name: str) -> None:
    """Drop a database on every node of a server."""
    cluster = nodes(url)
    if len(cluster) > 1:
        freeze(url, name)
    for node in cluster:
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def join_nodes(url: str, name: str) -> None:
    """Make a cluster of a new database's nodes."""
    places = [sa.make_url(node) for node in nodes(url)]
    for node in places:
        with psycopg.connect(
            node.set(database=name).render_as_string(hide_password=False), autocommit=True
        ) as connection:
            for extension in (CITUS, "vector"):
                connection.execute(f"CREATE EXTENSION {extension}".encode())
    with psycopg.connect(with_database(url, name), autocommit=True) as connection:
        coordinator, *workers = places
        connection.execute(
            "SELECT citus_set_coordinator_host(%s, %s)", [coordinator.host, coordinator.port]
        )
        for worker in workers:
            connection.execute("SELECT citus_add_node(%s, %s)", [worker.host, worker.port])


def freeze(url: str, name: str) -> None:
    """Let nobody connect to a database, so that it can be cloned; Citus has a daemon in each."""
    for node in nodes(url):
        with psycopg.connect(node, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            while connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s",
                [name],
            ).fetchone() != (0,):
                time.sleep(0.01)


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
