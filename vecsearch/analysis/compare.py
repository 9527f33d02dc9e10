"""Compare two collections: both answer the same queries."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import evaluate, labels, sampling
from vecsearch.analysis.sampling import Labelling, Sample
from vecsearch.errors import InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import image_id
from vecsearch.search import execute
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.plan import Search
from vecsearch.search.query import Hit, Query, require_k
from vecsearch.search.status import bytes_per_image
from vecsearch.vocabulary import Metric

TIMED_QUERIES = 50


@dataclass(frozen=True)
class Side:
    """The results of one of the two collections.

    Attributes:
        precision, map: see `vecsearch.analysis.evaluate.Evaluation`.
        p50_ms: median time of one query's statement, as `vecsearch query` sends it.
        bytes_per_image: bytes of row, embedding and index, per image.

    """

    collection: str
    model: str
    dimensions: int
    metric: Metric
    precision: float
    map: float | None
    p50_ms: float
    bytes_per_image: int


@dataclass(frozen=True)
class Example:
    """One query and the hits of each collection.

    Attributes:
        answers: hits by collection name.
        correct: for each hit, whether it has the query's label.

    """

    id: UUID
    path: str
    label: str
    answers: Mapping[str, Sequence[Hit]]
    correct: Mapping[str, Sequence[bool]]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        images: number of labelled images that both collections hold.
        queries: number of query images; each is excluded from its own answers.
        labels: number of different labels among the queries.
        overlap: mean share of the k nearest images that both collections return.
        sides: the results of each collection.
        examples: queries with their hits, for display.

    """

    k: int
    images: int
    queries: int
    labels: int
    overlap: float
    sides: list[Side]
    examples: list[Example]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON, with its key names."""
        precision = f"precision@{self.k}"
        return {
            "k": self.k,
            "images": self.images,
            "queries": self.queries,
            f"overlap@{self.k}": self.overlap,
            "collections": [
                {precision if name == "precision" else name: value for name, value in side.items()}
                for side in map(asdict, self.sides)
            ],
        }


def compare(
    connection: sa.Connection,
    collections: Sequence[StoredCollection],
    *,
    k: int,
    metric: str | None,
    labelling: Labelling,
    seed: int,
    examples: int,
    on_progress: OnProgress,
) -> Comparison:
    """Answer the same queries from two collections and score both.

    Args:
        connection: in a transaction.
        collections: the two collections.
        k: number of nearest images per query.
        metric: metric for both; None uses each collection's default.
        labelling: where labels come from; they are read from the first collection.
        seed: seed for choosing the queries.
        examples: number of queries whose hits to return for display.
        on_progress: see `vecsearch.analysis.evaluate.evaluate`.

    Raises:
        InvalidInput: the collections share too few images, or cannot be scored.

    """
    require_k(k)
    parties = [
        _Party(
            each,
            Query(metric=metric).ranked_by(each.default_metric),
            labels.read_images(connection, each.table, labelling.key),
        )
        for each in collections
    ]
    label_of = _shared_labels(parties, labelling)
    limit = min(
        sampling.query_limit(each.collection, len(each.images), each.metric) for each in parties
    )
    samples = [_measure(connection, each, label_of, limit, seed, on_progress) for each in parties]
    scores = [evaluate.score(sample, k) for sample in samples]
    tops = [
        [{sample.images[place].path for place in places} for places in score.nearest]
        for sample, score in zip(samples, scores, strict=True)
    ]
    labelled = sum(label is not None for label in label_of.values())
    shown = min(k, labelled - 1)
    overlap = [len(one & other) / shown for one, other in zip(*tops, strict=True)]
    positions = samples[0].positions
    chosen = positions[np.linspace(0, len(positions) - 1, examples).astype(int)]
    return Comparison(
        k=k,
        images=labelled,
        queries=len(positions),
        labels=len({samples[0].labels[place] for place in positions}),
        overlap=float(np.mean(overlap)),
        sides=[
            _side(connection, party, sample, score, k)
            for party, sample, score in zip(parties, samples, scores, strict=True)
        ],
        examples=[
            _example(connection, parties, parties[0].images[place].path, label_of, k)
            for place in dict.fromkeys(chosen.tolist())
        ],
    )


@dataclass(frozen=True)
class _Party:
    collection: StoredCollection
    metric: Metric
    images: list[labels.Image]


def _shared_labels(parties: Sequence[_Party], labelling: Labelling) -> dict[str, str | None]:
    """Return the first collection's label of each path that both collections hold."""
    one, other = parties
    in_other = {image.path for image in other.images}
    found = {
        image.path: label
        for image, label in zip(one.images, labelling.read(one.images), strict=True)
        if image.path in in_other
    }
    names = " and ".join(party.collection.name for party in parties)
    if not found:
        raise InvalidInput(
            f"Collections {names} have no image in common. Ingest the same folder into both."
        )
    sampling.require_labels(list(found.values()), names)
    return found


def _measure(
    connection: sa.Connection,
    party: _Party,
    label_of: Mapping[str, str | None],
    limit: int,
    seed: int,
    on_progress: OnProgress,
) -> Sample:
    found = [label_of.get(image.path) for image in party.images]
    return sampling.measure(
        connection,
        party.collection,
        party.images,
        found,
        # Both collections have these images in the same order, so the seed chooses the same ones.
        sampling.choose_queries(found, limit, seed),
        metric=party.metric,
        on_progress=on_progress,
    )


def _side(
    connection: sa.Connection,
    party: _Party,
    sample: Sample,
    score: evaluate.Scores,
    k: int,
) -> Side:
    collection = party.collection
    few = min(TIMED_QUERIES, len(sample.positions))
    timed = sample.positions[np.linspace(0, len(sample.positions) - 1, few).astype(int)]
    seconds = [
        execute.timed(
            connection,
            Search(collection, sample.images[place].id, Query(k=k, metric=party.metric)),
        )[1]
        for place in timed
    ]
    return Side(
        collection=collection.name,
        model=collection.identity.name,
        dimensions=collection.dimensions,
        metric=party.metric,
        precision=score.precision,
        map=score.map,
        p50_ms=1_000 * float(np.median(seconds)),
        bytes_per_image=bytes_per_image(connection, collection),
    )


def _example(
    connection: sa.Connection,
    parties: Sequence[_Party],
    path: str,
    label_of: Mapping[str, str | None],
    k: int,
) -> Example:
    query = image_id(path)
    answers = {
        party.collection.name: _counted_hits(connection, party, query, label_of, k)
        for party in parties
    }
    correct = {
        name: [label_of.get(hit.path) == label_of[path] for hit in hits]
        for name, hits in answers.items()
    }
    return Example(query, path, str(label_of[path]), answers, correct)


def _counted_hits(
    connection: sa.Connection,
    party: _Party,
    query: UUID,
    label_of: Mapping[str, str | None],
    k: int,
) -> list[Hit]:
    """Return the k nearest of the images that count: labelled ones that both collections hold."""
    asked = k
    while True:
        wanted = Query(k=asked, metric=party.metric, exact=True, exclude_self=True)
        hits, _ = execute.nearest(connection, Search(party.collection, query, wanted))
        counted = [hit for hit in hits if label_of.get(hit.path) is not None]
        if len(counted) >= k or len(hits) < asked:
            return [replace(hit, rank=rank) for rank, hit in enumerate(counted[:k], start=1)]
        asked *= 4
