"""The index method `hnsw`: HNSW on the embeddings, by cosine distance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vecsearch.errors import InvalidInput
from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import ddl
from vecsearch.search.indexes.base import Index
from vecsearch.search.indexes.resources import hnsw_bytes
from vecsearch.vocabulary import MAX_INDEXED_DIMENSIONS, IndexMethod, M

if TYPE_CHECKING:
    from vecsearch.search.indexes.build import Build

OPERATORS = "halfvec_cosine_ops"


class HnswIndex(Index):
    """An HNSW index on the embeddings."""

    method = IndexMethod.hnsw

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:
        """Return whether the index is missing or invalid, and pgvector can index the embeddings."""
        if stored.dimensions > MAX_INDEXED_DIMENSIONS:
            return False
        return not cls.of(stored).is_ready(connection)

    @classmethod
    def computed_bytes(cls, stored: StoredCollection) -> tuple[float, float] | None:
        """Return the bytes per image of the index; None if it has too many dimensions."""
        if stored.dimensions > MAX_INDEXED_DIMENSIONS:
            return None
        return hnsw_bytes(stored.dimensions, stored.index_options.get(M.name, M.default)), 0.0

    @classmethod
    def require(cls, stored: StoredCollection) -> None:
        """Check that HNSW can index so many dimensions.

        Raises:
            InvalidInput: there are too many.

        """
        if stored.dimensions > MAX_INDEXED_DIMENSIONS:
            raise InvalidInput(
                f"{stored.dimensions:,} dimensions; HNSW indexes at most "
                f"{MAX_INDEXED_DIMENSIONS:,}. Use --method compact."
            )

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> None:
        """Build the index under a temporary name, drop the old one, and rename the new one."""
        stored = build.collection
        direct, following = cls.names(stored.name)
        build.graph(
            following, stored.table, "embedding", OPERATORS, options, rows, stored.dimensions
        )
        ddl.drop(build.connection, direct)
        ddl.rename(build.connection, following, direct)

    @classmethod
    def names(cls, collection: str) -> tuple[str, ...]:
        """Return the index's name, and its temporary name during a build."""
        return schema.hnsw_index(collection), f"{collection}_next{schema.HNSW_SUFFIX}"
