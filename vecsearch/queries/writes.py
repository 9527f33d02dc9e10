"""Ingest's side: what was seen on disk against what is stored, and one transaction a batch.

A run works on temporary tables of its session: `seen` holds the walk, `pending` what of it must be
opened. Rows arrive by COPY and are merged in one statement, so that any number of runs may write
the same rows at once.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from vecsearch import schema
from vecsearch.database import driver_connection
from vecsearch.errors import DatabaseError
from vecsearch.images import Facts, File, Unreadable

# What a row tells of its content, and so shares with a row of the same content.
CONTENT_COLUMNS = "sha256 width height format taken_at latitude longitude exif embedding".split()
FILE_COLUMNS = "id path label file_size modified_at".split()


@dataclass(frozen=True)
class Pending:
    """A file that is new or changed; `stored` tells whether its path has a row already."""

    position: int
    file: File
    stored: bool


@dataclass(frozen=True)
class Content:
    """A stored row with a known content hash."""

    id: uuid.UUID
    path: str


@dataclass(frozen=True)
class Embedded:
    """A file to store with a new embedding, shape (dimensions,)."""

    file: File
    facts: Facts
    embedding: NDArray[np.float32]


@dataclass(frozen=True)
class Known:
    """A file to store with the content of the row `source`; `moved` takes that row's place."""

    file: File
    sha256: str
    source: uuid.UUID
    moved: bool = False


@dataclass(frozen=True)
class Scope:
    """Which rows a run may speak for: those under `roots`, less those under `unreadable`."""

    roots: Sequence[str]
    unreadable: Sequence[str]


def image_id(path: str) -> uuid.UUID:
    """Return the id of the row for `path`: UUIDv5 (RFC 9562) of its file URI.

    Any worker anywhere writes the same row for the same path.
    """
    return uuid.uuid5(uuid.NAMESPACE_URL, PurePath(path).as_uri())


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
    _copy(connection, "seen", "int4 text text text int8 timestamptz", rows)
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
    """Fill `pending` with the files that differ from their row, or have none; return how many."""
    stored = "false"
    join = ""
    if table is not None:
        stored = "stored.id IS NOT NULL"
        join = f"""
            LEFT JOIN {table.fullname} AS stored ON stored.path = seen.path
            WHERE (stored.file_size, stored.modified_at)
                IS DISTINCT FROM (seen.file_size, seen.modified_at)"""
    connection.execute(
        sa.text(
            f"""
            CREATE TEMP TABLE pending AS
            SELECT row_number() OVER (ORDER BY seen.position) AS position, seen.path,
                seen.relative, seen.file_size, seen.modified_at, {stored} AS stored
            FROM seen {join}"""
        )
    )
    connection.execute(sa.text("CREATE INDEX ON pending (position)"))
    return connection.scalar(sa.text("SELECT count(*) FROM pending")) or 0


def next_pending(connection: sa.Connection, after: int, limit: int) -> list[Pending]:
    """Return the files to open behind position `after`, in the order of the walk."""
    rows = connection.execute(
        sa.text(
            "SELECT position, path, relative, file_size, modified_at, stored FROM pending"
            " WHERE position > :after ORDER BY position LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [
        Pending(
            row.position,
            File(row.path, row.relative, row.file_size, row.modified_at),
            row.stored,
        )
        for row in rows
    ]


def find_contents(
    connection: sa.Connection, table: sa.Table, hashes: Iterable[str]
) -> dict[str, list[Content]]:
    """Return the rows that hold each of these contents, by SHA-256, in order of path."""
    found: dict[str, list[Content]] = {}
    rows = connection.execute(
        sa.select(table.c.sha256, table.c.id, table.c.path)
        .where(table.c.sha256 == sa.any_(sa.literal(sorted(set(hashes)), sa.ARRAY(sa.Text))))
        .order_by(table.c.path)
    )
    for row in rows:
        found.setdefault(row.sha256, []).append(Content(row.id, row.path))
    return found


def write_embedded(connection: sa.Connection, table: sa.Table, rows: Sequence[Embedded]) -> None:
    """Insert or replace rows with new content; a row that was there keeps its metadata."""
    register_vector(driver_connection(connection))
    columns = [*FILE_COLUMNS, *CONTENT_COLUMNS]
    names = ", ".join(columns)
    connection.execute(
        sa.text(
            f"CREATE TEMP TABLE embedded ON COMMIT DROP AS SELECT {names} FROM {table.fullname}"
            " WITH NO DATA"
        )
    )
    # A fixed order of ids keeps two runs over the same files from waiting for each other.
    ordered = sorted((image_id(row.file.path), position) for position, row in enumerate(rows))
    _copy(
        connection,
        "embedded",
        "uuid text text int8 timestamptz text int4 int4 text timestamp float8 float8 jsonb halfvec",
        (
            (
                row_id,
                rows[position].file.path,
                rows[position].file.label,
                rows[position].file.file_size,
                rows[position].file.modified_at,
                rows[position].facts.sha256,
                rows[position].facts.width,
                rows[position].facts.height,
                rows[position].facts.format,
                rows[position].facts.taken_at,
                rows[position].facts.latitude,
                rows[position].facts.longitude,
                Jsonb(rows[position].facts.exif),
                HalfVector(rows[position].embedding),
            )
            for row_id, position in ordered
        ),
    )
    connection.execute(
        sa.text(
            f"INSERT INTO {table.fullname} ({names}) SELECT {names} FROM embedded"
            f" ON CONFLICT (id) DO UPDATE SET {_excluded(columns)}"
        )
    )


def write_known(connection: sa.Connection, table: sa.Table, rows: Sequence[Known]) -> None:
    """Insert or replace rows whose content another row holds, without embedding anything.

    A file that was only touched is its own source. A moved one takes over the source's metadata,
    and the source goes.

    Raises:
        DatabaseError: another run has changed or removed a source in the meantime.

    """
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE known (id uuid, path text, label text, file_size bigint,"
            " modified_at timestamptz, sha256 text, source uuid, moved boolean) ON COMMIT DROP"
        )
    )
    _copy(
        connection,
        "known",
        "uuid text text int8 timestamptz text uuid bool",
        sorted(
            (
                image_id(row.file.path),
                row.file.path,
                row.file.label,
                row.file.file_size,
                row.file.modified_at,
                row.sha256,
                row.source,
                row.moved,
            )
            for row in rows
        ),
    )
    touched = connection.execute(
        sa.text(
            f"UPDATE {table.fullname} AS stored SET file_size = known.file_size,"
            " modified_at = known.modified_at, ingested_at = now()"
            " FROM known WHERE stored.id = known.id AND known.source = known.id"
            " AND stored.sha256 = known.sha256"
        )
    ).rowcount
    file_columns = ", ".join(f"known.{name}" for name in FILE_COLUMNS)
    content_columns = ", ".join(f"source.{name}" for name in CONTENT_COLUMNS)
    columns = [*FILE_COLUMNS, *CONTENT_COLUMNS]
    merged = connection.execute(
        sa.text(
            f"""
            INSERT INTO {table.fullname} ({", ".join(columns)}, metadata)
            SELECT {file_columns}, {content_columns},
                CASE WHEN known.moved THEN source.metadata ELSE '{{}}' END
            FROM known JOIN {table.fullname} AS source
                ON source.id = known.source AND source.sha256 = known.sha256
            WHERE known.source <> known.id ORDER BY known.id
            ON CONFLICT (id) DO UPDATE SET {_excluded(columns)}"""
        )
    ).rowcount
    if touched + merged != len(rows):
        raise DatabaseError(
            "Another run has changed the same images meanwhile. Run this again; it carries on."
        )
    connection.execute(
        sa.text(
            f"DELETE FROM {table.fullname} USING known WHERE known.moved AND"
            f" {table.fullname}.id = known.source"
        )
    )


def write_errors(
    connection: sa.Connection, collection: str, failed: Sequence[Unreadable], read: Sequence[str]
) -> None:
    """Record files that could not be read, and forget errors of paths that now could."""
    errors = schema.ingest_errors
    if read:
        connection.execute(
            sa.delete(errors).where(
                errors.c.collection == collection,
                errors.c.path == sa.any_(sa.literal(list(read), sa.ARRAY(sa.Text))),
            )
        )
    if failed:
        connection.execute(
            sa.text(
                "INSERT INTO vecsearch.ingest_errors (collection, path, error)"
                " VALUES (:collection, :path, :error) ON CONFLICT (collection, path)"
                " DO UPDATE SET error = excluded.error, at = now()"
            ),
            [
                {"collection": collection, "path": item.path, "error": item.reason}
                for item in failed
            ],
        )


def forget_gone_errors(connection: sa.Connection, collection: str, scope: Scope) -> None:
    """Drop errors of files under the scope's roots that are no longer there."""
    connection.execute(
        sa.text(
            f"DELETE FROM vecsearch.ingest_errors AS stored WHERE collection = :collection"
            f" AND {_GONE}"
        ),
        {"collection": collection, **_scope(scope)},
    )


def count_gone(
    connection: sa.Connection, table: sa.Table, scope: Scope, moved: Iterable[uuid.UUID]
) -> int:
    """Return how many rows `delete_gone` would delete once the rows `moved` had moved."""
    return (
        connection.scalar(
            sa.text(
                f"SELECT count(*) FROM {table.fullname} AS stored"
                f" WHERE {_GONE} AND stored.id <> ALL(:moved)"
            ),
            {"moved": list(moved), **_scope(scope)},
        )
        or 0
    )


def delete_gone(connection: sa.Connection, table: sa.Table, scope: Scope) -> int:
    """Delete the rows under the scope's roots whose files were not seen; return how many."""
    return connection.execute(
        sa.text(f"DELETE FROM {table.fullname} AS stored WHERE {_GONE}"), _scope(scope)
    ).rowcount


def write_metadata(
    connection: sa.Connection,
    table: sa.Table,
    records: Iterable[tuple[str, str, dict[str, Any]]],
) -> tuple[int, int]:
    """Set the metadata of seen files from (key, absolute path, metadata) records.

    A record's key is a path, a path below a root, or a file name, in that order of preference.

    Returns:
        How many rows changed, and how many records named no file that was seen.

    """
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE records (number int, key text, path text, metadata jsonb)"
            " ON COMMIT DROP"
        )
    )
    _copy(
        connection,
        "records",
        "int4 text text jsonb",
        (
            (number, key, path, Jsonb(metadata))
            for number, (key, path, metadata) in enumerate(records)
        ),
    )
    connection.execute(
        sa.text(
            """
            CREATE TEMP TABLE matches ON COMMIT DROP AS
            SELECT seen.path, number, 1 AS preference FROM seen JOIN records USING (path)
            UNION ALL
            SELECT seen.path, number, 2 FROM seen JOIN records ON records.key = seen.relative
            UNION ALL
            SELECT seen.path, number, 3 FROM seen JOIN records ON records.key = seen.name"""
        )
    )
    changed = connection.execute(
        sa.text(
            f"""
            UPDATE {table.fullname} AS stored SET metadata = records.metadata
            FROM (SELECT DISTINCT ON (path) path, number FROM matches
                ORDER BY path, preference, number DESC) AS best
            JOIN records USING (number)
            WHERE stored.path = best.path AND stored.metadata <> records.metadata"""
        )
    ).rowcount
    unused = connection.scalar(
        sa.text(
            "SELECT count(*) FROM records WHERE NOT EXISTS"
            " (SELECT FROM matches WHERE matches.number = records.number)"
        )
    )
    return changed, unused or 0


def analyze(connection: sa.Connection, table: sa.Table) -> None:
    """Tell the planner how many rows there are now."""
    connection.execute(sa.text(f"ANALYZE {table.fullname}"))


_UNDER = "(stored.path = {0} OR starts_with(stored.path, rtrim({0}, '/') || '/'))"
_GONE = f"""
    EXISTS (SELECT FROM unnest(CAST(:roots AS text[])) AS root WHERE {_UNDER.format("root")})
    AND NOT EXISTS
        (SELECT FROM unnest(CAST(:unreadable AS text[])) AS folder WHERE {_UNDER.format("folder")})
    AND NOT EXISTS (SELECT FROM seen WHERE seen.path = stored.path)"""


def _scope(scope: Scope) -> dict[str, list[str]]:
    return {"roots": list(scope.roots), "unreadable": list(scope.unreadable)}


def _excluded(columns: Iterable[str]) -> str:
    """Return the SET list by which a conflicting row takes the new values; metadata stays."""
    sets = [f"{name} = excluded.{name}" for name in columns if name != "id"]
    return ", ".join([*sets, "ingested_at = now()"])


def _copy(
    connection: sa.Connection, table: str, types: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN WITH (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)
