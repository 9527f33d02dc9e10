"""The embedded server's database, brought to what it should be at each start of a command."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.errors import first_line
from vecsearch.postgres.embedded.access import DATABASE, LOCAL, LOCAL_SETTINGS
from vecsearch.postgres.embedded.credentials import read_all
from vecsearch.postgres.embedded.troubles import EndedFromOutside
from vecsearch.postgres.sessions.connecting import CONNECT_TIMEOUT_S, patiently

if TYPE_CHECKING:
    import psycopg

# As long as its start may take.
RECOVERY_S = 600.0
# SQLSTATEs of a session whose server, or one of its processes, is shut down or killed.
_ENDED = {"57P01", "57P02"}
_log = logging.getLogger(__name__)


def prepare(data_dir: Path, url: str, maintenance_url: str) -> None:
    """Create the database, in which `SELECT … FROM images` works from any client, and LOCAL.

    Roles that connect by TCP are restored.

    Args:
        data_dir: the folder of the database and of its readers' passwords.
        url: the owner's URL of the database.
        maintenance_url: the owner's URL of the database `postgres`.

    Raises:
        EndedFromOutside: the server ended meanwhile.
        RuntimeError: the server refuses it.

    """
    import psycopg
    from psycopg import sql

    name = sql.Identifier(DATABASE)
    try:
        with _connected(maintenance_url, autocommit=True) as connection:
            found = connection.execute(
                "SELECT setting.setconfig, (SELECT rolconfig FROM pg_roles"
                " WHERE rolname = %s AND NOT rolsuper)"
                " FROM pg_database AS database LEFT JOIN pg_db_role_setting"
                " AS setting ON setting.setdatabase = database.oid AND setting.setrole = 0"
                " WHERE datname = %s",
                [LOCAL, DATABASE],
            ).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
            if found is None or found[0] is None:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET search_path = vecsearch, public").format(name)
                )
        if found is None or found[1] != [f"{key}={value}" for key, value in LOCAL_SETTINGS.items()]:
            from vecsearch.postgres.embedded import role

            with _connected(url) as connection:
                role.prepare_local(connection)
    except psycopg.Error as error:
        raise (EndedFromOutside if _is_lost(error) else RuntimeError)(str(error)) from error
    _restore_roles(data_dir, url)


def _connected(url: str, *, autocommit: bool = False) -> "psycopg.Connection[Any]":
    """Connect, even while the server recovers from the end of one of its processes."""
    import psycopg

    return patiently(
        lambda: psycopg.connect(url, autocommit=autocommit, connect_timeout=CONNECT_TIMEOUT_S),
        patience_s=RECOVERY_S,
    )


def _is_lost(error: "psycopg.Error") -> bool:
    """Return whether the server ended, rather than refused something."""
    import psycopg

    # A refused connection has no code either, but the server's own words.
    has_gone = error.sqlstate is None and "FATAL:" not in str(error)
    return isinstance(error, psycopg.OperationalError) and (has_gone or error.sqlstate in _ENDED)


def _restore_roles(data_dir: Path, url: str) -> None:
    """Restore roles that changed themselves; whatever they do, the command goes on."""
    stored = read_all(data_dir)
    if not stored:
        return
    import psycopg

    from vecsearch.postgres.embedded import role

    try:
        with _connected(url) as connection:
            changed = role.restore(connection, stored)
    except psycopg.Error as error:
        if _is_lost(error):
            raise EndedFromOutside(str(error)) from error
        _log.warning(
            "A role that connects by TCP was changed from inside and could not be restored: %s. "
            "List such roles with `vecsearch db roles`, and drop it with --drop.",
            first_line(error),
        )
        return
    if changed:
        _log.warning(
            "Restored the password and settings of %s, which were changed from inside, and ended "
            "its sessions.",
            ", ".join(changed),
        )
