"""Index methods: `METHODS` has a class for each; `serving` returns the one a collection uses.

Whoever writes rows calls `follow`, `follow_known` and `follow_deleted`. They update the vectors
that methods keep beside the collection's table; Postgres itself maintains indexes on that table.
"""

from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.base import Index
from vecsearch.search.indexes.compact import CompactIndex
from vecsearch.search.indexes.hnsw import HnswIndex
from vecsearch.search.indexes.none import NoIndex
from vecsearch.search.indexes.vectors import follow, follow_deleted, follow_known
from vecsearch.vocabulary import IndexMethod

__all__ = ["METHODS", "follow", "follow_deleted", "follow_known", "serving"]

METHODS: dict[IndexMethod, type[Index]] = {
    index.method: index for index in (HnswIndex, CompactIndex, NoIndex)
}


def serving(stored: StoredCollection) -> Index:
    """Return the index that a collection's searches use."""
    return METHODS[stored.index_method].of(stored)
