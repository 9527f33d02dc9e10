"""What was seen on disk against what is stored.

A run works on temporary tables of its session: `seen` holds the walk, `pending` what of it must be
opened.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from vecsearch.imaging.scan import File
from vecsearch.postgres import schema
from vecsearch.postgres.rows import copy_rows
from vecsearch.search import indexes


@dataclass(frozen=True)
class Pending:
    """A file to open.

    Attributes:
        stored: whether its path has a row already.
        sha256: of that row, if the file looks unchanged and its content lacks a thumbnail; else
            None.

    """

    position: int
    file: File
    stored: bool
    sha256: str | None


@dataclass(frozen=True)
class Content:
    """A stored row with a known content hash."""

    id: uuid.UUID
    path: str


@dataclass(frozen=True)
class Scope:
    """Which rows a run may speak for: those under `roots`, less those under `unreadable`."""

    roots: Sequence[str]
    unreadable: Sequence[str]


def record_seen(connection: sa.Connection, files: Iterable[File]) -> int:
    """Fill this session's `seen` with the walk and return the number of distinct files."""
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.seen, pg_temp.pending"))
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE seen (position int, path text, relative text, name text,"
            " file_size bigint, modified_at timestamptz)"
        )
    )
    rows = (
        (position, file.path, file.relative, file.name, file.file_size, file.modified_at)
        for position, file in enumerate(files)
    )
    copy_rows(connection, "seen", "int4 text text text int8 timestamptz", rows)
    # The same file can be named twice: `vecsearch ingest photos photos/cat.jpg`.
    connection.execute(
        sa.text(
            "DELETE FROM seen USING (SELECT path, min(position) AS position FROM seen"
            " GROUP BY path HAVING count(*) > 1) AS first"
            " WHERE seen.path = first.path AND seen.position > first.position"
        )
    )
    connection.execute(sa.text("ANALYZE seen"))
    return connection.scalar(sa.text("SELECT count(*) FROM seen")) or 0


def record_pending(connection: sa.Connection, table: sa.Table | None) -> int:
    """Fill `pending` with the files to open; return how many.

    They have no row, differ from it, or hold a content of which there is no thumbnail.
    """
    stored = "false AS stored, NULL::text AS sha256"
    join = ""
    if table is not None:
        changed = (
            "(stored.file_size, stored.modified_at)"
            " IS DISTINCT FROM (seen.file_size, seen.modified_at)"
        )
        stored = (
            "stored.id IS NOT NULL AS stored,"
            f" CASE WHEN NOT ({changed}) THEN stored.sha256 END AS sha256"
        )
        join = f"""
            LEFT JOIN {schema.sql_name(table)} AS stored ON stored.path = seen.path
            LEFT JOIN vecsearch.thumbnails ON thumbnails.sha256 = stored.sha256
            WHERE {changed} OR (thumbnails.sha256 IS NULL AND stored.sha256 IS NOT NULL)"""
    connection.execute(
        sa.text(
            f"""
            CREATE TEMP TABLE pending AS
            SELECT row_number() OVER (ORDER BY seen.position) AS position, seen.path,
                seen.relative, seen.file_size, seen.modified_at, {stored}
            FROM seen {join}"""
        )
    )
    connection.execute(sa.text("CREATE INDEX ON pending (position)"))
    return connection.scalar(sa.text("SELECT count(*) FROM pending")) or 0


def next_pending(connection: sa.Connection, after: int, limit: int) -> list[Pending]:
    """Return the files to open behind position `after`, in the order of the walk."""
    rows = connection.execute(
        sa.text(
            "SELECT position, path, relative, file_size, modified_at, stored, sha256"
            " FROM pending WHERE position > :after ORDER BY position LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [
        Pending(
            row.position,
            File(row.path, row.relative, row.file_size, row.modified_at),
            row.stored,
            row.sha256,
        )
        for row in rows
    ]


def forget_errors(connection: sa.Connection, collection: str, scope: Scope) -> None:
    """Drop errors of files under the scope's roots that are gone, or are again as stored."""
    connection.execute(
        sa.text(
            f"DELETE FROM vecsearch.ingest_errors AS stored WHERE collection = :collection"
            f" AND {_UNDER_ROOTS} AND NOT EXISTS"
            " (SELECT FROM pending WHERE pending.path = stored.path)"
        ),
        {"collection": collection, **_scope(scope)},
    )


def unseen_rows(connection: sa.Connection, table: sa.Table, scope: Scope) -> list[Content]:
    """Return the rows under the scope's roots whose files the walk did not meet."""
    rows = connection.execute(
        sa.text(f"SELECT id, path FROM {schema.sql_name(table)} AS stored WHERE {_UNSEEN}"),
        _scope(scope),
    )
    return [Content(row.id, row.path) for row in rows]


def delete_rows(connection: sa.Connection, table: sa.Table, ids: Sequence[uuid.UUID]) -> None:
    """Delete rows by id; see `vecsearch.search.indexes.compact.fill` for the lock."""
    if ids:
        indexes.follow_deleted(connection, table.name, ids)
    connection.execute(
        sa.text(f"DELETE FROM {schema.sql_name(table)} WHERE id = ANY(:ids)"), {"ids": list(ids)}
    )


_UNDER = "(stored.path = {0} OR starts_with(stored.path, rtrim({0}, '/') || '/'))"
_UNDER_ROOTS = f"""
    EXISTS (SELECT FROM unnest(CAST(:roots AS text[])) AS root WHERE {_UNDER.format("root")})
    AND NOT EXISTS (
        SELECT FROM unnest(CAST(:unreadable AS text[])) AS folder
        WHERE {_UNDER.format("folder")})"""
_UNSEEN = f"{_UNDER_ROOTS} AND NOT EXISTS (SELECT FROM seen WHERE seen.path = stored.path)"


def _scope(scope: Scope) -> dict[str, list[str]]:
    return {"roots": list(scope.roots), "unreadable": list(scope.unreadable)}
