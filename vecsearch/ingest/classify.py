"""Classifying files against the stored rows, a chunk at a time.

Decisions are kept in `pending`, so that each takes into account what earlier ones will write,
whether that is still on its way or, in a dry run, never written.
"""

import os
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from vecsearch.imaging.scan import File, Unreadable
from vecsearch.imaging.sources import existence
from vecsearch.ingest.annotations.labels import Labelled
from vecsearch.ingest.summary import Outcome
from vecsearch.postgres import schema

# Rows with the same content that are looked at; a placeholder picture may have a great many.
MAXIMUM_COPIES = 100


@dataclass(frozen=True)
class Decision:
    """What to do with a readable file.

    Attributes:
        source: the row that holds the file's content when this chunk is written; None: embed it.
        carries: whether the picture has left that row, so that the user's metadata follows it.
        is_vacated: whether the picture that the file's own row showed was found elsewhere.
        is_written: whether the row changes.

    """

    file: File
    id: UUID
    sha256: str
    outcome: Outcome
    source: UUID | None
    carries: bool
    is_vacated: bool
    is_written: bool


class Candidate(NamedTuple):
    """A row with the content of a file that needs one; `is_replaced`: its own file has another."""

    id: UUID
    path: str
    sha256: str
    is_replaced: bool


class Vacant(NamedTuple):
    """A row that its picture has left: its file is gone, or else has another content now."""

    id: UUID
    name: str
    sha256: str
    is_gone: bool


class Wanting(NamedTuple):
    """A file whose own row, if it is `stored`, has not the file's content."""

    position: int
    name: str
    sha256: str
    stored: bool


def pull_followers(connection: sa.Connection, chunk: int) -> None:
    """Add to a chunk the files that show what its files displace, and so on.

    Names that were swapped, or shifted by one, are so written in one transaction: no picture's row
    is overwritten before its new place has taken it over.
    """
    connection.execute(
        sa.text(
            """
            WITH RECURSIVE displacing AS (
                SELECT position, stored_sha256 FROM pending
                WHERE chunk = :chunk AND error IS NULL AND stored_sha256 <> sha256
                UNION
                SELECT follower.position, follower.stored_sha256
                FROM displacing JOIN pending AS follower
                    ON follower.sha256 = displacing.stored_sha256
                WHERE follower.chunk IS NULL AND follower.error IS NULL
                    AND follower.stored_sha256 IS DISTINCT FROM follower.sha256)
            UPDATE pending SET chunk = :chunk FROM displacing
            WHERE pending.position = displacing.position AND pending.chunk IS NULL"""
        ),
        {"chunk": chunk},
    )


def match_vacant(
    connection: sa.Connection, table: sa.Table | None, chunk: int
) -> dict[int, Vacant]:
    """Find the rows that the pictures of a chunk's files have left.

    Each row goes to one file, by preference one of the same name. Rows whose files are gone go to
    new files first: these have moved. Then the rows go to files that have a row already: these have
    changed places.

    Returns:
        Rows by the position of the file.

    """
    if table is None:
        return {}
    candidates = _find_candidates(connection, table, chunk)
    gone = existence.gone(row.path for row in candidates)
    vacant = [
        Vacant(row.id, os.path.basename(row.path), row.sha256, row.path in gone)  # noqa: PTH119
        for row in candidates
        if row.path in gone or row.is_replaced
    ]
    if not vacant:
        return {}
    vacant.sort(key=lambda row: (not row.is_gone, row.id))
    rows = connection.execute(
        sa.text(
            f"WITH {_holders(table)}"
            " SELECT position, name, sha256, stored FROM wanting ORDER BY position"
        ),
        {"chunk": chunk, "limit": MAXIMUM_COPIES},
    )
    return _matches([Wanting(*row) for row in rows], vacant)


def _find_candidates(connection: sa.Connection, table: sa.Table, chunk: int) -> list[Candidate]:
    rows = connection.execute(
        sa.text(
            f"""
            WITH {_holders(table)}
            SELECT holders.id, holders.path, holders.sha256, file.error IS NULL
                AND coalesce(coalesce(file.sha256 <> holders.sha256,
                    file.file_size <> file.stored_size), false)
            FROM holders LEFT JOIN pending AS file ON file.id = holders.id
            WHERE NOT EXISTS (SELECT FROM pending AS taker
                WHERE taker.source = holders.id AND taker.carries
                    AND taker.chunk < :chunk AND taker.error IS NULL)"""
        ),
        {"chunk": chunk, "limit": MAXIMUM_COPIES},
    )
    return [Candidate(*row) for row in rows]


def _matches(files: Sequence[Wanting], vacant: Sequence[Vacant]) -> dict[int, Vacant]:
    """Give each row to at most one file, in order; see `match_vacant`."""
    taken: dict[int, Vacant] = {}
    used: set[UUID] = set()
    for stored, gone_alone in ((False, True), (True, False), (False, False)):
        for by_name in (True, False):
            free: dict[tuple[str, str], deque[Vacant]] = defaultdict(deque)
            for row in vacant:
                if row.id not in used and (row.is_gone or not gone_alone):
                    free[row.sha256, row.name if by_name else ""].append(row)
            for file in files:
                rows = free[file.sha256, file.name if by_name else ""]
                if rows and file.stored == stored and file.position not in taken:
                    taken[file.position] = rows.popleft()
                    used.add(taken[file.position].id)
    return taken


def decide(
    connection: sa.Connection,
    table: sa.Table | None,
    chunk: int,
    vacant: Mapping[int, Vacant],
) -> None:
    """Classify a chunk's readable files; `vacant` is what `match_vacant` returned."""
    connection.execute(
        sa.text(
            f"""
            WITH {_holders(table)},
            taken AS (
                SELECT * FROM unnest(CAST(:positions AS int8[]), CAST(:ids AS uuid[]),
                    CAST(:gone AS bool[])) AS taken (position, id, gone)),
            origins AS (
                SELECT DISTINCT ON (sha256) sha256, id FROM (
                    SELECT sha256, id, false AS is_coming FROM holders
                    UNION ALL
                    SELECT sha256, id, true FROM pending
                    WHERE sha256 IN (SELECT sha256 FROM wanting)
                        AND chunk < :chunk AND error IS NULL) AS known
                ORDER BY sha256, is_coming, id)
            UPDATE pending SET
                outcome = CASE
                    WHEN wanting.position IS NULL THEN '{Outcome.unchanged}'
                    WHEN taken.gone AND NOT file.stored THEN '{Outcome.moved}'
                    WHEN file.stored THEN '{Outcome.updated}'
                    WHEN origins.id IS NOT NULL OR wanting.number > 1 THEN '{Outcome.copied}'
                    ELSE '{Outcome.added}' END,
                source = CASE WHEN wanting.position IS NULL THEN file.id
                    ELSE coalesce(taken.id, origins.id) END,
                carries = taken.id IS NOT NULL
            FROM pending AS file LEFT JOIN wanting USING (position)
                LEFT JOIN taken USING (position)
                LEFT JOIN origins ON origins.sha256 = wanting.sha256
            WHERE pending.position = file.position
                AND file.chunk = :chunk AND file.error IS NULL"""
        ),
        {
            "chunk": chunk,
            "limit": MAXIMUM_COPIES,
            "positions": [*vacant],
            "ids": [row.id for row in vacant.values()],
            "gone": [row.is_gone for row in vacant.values()],
        },
    )


def read_chunk(connection: sa.Connection, chunk: int) -> tuple[list[Decision], list[Unreadable]]:
    """Return what was decided about a chunk's files, and those that could not be read."""
    rows = connection.execute(
        sa.text(
            """
            SELECT file.*, EXISTS (SELECT FROM pending AS taker
                WHERE taker.source = file.id AND taker.id <> file.id
                    AND taker.carries AND taker.error IS NULL) AS is_vacated
            FROM pending AS file WHERE chunk = :chunk ORDER BY position"""
        ),
        {"chunk": chunk},
    )
    decisions, unreadable = [], []
    for row in rows:
        if row.error is not None:
            unreadable.append(Unreadable(row.path, row.error))
            continue
        outcome = Outcome(row.outcome)
        decisions.append(
            Decision(
                Labelled(row.path, row.relative, row.file_size, row.modified_at, row.label),
                row.id,
                row.sha256,
                outcome,
                row.source,
                row.carries,
                row.is_vacated,
                is_written=outcome is not Outcome.unchanged or not row.looks_same,
            )
        )
    return decisions, unreadable


def _holders(table: sa.Table | None) -> str:
    """Return common table expressions: `wanting` and `holders`.

    The former are the chunk's files whose own rows do not hold their content; the latter the rows
    that do, and still will when the chunk is written.
    """
    stored = (
        "(SELECT NULL::uuid AS id, NULL::text AS path, NULL::text AS sha256 WHERE false)"
        if table is None
        else schema.sql_name(table)
    )
    return f"""
        wanting AS (
            SELECT file.position, file.name, file.sha256, file.stored, row_number()
                OVER (PARTITION BY file.sha256 ORDER BY file.position) AS number
            FROM pending AS file LEFT JOIN (
                SELECT id, sha256 FROM {stored} AS stored
                WHERE id IN (SELECT id FROM pending WHERE chunk = :chunk)) AS own
                ON own.id = file.id
            WHERE file.chunk = :chunk AND file.error IS NULL
                AND own.sha256 IS DISTINCT FROM file.sha256),
        holders AS (
            SELECT id, path, sha256 FROM (
                SELECT stored.id, stored.path, stored.sha256, row_number()
                    OVER (PARTITION BY stored.sha256 ORDER BY stored.path) AS number
                FROM {stored} AS stored LEFT JOIN pending AS file ON file.id = stored.id
                LEFT JOIN (SELECT source FROM pending WHERE carries AND error IS NULL
                    AND outcome = '{Outcome.moved}' AND chunk < :chunk) AS taker
                    ON taker.source = stored.id
                WHERE stored.sha256 IN (SELECT sha256 FROM wanting)
                    -- Neither overwritten nor moved by an earlier chunk.
                    AND (file.chunk < :chunk AND file.error IS NULL
                        AND file.sha256 <> stored.sha256) IS NOT TRUE
                    AND taker.source IS NULL) AS held
            WHERE number <= :limit)"""
