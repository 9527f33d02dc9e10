"""Index methods: `METHODS` has a class for each; `serving` returns the one a collection uses."""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa

from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.base import Index
from vecsearch.search.indexes.compact import CompactIndex
from vecsearch.search.indexes.hnsw import HnswIndex
from vecsearch.search.indexes.none import NoIndex
from vecsearch.vocabulary import IndexMethod

METHODS: dict[IndexMethod, type[Index]] = {
    index.method: index for index in (HnswIndex, CompactIndex, NoIndex)
}


def serving(stored: StoredCollection) -> Index:
    """Return the index that a collection's searches use."""
    return METHODS[stored.index_method].of(stored)


def follow(connection: sa.Connection, collection: str, staged: str) -> None:
    """Update every index for rows that have just been written.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        collection: the collection of the rows.
        staged: a temporary table with the rows' columns id and embedding.

    """
    for index in METHODS.values():
        index.follow(connection, collection, staged)


def follow_known(connection: sa.Connection, collection: str) -> None:
    """Update every index for the rows in table `known`; see `vecsearch.ingest.writes`."""
    for index in METHODS.values():
        index.follow_known(connection, collection)


def follow_deleted(connection: sa.Connection, collection: str, ids: Sequence[UUID]) -> None:
    """Update every index for rows that are deleted; see `follow`."""
    for index in METHODS.values():
        index.follow_deleted(connection, collection, list(ids))
