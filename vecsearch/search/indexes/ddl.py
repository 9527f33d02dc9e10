"""Build, switch and drop HNSW indexes while the collection is read and written."""

import threading
from dataclasses import dataclass
from time import monotonic
from typing import Any

import psycopg
import sqlalchemy as sa

from vecsearch.postgres import distributed, schema, tables
from vecsearch.postgres.catalog import Compact, StoredCollection
from vecsearch.postgres.sessions import waits
from vecsearch.vocabulary import IndexMethod

# Any fixed number; with the hash of a collection's name it is the key of the build lock.
BUILD_LOCK_KEY = 0x7669
# How long to wait for a session that has it.
CLAIM_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Index:
    """An existing HNSW index.

    Attributes:
        valid: whether searches can use it; False while it is being built, and after an interrupted
            build.
        size: bytes.
        options: m and ef_construction, if they are not the default.

    """

    name: str
    valid: bool
    size: int
    options: dict[str, int]


def find(connection: sa.Connection, name: str, namespace: str) -> Index | None:
    """Return the index of this name in a schema; None if there is none."""
    row = connection.execute(
        sa.text(
            "SELECT indisvalid, pg_relation_size(oid), reloptions,"
            f" {distributed.IS_DISTRIBUTED.format('indrelid')},"
            " CAST(CAST(indrelid AS regclass) AS text),"
            " (SELECT amname FROM pg_am WHERE pg_am.oid = relam) FROM pg_index"
            " JOIN pg_class ON oid = indexrelid WHERE indexrelid = to_regclass(:name)"
        ),
        {"name": f"{namespace}.{name}"},
    ).first()
    if row is None:
        return None
    pairs = (option.split("=") for option in row[2] or ())
    size = distributed.index_bytes(connection, row[4], row[5]) if row[3] else row[1]
    return Index(name, row[0], size, {key: int(value) for key, value in pairs})


def table_bytes(connection: sa.Connection, table: sa.Table) -> int:
    """Return the size of a table and its primary key, without its HNSW index."""
    name = schema.sql_name(table)
    key: int = connection.scalar(
        sa.text("SELECT pg_relation_size(CAST(:key AS regclass))"), {"key": f"{name}_pkey"}
    )
    return distributed.table_bytes(connection, name) + key


def claim(connection: sa.Connection, collection: str) -> str | None:
    """Take the build lock until the session ends; return None, or whose session keeps it.

    That of a command that was killed ends when the server notices, so it is waited for.
    """
    until = monotonic() + CLAIM_TIMEOUT_S
    pause = threading.Event()
    lock = sa.text("SELECT pg_try_advisory_lock(:key, hashtext(:name))")
    while not connection.scalar(lock, {"key": BUILD_LOCK_KEY, "name": collection}):
        if monotonic() > until:
            return _builder(connection, collection)
        pause.wait(waits.POLL_S)
    return None


def _builder(connection: sa.Connection, collection: str) -> str:
    """Return the name of the session that has the build lock."""
    name: str | None = connection.scalar(
        sa.text(
            f"SELECT {waits.NAME} FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 2"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid = :key AND CAST(objid AS int8) = hashtext(:name) & 4294967295"
        ),
        {"key": BUILD_LOCK_KEY, "name": collection},
    )
    return name or "another command"


def release(connection: sa.Connection, collection: str) -> None:
    """Release the build lock."""
    connection.execute(
        sa.text("SELECT pg_advisory_unlock(:key, hashtext(:name))"),
        {"key": BUILD_LOCK_KEY, "name": collection},
    )


def build(
    connection: sa.Connection,
    name: str,
    table: sa.Table,
    column: str,
    operators: str,
    options: dict[str, int],
) -> None:
    """Build an index while its table is read and written.

    Args:
        connection: a connection that commits each statement, outside any transaction.
        name: name of the index; an existing one is dropped first.
        table: the table to index.
        column: its vector column.
        operators: the operator class.
        options: build options of the access method; a missing one has pgvector's default.

    """
    drop(connection, name, str(table.schema))
    storage = ", ".join(f"{key} = {int(value)}" for key, value in options.items())
    connection.exec_driver_sql(
        f"CREATE INDEX CONCURRENTLY {name} ON {schema.sql_name(table)}"
        f" USING {IndexMethod.hnsw} ({column} {operators}){f' WITH ({storage})' if storage else ''}"
    )


def drop(connection: sa.Connection, name: str, namespace: str = tables.SCHEMA) -> None:
    """Drop an index, if it exists, while its table is read and written; see `build`."""
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {namespace}.{name}")


def rename(connection: sa.Connection, name: str, to: str) -> None:
    """Rename an index."""
    connection.exec_driver_sql(f"ALTER INDEX {tables.SCHEMA}.{name} RENAME TO {to}")


def use(
    connection: sa.Connection,
    collection: StoredCollection,
    method: str,
    options: dict[str, int],
    compact: Compact | None,
    *,
    ranking: str,
    expansion: int,
) -> None:
    """Switch searches to another index or ranking, and reset the settings tuned for the old one."""
    is_same = (method, options, compact, ranking) == (
        collection.index_method,
        collection.index_options,
        collection.compact,
        collection.ranking,
    )
    connection.execute(
        sa.update(tables.collections)
        .where(tables.collections.c.name == collection.name)
        .values(
            index_method=method,
            index_options=options,
            projection=None if compact is None else compact.version,
            breadths=collection.breadths if is_same else {},
            ranking=ranking,
            expansion=expansion,
        )
    )


def set_breadth(
    connection: sa.Connection, collection: StoredCollection, metric: str, tuned: dict[str, Any]
) -> None:
    """Store a tuned ef_search, or number of candidates, unless the index was replaced meanwhile."""
    columns = tables.collections.c
    connection.execute(
        sa.update(tables.collections)
        .where(
            columns.name == collection.name,
            columns.index_method == collection.index_method,
            columns.index_options == collection.index_options,
            columns.ranking == collection.ranking,
            columns.projection.is_not_distinct_from(
                None if collection.compact is None else collection.compact.version
            ),
        )
        .values(
            breadths=columns.breadths.op("||")(sa.literal({metric: tuned}, columns.breadths.type))
        )
    )


def readers(connection: sa.Connection) -> set[str]:
    """Return other transactions that may have read the register before the switch.

    A transaction that has read which projection is in use holds a lock on the register until its
    end.
    """
    rows = connection.scalars(
        sa.text(
            "SELECT virtualtransaction FROM pg_locks WHERE pid <> pg_backend_pid()"
            " AND relation IN ('vecsearch.collections'::regclass,"
            " 'vecsearch.alembic_version'::regclass)"
        )
    )
    return set(rows)


def progress(connection: sa.Connection, pid: int) -> tuple[int, int] | None:
    """Return the rows indexed so far by a session's build, and their total; None if unknown."""
    row = connection.execute(
        sa.text(
            "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index"
            " WHERE pid = :pid AND tuples_total > 0"
        ),
        {"pid": pid},
    ).first()
    return None if row is None else (row[0], row[1])


def server_settings(connection: sa.Connection) -> tuple[int, int]:
    """Return maintenance_work_mem in bytes, and the number of parallel maintenance workers."""
    row = connection.execute(
        sa.text(
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
            " CAST(current_setting('max_parallel_maintenance_workers') AS int)"
        )
    ).one()
    return row[0], row[1]


def apply(connection: sa.Connection, memory: int, workers: int) -> None:
    """Set the memory in bytes and the parallel workers of this session's builds."""
    settings = {
        "maintenance_work_mem": f"{memory // 1024}kB",
        "max_parallel_maintenance_workers": str(workers),
        # A time limit meant for the role's queries would cancel a long build.
        "statement_timeout": "0",
        "lock_timeout": "0",
    }
    connection.execute(sa.select(*(sa.func.set_config(*item, False) for item in settings.items())))


def wait_for_locks(connection: sa.Connection, seconds: float) -> None:
    """Set the time that the transaction waits for a lock."""
    setting = sa.func.set_config("lock_timeout", f"{round(1_000 * seconds)}ms", True)
    connection.execute(sa.select(setting))


def is_lock_timeout(error: sa.exc.DBAPIError) -> bool:
    """Return whether a statement failed because it waited too long for a lock."""
    return isinstance(error.orig, psycopg.errors.LockNotAvailable)
