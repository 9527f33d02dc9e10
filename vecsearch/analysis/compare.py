"""Two collections side by side: the same queries, each answered by both."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import evaluate, labels, sampling
from vecsearch.analysis.sampling import FOLDERS, Labelling, Sample
from vecsearch.errors import InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import image_id
from vecsearch.search import execute
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.query import Hit, Query, require_k
from vecsearch.search.statement import Search
from vecsearch.search.status import bytes_per_image
from vecsearch.vocabulary import Metric

TIMED_QUERIES = 50


@dataclass(frozen=True)
class Side:
    """What one collection came to.

    Attributes:
        precision, map: see `vecsearch.analysis.evaluate.Evaluation`.
        p50_ms: of one query's statement, as `vecsearch query` sends it.
        bytes_per_image: row, embedding and index.

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
    """One query, and what each collection finds; `correct` tells which share its label."""

    id: UUID
    path: str
    label: str
    answers: Mapping[str, Sequence[Hit]]
    correct: Mapping[str, Sequence[bool]]


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        images: that are in both collections, and have a label.
        queries: images asked with, each left out of its own answers.
        labels: how many different ones the queries have.
        overlap: mean share of the k nearest that both collections name.
        sides: the two.
        examples: for looking at.

    """

    k: int
    images: int
    queries: int
    labels: int
    overlap: float
    sides: list[Side]
    examples: list[Example]

    def as_dict(self) -> dict[str, Any]:
        """Return it under the names that JSON has."""
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
    k: int = 10,
    metric: str | None = None,
    labelling: Labelling = FOLDERS,
    seed: int = 0,
    examples: int = 0,
    on_progress: OnProgress = quiet,
) -> Comparison:
    """Ask two collections the same questions.

    Args:
        connection: in a transaction.
        collections: two.
        k: length of an answer.
        metric: of both; None is each collection's default.
        labelling: what is relevant; read from the first collection.
        seed: of the choice of queries.
        examples: how many queries to answer for looking at.
        on_progress: see `vecsearch.analysis.evaluate.evaluate`.

    Raises:
        InvalidInput: they share too few images, or cannot be scored.

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
    tops = [
        [{sample.images[place].path for place in order[:k]} for order in sample.rankings()]
        for sample in samples
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
            _side(connection, party, sample, k)
            for party, sample in zip(parties, samples, strict=True)
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
    """Return the label, in the first collection, of each path that both hold."""
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
            f"Collections {names} have no path in common. Ingest the same folder into both."
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
        # The same images in the same order, so that the seed chooses the same ones.
        sampling.choose_queries(found, limit, seed),
        metric=party.metric,
        on_progress=on_progress,
    )


def _side(
    connection: sa.Connection,
    party: _Party,
    sample: Sample,
    k: int,
) -> Side:
    collection = party.collection
    _, precision, average = evaluate.score(sample, k)
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
        precision=precision,
        map=average,
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
        party.collection.name: execute.nearest(
            connection,
            Search(party.collection, query, Query(k=k, metric=party.metric, exclude_self=True)),
        )[0]
        for party in parties
    }
    correct = {
        name: [label_of.get(hit.path) == label_of[path] for hit in hits]
        for name, hits in answers.items()
    }
    return Example(query, path, str(label_of[path]), answers, correct)
