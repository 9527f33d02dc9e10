"""Run one SQL statement written by the user.

What it may do is up to the role that runs it, never to its text: to read, a role with a reader's
rights, within a time limit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

Result = tuple[list[str], Iterator[tuple[Any, ...]], str]

# In Python: psycopg's loader of intervals in C overflows without a word.
_TIMES: dict[str, type[Loader]] = {
    "date": datetime.DateLoader,
    "time": datetime.TimeLoader,
    "timetz": datetime.TimetzLoader,
    "timestamp": datetime.TimestampLoader,
    "timestamptz": datetime.TimestamptzLoader,
    "interval": datetime.IntervalLoader,
}


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
    engine: sa.Engine, statement: str, *, write: bool, timeout: float | None = None
) -> Iterator[Result]:
    """Run one statement unchanged; yield column names, rows, and the server's command tag.

    Of columns with the same name, the later ones get a number.

    Args:
        engine: the database's engine, as the role that may do what the statement does.
        statement: one SQL statement.
        write: commit it; otherwise the transaction is read-only and is rolled back, with any SET.
        timeout: seconds after which the server stops the statement; None is READING_LIMITS', or
            the session's own if that is stricter, to read, and the session's own to write.

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
            result = _run(connection, statement)
        except DatabaseError as error:
            if write or not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
                raise
            raise DatabaseError(
                f"{error}\nWithout --write, a statement can do no more than read the tables."
            ) from error
        yield result
        if not write:
            driver.rollback()


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


def _run(connection: sa.Connection, statement: str) -> Result:
    driver = driver_connection(connection)
    # A prepared statement holds one command, so Postgres refuses a second one after a semicolon.
    with translated(statement):
        try:
            cursor = driver.cursor()
            for name in _TIMES:
                cursor.adapters.register_loader(name, _OrText)
            cursor.execute(statement.encode(), prepare=True)
        except psycopg.ProgrammingError as error:
            if driver.info.transaction_status is not TransactionStatus.ACTIVE:
                raise
            # A COPY has begun, which only the end of the connection ends.
            connection.invalidate()
            raise DatabaseError("COPY does not work here. Run it in: vecsearch db shell") from error
    if cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.EMPTY_QUERY:
        raise InvalidInput(
            "There is no statement. Write one, such as: vecsearch sql 'SELECT path FROM images'"
        )
    columns = _distinct([column.name for column in cursor.description or ()])
    return columns, iter(cursor if columns else ()), cursor.statusmessage or ""
