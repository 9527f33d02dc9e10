"""Writing an ingest's rows, errors and metadata.

Rows arrive by COPY and are merged in one statement, so that any number of runs may write the same
rows at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from vecsearch.errors import DatabaseError
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.scan import File, Unreadable
from vecsearch.ingest.annotations import metadata
from vecsearch.ingest.classify import Decision
from vecsearch.ingest.summary import Outcome
from vecsearch.postgres import schema, tables
from vecsearch.postgres.columns import (
    OF_CONTENT,
    OF_FILE,
    OF_LABEL,
    OF_PATH,
    Column,
    copy_types,
    names,
)
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import copy_rows, image_id
from vecsearch.search import indexes, tags
from vecsearch.vocabulary import counted

# What a row's path and folder entry tell, and then what its content tells.
_LOCATED = (*OF_PATH, *OF_LABEL, *OF_FILE)
_WRITTEN = (*_LOCATED, *OF_CONTENT)


@dataclass(frozen=True)
class Embedded:
    """A file to store with a new embedding, shape (dimensions,)."""

    file: File
    facts: Facts
    embedding: NDArray[np.float32]


def write_files(
    connection: sa.Connection,
    table: sa.Table,
    embedded: Sequence[Embedded],
    known: Sequence[Decision],
) -> None:
    """Insert or replace the rows of files, those of the `known` with what their sources hold.

    All sources are read before any row changes, so that files may take each other's places. The
    user's metadata follow a picture that left its row. A row keeps its metadata where none arrive,
    unless they have followed its own picture elsewhere. Its label it keeps, too. The source of a
    moved file is deleted.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        table: the collection's.
        embedded: files with new content.
        known: files whose content a row holds; one that was only touched is its own source.

    Raises:
        DatabaseError: another run has changed or removed a source in the meantime.

    """
    if not embedded and not known:
        return
    target = schema.sql_name(table)
    _stage(connection, embedded, known)
    # One that was only touched keeps its content, and so its place in every index.
    written = _touch(connection, target) if known else 0
    columns = ", ".join(names(_WRITTEN))
    arriving = []
    if embedded:
        arriving.append(
            f"SELECT {columns}, stored.metadata FROM embedded LEFT JOIN {_own(target, 'embedded')}"
        )
    if known:
        located = ", ".join(f"known.{name}" for name in names(_LOCATED))
        content = ", ".join(f"source.{name}" for name in names(OF_CONTENT))
        arriving.append(
            f"""
            SELECT {located}, {content},
                CASE WHEN known.carries AND (known.is_vacated OR source.metadata <> '{{}}')
                    THEN source.metadata ELSE stored.metadata END
            FROM known JOIN {target} AS source
                ON source.id = known.source AND source.sha256 = known.content
                LEFT JOIN {_own(target, "known")}
            WHERE known.source <> known.id"""
        )
    taken = ", ".join(
        f"{name} = excluded.{name}"
        for name in [*names((*OF_FILE, *OF_CONTENT)), "ingested_at", "metadata"]
    )
    # Not MERGE, and no value but `excluded`: Citus takes neither here.
    written += connection.execute(
        sa.text(
            f"""
            INSERT INTO {target} AS target ({columns}, ingested_at, metadata)
            SELECT {columns}, now(), coalesce(metadata, '{{}}')
            FROM ({" UNION ALL ".join(arriving)}) AS new ({columns}, metadata)
            ON CONFLICT (id) DO UPDATE SET {taken}"""
        )
    ).rowcount
    if written != len(embedded) + len(known):
        raise DatabaseError("Another run has changed the same images. Retry; what is stored stays.")
    # The vectors of sources are copied before those of new contents overwrite them.
    if known:
        indexes.follow_known(connection, table.name)
    if embedded:
        indexes.follow(connection, table.name, "embedded")
        tags.follow(connection, table.name, "embedded")
    if known:
        taken = f"SELECT stored.* FROM {target} AS stored JOIN known USING (id)"
        tags.follow(connection, table.name, f"({taken} WHERE known.source <> known.id)")
    if any(item.outcome is Outcome.moved for item in known):
        tags.forget(connection, table.name, "SELECT source FROM known WHERE moved")
        connection.execute(
            sa.text(
                f"DELETE FROM {target} AS stored USING known"
                " WHERE known.moved AND stored.id = known.source"
            )
        )


def add_files(
    connection: sa.Connection,
    table: sa.Table,
    files: Sequence[Embedded],
    *,
    since: datetime | None = None,
) -> frozenset[UUID]:
    """Add the rows of new files; a row that is there already stays as it is.

    Any number of transactions may do so at once: each adds its rows in order of id, and only then
    what follows from them, so that those which meet wait, and cannot deadlock.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`, for which
            `adding` is enough.
        table: the collection's.
        files: new ones.
        since: of a repeated attempt: rows with the same content that have been added since then
            are taken for those of an earlier attempt, which may have ended after its commit.

    Returns:
        The ids of the rows that were added.

    """
    if not files:
        return frozenset()
    _stage(connection, files, [])
    written = ", ".join(names(_WRITTEN))
    added = frozenset(
        connection.scalars(
            sa.text(
                f"INSERT INTO {schema.sql_name(table)} ({written})"
                f" SELECT {written} FROM embedded ORDER BY id"
                " ON CONFLICT (id) DO NOTHING RETURNING id"
            )
        )
    )
    if len(added) < len(files):
        connection.execute(
            sa.text("DELETE FROM embedded WHERE id <> ALL(CAST(:added AS uuid[]))"),
            {"added": [*added]},
        )
    if added:
        indexes.follow(connection, table.name, "embedded")
        tags.follow(connection, table.name, "embedded")
    if since is not None and len(added) < len(files):
        added |= _added_since(connection, table, files, since)
    return added


def _added_since(
    connection: sa.Connection, table: sa.Table, files: Sequence[Embedded], since: datetime
) -> set[UUID]:
    return set(
        connection.scalars(
            sa.text(
                f"SELECT stored.id FROM {schema.sql_name(table)} AS stored"
                " JOIN unnest(CAST(:ids AS uuid[]), CAST(:hashes AS text[])) AS file (id, sha256)"
                " USING (id, sha256) WHERE stored.ingested_at >= :since"
            ),
            {
                "ids": [image_id(row.file.path) for row in files],
                "hashes": [row.facts.sha256 for row in files],
                "since": since,
            },
        )
    )


def _own(target: str, staged: str) -> str:
    """Return SQL that joins the metadata of the rows that staged ones replace, as `stored`.

    Citus would fetch every row for a plain join, as rows without a match are kept.
    """
    return (
        f"(SELECT id AS of, metadata FROM {target} WHERE id IN (SELECT id FROM {staged}))"
        f" AS stored ON stored.of = {staged}.id"
    )


def _touch(connection: sa.Connection, target: str) -> int:
    """Give rows their files' new times, where nothing else has changed; return how many."""
    taken = ", ".join(f"{name} = known.{name}" for name in names(OF_FILE))
    return connection.execute(
        sa.text(
            f"UPDATE {target} AS stored SET {taken}, ingested_at = now() FROM known"
            " WHERE stored.id = known.id AND known.source = known.id"
            " AND stored.sha256 = known.content"
        )
    ).rowcount


def _stage(
    connection: sa.Connection, embedded: Sequence[Embedded], known: Sequence[Decision]
) -> None:
    """Copy rows to `embedded` and `known`, tables of this transaction."""
    if embedded:
        register_vector(driver_connection(connection))
        connection.execute(
            sa.text(f"CREATE TEMP TABLE embedded ({_defined(_WRITTEN)}) ON COMMIT DROP")
        )
        copy_rows(
            connection,
            "embedded",
            copy_types(_WRITTEN),
            ((*_located(row.file), *_content(row.facts, row.embedding)) for row in embedded),
        )
    if known:
        connection.execute(
            sa.text(
                f"CREATE TEMP TABLE known ({_defined(_LOCATED)}, content text, source uuid,"
                " moved boolean, carries boolean, is_vacated boolean) ON COMMIT DROP"
            )
        )
        copy_rows(
            connection,
            "known",
            f"{copy_types(_LOCATED)} text uuid bool bool bool",
            (
                (
                    *_located(item.file),
                    item.sha256,
                    item.source,
                    item.outcome is Outcome.moved,
                    item.carries,
                    item.is_vacated,
                )
                for item in known
            ),
        )


def write_errors(
    connection: sa.Connection, collection: str, failed: Sequence[Unreadable], read: Sequence[str]
) -> None:
    """Record files that could not be read, and forget errors of paths that now could."""
    errors = tables.ingest_errors
    if read:
        connection.execute(
            sa.delete(errors).where(
                errors.c.collection == collection,
                errors.c.id == sa.any_(sa.literal([*map(image_id, read)], sa.ARRAY(sa.Uuid))),
            )
        )
    if failed:
        connection.execute(
            sa.text(
                "INSERT INTO vecsearch.ingest_errors (collection, id, path, error)"
                " VALUES (:collection, :id, :path, :error) ON CONFLICT (collection, id)"
                " DO UPDATE SET error = excluded.error, at = now()"
            ),
            [
                {
                    "collection": collection,
                    "id": image_id(item.path),
                    "path": item.path,
                    "error": item.reason,
                }
                for item in failed
            ],
        )


def store_metadata(connection: sa.Connection, table: sa.Table, file: Path) -> Iterator[str]:
    """Add a file's records to the metadata of the files that a run has seen; yield notes."""
    changed, unmatched, first = _write_metadata(connection, table, metadata.read_records(file))
    yield f"Set the metadata of {counted(changed, 'image')}."
    if first is not None:
        lines = f"{counted(unmatched, 'line')} of {file.name} matched no image"
        which = f"line {first.line}, `{first.key}`."
        yield f"{lines}: {which}" if unmatched == 1 else f"{lines}. The first is {which}"


def _write_metadata(
    connection: sa.Connection, table: sa.Table, records: Iterable[metadata.Record]
) -> tuple[int, int, metadata.Record | None]:
    """Add records to the metadata of the files that a run has seen.

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
        ((line, key, path, Jsonb(values)) for line, key, path, values in records),
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
            "SELECT count(*) OVER () AS records, line, key, path, metadata FROM records"
            " WHERE NOT EXISTS (SELECT FROM matches WHERE matches.line = records.line)"
            " ORDER BY line LIMIT 1"
        )
    ).first()
    if unmatched is None:
        return changed, 0, None
    return changed, unmatched.records, metadata.Record(*unmatched[1:])


def _located(file: File) -> tuple[Any, ...]:
    """Return the values of `_LOCATED`."""
    told = names((*OF_LABEL, *OF_FILE))
    return (image_id(file.path), file.path, *(getattr(file, name) for name in told))


def _content(facts: Facts, embedding: NDArray[np.float32]) -> Iterator[Any]:
    """Yield the values of `OF_CONTENT`."""
    for column in OF_CONTENT:
        value = embedding if column.name == "embedding" else getattr(facts, column.name)
        yield column.kind.copied(value)


def _defined(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"{column.name} {column.kind}" for column in columns)
