"""Compute distances and ranking scores (precision, average precision, recall) with numpy."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vecsearch.vocabulary import EXPANSION_POWER, Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def distances(queries: "NDArray[Any]", rows: "NDArray[Any]", metric: Metric) -> "Floats":
    """Return the distances, shape (q, n), of embeddings (q, d) to embeddings (n, d).

    They equal those of `Metric.sql`, in double precision.
    """
    return DISTANCES[metric](queries.astype(np.float64), rows.astype(np.float64))


def _cosine(one: "Floats", other: "Floats") -> "Floats":
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    return np.asarray(1.0 - one @ other.T / lengths)


def _l2(one: "Floats", other: "Floats") -> "Floats":
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _l1(one: "Floats", other: "Floats") -> "Floats":
    return np.stack([np.abs(query - other).sum(axis=1) for query in one])


def _ip(one: "Floats", other: "Floats") -> "Floats":
    return np.asarray(-(one @ other.T))


def _chi2(one: "Floats", other: "Floats") -> "Floats":
    return np.stack(
        [((query - other) ** 2 / (query + other + 1e-10)).sum(axis=1) / 2 for query in one]
    )


DISTANCES: dict[Metric, Callable[["Floats", "Floats"], "Floats"]] = {
    Metric.cosine: _cosine,
    Metric.l2: _l2,
    Metric.l1: _l1,
    Metric.ip: _ip,
    Metric.chi2: _chi2,
}
# Metrics that are not a matrix product, and so read all numbers of each pair.
ELEMENTWISE = frozenset({Metric.l1, Metric.chi2})


def nearest_first(distances: "Floats", own: int) -> "NDArray[np.int64]":
    """Return the positions of a row of distances, nearest first, without the query's own.

    An `own` of -1 leaves out none.
    """
    order = np.argsort(distances, kind="stable")
    return np.asarray(order[order != own])


def expanded(
    queries: "NDArray[Any]", rows: "NDArray[Any]", neighbours: int, own: "NDArray[np.int64]"
) -> "Floats":
    """Return query vectors after expansion by their nearest rows, shape (q, d).

    Queries and rows are vectors of the same space: embeddings, or compact vectors (see
    `vecsearch.search.indexes.projection.Projection.project`). The nearest by cosine distance are
    averaged with the query, see `averaged`; a row that is the query itself is not among them.

    Args:
        queries: shape (q, d).
        rows: shape (n, d).
        neighbours: number of rows to expand by; 0 keeps each query's direction.
        own: position of the row that is the query itself, shape (q,); -1 if there is none.

    """
    found = [
        averaged(query, rows[nearest_first(row, int(place))[:neighbours]])
        for query, row, place in zip(
            queries, distances(queries, rows, Metric.cosine), own, strict=True
        )
    ]
    return np.stack(found)


def averaged(query: "NDArray[Any]", neighbours: "NDArray[Any]") -> "Floats":
    """Return a query vector (d,) expanded by its neighbours (m, d).

    It is the sum of all, each scaled to length 1 and then weighted: the query by 1, a neighbour by
    the cube of its cosine similarity, or 0 if that is negative. A sum has the direction of the
    mean, and the cosine sees nothing else. Sources: Chum et al., Total Recall (ICCV 2007), for
    average query expansion; Radenović, Tolias and Chum, Fine-tuning CNN Image Retrieval with No
    Human Annotation (TPAMI 2018), for weights similarity^alpha, here with alpha = 3.
    """
    (centre,), others = _unit(query[None]), _unit(neighbours)
    weights = np.maximum(others @ centre, 0.0) ** EXPANSION_POWER
    return np.asarray(centre + weights @ others)


def _unit(vectors: "NDArray[Any]") -> "Floats":
    """Return vectors scaled to length 1; a zero vector stays zero."""
    precise = vectors.astype(np.float64)
    lengths = np.linalg.norm(precise, axis=1, keepdims=True)
    return np.asarray(precise / np.where(lengths > 0, lengths, 1.0))


def precision_at(relevant: "NDArray[np.bool_]", k: int) -> float:
    """Return the share of the first k of a ranking that is relevant.

    A ranking shorter than k counts whole: there were no other images to return.
    """
    return float(relevant[:k].mean())


def average_precision(relevant: "NDArray[np.bool_]") -> float | None:
    """Return the mean of the precisions at each relevant rank of a complete ranking.

    Return None if nothing is relevant. Source: Manning, Raghavan and Schütze, Introduction to
    Information Retrieval (2008), section 8.4.
    """
    places = np.flatnonzero(relevant)
    if not len(places):
        return None
    return float((np.arange(1, len(places) + 1) / (places + 1)).mean())


def recall(found: "Floats", exact: "Floats") -> float:
    """Return the share of the exact nearest rows that was found; compares distances, for ties.

    Args:
        found: exact distances of the k rows that were found.
        exact: the k smallest distances of all rows, ascending.

    """
    # Equal distances may differ by this much, from half precision and the order of summation.
    limit = exact[-1] + 1e-6 * max(abs(exact[-1]), 1e-3)
    return float(min((found <= limit).sum(), len(exact)) / len(exact))
