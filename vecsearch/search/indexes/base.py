"""What an index method is: how it chooses candidates, what it builds, what it shows of itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import Compact, StoredCollection
from vecsearch.search.indexes import ddl
from vecsearch.search.lookup import count
from vecsearch.vocabulary import IndexMethod, Metric

if TYPE_CHECKING:
    from uuid import UUID

    from vecsearch.search.indexes.build import Build

Expression = sa.ColumnElement[Any]
# Gives what a column of vectors is compared with: the query image's own, or a bound vector.
Target = Callable[[sa.Column[Any]], Expression]

# pgvector's own limit, and the least that keeps recall high at small k.
MINIMUM_EF_SEARCH = 100
MAXIMUM_EF_SEARCH = 1_000
# Candidates to re-rank, for each row asked for.
MINIMUM_CANDIDATES = 1_000
# Cosine needs few, because it orders much as what chose them does.
MINIMUM_COSINE_CANDIDATES = 100
CANDIDATES_PER_ROW = 4
# What LIMIT takes.
MAXIMUM_K = 2**63 - 1


def distance(metric: Metric, embedding: Expression, target: Expression) -> Expression:
    """Return the distance between two vectors in SQL, as `Metric.sql` writes it."""
    before, between, after = _parts(metric)
    if before:
        # A function's arguments; an operator has none before it.
        function = sa.func
        for name in before.rstrip("(").split("."):
            function = getattr(function, name)
        return function(embedding, target, type_=sa.Double())
    assert not after  # noqa: S101 - an operator has nothing behind it
    return embedding.op(between.strip(), return_type=sa.Double())(target)


def _parts(metric: Metric) -> tuple[str, str, str]:
    before, _, rest = metric.sql.partition("{0}")
    between, _, after = rest.partition("{1}")
    return before, between, after


@dataclass(frozen=True)
class Index:
    """What serves the searches of a collection: here, an index of its embeddings, by cosine.

    One class a method, in a module of its name, listed in `vecsearch.search.indexes.METHODS`. This
    one compares embeddings themselves; a method whose index is of something else overrides how
    candidates and neighbours are chosen.

    Attributes:
        collection: its name.
        dimensions: of its embeddings.

    """

    method: ClassVar[IndexMethod]

    collection: str
    dimensions: int

    @classmethod
    def of(cls, stored: StoredCollection) -> Self:
        """Return the index that serves a collection which wants this method."""
        return cls(stored.name, stored.dimensions)

    # How it is searched.

    @property
    def name(self) -> str:
        """The name of the Postgres index, whether there is one or not."""
        return schema.hnsw_index(self.collection)

    @property
    def table(self) -> sa.Table:
        """The collection's own table."""
        return schema.collection_table(self.collection, self.dimensions)

    def reranks(self, metric: Metric) -> bool:
        """Tell whether candidates, chosen in another order, are re-ranked by the metric."""
        return metric.is_reranked

    def serves(self, metric: Metric) -> bool:
        """Tell whether the index, if it is there, orders by the metric or chooses candidates."""
        return metric is Metric.cosine or self.reranks(metric)

    def candidates(self, metric: Metric, k: int, chosen: int | None) -> int | None:
        """Return how many candidates to re-rank; None: the index knows the metric.

        Args:
            metric: what ranks them in the end.
            k: length of the answer.
            chosen: how many `index tune` or a caller says; None: enough for k.

        """
        if not self.reranks(metric):
            return None
        least = MINIMUM_COSINE_CANDIDATES if metric is Metric.cosine else MINIMUM_CANDIDATES
        return min(max(chosen or max(least, CANDIDATES_PER_ROW * k), k), MAXIMUM_K)

    def ef_search(self, candidates: int | None, k: int, chosen: int | None) -> int:
        """Return how many nodes to keep in view while the graph is walked (hnsw.ef_search)."""
        enough = CANDIDATES_PER_ROW * (candidates or k)
        return min(chosen or max(MINIMUM_EF_SEARCH, enough), MAXIMUM_EF_SEARCH)

    def breadth_name(self, metric: Metric) -> str:
        """Return which of the two numbers makes a search more thorough."""
        return "candidates" if self.reranks(metric) else "ef_search"

    def choose(
        self,
        found: sa.Select[Any],
        images: sa.FromClause,
        target: Target,
        *,
        by_id: bool,  # noqa: ARG002 - of methods whose own vectors may be missing
    ) -> sa.Select[Any]:
        """Return the rows in the order in which candidates are taken.

        Args:
            found: the rows that meet the conditions.
            images: the collection's table, as `found` calls it.
            target: what a column of vectors is compared with.
            by_id: whether that is the vector of a stored image.

        """
        column = self.table.c.embedding
        return found.order_by(distance(Metric.cosine, images.c.embedding, target(column)))

    def vectors(
        self,
        connection: sa.Connection,  # noqa: ARG002 - of methods that project
        embedding: NDArray[np.float32],
        *,
        candidates: bool,  # noqa: ARG002 - likewise
    ) -> list[NDArray[np.float32]]:
        """Return what a statement compares with, when it is asked with an embedding.

        Args:
            connection: in a transaction.
            embedding: shape (dimensions,).
            candidates: whether candidates are chosen.

        """
        return [embedding]

    def neighbours(self, images: str, where: str) -> tuple[str, str]:
        """Return SQL of the rows that an image's neighbours are taken from, and a condition.

        Args:
            images: the collection's table, aliased o.
            where: a condition on o.

        """
        return images, where

    def analysts_order(self) -> tuple[str, str] | None:
        """Return SQL of the function NAME_nearest; None: the plain one serves.

        Returns:
            The body, for `vecsearch.postgres.analysts`, and a remark on the order.

        """
        return None

    # What there is of it.

    def is_ready(self, connection: sa.Connection) -> bool:
        """Tell whether the Postgres index is there, and may be used."""
        found = ddl.find(connection, self.name)
        return found is not None and found.valid

    def facts(self, connection: sa.Connection) -> "Facts":
        """Return what `index status` shows beside the Postgres index."""
        rows = count(connection, self.table)
        return Facts(indexed=rows, dimensions=self.dimensions)

    def bytes_beside(self, connection: sa.Connection) -> int:  # noqa: ARG002 - of other methods
        """Return the bytes of the tables that it keeps beside the collection's own."""
        return 0

    # How it is built.

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:
        """Tell whether a collection that wants this method lacks its index, and could have it."""
        raise NotImplementedError

    @classmethod
    def waiting(cls, stored: StoredCollection) -> str | None:  # noqa: ARG003 - of other methods
        """Say why a collection that wants this method does not have its index yet."""
        return None

    @classmethod
    def wanted_dimensions(cls, stored: StoredCollection) -> int:
        """Return the dimensions of the vectors that a build would index."""
        return stored.dimensions

    @classmethod
    def require(cls, stored: StoredCollection) -> None:
        """Check that the method can serve a collection.

        Raises:
            InvalidInput: it cannot.

        """

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> Compact | None:
        """Build it beside what serves; return the compact vectors that it made, if it has any."""
        raise NotImplementedError

    @classmethod
    def names(cls, collection: str) -> tuple[str, ...]:  # noqa: ARG003 - of other methods
        """Return the Postgres indexes on the collection's own table that only this method needs."""
        return ()

    # What follows the rows as they are written; by default an index on the table needs nothing.

    @classmethod
    def follow(cls, connection: sa.Connection, collection: str, staged: str) -> None:
        """Follow rows that have just been written; `staged` is a table of their ids, embeddings."""

    @classmethod
    def follow_known(cls, connection: sa.Connection, collection: str) -> None:
        """Follow rows of `known`, whose content another row holds, before moved sources go."""

    @classmethod
    def follow_deleted(cls, connection: sa.Connection, collection: str, ids: "list[UUID]") -> None:
        """Follow rows that go."""


@dataclass(frozen=True)
class Facts:
    """What an index has beside the Postgres index.

    Attributes:
        indexed: rows that it can find.
        dimensions: of the vectors that are indexed.
        version, variance_kept, sample, fitted_at: of the projection; None: there is none.
        compact_bytes: of the compact vectors.

    """

    indexed: int
    dimensions: int
    version: int | None = None
    variance_kept: float | None = None
    sample: int | None = None
    fitted_at: datetime | None = None
    compact_bytes: int = 0
