"""Thumbnails: one per file content, shared by all rows with that content in any collection.

A transaction that stores rows calls `hold` first. Thumbnails without a row are deleted only while
no such transaction is open, because its rows are not visible yet.
"""

import uuid
from collections.abc import Iterable

import sqlalchemy as sa

from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.postgres import schema, tables
from vecsearch.postgres.rows import copy_rows
from vecsearch.vocabulary import NOT_UNDONE

_TABLE = tables.thumbnails.fullname


def find(
    connection: sa.Connection, table: sa.Table, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, bytes]:
    """Return thumbnails by id; ids without a row or a thumbnail are left out."""
    rows = connection.execute(
        sa.text(
            f"SELECT stored.id, thumbnails.image FROM {schema.sql_name(table)} AS stored"
            f" JOIN {_TABLE} USING (sha256) WHERE stored.id = ANY(:ids)"
        ),
        {"ids": list(ids)},
    )
    return {row.id: row.image for row in rows}


def get(
    connection: sa.Connection, table: sa.Table, image_id: uuid.UUID
) -> tuple[str, bytes] | None:
    """Return a row's SHA-256 and thumbnail; None if the row or the thumbnail does not exist."""
    row = connection.execute(
        sa.text(
            f"SELECT sha256, thumbnails.image FROM {schema.sql_name(table)} AS stored"
            f" JOIN {_TABLE} USING (sha256) WHERE stored.id = :id"
        ),
        {"id": image_id},
    ).first()
    return None if row is None else (row.sha256, row.image)


def missing(connection: sa.Connection, hashes: Iterable[str]) -> set[str]:
    """Return the SHA-256s that have no thumbnail."""
    return set(
        connection.scalars(
            sa.text(
                "SELECT wanted FROM unnest(CAST(:hashes AS text[])) AS wanted"
                f" WHERE NOT EXISTS (SELECT FROM {_TABLE} WHERE sha256 = wanted)"
            ),
            {"hashes": list(hashes)},
        )
    )


def hold(connection: sa.Connection) -> None:
    """Keep thumbnails from being deleted until the transaction ends; call before storing rows."""
    connection.execute(sa.text(f"LOCK TABLE {_TABLE} IN ROW EXCLUSIVE MODE"))


def lock(connection: sa.Connection) -> None:
    """Wait for every `hold`, and block new ones until the transaction ends."""
    connection.execute(sa.text(f"LOCK TABLE {_TABLE} IN SHARE ROW EXCLUSIVE MODE"))


def store(connection: sa.Connection, rows: Iterable[Thumbnail]) -> None:
    """Add thumbnails; existing ones are kept. Call it once per transaction."""
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE made (sha256 text, width int, height int, image bytea)"
            " ON COMMIT DROP"
        )
    )
    values = ((row.sha256, row.width, row.height, row.image) for row in rows)
    copy_rows(connection, "made", "text int4 int4 bytea", values)
    store_from(connection, "SELECT sha256, width, height, image FROM made")


def store_from(connection: sa.Connection, select: str) -> None:
    """Add the thumbnails that a SELECT gives: SHA-256, width, height, image."""
    # Every run inserts in the same order, so that two runs cannot deadlock.
    connection.execute(
        sa.text(
            f"INSERT INTO {_TABLE} (sha256, width, height, image)"
            f" {select} ORDER BY sha256 ON CONFLICT (sha256) DO NOTHING"
        )
    )


def delete_orphans(connection: sa.Connection) -> None:
    """Delete the thumbnails that no row uses, nor an undo needs; in its own transaction."""
    lock(connection)  # the next statement sees the rows that every `hold` has stored
    connection.execute(sa.text(f"DELETE FROM {_TABLE} WHERE {_unheld(connection)}"))


def count_orphans(connection: sa.Connection) -> int:
    """Return the number of thumbnails that no row of any collection uses."""
    orphans = f"SELECT count(*) FROM {_TABLE} WHERE {_unheld(connection)}"
    return connection.scalar(sa.text(orphans)) or 0


def _unheld(connection: sa.Connection) -> str:
    # A collection whose table was dropped by hand holds none.
    names = connection.scalars(
        sa.text(
            "SELECT name FROM vecsearch.collections"
            " WHERE to_regclass('vecsearch.' || quote_ident(name)) IS NOT NULL"
        )
    )
    # A join, because Citus has no NOT EXISTS from the coordinator's tables to shards.
    held = [
        (f"(SELECT sha256 FROM vecsearch.{schema.sql_name(name)}) AS held_{number}", number)
        for number, name in enumerate(names)
    ]
    joined = "".join(
        f" LEFT JOIN {table} ON held_{number}.sha256 = own.sha256" for table, number in held
    )
    free = "".join(f" AND held_{number}.sha256 IS NULL" for _, number in held)
    free += (
        f" AND NOT EXISTS (SELECT FROM {tables.file_actions.fullname} AS undoable"
        " WHERE undoable.sha256 = own.sha256 AND state IN"
        f" ({', '.join(map(repr, map(str, NOT_UNDONE)))}))"
    )
    return f"sha256 IN (SELECT own.sha256 FROM {_TABLE} AS own{joined} WHERE true{free})"
