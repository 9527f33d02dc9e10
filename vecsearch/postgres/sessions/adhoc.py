"""Run one SQL statement written by the user."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from vecsearch.errors import DatabaseError
from vecsearch.postgres.database import driver_connection, reading, translated, writing

Result = tuple[list[str], Iterator[tuple[Any, ...]], str]


@contextmanager
def running(engine: sa.Engine, statement: str, *, write: bool) -> Iterator[Result]:
    """Run one statement unchanged; yield column names, rows, and the server's command tag.

    Args:
        engine: the database's engine.
        statement: one SQL statement.
        write: commit it; otherwise the transaction is read-only and is rolled back, with any SET.

    Raises:
        DatabaseError: Postgres refused the statement; the message points at the position.

    """
    if write:
        with writing(engine) as connection:
            yield _run(connection, statement)
    else:
        with reading(engine) as connection:
            yield _run(connection, statement)
            driver_connection(connection).rollback()


def _run(connection: sa.Connection, statement: str) -> Result:
    if statement.lstrip().lower().startswith("copy"):
        raise DatabaseError("COPY does not work here. Run it in: vecsearch db shell")
    driver = driver_connection(connection)
    # A prepared statement holds one command, so Postgres refuses a second one after a semicolon.
    with translated(statement):
        cursor = driver.execute(statement.encode(), prepare=True)
    columns = [column.name for column in cursor.description or ()]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DatabaseError(f"Two columns are named {' and '.join(twice)}. Rename one with AS.")
    return columns, iter(cursor if columns else ()), cursor.statusmessage or ""
