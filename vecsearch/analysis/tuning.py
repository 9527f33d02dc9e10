"""Measure an index on the user's own images: recall, time and drift; choose its setting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import ranking
from vecsearch.errors import InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import execute
from vecsearch.search.indexes import serving, vectors
from vecsearch.search.indexes.base import CANDIDATES_PER_ROW, Index
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.lookup import count, sample_ids
from vecsearch.search.plan import Search, plan
from vecsearch.search.query import Hit, Query, require_k
from vecsearch.vocabulary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUERIES = 100
# Limit on the rows that exact searches compare in one tuning; more would take minutes.
COMPARED = 20_000_000
LEAST_QUERIES = 20
BREADTHS = (10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, 1_000)
MORE_CANDIDATES = (1_500, 2_000, 3_000, 4_000)
# Sample size for measuring drift, and the loss of variance (from 0 to 1) that counts as stale.
DRIFT_SAMPLE = 2_000
STALE = 0.05


@dataclass(frozen=True)
class IndexScore:
    """Recall and time of the index with one setting.

    Attributes:
        breadth: hnsw.ef_search, or the number of candidates if candidates are re-ranked.
        recall: share of the exact k nearest images that is found.
        p50_ms, p95_ms: percentiles of the statement's time.

    """

    breadth: int
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning.

    Attributes:
        breadth_name: meaning of `IndexScore.breadth`: "ef_search" or "candidates".
        scores: scores with rising settings, up to the first that reaches the recall.
        queries: number of stored images used as queries.
        choice: the first score that reaches the recall; None if none does.
        index_used: whether a query on this table uses the index, with the choice if there is one.
        rows: about as many as the table has.

    """

    collection: str
    metric: Metric
    k: int
    breadth_name: str
    scores: list[IndexScore]
    queries: int
    choice: IndexScore | None
    index_used: bool
    rows: float

    @property
    def found(self) -> dict[str, float] | None:
        """What the register keeps of it; None if no setting reaches the recall."""
        if self.choice is None:
            return None
        chosen = {"breadth": self.choice.breadth, "recall": self.choice.recall}
        return {**chosen, "k": self.k, "rows": self.rows}


@dataclass(frozen=True)
class Drift:
    """The share of the images' variance that compact vectors keep, from 0 to 1.

    Attributes:
        fitted: share for the images that the projection was fitted to.
        now: share for the current images.
        since: share for images ingested after the fit; None if there are none.

    """

    fitted: float
    now: float
    since: float | None

    @property
    def is_stale(self) -> bool:
        """Whether the index should be rebuilt."""
        return self.fitted - min(self.now, 1.0 if self.since is None else self.since) > STALE


def is_served(connection: sa.Connection, collection: StoredCollection, metric: Metric) -> bool:
    """Return whether an index serves the metric, directly or by choosing candidates."""
    index = serving(collection)
    return index.serves(metric) and index.is_ready(connection)


def choose_breadths(
    index: Index, metric: Metric, k: int, ef_search: Sequence[int], candidates: Sequence[int]
) -> Sequence[int]:
    """Return the settings to measure: `ef_search`, or `candidates` if the metric re-ranks them."""
    if not index.reranks(metric):
        return ef_search
    # If k exceeds them all, use what a query would use.
    return [each for each in candidates if each >= k] or [CANDIDATES_PER_ROW * k]


def uses_index(
    connection: sa.Connection, collection: StoredCollection, query: UUID, k: int, metric: Metric
) -> bool:
    """Return whether a query on this table uses the index.

    That depends on the tuned setting: the smaller hnsw.ef_search is, the less the planner thinks
    that an index scan costs.
    """
    search = plan(connection, collection, query, Query(k=k, metric=metric))
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
    """Measure recall and time of the index, with stored images as queries.

    Args:
        connection: in a transaction.
        collection: the collection to measure.
        queries: ids of the query images.
        exact: for each query, the distances of its k nearest other images, ascending.
        found: returns the distances of the hits of the query at a position.
        k: number of nearest images per query.
        metric: metric that ranks the answers.
        breadth: see `IndexScore`.

    """
    recalls, times = [], []
    for position, query in enumerate(queries):
        # Every index finds the query itself, which would raise the measured recall.
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
    recall: float,
    k: int,
    metric: str | None,
    on_progress: OnProgress,
) -> Tuning:
    """Find the smallest ef_search, or number of candidates, that reaches a recall.

    Args:
        connection: in a transaction.
        collection: the collection to tune.
        recall: the mean share of the exact k nearest images to reach.
        k: number of nearest images per query.
        metric: metric that ranks the answers; None uses the collection's default.
        on_progress: called with the current step, the number of units done, and their total.

    Raises:
        InvalidInput: an option has an invalid value, or no index serves the metric.

    """
    require_k(k)
    ranked_by = Query(metric=metric).ranked_by(collection.default_metric)
    if not 0 < recall <= 1:
        raise InvalidInput(f"--recall is {recall}. Give a number above 0 and up to 1.")
    if not is_served(connection, collection, ranked_by):
        raise InvalidInput(
            f"No index of collection {collection.name!r} serves {ranked_by}, so every search is "
            "exact. Create one: vecsearch index create --method compact --collection "
            f"{collection.name}"
        )
    rows = count(connection, collection.table)
    if rows < 2:  # noqa: PLR2004 - one image has nothing to find
        raise InvalidInput(
            f"Collection {collection.name!r} has {rows} image{'s' * (rows != 1)}; tuning needs at "
            "least 2. Ingest more first."
        )
    limit = max(LEAST_QUERIES, min(QUERIES, COMPARED // rows))
    queries = sample_ids(connection, collection.table, limit)
    exact = []
    for position, query in enumerate(queries):
        asked = Query(k=k, metric=ranked_by, exact=True, exclude_self=True)
        hits, _ = execute.timed(connection, Search(collection, query, asked))
        exact.append(_distances(hits))
        on_progress("Comparing all images", position + 1, len(queries))
    index = serving(collection)
    breadths = choose_breadths(index, ranked_by, k, BREADTHS, BREADTHS + MORE_CANDIDATES)
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
        on_progress("Measuring the index", number + 1, len(breadths))
        if scores[-1].recall >= recall:
            break
    tuned = Tuning(
        collection=collection.name,
        metric=ranked_by,
        k=k,
        breadth_name=index.breadth_name(ranked_by),
        scores=scores,
        queries=len(queries),
        choice=scores[-1] if scores[-1].recall >= recall else None,
        index_used=False,
        rows=collection.rows,
    )
    if tuned.found is not None:
        saved = {**collection.breadths, ranked_by: tuned.found}
        collection = replace(collection, breadths=saved)
    used = uses_index(connection, collection, queries[0], k, ranked_by)
    return replace(tuned, index_used=used)


def drift(connection: sa.Connection, collection: StoredCollection) -> Drift | None:
    """Measure how well the projection fits the current images; None if there is no projection."""
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
    )


def _distances(hits: list[Hit]) -> "NDArray[np.float64]":
    return np.array([hit.distance for hit in hits])
