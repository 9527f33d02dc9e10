"""Making a collection: its table, what stands beside it for analysts, its line in the register."""

import sqlalchemy as sa

from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import InvalidInput
from vecsearch.postgres import analysts, catalog, schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import serving
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
    """Make a collection unless another has just now; `indexes.build.ensure` builds its index.

    Args:
        connection: in a transaction.
        name: of the collection and its table.
        identity: of its encoder.
        weights: where those are.
        dimensions: of an embedding.
        default_metric: of a query that names none.
        index_method: the index that is wanted: hnsw, compact or none; None: hnsw.

    Raises:
        InvalidInput: `name` cannot name a table, or `dimensions` are more than pgvector stores.

    """
    schema.require_collection_name(name)
    method = IndexMethod.hnsw if index_method is None else parse(IndexMethod, index_method)
    catalog.lock_creation(connection)
    existing = catalog.find_collection(connection, name)
    if existing is not None:
        return existing
    # Of one that was removed by hand, with its table alone.
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
    # Not IF NOT EXISTS: a table of this name that is not in the register is somebody else's.
    table = schema.collection_table(name, dimensions, indexed=False)
    table.create(connection)
    analysts.create(connection, table)
    order_nearest(connection, stored)
    return stored


def order_nearest(connection: sa.Connection, stored: StoredCollection) -> None:
    """Let the collection's function NAME_nearest order as its index can serve it."""
    analysts.replace_nearest(connection, stored.table, serving(stored).analysts_order())


def require_index_method(collection: StoredCollection, method: str | None) -> None:
    """Refuse to be told of another index than the one that a collection has been given.

    Raises:
        InvalidInput: it has another.

    """
    if method is not None and parse(IndexMethod, method) is not collection.index_method:
        raise InvalidInput(
            f"Collection {collection.name!r} has the index {collection.index_method}. "
            f"To change it: vecsearch index create --method {method} --collection "
            f"{collection.name}"
        )
