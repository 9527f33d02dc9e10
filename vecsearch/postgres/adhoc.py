"""One SQL statement of the user's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from vecsearch.errors import DatabaseError
from vecsearch.postgres.database import driver_connection, reading, translated, writing

Result = tuple[list[str], Iterator[tuple[Any, ...]], str]


@contextmanager
def running(engine: sa.Engine, statement: str, *, write: bool) -> Iterator[Result]:
    """Run one statement as it stands; yield column names, rows, and the server's own summary.

    Args:
        engine: of the database.
        statement: one SQL statement.
        write: commit it; otherwise it is read-only, and rolled back with what it may have SET.

    Raises:
        DatabaseError: Postgres refused it; the message points at the place.

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
        raise DatabaseError("COPY needs a client that speaks it. Use: vecsearch db shell")
    driver = driver_connection(connection)
    # A prepared statement holds one command, so a second one behind a semicolon is refused.
    with translated(statement):
        cursor = driver.execute(statement.encode(), prepare=True)
    columns = [column.name for column in cursor.description or ()]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DatabaseError(f"Two columns are called {' and '.join(twice)}. Rename one with AS.")
    return columns, iter(cursor if columns else ()), cursor.statusmessage or ""
