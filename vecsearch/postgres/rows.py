"""Helpers for everything that writes rows: ids, the write lock, COPY, statistics."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import sqlalchemy as sa

from vecsearch.errors import DatabaseBusy
from vecsearch.imaging.sources.remote import is_url
from vecsearch.postgres import database, schema, tables
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.sessions import waits

# Any fixed number; with the hash of a collection's name it is the key of the write lock.
WRITE_LOCK_KEY = 0x7665
# How long the feed of changes keeps one, at least.
KEPT = "30 days"


def image_id(path: str) -> uuid.UUID:
    """Return the id of the row for `path`: UUIDv5 (RFC 9562) of its URL, or of its file URI.

    Every process derives the same id for the same path.
    """
    url = path if is_url(path) else PurePath(path).as_uri()
    return uuid.uuid5(uuid.NAMESPACE_URL, url)


@contextmanager
def claimed(engine: sa.Engine, key: int, name: str, busy: str) -> Iterator[None]:
    """Hold a lock of a collection, for as long as the block runs, across transactions.

    Args:
        engine: the database's engine.
        key: what the lock is for.
        name: the collection.
        busy: the sentence if another session holds it.

    Raises:
        DatabaseBusy: one does.

    """
    lock = {"key": key, "name": name}
    with database.session(engine) as connection:
        taken = connection.scalar(
            sa.text("SELECT pg_try_advisory_lock(:key, hashtext(:name))"), lock
        )
        connection.commit()
        if not taken:
            raise DatabaseBusy(busy)
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT pg_advisory_unlock(:key, hashtext(:name))"), lock)
            connection.commit()


@contextmanager
def writing(connection: sa.Connection, name: str, *, adding: bool = False) -> Iterator[None]:
    """Begin a transaction that holds the collection's write lock; see `waits.bounded`.

    Args:
        connection: outside any transaction.
        name: the collection.
        adding: see `lock_collection`.

    """
    with waits.bounded(connection), connection.begin():
        lock_collection(connection, name, adding=adding)
        yield


def lock_collection(connection: sa.Connection, name: str, *, adding: bool = False) -> None:
    """Take the collection's write lock until the transaction ends.

    Without it, two runs over the same files could deadlock on each other's rows. Call it where
    waits are bounded.

    Args:
        connection: in a transaction.
        name: the collection.
        adding: rows are added, in order of id, and no stored row is changed; such transactions do
            not wait for each other.

    """
    shared = "_shared" if adding else ""
    connection.execute(
        sa.text(f"SELECT pg_advisory_xact_lock{shared}(:key, hashtext(:name))"),
        {"key": WRITE_LOCK_KEY, "name": name},
    )


def copy_rows(
    connection: sa.Connection, table: str, types: str, rows: Iterable[tuple[Any, ...]]
) -> None:
    """Copy rows into a table in binary format; `types` are the types of its columns, in order."""
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN WITH (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(types.split())
        for row in rows:
            copy.write_row(row)


def analyze(connection: sa.Connection, table: sa.Table) -> None:
    """Refresh the planner's statistics, or leave that to autovacuum while an index is built.

    ANALYZE would wait for CREATE INDEX CONCURRENTLY, which waits for transactions like this one.
    """
    connection.execute(sa.text(f"ANALYZE (SKIP_LOCKED) {schema.sql_name(table)}"))


def forget_old_changes(connection: sa.Connection, name: str) -> None:
    """Delete the changes of a collection that are older than KEPT, except the newest of those.

    Whoever followed the feed up to that one, or farther, has missed none.
    """
    feed = tables.changes.fullname
    connection.execute(
        sa.text(
            f"""
            DELETE FROM {feed} WHERE collection = :name AND position < (
                SELECT max(position) FROM {feed} WHERE collection = :name AND position < coalesce(
                    (SELECT position FROM {feed}
                    WHERE collection = :name AND at >= now() - CAST(:kept AS interval)
                    ORDER BY position LIMIT 1), 9223372036854775807))"""
        ),
        {"name": name, "kept": KEPT},
    )
