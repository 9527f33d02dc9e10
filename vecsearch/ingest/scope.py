"""The rows and errors under a run's roots: the only ones that it may delete."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from vecsearch.ingest.summary import Outcome
from vecsearch.postgres import schema, tables
from vecsearch.search import indexes, tags

_UNDER = "(stored.path = {0} OR starts_with(stored.path, rtrim({0}, '/') || '/'))"
_UNDER_ROOTS = f"""
    EXISTS (SELECT FROM unnest(CAST(:roots AS text[])) AS root WHERE {_UNDER.format("root")})
    AND NOT EXISTS (
        SELECT FROM unnest(CAST(:unreadable AS text[])) AS folder
        WHERE {_UNDER.format("folder")})"""


@dataclass(frozen=True)
class Scope:
    """The rows that a run may delete: those under `roots`, except under `unreadable`."""

    roots: Sequence[str]
    unreadable: Sequence[str]


def forget_errors(connection: sa.Connection, collection: str, scope: Scope) -> None:
    """Delete the errors of files under the scope's roots that are gone, or are as stored again."""
    connection.execute(
        sa.text(
            f"DELETE FROM vecsearch.ingest_errors AS stored WHERE collection = :collection"
            f" AND {_UNDER_ROOTS} AND NOT EXISTS"
            " (SELECT FROM pending WHERE pending.path = stored.path)"
        ),
        {"collection": collection, **vars(scope)},
    )


def walked_folders(connection: sa.Connection, scope: Scope) -> list[tuple[str, bool]]:
    """Return the roots that are folders, and whether the walk met no file in them."""
    rows = connection.execute(
        sa.text(
            "SELECT stored.path, NOT EXISTS (SELECT FROM seen"
            " WHERE starts_with(seen.path, rtrim(stored.path, '/') || '/'))"
            " FROM (SELECT DISTINCT path FROM unnest(CAST(:roots AS text[])) AS path) AS stored"
            " WHERE NOT EXISTS (SELECT FROM seen WHERE seen.path = stored.path) ORDER BY 1"
        ),
        {"roots": scope.roots},
    )
    return [(row[0], row[1]) for row in rows]


def seen_folders(connection: sa.Connection) -> list[str]:
    """Return the folders in which the walk met files."""
    folder = "regexp_replace(path, '/[^/]*$', '')"
    return list(connection.scalars(sa.text(f"SELECT DISTINCT {folder} FROM seen")))


def outermost(paths: Iterable[str]) -> list[str]:
    """Return the paths that are not below another of them."""
    found: list[str] = []
    # By their parts, so that what is below a path follows it at once.
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if not found or not is_under(path, found[-1]):
            found.append(path)
    return found


def count_under(connection: sa.Connection, table: sa.Table, roots: Sequence[str]) -> dict[str, int]:
    """Return the number of rows under each root."""
    rows = connection.execute(
        sa.text(
            f"SELECT root, count(*) FROM unnest(CAST(:roots AS text[])) AS root"
            f" JOIN {schema.sql_name(table)} AS stored ON {_UNDER.format('root')} GROUP BY 1"
        ),
        {"roots": list(roots)},
    )
    return dict.fromkeys(roots, 0) | {row[0]: row[1] for row in rows}


def rows_under(connection: sa.Connection, table: sa.Table, roots: Sequence[str]) -> dict[UUID, str]:
    """Return the paths of the rows under the roots, by id."""
    rows = connection.execute(
        sa.text(f"SELECT id, path FROM {schema.sql_name(table)} AS stored WHERE {_UNDER_ROOTS}"),
        {"roots": list(roots), "unreadable": []},
    )
    return {row.id: row.path for row in rows}


def errors_under(connection: sa.Connection, collection: str, roots: Sequence[str]) -> list[UUID]:
    """Return the ids of a collection's errors under the roots."""
    rows = connection.scalars(
        sa.text(
            "SELECT id FROM vecsearch.ingest_errors AS stored"
            f" WHERE collection = :collection AND {_UNDER_ROOTS}"
        ),
        {"collection": collection, "roots": list(roots), "unreadable": []},
    )
    return list(rows)


def delete_errors(connection: sa.Connection, collection: str, ids: Sequence[UUID]) -> None:
    """Delete errors by the ids of their images."""
    errors = tables.ingest_errors
    connection.execute(
        sa.delete(errors).where(
            errors.c.collection == collection,
            errors.c.id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid))),
        )
    )


def is_under(path: str, root: str) -> bool:
    """Return whether a path is a root, or under it."""
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def unseen_rows(connection: sa.Connection, table: sa.Table, scope: Scope) -> list[tuple[UUID, str]]:
    """Return id and path of the rows under the scope's roots that the walk did not meet.

    Rows whose pictures have moved are not among them.
    """
    rows = connection.execute(
        sa.text(
            f"SELECT stored.id, stored.path FROM {schema.sql_name(table)} AS stored"
            " LEFT JOIN seen ON seen.path = stored.path"
            " LEFT JOIN (SELECT source FROM pending WHERE carries AND error IS NULL"
            f" AND outcome = '{Outcome.moved}') AS taker ON taker.source = stored.id"
            f" WHERE {_UNDER_ROOTS} AND seen.path IS NULL AND taker.source IS NULL"
        ),
        vars(scope),
    )
    return [(row.id, row.path) for row in rows]


def delete_rows(connection: sa.Connection, table: sa.Table, ids: Sequence[UUID]) -> None:
    """Delete rows by id; see `vecsearch.search.indexes.follow` for the lock."""
    indexes.follow_deleted(connection, table.name, ids)
    tags.forget(connection, table.name, "SELECT unnest(CAST(:ids AS uuid[]))", ids=list(ids))
    connection.execute(
        sa.text(f"DELETE FROM {schema.sql_name(table)} WHERE id = ANY(:ids)"), {"ids": list(ids)}
    )
