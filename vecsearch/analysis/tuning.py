"""What is measured of an index on the user's own images: recall, time, and drift."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import ranking
from vecsearch.errors import InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import execute
from vecsearch.search.indexes import serving, vectors
from vecsearch.search.indexes.base import CANDIDATES_PER_ROW
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.lookup import count, sample_ids
from vecsearch.search.query import Hit, Query, require_k
from vecsearch.search.statement import Search
from vecsearch.vocabulary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUERIES = 100
# Rows that a tuning compares in all, or it would take minutes.
COMPARED = 20_000_000
LEAST_QUERIES = 20
BREADTHS = (10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1_000)
MORE_CANDIDATES = (1_500, 2_000, 3_000, 4_000)
# Images of which drift is measured, and points of variance of which it is told.
DRIFT_SAMPLE = 2_000
STALE = 0.05


@dataclass(frozen=True)
class IndexScore:
    """How well and how fast the index answers.

    Attributes:
        breadth: hnsw.ef_search or, where candidates are re-ranked, their number.
        recall: share of the exact k nearest that is found.
        p50_ms, p95_ms: of the statement alone.

    """

    breadth: int
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Tuning:
    """What a tuning came to.

    Attributes:
        breadth_name: what `IndexScore.breadth` is.
        scores: of rising breadths, up to the first that reaches the recall.
        queries: stored images that were asked with.
        choice: that first one; None: none reaches it.
        index_used: whether the planner takes the index for a query, at this size.

    """

    collection: str
    metric: Metric
    k: int
    breadth_name: str
    scores: list[IndexScore]
    queries: int
    choice: IndexScore | None
    index_used: bool


@dataclass(frozen=True)
class Drift:
    """How much of the images' variance compact vectors keep, from 0 to 1.

    Attributes:
        fitted: of the images that the projection was fitted to.
        now: of the images there are.
        since: of those ingested since; None: there are none.
        since_images: how many of those were looked at.

    """

    fitted: float
    now: float
    since: float | None
    since_images: int

    @property
    def is_stale(self) -> bool:
        """Whether the index should be built anew."""
        return self.fitted - min(self.now, 1.0 if self.since is None else self.since) > STALE


def is_served(connection: sa.Connection, collection: StoredCollection, metric: Metric) -> bool:
    """Tell whether an index serves the metric, itself or by candidates."""
    index = serving(collection)
    return index.serves(metric) and index.is_ready(connection)


def uses_index(
    connection: sa.Connection, collection: StoredCollection, query: UUID, k: int, metric: Metric
) -> bool:
    """Tell whether the planner takes the index for a query, at this size."""
    search = Search(collection, query, Query(k=k, metric=metric))
    return execute.explain(connection, search)[1]


def score(
    connection: sa.Connection,
    collection: StoredCollection,
    queries: Sequence[UUID],
    exact: Sequence["NDArray[np.float64]"],
    found: Callable[[int, list[Hit]], "NDArray[np.float64]"],
    *,
    k: int,
    metric: Metric,
    breadth: int,
) -> IndexScore:
    """Ask the index with stored images.

    Args:
        connection: in a transaction.
        collection: which one.
        queries: ids of the images.
        exact: for each, the distances of its k nearest, itself left out, ascending.
        found: returns the distances of the hits of the query at a position.
        k: length of an answer.
        metric: what ranks it.
        breadth: see `IndexScore`.

    """
    recalls, times = [], []
    for position, query in enumerate(queries):
        # Every index finds the query itself, so that recall would look better than it is.
        asked = Query(k=k, metric=metric, exclude_self=True)
        search = Search(collection, query, asked, chosen=breadth, forced=True)
        hits, seconds = execute.timed(connection, search)
        recalls.append(ranking.recall(found(position, hits), exact[position]))
        times.append(1_000 * seconds)
    p50, p95 = (float(np.percentile(times, share)) for share in (50, 95))
    return IndexScore(breadth, float(np.mean(recalls)), p50, p95)


def tune(
    connection: sa.Connection,
    collection: StoredCollection,
    *,
    recall: float = 0.99,
    k: int = 10,
    metric: str | None = None,
    on_progress: OnProgress = quiet,
) -> Tuning:
    """Find the least breadth at which the index finds enough of the exact answers.

    Args:
        connection: in a transaction.
        collection: which one.
        recall: the share of the exact k nearest that is to be found, on average.
        k: length of an answer.
        metric: what ranks it; None is the collection's default.
        on_progress: called with what is being done, how far it is, and of how much.

    Raises:
        InvalidInput: an option makes no sense, or no index serves the metric.

    """
    require_k(k)
    ranked_by = Query(metric=metric).ranked_by(collection.default_metric)
    if not 0 < recall <= 1:
        raise InvalidInput(f"--recall is {recall}. Give a share above 0, up to 1.")
    if not is_served(connection, collection, ranked_by):
        raise InvalidInput(
            f"No index of collection {collection.name!r} serves {ranked_by}, so every search is "
            "exact. One that does: vecsearch index create --method compact --collection "
            f"{collection.name}"
        )
    rows = count(connection, collection.table)
    limit = max(LEAST_QUERIES, min(QUERIES, COMPARED // max(rows, 1)))
    queries = sample_ids(connection, collection.table, limit)
    if not queries:
        raise InvalidInput(f"Collection {collection.name!r} has no images. Ingest some first.")
    exact = []
    for position, query in enumerate(queries):
        asked = Query(k=k, metric=ranked_by, exact=True, exclude_self=True)
        hits, _ = execute.timed(connection, Search(collection, query, asked))
        exact.append(_distances(hits))
        on_progress("Comparing all images", position + 1, len(queries))
    name = serving(collection).breadth_name(ranked_by)
    ladder = [*BREADTHS, *(MORE_CANDIDATES if name == "candidates" else ())]
    least = {"candidates": k, "ef_search": 1}[name]
    # Beyond them all, what a query would take.
    breadths = [each for each in ladder if each >= least] or [CANDIDATES_PER_ROW * k]
    scores: list[IndexScore] = []
    for number, breadth in enumerate(breadths):
        scores.append(
            score(
                connection,
                collection,
                queries,
                exact,
                lambda _, hits: _distances(hits),
                k=k,
                metric=ranked_by,
                breadth=breadth,
            )
        )
        on_progress("Asking the index", number + 1, len(breadths))
        if scores[-1].recall >= recall:
            break
    return Tuning(
        collection=collection.name,
        metric=ranked_by,
        k=k,
        breadth_name=name,
        scores=scores,
        queries=len(queries),
        choice=scores[-1] if scores[-1].recall >= recall else None,
        index_used=uses_index(connection, collection, queries[0], k, ranked_by),
    )


def drift(connection: sa.Connection, collection: StoredCollection) -> Drift | None:
    """Measure how well a projection fits the images there are; None: there is none."""
    if collection.compact is None:
        return None
    projection = vectors.read_projection(connection, collection.compact)
    table, fitted_at = collection.table, collection.compact.fitted_at
    now = vectors.sample(connection, table, DRIFT_SAMPLE)
    since = vectors.sample(connection, table, DRIFT_SAMPLE, since=fitted_at)
    return Drift(
        fitted=projection.variance_kept,
        now=projection.kept(now) if len(now) > 0 else projection.variance_kept,
        since=projection.kept(since) if len(since) > 0 else None,
        since_images=len(since),
    )


def _distances(hits: list[Hit]) -> "NDArray[np.float64]":
    return np.array([hit.distance for hit in hits])
