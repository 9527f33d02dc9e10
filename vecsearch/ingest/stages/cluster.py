"""Connecting to Ray: which cluster an address means, and what is said when it does not answer."""

import logging
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vecsearch import __version__
from vecsearch.errors import ClusterUnavailable, InvalidInput, first_line
from vecsearch.imaging.sources.remote import is_url
from vecsearch.ingest.stages.actor import Setup

if TYPE_CHECKING:
    from vecsearch.imaging.scan import Walk
    from vecsearch.ingest.stages.places import Place
    from vecsearch.ingest.stages.pool import Pool
    from vecsearch.search.store import Store

LOCAL, AUTO = "local", "auto"
# How long an address may take to answer.
ANSWER_S = 5.0
# A Ray that is started for one run passes answers, not pictures.
_STORE_BYTES = 200_000_000
_CLIENT = "ray://"
# What HTTP/2 begins with, and an empty frame of settings, to which such a server answers with one.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS = b"\4"


@contextmanager
def connected(
    address: str | None, store: "Store", name: str, walk: "Walk"
) -> Iterator["Callable[[], Place | None]"]:
    """Connect to Ray while an ingest runs; yield what makes the place of each of its attempts.

    Args:
        address: "local" starts Ray on this machine, and stops it in the end; "auto" is the cluster
            that Ray itself finds; else host:port, or ray://host:port of a Ray client's server; None
            uses no Ray.
        store: the database.
        name: the collection.
        walk: what is ingested.

    Raises:
        InvalidInput: Ray is not installed.
        ClusterUnavailable: the address does not answer.

    """
    if address is None:
        yield lambda: None
        return
    # Ray reads these when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InvalidInput(
            "Ray is not installed. Install it here and on every node: pip install 'vecsearch[ray]'"
        ) from error
    connection: Future[None] = Future()
    if ray.is_initialized():
        # A program that is connected already stays so.
        connection.set_result(None)
        yield lambda: _pool(store, name, walk, connection)
        return
    folder = None
    options: dict[str, object] = {"address": address}
    if address == LOCAL:
        folder = _folder()
        options |= {"_temp_dir": folder, "object_store_memory": _STORE_BYTES}
        options |= {"include_dashboard": False}
    else:
        _require_answer(address)
    starter = ThreadPoolExecutor(1, thread_name_prefix="ray")
    try:
        connection = starter.submit(_init, address, options)
        if address != LOCAL:
            connection.result()
        # Ray takes seconds to start here, in which other work can begin.
        with _quiet():
            yield lambda: _pool(store, name, walk, connection)
    finally:
        starter.shutdown()
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from printing on stdout that a node has ended, for which it has no setting."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _pool(store: "Store", name: str, walk: "Walk", connection: "Future[None]") -> "Pool":
    """Return a pool of new actors.

    Raises:
        InvalidInput: other machines could not reach the database.

    """
    import ray

    from vecsearch.ingest.stages.pool import Pool

    others = []
    if store.settings.database_url is None and connection.done():
        names = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        others = sorted(names - {platform.node()})
    if others:
        raise InvalidInput(
            f"The Ray cluster has other machines, such as {others[0]}, which cannot reach the "
            "embedded database. Set --database-url or VECSEARCH_DATABASE_URL to a Postgres that "
            "every node reaches."
        )
    roots = [root for root in walk.roots if not is_url(root)]
    return Pool(Setup(__version__, store.url, name, roots, store.settings), connection)


def _init(address: str, options: dict[str, object]) -> None:
    """Connect.

    Raises:
        ClusterUnavailable: that fails.

    """
    import ray

    try:
        ray.init(
            **options, log_to_driver=False, configure_logging=True, logging_level=logging.CRITICAL
        )
    except ImportError as error:
        raise InvalidInput(
            f"{_CLIENT} needs a package: pip install 'ray[client]'. Or give host:port."
        ) from error
    except (Exception, SystemExit) as error:
        raise ClusterUnavailable(_silent(address, first_line(error))) from error


def _require_answer(address: str) -> None:
    """Check that an address answers as Ray does, for which Ray itself would wait for minutes.

    Raises:
        ClusterUnavailable: it does not.
        InvalidInput: it is no address.

    """
    if address == AUTO:
        return
    host, colon, port = address.removeprefix(_CLIENT).rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise InvalidInput(
            f"{address!r} is no address of a Ray cluster. Use local, auto, HOST:PORT or "
            "ray://HOST:PORT."
        )
    reason = "it is not Ray that answers"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as connection:
            # Encrypted, Ray greets otherwise.
            if os.environ.get("RAY_USE_TLS", "0") in {"1", "true"}:
                return
            connection.sendall(_GREETING)
            with suppress(TimeoutError):
                answer = connection.recv(9)
                if answer[3:4] == _SETTINGS:
                    return
    except (OSError, OverflowError) as error:
        reason = first_line(error)
    raise ClusterUnavailable(_silent(address, reason))


def _silent(address: str, reason: str) -> str:
    if address == LOCAL:
        return f"Ray does not start on this machine: {reason}. Leave --ray out."
    if address == AUTO:
        return (
            "No Ray cluster is running on this machine. Start one with `ray start --head`, name "
            "one with --ray HOST:PORT, or use --ray local."
        )
    return (
        f"The Ray cluster at {address} does not answer: {reason}. Check the address with "
        "`ray status`, or use --ray local."
    )


def _folder() -> str:
    """Return a new folder for Ray's sockets, whose paths must be short."""
    longest = 30
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) < longest else "/tmp"  # noqa: S108
    return tempfile.mkdtemp(prefix="vs-ray-", dir=short)
