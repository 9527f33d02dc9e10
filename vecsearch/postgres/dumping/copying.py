"""Copy a collection from one database to another; both have tables of this version."""

from collections.abc import Iterable

import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import InvalidInput
from vecsearch.postgres import analysts, catalog, schema, tables, thumbnails
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import analyze, lock_collection
from vecsearch.postgres.sessions import waits


def refuse_existing(connection: sa.Connection, names: Iterable[str]) -> None:
    """Check that none of these collections exists, before a restore.

    Raises:
        InvalidInput: one of them exists.

    """
    existing = sorted({*names} & {*catalog.list_names(connection)})
    if existing:
        raise InvalidInput(
            f"This database has a collection {existing[0]!r} already. Drop it first: "
            f"vecsearch drop {existing[0]}"
        )


def copy_collection(source: sa.Connection, target: sa.Connection, name: str) -> None:
    """Copy a collection and everything stored for it, except HNSW indexes.

    Afterwards call `vecsearch.search.functions.replace`.

    Args:
        source: in a transaction on one snapshot.
        target: in a transaction.
        name: the collection.

    Raises:
        CollectionNotFound: the source has no collection of this name.
        InvalidInput: the target already has one.

    """
    collection = catalog.get_collection(source, name)
    # Take locks in the same order as an ingest.
    with waits.bounded(target):
        lock_collection(target, name)
        thumbnails.hold(target)
        catalog.lock_creation(target)
    refuse_existing(target, [name])
    table = schema.collection_table(name, collection.dimensions)
    table.create(target)
    analysts.create(target, table)
    own = sql.Literal(name)
    belongs = sql.SQL("collection = {}").format(own)
    if collection.compact is not None:
        vectors = collection.compact.table
        catalog.create_compact(target, collection.compact)
        in_use = sql.SQL("{} AND version = {}").format(belongs, collection.compact.version)
        _copy(source, target, tables.projections, in_use)
        _copy(source, target, vectors)
        # All versions come from one sequence, which must stay ahead of the copied version.
        target.execute(
            sa.text(
                "SELECT setval(numbers, greatest(:version, nextval(numbers))) FROM"
                " pg_get_serial_sequence(:projections, 'version') AS numbers"
            ),
            {"projections": tables.projections.fullname, "version": collection.compact.version},
        )
    _copy(source, target, table)
    _copy(source, target, tables.ingest_errors, belongs)
    _copy(source, target, tables.not_duplicates, belongs)
    _copy(source, target, tables.tags, belongs)
    # Their place in this database's feed is not known, so the next refresh makes them anew.
    for derived in tables.derived.values():
        _copy(source, target, derived, belongs)
    analysts.start_feed(target, table)
    precision = sql.SQL("precision = {}").format(collection.identity.precision)
    _add(source, target, tables.quantized_models, precision)
    if collection.identity.weights_sha256 is not None:
        encoder = sql.SQL("encoder = {}").format(collection.identity.weights_sha256)
        _add(source, target, tables.concepts, encoder)
    contents = sql.SQL("sha256 IN (SELECT sha256 FROM {})").format(_name(table))
    _add(source, target, tables.thumbnails, contents)
    _copy(source, target, tables.collections, sql.SQL("name = {}").format(own))
    analyze(target, table)


def _copy(
    source: sa.Connection,
    target: sa.Connection,
    table: sa.Table,
    where: sql.Composable = sql.SQL("true"),  # noqa: B008 - a constant
    into: sql.Composable | None = None,
) -> None:
    """Copy the rows that meet a condition from the source's table to the target's, or `into`."""
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    reading = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT BINARY)").format(
        columns, _name(table), where
    )
    writing = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        into or _name(table), columns
    )
    with (
        driver_connection(source).cursor().copy(reading) as rows,
        driver_connection(target).cursor().copy(writing) as written,
    ):
        for block in rows:
            written.write(block)


def _add(
    source: sa.Connection, target: sa.Connection, table: sa.Table, where: sql.Composable
) -> None:
    """Copy the rows that meet a condition and are missing in the target."""
    incoming = sql.Identifier("pg_temp", f"incoming_{table.name}")
    driver = driver_connection(target)
    driver.execute(
        sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(
            sql.Identifier(f"incoming_{table.name}"), _name(table)
        )
    )
    _copy(source, target, table, where, into=incoming)
    key = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.primary_key)
    # Every run inserts in the same order, as in `vecsearch.postgres.thumbnails.store`.
    driver.execute(
        sql.SQL("INSERT INTO {} SELECT * FROM {} ORDER BY {} ON CONFLICT DO NOTHING").format(
            _name(table), incoming, key
        )
    )
    driver.execute(sql.SQL("DROP TABLE {}").format(incoming))


def _name(table: sa.Table) -> sql.Identifier:
    return sql.Identifier(str(table.schema), table.name)
