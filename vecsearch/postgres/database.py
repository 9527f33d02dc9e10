"""Open connections from a URL, and translate the driver's errors into ours."""

import logging
import os
import platform
import re
import select
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import (
    DatabaseBusy,
    DatabaseError,
    DatabaseLost,
    DatabaseUnavailable,
    ExtensionMissing,
    VecsearchError,
    first_line,
)
from vecsearch.postgres import tables
from vecsearch.postgres.sessions import hosts
from vecsearch.postgres.sessions.connecting import CONNECT_TIMEOUT_S, patiently

# A server ends what a session asked for when its client is gone; in milliseconds.
CLIENT_CHECK_MS = "500"
# Idle connections kept for concurrent threads.
POOL_SIZE = 16
# SQL for the name of the schema in which pgvector is installed; NULL if it is not.
VECTOR_SCHEMA = (
    "(SELECT nspname FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace"
    " WHERE extname = 'vector')"
)
# Postgres' codes for a table, a column and a function that does not exist.
_OBJECT_MISSING = {"42P01", "42703", "42883"}
# What libpq says of each of several hosts, or addresses of one.
_HOST_FAILED = re.compile(r'server at "(.+?)", port (\d+) failed: (?:FATAL: *)?(.+)')
# What Citus' coordinator says of a worker that does not answer.
_SHARD_LOST = re.compile(r"remote node (?:\S+@)?(\S+:\d+)")
EXTENSION_HELP = (
    "Install pgvector on the server (https://github.com/pgvector/pgvector#installation) "
    "or use the embedded database by leaving the URL out."
)
# Our errors say that a connection is lost. Its pool says so again, with a traceback, which is for
# programs that have set up logging.
logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())


def open_engine(
    url: str, session: Mapping[str, str] | None = None, *, writes: bool = True
) -> sa.Engine:
    """Return an Engine for any Postgres URL, without connecting.

    Args:
        url: a URL in the form of SQLAlchemy or libpq.
        session: Postgres settings for every connection.
        writes: of several hosts, connect to one that takes changes; False: to what the URL's
            `target_session_attrs` says.

    Raises:
        InvalidInput: the URL is not a Postgres URL.

    """
    parsed = hosts.parse(url)
    if writes:
        parsed = hosts.for_writing(parsed)
    if "connect_timeout" not in parsed.query:
        parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S)})
    arguments = {"fallback_application_name": _program()}
    engine = sa.create_engine(parsed, pool_size=POOL_SIZE, connect_args=arguments)

    def set_up(connection: psycopg.Connection[Any], _record: object) -> None:
        _set_up(connection, session or {})

    def check_out(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
        if not is_open(connection):
            raise sa.exc.DisconnectionError

    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "connect", set_up)
    sa.event.listen(engine, "checkout", check_out)
    return engine


def _program() -> str:
    """Return what sessions are called: the program, its process and its machine."""
    name = Path(sys.argv[0]).stem if sys.argv[0] else "python"
    if name in {"vecsearch", "__main__"}:
        name = " ".join(["vecsearch", *(word for word in sys.argv[1:2] if word.isalpha())])
    # Postgres keeps 63 bytes.
    return f"{name[:20]} (PID {os.getpid()} on {platform.node()[:30]})"


def reviving(engine: sa.Engine, revive: Callable[[], None]) -> None:
    """Have a server started again when the engine cannot connect to it.

    Args:
        engine: of the server.
        revive: returns when the server takes connections, if it can do anything about that.

    """

    def connect(
        dialect: sa.Dialect, record: object, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        try:
            return _connect(dialect, record, arguments, options)
        except DatabaseUnavailable:
            revive()
        return _connect(dialect, record, arguments, options)

    sa.event.remove(engine, "do_connect", _connect)
    sa.event.listen(engine, "do_connect", connect)


def _connect(
    dialect: sa.Dialect, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    try:
        return patiently(lambda: dialect.connect(*arguments, **options))
    except psycopg.Error as error:
        raise _unavailable(error) from error


def is_open(connection: psycopg.Connection[Any]) -> bool:
    """Return whether an idle connection is still open, without a round trip.

    A server that stops sends a message and closes, so its socket is readable; the socket of an open
    idle connection has nothing to read.
    """
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def apply_settings(driver: "psycopg.Connection[Any]", settings: Mapping[str, str]) -> None:
    """Apply settings until the transaction ends.

    By SET, which reaches the shards of a distributed table, as `set_config` does not.
    """
    for name, value in settings.items():
        text = f"SET LOCAL {name} = {sql.Literal(value).as_string()}"
        driver.execute(text.encode(), prepare=True)


def apply_limits(driver: "psycopg.Connection[Any]", limits: Mapping[str, str]) -> None:
    """Apply time limits until the transaction ends; a stricter one of the session's own stays.

    Args:
        driver: the connection.
        limits: names of Postgres' timeouts, and each one's limit, such as "5min".

    """
    # As intervals: a session's limit is shown in the largest unit that fits it; 0 is none.
    stricter = (
        "set_config(%s, CAST(CAST(1000 * extract(epoch FROM least("
        "nullif(CAST(current_setting(%s) AS interval), '0'), CAST(%s AS interval))) AS bigint)"
        " AS text), true)"
    )
    driver.execute(
        f"SELECT {', '.join([stricter] * len(limits))}".encode(),
        [part for name, limit in limits.items() for part in (name, name, limit)],
        prepare=True,
    )


def superuser_advice(connection: sa.Connection) -> str | None:
    """Return a warning if the connection's role is a superuser; None if it is not."""
    if driver_connection(connection).info.parameter_status("is_superuser") != "on":
        return None
    return (
        "searches and `vecsearch sql` run as a superuser, so an SQL condition can do anything on "
        "the server; give them a role that can only read: --reader-url (docs/sql.md)."
    )


def without_password(url: str) -> str:
    """Return a URL with its password hidden."""
    return hosts.parse(url).set(drivername="postgresql").render_as_string(hide_password=True)


def _set_up(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Apply settings to a session, in one round trip, and those of every session.

    Our schema and pgvector's are put on its search path. The server notices when its client is
    killed, so that the session's locks do not outlive the client for long; a setting of the user's
    own stays. Citus hands on what SET LOCAL sets.
    """
    path = (
        "set_config('search_path', concat_ws(', ', %s::text,"
        f" nullif(current_setting('search_path'), ''), quote_ident({VECTOR_SCHEMA})), false)"
    )
    handed_on = (
        "CASE WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
        " THEN set_config('citus.propagate_set_commands', 'local', false) END"
    )
    calls = ", ".join([*["set_config(%s, %s, false)"] * len(settings), path, handed_on])
    values = [*(part for item in settings.items() for part in item), tables.SCHEMA]
    check = (
        "CASE current_setting('client_connection_check_interval') WHEN '0'"
        " THEN set_config('client_connection_check_interval', %s, false) END"
    )
    connection.autocommit = True
    try:
        connection.execute(f"SELECT {calls}, {check}".encode(), [*values, CLIENT_CHECK_MS])
    except psycopg.DatabaseError:
        # Not every system lets a server see that.
        connection.execute(f"SELECT {calls}".encode(), values)
    connection.autocommit = False


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a read-only transaction on one snapshot."""
    with translated(), engine.connect() as pooled:
        connection = pooled.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        yield connection
        # Commit: after a rollback, psycopg forgets its prepared statements.
        if not connection.invalidated:
            connection.commit()
            driver_connection(connection).commit()


# Begins a transaction like that of `reading`.
BEGIN = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@contextmanager
def pipelining(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection whose caller pipelines `BEGIN` and COMMIT with other statements.

    psycopg would spend a round trip on each. A transaction still open at the end is committed, or
    rolled back after an error.
    """
    with translated(), engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        yield connection
        if not connection.invalidated:
            driver_connection(connection).commit()


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction, and commit it at the end."""
    with translated(), engine.begin() as connection:
        yield connection


@contextmanager
def session(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection; the caller begins and commits its transactions."""
    with translated(), engine.connect() as connection:
        yield connection


def driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection, in the same transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - for the type checker
    return driver


@contextmanager
def translated(statement: str | None = None) -> Iterator[None]:
    """Translate errors of SQLAlchemy and psycopg into ours.

    Args:
        statement: the text that was sent, so that the message can point at an error's position.

    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _ours(error.orig, statement) from error
    except psycopg.Error as error:
        raise _ours(error, statement) from error
    except sa.exc.TimeoutError as error:
        raise DatabaseBusy("All database connections are in use. Retry in a moment.") from error


def _ours(error: BaseException | None, statement: str | None) -> VecsearchError:
    if not isinstance(error, psycopg.Error):
        return DatabaseError(f"The database failed: {error}.")
    message = (error.diag.message_primary or str(error)).strip()
    state = error.sqlstate or ""
    if state.startswith(("28", "3D", "53300")):
        return _unavailable(error)
    shard = _SHARD_LOST.search(message)
    if shard is not None:
        return DatabaseUnavailable(
            f"A server that has shards does not answer: {shard[1]}. Start it, then retry; which "
            "are down: vecsearch sql 'SELECT * FROM citus_check_cluster_node_health()' --write"
        )
    lost = isinstance(error, psycopg.OperationalError) and not state
    # A protocol violation (08P01) is a statement's fault: a parameter that nobody gave.
    if lost or (state.startswith(("08", "57P")) and state != "08P01"):
        reason = first_line(message).removeprefix("consuming input failed: ")
        return DatabaseLost(
            f"The connection to the database was lost: {reason}. Run the command again; if that "
            "fails, check that the database is running."
        )
    if statement is None and state in _OBJECT_MISSING and f'"{tables.SCHEMA}' in message:
        return DatabaseError(
            f"Something of a collection was dropped: {message}. "
            "To see what is missing, and to mend it: vecsearch db repair"
        )
    return _well_known(error, message) or DatabaseError(_in_full(error, message, statement))


def _unavailable(error: psycopg.Error) -> DatabaseUnavailable:
    message = error.diag.message_primary or str(error)
    failures = _HOST_FAILED.findall(message.rpartition("All failures were:")[2])
    if len(failures) > 1:
        message = "; ".join(f"{host}:{port}: {why}" for host, port, why in failures)
    reason = re.sub(r"\s+", " ", message.strip()).rstrip(".")
    return DatabaseUnavailable(
        f"Cannot use the database: {reason}. "
        "Check that it is running and that --database-url or VECSEARCH_DATABASE_URL is right."
    )


def _well_known(error: psycopg.Error, message: str) -> VecsearchError | None:
    """Return a more helpful error for some well-known errors of Postgres; None for others."""
    if error.sqlstate in {"0A000", "58P01"} and '"vector"' in message:
        return ExtensionMissing(f"The server lacks pgvector: {message}. {EXTENSION_HELP}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege) and 'extension "vector"' in message:
        return ExtensionMissing(
            f"This role may not install pgvector: {message}. "
            "Ask an administrator to run CREATE EXTENSION vector."
        )
    if error.sqlstate == "42601" and "multiple commands" in message:
        return DatabaseError("One statement at a time. Run each by itself.")
    if isinstance(error, psycopg.errors.DiskFull):
        return DatabaseError(
            f"The database's disk is full: {message}. Free some space and retry; "
            "committed work is kept."
        )
    return _stopped(error, message)


def _stopped(error: psycopg.Error, message: str) -> DatabaseBusy | None:
    """Return an error for a statement that the server stopped; None if it did not."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return DatabaseBusy(
            f"The database stopped the statement: {message}. Ask for less.",
            step="SQL may take more time: vecsearch sql --timeout SECONDS",
        )
    if isinstance(error, psycopg.errors.SerializationFailure) and "recovery" in message:
        return DatabaseBusy(
            f"The standby stopped the statement: {message}. Retry; if this goes on, set "
            "hot_standby_feedback there, or a longer max_standby_streaming_delay."
        )
    return None


def _in_full(error: psycopg.Error, message: str, statement: str | None) -> str:
    detail = [message]
    if statement is not None and error.diag.statement_position:
        detail.append(_pointed_at(statement, int(error.diag.statement_position)))
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        detail.append("To change data: vecsearch sql --write 'STATEMENT'")
    if error.diag.message_hint:
        detail.append(f"Hint: {error.diag.message_hint}")
    return "\n".join(detail)


def _pointed_at(statement: str, position: int) -> str:
    """Return the line of `statement` that holds the 1-based `position`, a caret under it."""
    before = statement[: position - 1]
    column = len(before) - (before.rfind("\n") + 1)
    line = statement.split("\n")[before.count("\n")]
    # A vector literal is longer than any terminal line, so show only the part near the error.
    start = max(0, column - 60)
    return f"  {line[start : column + 60]}\n  {' ' * (column - start)}^"
