"""Two collections side by side: the same queries, each answered by both."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from vecsearch import evaluate, sampling
from vecsearch.errors import InvalidInput
from vecsearch.queries import catalog, labels, nearest, writes
from vecsearch.queries.catalog import Collection
from vecsearch.queries.nearest import Hit, Search
from vecsearch.sampling import Labelling, OnProgress, Sample

TIMED_QUERIES = 50


@dataclass(frozen=True)
class Side:
    """What one collection came to.

    Attributes:
        precision, map: see `vecsearch.evaluate.Evaluation`.
        p50_ms: of one query's statement, as `vecsearch query` sends it.
        bytes_per_image: row, embedding and index.

    """

    collection: str
    model: str
    dimensions: int
    metric: str
    precision: float
    map: float | None
    p50_ms: float
    bytes_per_image: int


@dataclass(frozen=True)
class Example:
    """One query, and what each collection finds; `correct` tells which share its label."""

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
        overlap: mean share of the k nearest that both collections name.
        sides: the two.
        examples: for looking at.

    """

    k: int
    images: int
    queries: int
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
    collections: Sequence[Collection],
    *,
    k: int,
    metrics: Sequence[str],
    labelling: Labelling,
    seed: int,
    examples: int,
    on_progress: OnProgress,
) -> Comparison:
    """Ask two collections the same questions.

    Args:
        connection: in a transaction.
        collections: two.
        k: length of an answer.
        metrics: of each collection.
        labelling: what is relevant; read from the first collection.
        seed: of the choice of queries.
        examples: how many queries to answer for looking at.
        on_progress: see `vecsearch.evaluate.evaluate`.

    Raises:
        InvalidInput: they share too few images, or cannot be scored.

    """
    evaluate.require_k(k)
    one, other = (labels.read_images(connection, each.table) for each in collections)
    in_other = {image.path for image in other}
    found = {
        image.path: label
        for image, label in zip(one, labelling.read(one), strict=True)
        if image.path in in_other
    }
    names = " and ".join(collection.name for collection in collections)
    if not found:
        raise InvalidInput(
            f"Collections {names} have no path in common. Ingest the same folder into both."
        )
    sampling.require_labels(list(found.values()), names)
    limit = min(
        sampling.query_limit(collection, len(images), metric)
        for collection, images, metric in zip(collections, (one, other), metrics, strict=True)
    )
    samples = []
    for collection, images, metric in zip(collections, (one, other), metrics, strict=True):
        shared = [found.get(image.path) for image in images]
        # The same images in the same order, so that the seed chooses the same ones.
        positions = sampling.choose_queries(shared, limit, seed)
        samples.append(
            sampling.measure(
                connection,
                collection,
                images,
                shared,
                positions,
                metric=metric,
                on_progress=on_progress,
            )
        )
    rankings = [sample.rankings() for sample in samples]
    tops = [
        [{sample.images[place].path for place in order[:k]} for order in orders]
        for sample, orders in zip(samples, rankings, strict=True)
    ]
    labelled = sum(label is not None for label in found.values())
    shown = min(k, labelled - 1)
    overlap = float(np.mean([len(a & b) / shown for a, b in zip(*tops, strict=True)]))
    sides = []
    for collection, sample, orders, metric in zip(
        collections, samples, rankings, metrics, strict=True
    ):
        _, precision, average = evaluate.score(sample, orders, k)
        sides.append(
            Side(
                collection=collection.name,
                model=collection.identity.name,
                dimensions=collection.dimensions,
                metric=metric,
                precision=precision,
                map=average,
                p50_ms=_median_ms(connection, collection, sample, k, metric),
                bytes_per_image=catalog.bytes_per_image(connection, collection),
            )
        )
    chosen = np.linspace(0, len(samples[0].positions) - 1, examples).astype(int)
    return Comparison(
        k=k,
        images=labelled,
        queries=len(samples[0].positions),
        overlap=overlap,
        sides=sides,
        examples=[
            _example(connection, collections, metrics, samples[0].images[place].path, found, k)
            for place in dict.fromkeys(samples[0].positions[chosen].tolist())
        ],
    )


def _median_ms(
    connection: sa.Connection, collection: Collection, sample: Sample, k: int, metric: str
) -> float:
    some = np.linspace(
        0, len(sample.positions) - 1, min(TIMED_QUERIES, len(sample.positions))
    ).astype(int)
    times = []
    for place in sample.positions[some]:
        search = Search(collection.table, sample.images[place].id, metric, k)
        times.append(nearest.timed(connection, search)[1])
    return 1_000 * float(np.median(times))


def _example(
    connection: sa.Connection,
    collections: Sequence[Collection],
    metrics: Sequence[str],
    path: str,
    label_of: Mapping[str, str | None],
    k: int,
) -> Example:
    query = writes.image_id(path)
    answers = {
        collection.name: nearest.nearest(
            connection, Search(collection.table, query, metric, k, exclude=query)
        )[0]
        for collection, metric in zip(collections, metrics, strict=True)
    }
    correct = {
        name: [label_of.get(hit.path) == label_of[path] for hit in hits]
        for name, hits in answers.items()
    }
    return Example(path, str(label_of[path]), answers, correct)
