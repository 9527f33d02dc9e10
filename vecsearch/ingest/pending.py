"""The tables of one run, temporary ones of its session: `seen` and `pending`.

`seen` holds the walk. `pending` holds the files to open with their hashes and, chunk by chunk, what
`vecsearch.ingest.classify` decided about each. A chunk is what one transaction writes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from vecsearch.imaging.scan import File
from vecsearch.ingest.annotations.labels import FOLDERS, Labels
from vecsearch.ingest.summary import Outcome
from vecsearch.postgres import schema, tables
from vecsearch.postgres.database import driver_connection, is_open
from vecsearch.postgres.rows import copy_rows

_DROP = sa.text("DROP TABLE IF EXISTS pg_temp.seen, pg_temp.pending, pg_temp.early")


class ToOpen(NamedTuple):
    """A file of `pending`; `is_hashed` unless it is still to be opened."""

    position: int
    path: str
    is_hashed: bool


class Hashed(NamedTuple):
    """A file of `pending` that was opened: its SHA-256, or why it could not be read.

    Neither, if that was noted before.
    """

    position: int
    id: UUID
    sha256: str | None
    error: str | None


@contextmanager
def dropped_after(connection: sa.Connection) -> Iterator[None]:
    """Drop the tables in the end, because a pooled connection outlives its run."""
    try:
        yield
    finally:
        # After a failure, the connection may be lost, and the tables with it.
        if not connection.invalidated and is_open(driver_connection(connection)):
            with suppress(sa.exc.SQLAlchemyError), connection.begin():
                connection.execute(_DROP)


def record_seen(connection: sa.Connection, files: Iterable[File], labels: Labels = FOLDERS) -> int:
    """Fill `seen` with the walk and return the number of distinct files.

    Where labels are given, `label` is that of each file, and `is_matched` unless it is the folder's
    name for want of a better one.
    """
    connection.execute(_DROP)
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE seen (position int, path text, relative text, name text,"
            " file_size bigint, modified_at timestamptz, label text, is_matched boolean)"
        )
    )
    rows = (
        (
            *(position, file.path, file.relative, file.name, file.file_size, file.modified_at),
            *_label(file, labels),
        )
        for position, file in enumerate(files)
    )
    copy_rows(connection, "seen", "int4 text text text int8 timestamptz text bool", rows)
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


def _label(file: File, labels: Labels) -> tuple[str | None, bool | None]:
    if not labels.are_given:
        return None, None
    found = labels.find(file.path)
    return found or file.label, found is not None


def record_pending(connection: sa.Connection, table: sa.Table | None) -> int:
    """Fill `pending` with the files to open and return how many there are.

    They have no row, differ from it in size or time, or their content has no thumbnail. A file's
    `stored_` columns are its row's; `looks_same` if size and time are as stored.
    """
    stored = (
        "false AS stored, false AS looks_same, NULL::uuid AS id, NULL::text AS stored_sha256,"
        " NULL::int8 AS stored_size"
    )
    join = ""
    if table is not None:
        changed = (
            "(stored.file_size, stored.modified_at)"
            " IS DISTINCT FROM (seen.file_size, seen.modified_at)"
        )
        stored = (
            f"stored.id IS NOT NULL AS stored, NOT ({changed}) AS looks_same, stored.id,"
            " stored.sha256 AS stored_sha256, stored.file_size AS stored_size"
        )
        join = f"""
            LEFT JOIN (SELECT id, path, sha256, file_size, modified_at
                FROM {schema.sql_name(table)} WHERE path IN (SELECT path FROM seen)) AS stored
                ON stored.path = seen.path
            LEFT JOIN {tables.thumbnails.fullname} ON thumbnails.sha256 = stored.sha256
            WHERE {changed} OR (thumbnails.sha256 IS NULL AND stored.sha256 IS NOT NULL)"""
    connection.execute(
        sa.text(
            f"""
            CREATE TEMP TABLE pending AS
            SELECT row_number() OVER (ORDER BY seen.position) AS position, seen.path,
                seen.relative, seen.name, seen.file_size, seen.modified_at, seen.label, {stored},
                NULL::text AS sha256, NULL::text AS error, NULL::int AS chunk,
                NULL::text AS outcome, NULL::uuid AS source, false AS carries
            FROM seen {join}"""
        )
    )
    for column in ("position", "chunk", "id", "sha256", "source"):
        connection.execute(sa.text(f"CREATE INDEX ON pending ({column})"))
    connection.execute(sa.text("ANALYZE pending"))
    return connection.scalar(sa.text("SELECT count(*) FROM pending")) or 0


def record_early(connection: sa.Connection) -> int:
    """Fill `early` with the files to hash before anything is written; return how many.

    Where another picture has taken a stored one's place, the stored one may have moved: two names
    were swapped, say. Its row is overwritten soon, so that must be known before. It can only be in
    a file of the same size.
    """
    connection.execute(
        sa.text(
            """
            CREATE TEMP TABLE early AS
            WITH before AS (
                SELECT stored_size AS size, min(position) AS first, max(position) AS last
                FROM pending WHERE stored_size IS NOT NULL AND NOT looks_same GROUP BY 1),
            now AS (
                SELECT file_size AS size, min(position) AS first, max(position) AS last
                FROM pending WHERE NOT looks_same GROUP BY 1),
            shared AS (
                -- Not of a file that was only touched, and shares its size with no other.
                SELECT size FROM before JOIN now USING (size)
                WHERE before.first <> before.last OR now.first <> now.last
                    OR before.first <> now.first)
            SELECT position, path FROM pending
            WHERE NOT looks_same AND file_size IN (SELECT size FROM shared)"""
        )
    )
    connection.execute(sa.text("CREATE INDEX ON early (position)"))
    return connection.scalar(sa.text("SELECT count(*) FROM early")) or 0


def next_early(connection: sa.Connection, after: int, limit: int) -> list[ToOpen]:
    """Return files of `early` after position `after`."""
    rows = connection.execute(
        sa.text(
            "SELECT position, path, false FROM early WHERE position > :after"
            " ORDER BY position LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [ToOpen(*row) for row in rows]


def next_files(connection: sa.Connection, after: int, limit: int) -> list[ToOpen]:
    """Return the files after position `after` that are in no chunk yet, in order of the walk."""
    rows = connection.execute(
        sa.text(
            "SELECT position, path, coalesce(sha256, error) IS NOT NULL FROM pending"
            " WHERE position > :after AND chunk IS NULL ORDER BY position LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [ToOpen(*row) for row in rows]


def record_hashes(
    connection: sa.Connection, files: Sequence[Hashed], chunk: int | None = None
) -> None:
    """Note the hashes of files that were opened, and put all the files in a chunk, if any.

    A file that another chunk has pulled in the meantime stays there.
    """
    connection.execute(
        sa.text(
            "UPDATE pending SET chunk = :chunk, id = read.id,"
            " sha256 = coalesce(read.sha256, pending.sha256),"
            " error = coalesce(read.error, pending.error)"
            " FROM unnest(CAST(:positions AS int8[]), CAST(:ids AS uuid[]),"
            " CAST(:hashes AS text[]), CAST(:errors AS text[]))"
            " AS read (position, id, sha256, error)"
            " WHERE pending.position = read.position AND pending.chunk IS NULL"
        ),
        {
            "chunk": chunk,
            "positions": [file.position for file in files],
            "ids": [file.id for file in files],
            "hashes": [file.sha256 for file in files],
            "errors": [file.error for file in files],
        },
    )


def record_overtaken(
    connection: sa.Connection, table: sa.Table, chunk: int, added: Iterable[UUID]
) -> dict[UUID, Outcome]:
    """Note which files of a chunk another run has stored meanwhile; return what is left to do.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        table: the collection's.
        chunk: as it was decided before the lock.
        added: its files that the run itself has stored already.

    Returns:
        By id: unchanged, if the file's row has its content now; updated, if there is a row now.

    """
    rows = connection.execute(
        sa.text(
            f"""
            WITH overtaken AS (
                SELECT file.position, CASE WHEN own.sha256 = file.sha256
                    THEN '{Outcome.unchanged}' ELSE '{Outcome.updated}' END AS outcome
                FROM pending AS file JOIN {schema.sql_name(table)} AS own ON own.id = file.id
                WHERE file.chunk = :chunk AND file.error IS NULL
                    AND file.id <> ALL(CAST(:added AS uuid[]))
                    AND (file.outcome <> '{Outcome.unchanged}' AND own.sha256 = file.sha256
                        OR file.outcome IN ('{Outcome.added}', '{Outcome.copied}')))
            UPDATE pending SET outcome = overtaken.outcome,
                carries = carries AND overtaken.outcome <> '{Outcome.unchanged}'
            FROM overtaken WHERE pending.position = overtaken.position
            RETURNING pending.id, pending.outcome"""
        ),
        {"chunk": chunk, "added": [*added]},
    )
    return {row.id: Outcome(row.outcome) for row in rows}


def record_failures(
    connection: sa.Connection, chunk: int, reasons: Mapping[str, str]
) -> dict[UUID, str]:
    """Note the contents that could not be embedded; return why each file fails, by id.

    Args:
        connection: in a transaction.
        chunk: where they were to be embedded.
        reasons: by SHA-256.

    Returns:
        The files with these contents, and those whose source failed in an earlier chunk.

    """
    failed: dict[UUID, str] = {}
    if reasons:
        rows = connection.execute(
            sa.text(
                "UPDATE pending SET error = failed.error"
                " FROM unnest(CAST(:hashes AS text[]), CAST(:errors AS text[]))"
                " AS failed (sha256, error)"
                " WHERE chunk = :chunk AND source IS NULL AND pending.sha256 = failed.sha256"
                " RETURNING id, pending.error"
            ),
            {"chunk": chunk, "hashes": [*reasons], "errors": [*reasons.values()]},
        )
        failed |= {row.id: row.error for row in rows}
    rows = connection.execute(
        sa.text(
            "UPDATE pending SET error = source.error FROM pending AS source"
            " WHERE pending.chunk = :chunk AND pending.error IS NULL"
            " AND source.id = pending.source AND source.sha256 = pending.sha256"
            " AND source.error IS NOT NULL RETURNING pending.id, pending.error"
        ),
        {"chunk": chunk},
    )
    return failed | {row.id: row.error for row in rows}


def count_outdated(connection: sa.Connection) -> int:
    """Return the number of files that could not be read now, and have rows from before."""
    outdated = "SELECT count(*) FROM pending WHERE error IS NOT NULL AND stored"
    return connection.scalar(sa.text(outdated)) or 0
