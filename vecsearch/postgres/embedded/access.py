"""Who may connect to the embedded Postgres, and how.

The owner connects by the Unix socket: to change something as superuser, and to read as LOCAL, which
may do nothing else. If a port is set, readers and writers connect by TCP, from this machine,
each with its password. Nobody else can connect.
"""

import socket
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from vecsearch.errors import DatabaseUnavailable
from vecsearch.files import written_whole

DATABASE = "vecsearch"
READER = "vecsearch_reader"
WRITER = "dbt"
# Reads for the owner's commands, by the socket alone: it has no password.
LOCAL = "vecsearch_local"
LOCAL_SETTINGS = {
    "default_transaction_read_only": "on",
    # Long enough for what an evaluation computes between two statements.
    "idle_in_transaction_session_timeout": "1h",
    # As long as a drop waits for searches, which wait behind it meanwhile.
    "lock_timeout": "30s",
    "temp_file_limit": "16GB",
}
# Roles without a login, of which every reader, and every writer, is a member.
READERS, WRITERS = "vecsearch_readers", "vecsearch_writers"
# Without a login and without members: it owns what dropped writers made.
FORMER_WRITERS = "vecsearch_former_writers"
ADDRESS = "127.0.0.1"
# pg_hba.conf refuses everyone whom no line matches. The one that initdb writes trusts everyone on
# this machine. +: every member of the role, so that a new one needs no restart.
HBA = f"""\
local all,replication all trust
host {DATABASE} +{READERS} {ADDRESS}/32 scram-sha-256
"""


def as_local(url: str) -> str:
    """Return the owner's URL as that of LOCAL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{LOCAL}@"))


def port(data_dir: Path) -> int | None:
    """Return the port on which the server listens when it runs; None: on no port."""
    try:
        return int(_port_file(data_dir).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def remember_port(data_dir: Path, chosen: int | None) -> None:
    """Store the port for the server's next start."""
    if chosen is None:
        _port_file(data_dir).unlink(missing_ok=True)
    else:
        write(_port_file(data_dir), f"{chosen}\n")


def write(file: Path, text: str) -> None:
    """Write a file that only the owner can read, whole or not at all."""
    with written_whole(file, 0o600) as partial:
        partial.write_text(text)


def require_free(chosen: int | None) -> None:
    """Check that a server can listen on this port; Postgres reports a failure only in its log.

    Raises:
        DatabaseUnavailable: another program listens on it, or the system forbids it.

    """
    if chosen is None:
        return
    with socket.socket() as probe:
        # As Postgres does: a port is free even while closed connections linger on it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, chosen))
        except OSError as error:
            raise DatabaseUnavailable(
                f"The database cannot listen on port {chosen} of {ADDRESS}: {error.strerror}. "
                "Choose another with `vecsearch db start --port N`, or none with "
                "`vecsearch db start --no-port`."
            ) from error


def _port_file(data_dir: Path) -> Path:
    return data_dir / "port"
