"""The embedded Postgres: a server from a wheel, in the user's data folder.

Every command that uses it holds a shared lease. The last one to end stops the server, unless
`vecsearch db start` keeps it running. A lease is a flock, so a killed process loses it.
"""

import fcntl
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

from vecsearch.errors import DatabaseUnavailable, first_line
from vecsearch.postgres.embedded import (
    access,
    contents,
    folder,
    initdb,
    launching,
    locks,
    postmaster,
    troubles,
)
from vecsearch.postgres.embedded.access import DATABASE
from vecsearch.postgres.embedded.postmaster import Postmaster
from vecsearch.postgres.sessions.connecting import CONNECT_TIMEOUT_S

DEFAULT_PORT = 5432
# Prefix of the folder of a server that lives as long as one command.
SCRATCH = "scratch-"
# Asked to end at once, it kills its processes within five seconds.
AT_ONCE_TIMEOUT_S = 30.0
# A server that was killed this often while it started is killed by something that goes on.
STARTS = 5
_log = logging.getLogger(__name__)


@contextmanager
def lease(
    data_dir: Path,
    *,
    keep_running: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Start the server if it is not running and yield its URL; at the end, stop it if it is unused.

    Args:
        data_dir: the folder of the database; created if missing.
        keep_running: keep the server running for other programs until `stop`.
        meanwhile: called once, while the server starts.

    Raises:
        DatabaseUnavailable: the folder cannot be used or the server does not start.

    """
    folder.prepare(data_dir)
    with folder.open_lock(data_dir, folder.USERS) as users:
        locks.take(users, fcntl.LOCK_SH, "stops the embedded database")
        try:
            with _starting(data_dir):
                url = _start(data_dir, meanwhile)
        except KeyboardInterrupt:
            _stop_if_unused(data_dir, users)
            raise
        try:
            if keep_running:
                access.write(folder.keep_running(data_dir), "")
            yield url
        finally:
            _stop_if_unused(data_dir, users)


@contextmanager
def scratch(data_dir: Path) -> Iterator[str]:
    """Yield the URL of an empty database on a server of its own, of which nothing stays.

    Args:
        data_dir: its folder is in this one. What a killed command left of one ends with the next
            command that starts a server here.

    Raises:
        DatabaseUnavailable: see `lease`.

    """
    folder.prepare(data_dir)
    with ExitStack() as stack:
        with _starting(data_dir):
            _sweep(data_dir)
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix=SCRATCH, dir=data_dir))
            # Held until the lease is, or a sweep would take it for abandoned.
            users = stack.enter_context(folder.open_lock(Path(name), folder.USERS))
            locks.take(users, fcntl.LOCK_SH, "stops the embedded database")
        url = stack.enter_context(lease(Path(name)))
        users.close()
        yield url


def revive(data_dir: Path) -> None:
    """Start the server again if it has ended, for a caller that holds a lease; its URL stays.

    Raises:
        DatabaseUnavailable: it does not start.

    """
    found = postmaster.find(folder.postgres(data_dir))
    if found is not None and found.is_ready:
        launching.require_awake(found)
        return
    with _starting(data_dir):
        _start(data_dir)


def is_running(data_dir: Path) -> bool:
    """Return whether the server of a data folder runs."""
    return postmaster.find(folder.postgres(data_dir)) is not None


def stop(data_dir: Path) -> bool:
    """Stop the server now, or when the last command that uses it ends; return whether it stopped.

    A server that is not running counts as stopped.

    Raises:
        DatabaseUnavailable: it is not this user's, or does not end.

    """
    if not data_dir.is_dir():
        return True
    folder.prepare(data_dir)
    folder.keep_running(data_dir).unlink(missing_ok=True)
    with folder.open_lock(data_dir, folder.USERS) as users:
        return _stop_if_unused(data_dir, users)


def set_port(data_dir: Path, chosen: int | None) -> bool:
    """Start the server with another port, and store it for later starts; None: no port.

    Return whether a running server was restarted.

    Args:
        data_dir: see `lease`.
        chosen: 1 to 65535, of 127.0.0.1.

    Raises:
        DatabaseUnavailable: the server or the port is in use, or the server does not start with
            it; the stored port is unchanged.

    """
    folder.prepare(data_dir)
    with folder.open_lock(data_dir, folder.USERS) as users, _starting(data_dir):
        before = access.port(data_dir)
        if chosen == before:
            return False
        access.require_free(chosen)
        if not locks.is_taken(users, fcntl.LOCK_EX):
            raise DatabaseUnavailable(
                "Stop `vecsearch serve` and other commands first: changing the port restarts the "
                "database."
            )
        was_running = postmaster.find(folder.postgres(data_dir)) is not None
        _stop(data_dir)
        access.remember_port(data_dir, chosen)
        try:
            _start(data_dir)
        except BaseException:
            access.remember_port(data_dir, before)
            _stop(data_dir)
            raise
    return was_running


@contextmanager
def _starting(data_dir: Path) -> Iterator[None]:
    """Be the only command that starts the server."""
    with folder.open_lock(data_dir, folder.STARTING) as starting:
        locks.take(starting, fcntl.LOCK_EX, "starts the embedded database")
        yield


def _sweep(data_dir: Path) -> None:
    """End the scratch servers of killed commands, and remove their folders.

    The caller holds the lock of who starts the server, so no other command begins one.
    """
    for left in data_dir.glob(f"{SCRATCH}*"):
        with suppress(DatabaseUnavailable), folder.open_lock(left, folder.USERS) as users:
            if locks.is_taken(users, fcntl.LOCK_EX):
                _stop(left)
                shutil.rmtree(left, ignore_errors=True)


def _start(data_dir: Path, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Create, configure and start the server, each if needed; return its URL.

    An existing folder is opened with the major version that created it. `meanwhile`: see `lease`.
    """
    database = folder.postgres(data_dir)
    try:
        initdb.sweep(data_dir)
        _sweep(data_dir)
        with suppress(OSError):
            database.rmdir()  # an empty folder holds no database
        if not database.exists():
            initdb.create(database)
        folder.version(database)
        return _started(data_dir, meanwhile)
    except OSError as error:
        if troubles.is_full_disk(error):
            raise troubles.full_disk(database) from error
        raise _refused(database, error) from error
    except RuntimeError as error:
        # It may have been suspended only now.
        if (running := postmaster.find(database)) is not None:
            launching.require_awake(running)
        raise _refused(database, error) from error


def _started(data_dir: Path, meanwhile: Callable[[], None]) -> str:
    """Start the server, again if it is ended from outside while it starts; return its URL."""
    starts = 0
    while True:
        starts += 1
        try:
            found = launching.up(data_dir, meanwhile)
            url = _url(found, DATABASE)
            contents.prepare(data_dir, url, _url(found, "postgres"))
        except troubles.EndedFromOutside as error:
            if starts == STARTS:
                raise
            _log.warning(
                "The database ended while it started (%s); starting it again.", first_line(error)
            )
            meanwhile = lambda: None  # noqa: E731 - it is called once
        else:
            return url


def _refused(database: Path, error: Exception) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The embedded Postgres in {database} does not start: {first_line(error)}. "
        f"See its log: {database / 'log'}"
    )


def _stop_if_unused(data_dir: Path, users: IO[str]) -> bool:
    """Stop the server if no other lease is held; `users` is this caller's open lock file."""
    # In place of the caller's shared lock.
    if not locks.is_taken(users, fcntl.LOCK_EX):
        return False
    if folder.keep_running(data_dir).exists():
        return postmaster.find(folder.postgres(data_dir)) is None
    _stop(data_dir)
    return True


def _stop(data_dir: Path) -> None:
    """Stop the server, and wait until it has ended.

    Raises:
        DatabaseUnavailable: it does not end.

    """
    database = folder.postgres(data_dir)
    ending, is_asked = launching.Ending(), False
    while True:
        found = postmaster.find(database)
        if found is None and not launching.is_alive(database):
            break
        if ending.seconds > launching.STOP_TIMEOUT_S + AT_ONCE_TIMEOUT_S:
            raise DatabaseUnavailable(
                f"The embedded Postgres{f', process {found.pid},' if found else ''} has not ended "
                f"after {ending.seconds:.0f} seconds. It goes on ending; see its log: "
                f"{database / 'log'}"
            )
        if found is not None:
            launching.require_awake(found)
            if not is_asked and not found.is_stopping:
                # One that restarts after a crash may forget that it was asked to end
                # (PostgreSQL 18).
                postmaster.shut_down(found, at_once=not _takes_connections(found))
            is_asked = True
            ending.hasten(found)
        time.sleep(0.005)
    launching.reap()


def _takes_connections(found: Postmaster) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError):
        psycopg.connect(_url(found, "postgres"), connect_timeout=CONNECT_TIMEOUT_S).close()
        return True
    return False


def _url(found: Postmaster, database: str) -> str:
    host = quote(str(found.socket_folder), safe="/")
    # The name of the socket ends in the port number.
    numbered = "" if found.port == DEFAULT_PORT else f"&port={found.port}"
    return f"postgresql://{initdb.OWNER}@/{database}?host={host}{numbered}"
