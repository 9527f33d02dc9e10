"""COPY: the way many rows reach the server at once."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from vecsearch.database import driver_connection


def copy_rows(
    connection: sa.Connection, table: str, types: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    """Copy rows, in binary, into a table whose columns have these types, in this order."""
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN WITH (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)
