"""Create a collection: its table, the analysts' view and functions, its row in the register."""

import sqlalchemy as sa

from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import InvalidInput
from vecsearch.postgres import analysts, catalog, distributed, renaming, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.drop import exclusively
from vecsearch.search import functions
from vecsearch.vocabulary import IndexMethod, Metric, parse


def create(
    connection: sa.Connection,
    name: str,
    identity: Identity,
    weights: Weights,
    dimensions: int,
    *,
    default_metric: Metric = Metric.cosine,
    index_method: str | None = None,
) -> StoredCollection:
    """Create a collection, or return the one that another process has just created.

    `indexes.build.ensure` builds its index.

    Args:
        connection: in a transaction.
        name: name of the collection and its table.
        identity: identity of its encoder.
        weights: where the encoder's weights are.
        dimensions: dimensions of an embedding.
        default_metric: metric of queries that name none.
        index_method: hnsw, compact or none; None uses hnsw.

    Raises:
        InvalidInput: `name` cannot name a table, or pgvector cannot store so many `dimensions`.

    """
    schema.require_collection_name(name)
    method = IndexMethod.hnsw if index_method is None else parse(IndexMethod, index_method)
    catalog.lock_creation(connection)
    existing = catalog.find_collection(connection, name)
    if existing is not None:
        return existing
    # Someone may have deleted an earlier collection by hand and left its compact vectors.
    for left in catalog.compact_versions(connection, name):
        catalog.drop_compact(connection, left)
    stored = catalog.register(
        connection,
        name,
        identity,
        weights,
        dimensions,
        default_metric=default_metric,
        index_method=method,
    )
    # Not IF NOT EXISTS: a table of this name that is not in the register belongs to someone else.
    table = schema.collection_table(name, dimensions)
    table.create(connection)
    analysts.create(connection, table)
    shards = distributed.of_new(connection)
    if shards is not None:
        distributed.distribute(connection, table, (), shards)
        stored = catalog.get_collection(connection, name)
    else:
        analysts.start_feed(connection, table)
    functions.replace(connection, stored)
    return stored


def rename(connection: sa.Connection, name: str, new: str) -> list[str]:
    """Rename a collection: its table, indexes, views and functions, and the rows that name it.

    Return notes for the user.

    Args:
        connection: in a transaction.
        name: the collection.
        new: its new name.

    Raises:
        InvalidInput: `new` cannot name a table, or something else has that name.
        DatabaseBusy: other programs are using its table.

    """
    schema.require_collection_name(new)
    with exclusively(connection, name, new) as notes:
        catalog.get_collection(connection, name)
        taken = sa.text("SELECT to_regclass(:name) IS NOT NULL")
        if connection.scalar(taken, {"name": f"{tables.SCHEMA}.{schema.sql_name(new)}"}):
            raise InvalidInput(f"The name {new!r} is taken. Choose another.")
        renaming.rename(connection, name, new)
        functions.replace(connection, catalog.get_collection(connection, new))
    return notes


def require_index_method(collection: StoredCollection, method: str | None) -> None:
    """Check that a requested index method is the one that the collection has.

    Raises:
        InvalidInput: the collection has another.

    """
    if method is not None and parse(IndexMethod, method) is not collection.index_method:
        raise InvalidInput(
            f"Collection {collection.name!r} has the index {collection.index_method}. "
            f"To change it: vecsearch index create --method {method} --collection "
            f"{collection.name}"
        )
