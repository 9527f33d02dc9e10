"""Shared by everything that writes rows: ids, the lock, COPY, statistics."""

import uuid
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import sqlalchemy as sa

from vecsearch.postgres import schema
from vecsearch.postgres.database import driver_connection

# Any fixed number, beside the hash of a collection's name.
WRITE_LOCK_KEY = 0x7665


def image_id(path: str) -> uuid.UUID:
    """Return the id of the row for `path`: UUIDv5 (RFC 9562) of its file URI.

    Any worker anywhere writes the same row for the same path.
    """
    return uuid.uuid5(uuid.NAMESPACE_URL, PurePath(path).as_uri())


def lock_collection(connection: sa.Connection, name: str) -> None:
    """Let only this transaction write to the collection until it ends.

    Otherwise two runs over the same files could deadlock on each other's rows.
    """
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(:key, hashtext(:name))"),
        {"key": WRITE_LOCK_KEY, "name": name},
    )


def copy_rows(
    connection: sa.Connection, table: str, types: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    """Copy rows in binary into a table; `types` are those of its columns, in order."""
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN WITH (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)


def analyze(connection: sa.Connection, table: sa.Table) -> None:
    """Refresh the planner's statistics."""
    connection.execute(sa.text(f"ANALYZE {schema.sql_name(table)}"))
