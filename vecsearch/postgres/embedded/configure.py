"""The server's settings at each start: its memory, who may connect, and where."""

import os
import secrets
from pathlib import Path

from vecsearch.postgres.embedded import access, folder, programs
from vecsearch.postgres.embedded.postmaster import FOLDER_SETTING
from vecsearch.postgres.embedded.programs import Account
from vecsearch.postgres.sessions.settings import SEARCH

# The first that has the setting for its size.
NOTIFY_QUEUE_VERSION = 17
_INCLUDE = "include_if_exists = 'vecsearch.conf'"
_HBA = "vecsearch_hba.conf"


def write_files(database: Path, user: Account) -> None:
    """Size the server's memory to the machine, and set who may connect.

    The settings are in a file of their own, written at each start and included by postgresql.conf.
    What a user sets with ALTER SYSTEM is read later and takes precedence.
    """
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
        # What a killed command had asked for ends, and with it its locks.
        "client_connection_check_interval": "500ms",
        **SEARCH,
        # 20 of 100 connections, so that readers cannot take the owner's.
        "superuser_reserved_connections": "20",
    }
    if folder.version(database) >= NOTIFY_QUEUE_VERSION:
        # 64 MB: the default lets the messages of a NOTIFY that nobody reads take 8 GB.
        settings["max_notify_queue_pages"] = "8192"
    _write(database / _HBA, access.HBA, user)
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    _write(database / "vecsearch.conf", lines, user)
    main = database / "postgresql.conf"
    present = programs.read_text(main)
    if _INCLUDE not in present:
        _write(main, f"{present}\n{_INCLUDE}\n", user)


def options(database: Path, seen: str, sockets: Path, port: int | None) -> list[str]:
    """Return the options of its command line, which precede every configuration file.

    Args:
        database: the database's folder.
        seen: the same, as the server reaches it.
        sockets: the folder of its socket.
        port: a port of 127.0.0.1; None: it is on no network.

    """
    place = seen if sockets == database else str(sockets)
    settings = {
        "hba_file": f"{seen}/{_HBA}",
        # A list, whose items may be quoted.
        "unix_socket_directories": f'"{place}"',
        # Whoever opens the socket is superuser, so only the owner may, wherever it is.
        "unix_socket_permissions": "0700",
    }
    if seen != str(database):
        settings[FOLDER_SETTING] = str(database)
    network = ["-h", ""] if port is None else ["-h", access.ADDRESS, "-p", str(port)]
    return [*network, *(word for item in settings.items() for word in ("-c", "=".join(item)))]


def _write(file: Path, text: str, user: Account) -> None:
    """Write a file of the server's user, whole or not at all; a link is replaced, not followed."""
    partial = file.with_name(f".{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    opened = os.open(partial, flags, 0o600)
    try:
        with os.fdopen(opened, "w", errors="surrogateescape") as writing:
            if user.uid != os.geteuid():
                os.fchown(opened, user.uid, user.gid)
            writing.write(text)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
