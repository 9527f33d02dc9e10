"""The interface of an index method: how it chooses candidates, is built and reports its state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import Compact, StoredCollection
from vecsearch.search.indexes import ddl
from vecsearch.vocabulary import MAXIMUM_EF_SEARCH, IndexMethod, Metric, least_ef_search

if TYPE_CHECKING:
    from vecsearch.search.indexes.build import Build

Expression = sa.ColumnElement[Any]
# Returns the expression to compare a vector column with: the query image's own, or a bound vector.
Target = Callable[[sa.Column[Any]], Expression]

MAXIMUM_SCAN_TUPLES = 2**31 - 1
# Multiple of work_mem that an index scan may use; it needs about 100 bytes per row.
MAXIMUM_SCAN_MEM_MULTIPLIER = 1_000
# The smallest number of candidates to re-rank.
MINIMUM_CANDIDATES = 1_000
# Cosine needs fewer, because compact vectors give nearly its order.
MINIMUM_COSINE_CANDIDATES = 100
# Candidates to re-rank per requested row.
CANDIDATES_PER_ROW = 4
# The largest LIMIT.
MAXIMUM_K = 2**63 - 1


def distance(metric: Metric, embedding: Expression, target: Expression) -> Expression:
    """Return the SQL distance between two vectors; see `Metric.call`."""
    if metric.call is None:
        return embedding.op(metric.sql, return_type=sa.Double())(target)
    function = reduce(getattr, metric.call.split("."), sa.func)
    called: Expression = function(embedding, target, type_=sa.Double())
    return called


def hnsw_settings(ef_search: int) -> dict[str, str]:
    """Return settings that use this ef_search and continue the index scan until LIMIT is reached.

    Otherwise an answer is short without a warning if LIMIT is above ef_search or rows are filtered.
    A row that the scan finds late comes late, and is sorted later; strict_order would drop it.
    """
    return {
        "hnsw.ef_search": str(ef_search),
        "hnsw.iterative_scan": "relaxed_order",
        # With the default of 4, the planner scans 100,000 embeddings instead of using the index.
        "random_page_cost": "1.1",
    }


@dataclass(frozen=True)
class Index:
    """An index of a collection; this base class searches the embeddings by cosine distance.

    Each method is a subclass in a module of its name, listed in `vecsearch.search.indexes.METHODS`.
    A method that indexes something other than embeddings overrides how candidates and neighbours
    are chosen.

    Attributes:
        collection: name of the collection.
        dimensions: dimensions of its embeddings.
        rows: about as many as there are; they say how widely to search, and not by which statement.

    """

    method: ClassVar[IndexMethod]

    collection: str
    dimensions: int
    rows: float = field(compare=False)

    @classmethod
    def of(cls, stored: StoredCollection) -> Self:
        """Return the index for a collection that has this method."""
        return cls(stored.name, stored.dimensions, stored.rows)

    # Searching.

    @property
    def name(self) -> str:
        """The name of the Postgres index, which need not exist."""
        return schema.hnsw_index(self.collection)

    @property
    def namespace(self) -> str:
        """The schema of the Postgres index, that of the table it is on."""
        return tables.SCHEMA

    @property
    def table(self) -> sa.Table:
        """The collection's table."""
        return schema.collection_table(self.collection, self.dimensions)

    def reranks(self, metric: Metric) -> bool:
        """Return whether the index chooses candidates, which the metric re-ranks."""
        return metric.is_reranked

    def serves(self, metric: Metric) -> bool:
        """Return whether the index can order by the metric, or choose candidates for it."""
        return metric is Metric.cosine or self.reranks(metric)

    def candidates(
        self, metric: Metric, k: int, chosen: int | None, *, is_far: bool = False
    ) -> int | None:
        """Return the number of candidates to re-rank; None if the metric needs no re-ranking.

        Args:
            metric: metric that re-ranks them.
            k: number of requested rows.
            chosen: the number from `index tune` or a caller; None chooses enough for k.
            is_far: whether the question lies far from all images, as words do.

        """
        if not self.reranks(metric):
            return None
        is_near = metric is Metric.cosine and not is_far
        least = MINIMUM_COSINE_CANDIDATES if is_near else MINIMUM_CANDIDATES
        return min(max(chosen or max(least, CANDIDATES_PER_ROW * k), k), MAXIMUM_K)

    def ef_search(self, candidates: int | None, k: int, chosen: int | None) -> int:
        """Return hnsw.ef_search, the number of nodes that an index scan keeps as nearest so far."""
        enough = CANDIDATES_PER_ROW * (candidates or k)
        return min(chosen or max(least_ef_search(self.rows), enough), MAXIMUM_EF_SEARCH)

    def settings(self, candidates: int | None, k: int, chosen: int | None) -> dict[str, str]:
        """Return the Postgres settings under which the index serves a search.

        Args:
            candidates: number of candidates that are re-ranked; None if none are.
            k: number of requested rows.
            chosen: the number from `index tune` or a caller; None chooses enough for k.

        """
        settings = hnsw_settings(self.ef_search(candidates, k, chosen))
        if candidates is not None:
            # Too few hits are noticed, and an exact search follows; too few candidates are not.
            settings["hnsw.max_scan_tuples"] = str(MAXIMUM_SCAN_TUPLES)
            settings["hnsw.scan_mem_multiplier"] = str(MAXIMUM_SCAN_MEM_MULTIPLIER)
        return settings

    def neighbours_settings(self, neighbours: int) -> dict[str, str]:
        """Return the Postgres settings under which `neighbours` finds so many of each image."""
        least = least_ef_search(self.rows)
        return hnsw_settings(min(max(least, 2 * neighbours), MAXIMUM_EF_SEARCH))

    def breadth_name(self, metric: Metric) -> str:
        """Return which number `index tune` varies for a metric: "candidates" or "ef_search"."""
        return "candidates" if self.reranks(metric) else "ef_search"

    def choose(
        self,
        found: sa.Select[Any],
        images: sa.FromClause,
        target: Target,
        *,
        by_id: bool,  # noqa: ARG002 - for methods whose own vectors may be missing
    ) -> sa.Select[Any]:
        """Return the rows in the order in which candidates are chosen.

        Args:
            found: the rows that meet the conditions.
            images: the collection's table, under its alias in `found`.
            target: returns the expression to compare a vector column with.
            by_id: whether that is the vector of a stored image.

        """
        column = self.table.c.embedding
        return found.order_by(distance(Metric.cosine, images.c.embedding, target(column)))

    def ranked_by(self, metric: Metric) -> sa.Column[Any]:  # noqa: ARG002 - for methods that rank
        """Return the column of stored vectors whose distances order the hits."""
        return self.table.c.embedding

    def ranked(
        self,
        found: sa.Select[Any],
        images: sa.FromClause,
        metric: Metric,  # noqa: ARG002 - for methods that rank
    ) -> tuple[sa.Select[Any], Expression]:
        """Return the rows joined with the vectors of `ranked_by`, and those vectors.

        Args:
            found: the rows that meet the conditions.
            images: the collection's table, under its alias in `found`.
            metric: metric that ranks the rows.

        """
        return found, images.c.embedding

    def vectors(
        self,
        connection: sa.Connection,  # noqa: ARG002 - for methods that project
        embeddings: Sequence[NDArray[np.float32]],
        metric: Metric,  # noqa: ARG002 - for methods that project
        *,
        candidates: bool,  # noqa: ARG002 - for methods that project
    ) -> list[NDArray[np.float32]]:
        """Return the vectors to bind in a statement: one for each question, then for candidates.

        Args:
            connection: in a transaction.
            embeddings: the questions, each of shape (dimensions,).
            metric: metric that ranks the rows.
            candidates: whether the statement chooses candidates.

        """
        return list(embeddings)

    def chosen_by(self) -> sa.Column[Any]:
        """Return the column of stored vectors whose distances choose candidates."""
        return self.table.c.embedding

    def neighbours(
        self,
        images: str,
        where: str,
        place: str | None,  # noqa: ARG002 - for methods with vectors of their own
        number: int,  # noqa: ARG002 - likewise
    ) -> tuple[str, str]:
        """Return SQL for a FROM clause and a WHERE condition that select an image's neighbours.

        Args:
            images: the collection's table, with alias o.
            where: a condition on o.
            place: the image's vector in `chosen_by`; None: that of the row i.
            number: how many are wanted.

        """
        return images, where

    # State.

    def is_ready(self, connection: sa.Connection) -> bool:
        """Return whether the Postgres index exists and is valid."""
        found = ddl.find(connection, self.name, self.namespace)
        return found is not None and found.valid

    def facts(self, connection: sa.Connection, rows: int) -> "Facts":  # noqa: ARG002 - for methods with tables
        """Return facts for `index status` that the Postgres index itself does not give.

        Args:
            connection: in a transaction.
            rows: number of rows of the collection.

        """
        return Facts(indexed=rows, dimensions=self.dimensions)

    def bytes_beside(self, connection: sa.Connection) -> int:  # noqa: ARG002 - for other methods
        """Return the bytes of the method's own tables, such as compact vectors."""
        return 0

    # Building.

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:
        """Return whether the index is missing and can be built now."""
        raise NotImplementedError

    @classmethod
    def waiting(cls, stored: StoredCollection) -> str | None:  # noqa: ARG003 - for other methods
        """Return a note on why the index is not built yet; None if there is nothing to say."""
        return None

    @classmethod
    def wanted_dimensions(cls, stored: StoredCollection) -> int:
        """Return the dimensions of the vectors that a build would index."""
        return stored.dimensions

    @classmethod
    def computed_bytes(cls, stored: StoredCollection) -> tuple[float, float] | None:  # noqa: ARG003 - for other methods
        """Return the bytes per image of the index, and of vectors beside the collection's table.

        None if the method has no index, or cannot index the collection.
        """
        return None

    @classmethod
    def require(cls, stored: StoredCollection) -> None:
        """Check that the method can index a collection.

        Raises:
            InvalidInput: it cannot.

        """

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> Compact | None:
        """Build the index while the old one serves; return its new compact vectors, if any."""
        raise NotImplementedError

    @classmethod
    def names(cls, collection: str) -> tuple[str, ...]:  # noqa: ARG003 - for other methods
        """Return the Postgres indexes on the collection's table that only this method uses."""
        return ()


@dataclass(frozen=True)
class Facts:
    """Facts about an index that the Postgres index itself does not give.

    Attributes:
        indexed: number of rows in the index.
        dimensions: dimensions of the indexed vectors.
        version, variance_kept, sample, fitted_at: facts about the projection; None if there is
            none.
        compact_bytes: bytes of the compact vectors.

    """

    indexed: int
    dimensions: int
    version: int | None = None
    variance_kept: float | None = None
    sample: int | None = None
    fitted_at: datetime | None = None
    compact_bytes: int = 0
