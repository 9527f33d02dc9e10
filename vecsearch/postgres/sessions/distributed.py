"""Collections on Citus: their tables in shards on several servers, by the image's id.

A collection's tables are spread; those that collections share stay on the coordinator, to which
vecsearch connects. As reference tables they would be read by what Citus calls local execution, and
after that it refuses some searches in the same transaction. Triggers cannot be on a distributed
table, so there is no feed of its changes. `citus.propagate_set_commands` is set in every session
(`vecsearch.postgres.database`), so that SET LOCAL reaches the shards.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from vecsearch.errors import ExtensionMissing
from vecsearch.postgres import analysts, schema, tables

# SQL for whether the table of a given oid is distributed. Citus puts this trigger on each, so that
# no table is read which only exists where Citus does.
IS_DISTRIBUTED = (
    "EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = tgfoid"
    " WHERE tgrelid = {} AND proname = 'citus_truncate_trigger')"
)
# The same for the collection of a row of the register.
OF_REGISTER = IS_DISTRIBUTED.format(
    f"to_regclass('{tables.SCHEMA}.' || quote_ident(collections.name))"
)
# Sets, until the transaction ends, that its statements use one connection to each server. Citus
# requires that of a transaction that defines objects; elsewhere the setting means nothing.
ONE_BY_ONE = "set_config('citus.multi_shard_modify_mode', 'sequential', true)"
# With fewer rows, one server answers sooner than several and a network.
WORTH_IT = 100_000


def require_citus(connection: sa.Connection) -> None:
    """Check that this database has Citus, and workers.

    Raises:
        ExtensionMissing: it has not.

    """
    found = sa.text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
    if not connection.scalar(found):
        raise ExtensionMissing(
            "This database lacks the extension Citus. Install it on every server, name it in "
            "shared_preload_libraries, run CREATE EXTENSION citus on each, and citus_add_node on "
            "the coordinator (docs/scale.md)."
        )
    if not workers(connection):
        raise ExtensionMissing(
            "Citus has no workers yet. On the coordinator, for each: SELECT citus_add_node(host, "
            "port)"
        )


def workers(connection: sa.Connection) -> list[str]:
    """Return host and port of the servers that hold shards, of a database with Citus."""
    rows = connection.scalars(
        sa.text(
            "SELECT format('%s:%s', nodename, nodeport) FROM pg_dist_node"
            " WHERE isactive AND shouldhaveshards AND noderole = 'primary' ORDER BY 1"
        )
    )
    return list(rows)


def is_distributed(connection: sa.Connection, name: str) -> bool:
    """Return whether a collection's table is distributed."""
    oid = f"CAST('{_qualified(name)}' AS regclass)"
    return bool(connection.scalar(sa.text(f"SELECT {IS_DISTRIBUTED.format(oid)}")))


def list_distributed(connection: sa.Connection) -> list[str]:
    """Return the names of the tables of our schema that are distributed, of whichever version."""
    rows = connection.scalars(
        sa.text(
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:schema)"
            f" AND relkind = 'r' AND {IS_DISTRIBUTED.format('pg_class.oid')} ORDER BY 1"
        ),
        {"schema": tables.SCHEMA},
    )
    return list(rows)


def shards(connection: sa.Connection, table: sa.Table) -> int:
    """Return the number of a distributed table's shards."""
    count = sa.text(
        "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = CAST(:table AS regclass)"
    )
    return int(connection.scalar(count, {"table": schema.sql_name(table)}) or 0)


def one_by_one(connection: sa.Connection) -> None:
    """Prepare a transaction that defines objects; see ONE_BY_ONE."""
    connection.execute(sa.text(f"SELECT {ONE_BY_ONE}"))


def table_bytes(connection: sa.Connection, name: str) -> int:
    """Return the size of a table with its TOAST, in all its shards, by its name as SQL."""
    return _bytes(connection, name, "citus_table_size", "pg_table_size")


def total_bytes(connection: sa.Connection, name: str) -> int:
    """Return the size of a table with its indexes, in all its shards, by its name as SQL."""
    return _bytes(connection, name, "citus_total_relation_size", "pg_total_relation_size")


def _bytes(connection: sa.Connection, name: str, ours: str, alone: str) -> int:
    oid = f"CAST('{name}' AS regclass)"
    spread = connection.scalar(sa.text(f"SELECT {IS_DISTRIBUTED.format(oid)}"))
    size = connection.scalar(sa.text(f"SELECT {ours if spread else alone}({oid})"))
    return int(size or 0)


def index_bytes(connection: sa.Connection, table: str, method: str) -> int:
    """Return the size of a distributed table's index of an access method, in all its shards.

    An index has another name on each shard.
    """
    of_shard = (
        "SELECT sum(pg_relation_size(indexrelid)) FROM pg_index JOIN pg_class ON oid = indexrelid"
        " JOIN pg_am AS a ON a.oid = relam"
        f" WHERE indrelid = CAST(''%s'' AS regclass) AND amname = ''{method}''"
    )
    size = connection.scalar(
        sa.text(
            "SELECT sum(CAST(nullif(result, '') AS bigint)) FROM run_command_on_shards("
            f"CAST('{table}' AS regclass), '{of_shard}')"
        )
    )
    return int(size or 0)


@contextmanager
def here_alone(connection: sa.Connection) -> Iterator[None]:
    """Let statements of a transaction define objects on the coordinator alone.

    Citus defines functions on every server, and refuses some that depend on each other.
    """
    setting = "SET LOCAL citus.enable_ddl_propagation"
    connection.exec_driver_sql(f"{setting} = off")
    yield
    connection.exec_driver_sql(f"{setting} TO DEFAULT")


def of_new(connection: sa.Connection) -> int | None:
    """Return the shards of a new collection; None: it stays on one server.

    The setting is of the database: ALTER DATABASE … SET vecsearch.shards = 32.
    """
    found = connection.scalar(sa.text("SELECT current_setting('vecsearch.shards', true)"))
    return int(found) if found else None


def distribute(
    connection: sa.Connection, table: sa.Table, beside: Iterable[sa.Table], shards: int | None
) -> None:
    """Distribute a collection's table, and those of its compact vectors with it.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        table: the collection's.
        beside: tables of compact vectors.
        shards: number of shards; None: Citus' default.

    """
    analysts.stop_feed(connection, table)
    _place(connection, table, "default", shards)
    for compact in beside:
        _place(connection, compact, schema.sql_name(table), None)


def follow(connection: sa.Connection, name: str, compact: sa.Table) -> None:
    """Distribute a table of compact vectors if that of its collection is distributed."""
    if is_distributed(connection, name):
        _place(connection, compact, _qualified(name), None)


def _qualified(name: str) -> str:
    return f"{tables.SCHEMA}.{schema.sql_name(name)}"


def _place(connection: sa.Connection, table: sa.Table, like: str, shards: int | None) -> None:
    name = schema.sql_name(table)
    connection.execute(
        sa.text(
            "SELECT create_distributed_table(CAST(:name AS regclass), 'id', colocate_with => :like,"
            " shard_count => CAST(:shards AS int))"
        ),
        {"name": name, "like": like, "shards": shards},
    )
    connection.execute(
        sa.text("SELECT truncate_local_data_after_distributing_table(CAST(:name AS regclass))"),
        {"name": name},
    )
