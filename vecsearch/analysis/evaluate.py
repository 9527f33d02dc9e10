"""Score a collection's answers against labels, and its index against exact search."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import labels, ranking, sampling, tuning
from vecsearch.analysis.sampling import Labelling, Sample
from vecsearch.analysis.tuning import Drift, IndexScore
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import serving
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.query import Query, require_k
from vecsearch.vocabulary import MAXIMUM_EF_SEARCH, Metric

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

    from vecsearch.search.query import Hit

# Number of queries for each value of ef_search, or number of candidates.
INDEX_QUERIES = 100
EF_SEARCH = (40, 100, 200, 400, 1_000)
CANDIDATES = (100, 200, 400, 1_000, 2_000)
GOOD_RECALL = 0.99


@dataclass(frozen=True)
class ClassScore:
    """How well the images with one label find each other.

    Attributes:
        label: the label.
        images: number of images with the label.
        queries: number of those used as queries.
        precision: mean share of the k nearest images that have the label.
        map: mean average precision; None if no query has a relevant image to find.

    """

    label: str
    images: int
    queries: int
    precision: float
    map: float | None


@dataclass(frozen=True)
class Scores:
    """How well answers agree with labels.

    Attributes:
        classes: scores by label.
        precision, map: see `ClassScore`; over all queries.
        nearest: for each query, the positions of the k nearest images.

    """

    classes: list[ClassScore]
    precision: float
    map: float | None
    nearest: "list[NDArray[np.int64]]"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        images: number of labelled images; images without a label are ignored.
        unlabelled: number of images without a label.
        queries: number of query images; each is excluded from its own answer.
        precision: see `ClassScore`; over all queries.
        map: see `ClassScore`; over all queries.
        classes: scores by label.
        index: scores for each `IndexScore.breadth`; empty if no index serves the metric.
        index_used: whether a query on this table uses the index, as it is tuned now.
        breadth_name: meaning of `IndexScore.breadth`: "ef_search" or "candidates".
        choice: the smallest such value with a recall of 0.99, or else the one with the best recall.
        drift: how well compact vectors fit the images; None if there are no compact vectors.

    """

    collection: str
    model: str
    metric: Metric
    k: int
    images: int
    unlabelled: int
    queries: int
    precision: float
    map: float | None
    classes: list[ClassScore]
    index: list[IndexScore]
    index_used: bool
    breadth_name: str
    choice: int | None
    drift: Drift | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON, with its key names."""
        precision = f"precision@{self.k}"
        scores = [
            {
                "label": score.label,
                "images": score.images,
                "queries": score.queries,
                precision: score.precision,
                "map": score.map,
            }
            for score in self.classes
        ]
        index = [
            {
                self.breadth_name: score.breadth,
                f"recall@{self.k}": score.recall,
                "p50_ms": score.p50_ms,
                "p95_ms": score.p95_ms,
            }
            for score in self.index
        ]
        return {
            "collection": self.collection,
            "model": self.model,
            "metric": self.metric,
            "k": self.k,
            "images": self.images,
            "unlabelled": self.unlabelled,
            "queries": self.queries,
            precision: self.precision,
            "map": self.map,
            "classes": scores,
            "index": index or None,
            "index_used": self.index_used,
            "choice": None if self.choice is None else {self.breadth_name: self.choice},
            "variance_kept": None
            if self.drift is None
            else {
                "fitted": self.drift.fitted,
                "now": self.drift.now,
                "since": self.drift.since,
            },
        }


def evaluate(
    connection: sa.Connection,
    collection: StoredCollection,
    *,
    k: int,
    metric: str | None,
    labelling: Labelling,
    seed: int,
    on_progress: OnProgress,
) -> Evaluation:
    """Score a collection's answers.

    Args:
        connection: in a transaction.
        collection: the collection to score.
        k: number of nearest images per query.
        metric: metric that ranks the answers; None uses the collection's default.
        labelling: where labels come from; images with the query's label are relevant.
        seed: seed for choosing the queries, if there are more images than can be used.
        on_progress: called with the current step, the number of units done, and their total.

    Raises:
        InvalidInput: the collection or its labels cannot be scored.

    """
    require_k(k)
    ranked_by = Query(metric=metric).ranked_by(collection.default_metric)
    images = labels.read_images(connection, collection.table, labelling.key)
    found = labelling.read(images)
    sampling.require_labels(found, collection.name)
    positions = sampling.choose_queries(
        found, sampling.query_limit(collection, len(images), ranked_by), seed
    )
    sample = sampling.measure(
        connection, collection, images, found, positions, metric=ranked_by, on_progress=on_progress
    )
    answers = score(sample, k)
    scores: list[IndexScore] = []
    index = serving(collection)
    if tuning.is_served(connection, collection, ranked_by):
        ef_search = [each for each in EF_SEARCH if each >= k] or [MAXIMUM_EF_SEARCH]
        breadths = tuning.choose_breadths(index, ranked_by, k, ef_search, CANDIDATES)
        scores = _score_index(connection, collection, sample, k, ranked_by, breadths, on_progress)
    return Evaluation(
        collection=collection.name,
        model=collection.identity.name,
        metric=ranked_by,
        k=k,
        images=sum(label is not None for label in found),
        unlabelled=sum(label is None for label in found),
        queries=len(sample.positions),
        precision=answers.precision,
        map=answers.map,
        classes=answers.classes,
        index=scores,
        index_used=tuning.uses_index(
            connection, collection, sample.images[sample.positions[0]].id, k, ranked_by
        ),
        breadth_name=index.breadth_name(ranked_by),
        choice=_choice(scores),
        drift=tuning.drift(connection, collection),
    )


def score(sample: Sample, k: int) -> Scores:
    """Score the ranking of each query of a sample."""
    names = np.array([label if label is not None else "" for label in sample.labels])
    by_label: dict[str, list[tuple[float, float | None]]] = {}
    nearest = []
    for position, order in zip(sample.positions, sample.rankings(), strict=True):
        relevant = names[order] == names[position]
        scores = ranking.precision_at(relevant, k), ranking.average_precision(relevant)
        by_label.setdefault(str(names[position]), []).append(scores)
        nearest.append(order[:k].copy())  # a view would keep the whole ranking
    counts = Counter(sample.labels)
    classes = [
        ClassScore(label, counts[label], len(scores), *_means(scores))
        for label, scores in sorted(by_label.items())
    ]
    overall = _means([pair for scores in by_label.values() for pair in scores])
    return Scores(classes, *overall, nearest)


def _choice(scores: Sequence[IndexScore]) -> int | None:
    good = [score for score in scores if score.recall >= GOOD_RECALL]
    best = sorted(scores, key=lambda score: -score.recall)
    return next((score.breadth for score in [*good, *best]), None)


def _means(scores: list[tuple[float, float | None]]) -> tuple[float, float | None]:
    averages = [average for _, average in scores if average is not None]
    return (
        float(np.mean([precision for precision, _ in scores])),
        float(np.mean(averages)) if averages else None,
    )


def _score_index(
    connection: sa.Connection,
    collection: StoredCollection,
    sample: Sample,
    k: int,
    metric: Metric,
    breadths: Sequence[int],
    on_progress: OnProgress,
) -> list[IndexScore]:
    some = np.linspace(0, len(sample.positions) - 1, min(INDEX_QUERIES, len(sample.positions)))
    queries = some.astype(int)
    position_of: dict[UUID, int] = {image.id: place for place, image in enumerate(sample.images)}
    rows = [sample.distances[query] for query in queries]
    exact = [
        np.sort(np.delete(row, sample.positions[query]))[:k]
        for row, query in zip(rows, queries, strict=True)
    ]

    def found(query: int, hits: "list[Hit]") -> "NDArray[np.float64]":
        return np.asarray(rows[query][[position_of[hit.id] for hit in hits]])

    scores = []
    for number, breadth in enumerate(breadths):
        scores.append(
            tuning.score(
                connection,
                collection,
                [sample.images[sample.positions[query]].id for query in queries],
                exact,
                found,
                k=k,
                metric=metric,
                breadth=breadth,
            )
        )
        on_progress("Measuring the index", number + 1, len(breadths))
    return scores
