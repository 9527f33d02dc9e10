"""HNSW indexes: built, swapped and dropped while the collection is read and written."""

from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import Compact, StoredCollection

# Any fixed number, beside the hash of a collection's name: one command at a time builds.
BUILD_LOCK_KEY = 0x7669


@dataclass(frozen=True)
class Index:
    """An HNSW index that there is.

    Attributes:
        valid: whether searches may use it; one that is being built is not, nor is one whose build
            was cut off.
        size: bytes.
        options: m and ef_construction where they are not the default.

    """

    name: str
    valid: bool
    size: int
    options: dict[str, int]


def find(connection: sa.Connection, name: str) -> Index | None:
    """Return the index of this name."""
    row = connection.execute(
        sa.text(
            "SELECT indisvalid, pg_relation_size(oid), reloptions FROM pg_index"
            " JOIN pg_class ON oid = indexrelid WHERE indexrelid = to_regclass(:name)"
        ),
        {"name": f"{schema.SCHEMA}.{name}"},
    ).first()
    if row is None:
        return None
    pairs = (option.split("=") for option in row[2] or ())
    return Index(name, row[0], row[1], {key: int(value) for key, value in pairs})


def table_bytes(connection: sa.Connection, table: sa.Table) -> int:
    """Return the size of a table and its primary key, without its HNSW index."""
    name = schema.sql_name(table)
    size: int = connection.scalar(
        sa.text("SELECT pg_table_size(:table) + pg_relation_size(CAST(:key AS regclass))"),
        {"table": name, "key": f"{name}_pkey"},
    )
    return size


def claim(connection: sa.Connection, collection: str) -> bool:
    """Let this session alone build the collection's index, until it ends; False: another does."""
    return bool(
        connection.scalar(
            sa.text("SELECT pg_try_advisory_lock(:key, hashtext(:name))"),
            {"key": BUILD_LOCK_KEY, "name": collection},
        )
    )


def build(
    connection: sa.Connection,
    name: str,
    table: sa.Table,
    column: str,
    operators: str,
    options: dict[str, int],
) -> None:
    """Build an index while its table is read and written. The connection commits by itself.

    Args:
        connection: outside any transaction.
        name: of the index; one that is there is replaced.
        table: whose.
        column: its column of vectors.
        operators: the operator class.
        options: m and ef_construction, where they are not pgvector's own.

    """
    drop(connection, name)
    storage = ", ".join(f"{key} = {int(value)}" for key, value in options.items())
    connection.exec_driver_sql(
        f"CREATE INDEX CONCURRENTLY {name} ON {schema.sql_name(table)}"
        f" USING hnsw ({column} {operators}){f' WITH ({storage})' if storage else ''}"
    )


def drop(connection: sa.Connection, name: str) -> None:
    """Drop an index, if it is there, while its table is read and written; see `build`."""
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {schema.SCHEMA}.{name}")


def rename(connection: sa.Connection, name: str, to: str) -> None:
    """Rename an index."""
    connection.exec_driver_sql(f"ALTER INDEX {schema.SCHEMA}.{name} RENAME TO {to}")


def use(
    connection: sa.Connection,
    collection: StoredCollection,
    method: str,
    options: dict[str, int],
    compact: Compact | None,
) -> None:
    """Let searches use another index from the next statement on.

    What was tuned for the last one is forgotten.
    """
    connection.execute(
        sa.update(schema.collections)
        .where(schema.collections.c.name == collection.name)
        .values(
            index_method=method,
            index_options=options,
            projection=None if compact is None else compact.version,
            breadths={},
        )
    )


def set_breadth(
    connection: sa.Connection, collection: StoredCollection, metric: str, tuned: dict[str, Any]
) -> None:
    """Remember how broadly the index is to be searched for a metric, unless it is another now."""
    columns = schema.collections.c
    connection.execute(
        sa.update(schema.collections)
        .where(
            columns.name == collection.name,
            columns.index_method == collection.index_method,
            columns.projection.is_not_distinct_from(
                None if collection.compact is None else collection.compact.version
            ),
        )
        .values(
            breadths=columns.breadths.op("||")(sa.literal({metric: tuned}, columns.breadths.type))
        )
    )


def readers(connection: sa.Connection) -> set[str]:
    """Return the transactions, other than this, that may have read the register as it was.

    Whoever has asked which projection is in use holds a lock of the register until it ends.
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
    """Return how many rows the index that a session builds has, and of how many."""
    row = connection.execute(
        sa.text(
            "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index"
            " WHERE pid = :pid AND tuples_total > 0"
        ),
        {"pid": pid},
    ).first()
    return None if row is None else (row[0], row[1])


def server_settings(connection: sa.Connection) -> tuple[int, int]:
    """Return the session's maintenance_work_mem in bytes, and its parallel maintenance workers."""
    row = connection.execute(
        sa.text(
            "SELECT pg_size_bytes(current_setting('maintenance_work_mem')),"
            " CAST(current_setting('max_parallel_maintenance_workers') AS int)"
        )
    ).one()
    return row[0], row[1]


def apply(connection: sa.Connection, memory: int, workers: int) -> None:
    """Give this session's builds so many bytes and parallel workers."""
    settings = {
        "maintenance_work_mem": f"{memory // 1024}kB",
        "max_parallel_maintenance_workers": str(workers),
        # What suits a role's queries would cut a long build off.
        "statement_timeout": "0",
        "lock_timeout": "0",
    }
    connection.execute(sa.select(*(sa.func.set_config(*item, False) for item in settings.items())))


def wait_for_locks(connection: sa.Connection, seconds: float) -> None:
    """Let the transaction wait so long for a lock, and no longer."""
    setting = sa.func.set_config("lock_timeout", f"{round(1_000 * seconds)}ms", True)
    connection.execute(sa.select(setting))


def is_lock_timeout(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a statement failed because it waited for a lock for too long."""
    return isinstance(error.orig, psycopg.errors.LockNotAvailable)
