"""Ingest's rows: one transaction a batch.

Rows arrive by COPY and are merged in one statement, so that any number of runs may write the same
rows at once.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from vecsearch.errors import DatabaseError
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.scan import File, Unreadable
from vecsearch.ingest.metadata import Record
from vecsearch.ingest.survey import Content
from vecsearch.postgres import schema
from vecsearch.postgres.columns import OF_CONTENT, OF_FILE, OF_PATH, Column, copy_types, names
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import copy_rows, image_id
from vecsearch.search import indexes

_LOCATED = (*OF_PATH, *OF_FILE)
_WRITTEN = (*_LOCATED, *OF_CONTENT)

MAXIMUM_COPIES = 100


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


def find_contents(
    connection: sa.Connection, table: sa.Table, hashes: Iterable[str]
) -> dict[str, list[Content]]:
    """Return rows that hold each of these contents, by SHA-256, in order of path.

    Of a content with a great many rows, a placeholder picture say, some are enough.
    """
    found: dict[str, list[Content]] = {}
    rows = connection.execute(
        sa.text(
            "SELECT wanted AS sha256, stored.id, stored.path"
            " FROM unnest(CAST(:hashes AS text[])) AS wanted CROSS JOIN LATERAL"
            f" (SELECT id, path FROM {schema.sql_name(table)} WHERE sha256 = wanted"
            " ORDER BY path LIMIT :limit) AS stored"
        ),
        {"hashes": sorted(set(hashes)), "limit": MAXIMUM_COPIES},
    )
    for row in rows:
        found.setdefault(row.sha256, []).append(Content(row.id, row.path))
    return found


def write_embedded(connection: sa.Connection, table: sa.Table, rows: Sequence[Embedded]) -> None:
    """Insert or replace rows with new content; a row that was there keeps its metadata."""
    register_vector(driver_connection(connection))
    written = ", ".join(names(_WRITTEN))
    connection.execute(
        sa.text(
            f"CREATE TEMP TABLE embedded ON COMMIT DROP AS"
            f" SELECT {written} FROM {schema.sql_name(table)} WITH NO DATA"
        )
    )
    copy_rows(
        connection,
        "embedded",
        copy_types(_WRITTEN),
        ((*_located(row.file), *_content(row.facts, row.embedding)) for row in rows),
    )
    connection.execute(
        sa.text(
            f"INSERT INTO {schema.sql_name(table)} AS stored ({written})"
            f" SELECT {written} FROM embedded"
            f" ON CONFLICT (id) DO UPDATE SET {_excluded(names(_WRITTEN))}"
        )
    )
    indexes.follow(connection, table.name, "embedded")


def write_known(connection: sa.Connection, table: sa.Table, rows: Sequence[Known]) -> None:
    """Insert or replace rows whose content another row holds, without embedding anything.

    A file that was only touched is its own source. A moved one takes over the source's metadata,
    and the source goes.

    Raises:
        DatabaseError: another run has changed or removed a source in the meantime.

    """
    connection.execute(
        sa.text(
            f"CREATE TEMP TABLE known ({_defined(_LOCATED)}, sha256 text, source uuid,"
            " moved boolean) ON COMMIT DROP"
        )
    )
    copy_rows(
        connection,
        "known",
        f"{copy_types(_LOCATED)} text uuid bool",
        ((*_located(row.file), row.sha256, row.source, row.moved) for row in rows),
    )
    touched = connection.execute(
        sa.text(
            f"UPDATE {schema.sql_name(table)} AS stored SET file_size = known.file_size,"
            " modified_at = known.modified_at, ingested_at = now()"
            " FROM known WHERE stored.id = known.id AND known.source = known.id"
            " AND stored.sha256 = known.sha256"
        )
    ).rowcount
    file_columns = ", ".join(f"known.{name}" for name in names(_LOCATED))
    content_columns = ", ".join(f"source.{name}" for name in names(OF_CONTENT))
    columns = names(_WRITTEN)
    merged = connection.execute(
        sa.text(
            f"""
            INSERT INTO {schema.sql_name(table)} AS stored ({", ".join(columns)}, metadata)
            SELECT {file_columns}, {content_columns},
                CASE WHEN known.moved THEN source.metadata ELSE '{{}}' END
            FROM known JOIN {schema.sql_name(table)} AS source
                ON source.id = known.source AND source.sha256 = known.sha256
            WHERE known.source <> known.id
            ON CONFLICT (id) DO UPDATE SET {_excluded(columns)}"""
        )
    ).rowcount
    if touched + merged != len(rows):
        raise DatabaseError(
            "Another run has changed the same images meanwhile. Run this again; it carries on."
        )
    indexes.follow_known(connection, table.name)
    connection.execute(
        sa.text(
            f"DELETE FROM {schema.sql_name(table)} AS stored USING known"
            " WHERE known.moved AND stored.id = known.source"
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


def write_metadata(
    connection: sa.Connection,
    table: sa.Table,
    records: Iterable[Record],
) -> tuple[int, int, Record | None]:
    """Add the records to the metadata of the files that were seen.

    A record's key is a path, a path below a root, or a file name, in that order of preference.

    Returns:
        How many rows changed, how many records matched no file, and the first of those.

    """
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE records (line int, key text, path text, metadata jsonb)"
            " ON COMMIT DROP"
        )
    )
    copy_rows(
        connection,
        "records",
        "int4 text text jsonb",
        ((line, key, path, Jsonb(metadata)) for line, key, path, metadata in records),
    )
    connection.execute(
        sa.text(
            """
            CREATE TEMP TABLE matches ON COMMIT DROP AS
            SELECT seen.path, line, 1 AS preference FROM seen JOIN records USING (path)
            UNION ALL
            SELECT seen.path, line, 2 FROM seen JOIN records ON records.key = seen.relative
            UNION ALL
            SELECT seen.path, line, 3 FROM seen JOIN records ON records.key = seen.name"""
        )
    )
    changed = connection.execute(
        sa.text(
            f"""
            UPDATE {schema.sql_name(table)} AS stored
            SET metadata = stored.metadata || records.metadata
            FROM (SELECT DISTINCT ON (path) path, line FROM matches
                ORDER BY path, preference, line DESC) AS best
            JOIN records USING (line)
            WHERE stored.path = best.path AND NOT stored.metadata @> records.metadata"""
        )
    ).rowcount
    unmatched = connection.execute(
        sa.text(
            "SELECT count(*) OVER () AS number, line, key, path, metadata FROM records"
            " WHERE NOT EXISTS (SELECT FROM matches WHERE matches.line = records.line)"
            " ORDER BY line LIMIT 1"
        )
    ).first()
    if unmatched is None:
        return changed, 0, None
    return changed, unmatched.number, Record(*unmatched[1:])


def _located(file: File) -> tuple[Any, ...]:
    """Return the values of `_LOCATED`."""
    return (image_id(file.path), file.path, *(getattr(file, name) for name in names(OF_FILE)))


def _content(facts: Facts, embedding: NDArray[np.float32]) -> Iterator[Any]:
    """Yield the values of `OF_CONTENT`."""
    for column in OF_CONTENT:
        value = embedding if column.name == "embedding" else getattr(facts, column.name)
        yield column.kind.copied(value)


def _defined(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"{column.name} {column.kind}" for column in columns)


def _excluded(columns: Iterable[str]) -> str:
    """Return the SET list by which a conflicting row takes the new values; metadata stays."""
    sets = [f"{name} = excluded.{name}" for name in columns if name != "id"]
    return ", ".join([*sets, "ingested_at = now()"])
