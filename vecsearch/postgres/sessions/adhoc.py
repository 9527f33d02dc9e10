"""Run one SQL statement written by the user.

What it may do is up to the role that runs it, never to its text: to read, a role with a reader's
rights, within a time limit.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict, cast

import psycopg
import sqlalchemy as sa
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.types import datetime

from vecsearch.errors import DatabaseError, InvalidInput
from vecsearch.postgres.database import (
    apply_limits,
    apply_settings,
    driver_connection,
    reading,
    translated,
    writing,
)
from vecsearch.postgres.sessions.settings import READING_LIMITS

if TYPE_CHECKING:
    from collections.abc import Generator

Result = tuple[list[str], Iterator[tuple[Any, ...]], str]

# Roles of Postgres that reach files or programs of the server; superusers are of all roles.
_OF_THE_SERVER = ("pg_read_server_files", "pg_write_server_files", "pg_execute_server_program")

# In Python: psycopg's loader of intervals in C overflows without a word.
_TIMES: dict[str, type[Loader]] = {
    "date": datetime.DateLoader,
    "time": datetime.TimeLoader,
    "timetz": datetime.TimetzLoader,
    "timestamp": datetime.TimestampLoader,
    "timestamptz": datetime.TimestamptzLoader,
    "interval": datetime.IntervalLoader,
}


class Options(TypedDict, total=False):
    """Options of `running`."""

    timeout: float | None
    most: int | None


class _OrText(Loader):
    """Loads a time as usual, and one that Python lacks, such as infinity, as Postgres writes it."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._usual = _TIMES[psycopg.adapters.types[oid].name](oid, context)

    def load(self, data: Buffer) -> Any:
        text = bytes(data).decode()
        # psycopg takes an infinite interval for zero.
        if text.endswith("infinity"):
            return text
        try:
            return self._usual.load(data)
        except (psycopg.DataError, OverflowError, ValueError):
            return text


@contextmanager
def running(
    engine: sa.Engine,
    statement: str,
    *,
    write: bool,
    timeout: float | None = None,
    most: int | None = None,
) -> Iterator[Result]:
    """Run one statement unchanged; yield column names, rows, and the server's command tag.

    Of columns with the same name, the later ones get a number.

    Args:
        engine: the database's engine, as the role that may do what the statement does.
        statement: one SQL statement.
        write: commit it; otherwise the transaction is read-only and is rolled back, with any SET.
        timeout: seconds after which the server stops the statement; None is READING_LIMITS', or
            the session's own if that is stricter, to read, and the session's own to write.
        most: stop the statement after so many rows, so that memory holds no more; only to read.

    Raises:
        InvalidInput: there is no statement in the text.
        DatabaseError: Postgres refused the statement; the message points at the position.

    """
    with (writing if write else reading)(engine) as connection:
        driver = driver_connection(connection)
        if timeout is not None:
            apply_settings(driver, {"statement_timeout": f"{round(timeout * 1000)}ms"})
        elif not write:
            apply_limits(driver, READING_LIMITS)
        try:
            few = None if most is None else _fetch(connection, statement, most)
            result = few or _run(connection, statement)
        except DatabaseError as error:
            if write or not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            raise DatabaseError(
                f"{error}\nWithout --write, a statement can only read the tables."
            ) from error
        yield result
        if not write:
            driver.rollback()


def require_least(connection: sa.Connection) -> None:
    """Check that the connection's role reaches neither files nor programs of the server.

    Raises:
        InvalidInput: it does, as every superuser.

    """
    rights = " OR ".join(f"pg_has_role('{role}', 'USAGE')" for role in _OF_THE_SERVER)
    if connection.scalar(sa.text(f"SELECT {rights}")):
        raise InvalidInput(
            "SQL is refused here: the database is read as a role that reaches files or programs of "
            "its server. Start vecsearch with the --reader-url of a role that can only read "
            "(docs/sql.md)."
        )


def _run(connection: sa.Connection, statement: str) -> Result:
    driver = driver_connection(connection)
    # A prepared statement holds one command, so Postgres refuses a second one after a semicolon.
    with translated(statement):
        try:
            cursor = _cursor(driver)
            cursor.execute(statement.encode(), prepare=True)
        except psycopg.ProgrammingError as error:
            _refuse_copy(connection, error)
            raise
    if cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.EMPTY_QUERY:
        raise InvalidInput(
            "There is no statement. Write one, such as: vecsearch sql 'SELECT path FROM images'"
        )
    columns = _columns(cursor)
    return columns, iter(cursor if columns else ()), cursor.statusmessage or ""


def _fetch(connection: sa.Connection, statement: str, most: int) -> Result | None:
    """Return the first rows of a statement, and stop it there; None if it returns no row."""
    driver = driver_connection(connection)
    with translated(statement):
        cursor = _cursor(driver)
        # Row by row: else libpq would keep all of them before the first is seen.
        rows = cast("Generator[tuple[Any, ...]]", cursor.stream(statement.encode()))
        with closing(rows):
            try:
                found = list(islice(rows, most))
            except (psycopg.ProgrammingError, psycopg.InternalError) as error:
                if error.sqlstate is not None:
                    raise
                # psycopg's own: there is no result, or no statement.
                _refuse_copy(connection, error)
                return None
    # Without a row, psycopg does not tell the columns.
    return (_columns(cursor), iter(found), "") if found else None


def _cursor(driver: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    cursor = driver.cursor()
    for name in _TIMES:
        cursor.adapters.register_loader(name, _OrText)
    return cursor


def _columns(cursor: psycopg.Cursor[Any]) -> list[str]:
    return _distinct([column.name for column in cursor.description or ()])


def _distinct(names: list[str]) -> list[str]:
    """Return names of columns with a number at those that were there before: count, count_2."""
    found: list[str] = []
    for name in names:
        number, distinct = 1, name
        while distinct in found or (number > 1 and distinct in names):
            number += 1
            distinct = f"{name}_{number}"
        found.append(distinct)
    return found


def _refuse_copy(connection: sa.Connection, error: psycopg.Error) -> None:
    """End the connection if a COPY has begun, which nothing else ends.

    Raises:
        DatabaseError: one has begun.

    """
    if driver_connection(connection).info.transaction_status is TransactionStatus.ACTIVE:
        connection.invalidate()
        raise DatabaseError("COPY does not work here. Run it in: vecsearch db shell") from error
