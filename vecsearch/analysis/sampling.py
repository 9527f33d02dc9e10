"""Choose the query images of an evaluation, read labels, and measure all exact distances."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import labels, ranking
from vecsearch.errors import InvalidInput
from vecsearch.ingest import staging
from vecsearch.ingest.annotations.labels import compiled
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import vectors
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.query import Query
from vecsearch.vocabulary import Metric, Ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAXIMUM_QUERIES = 1_000
# Limits on distances in memory (some hundred megabytes), and on subtractions by metrics that are
# not a matrix product (about a minute).
MAXIMUM_DISTANCES = 50_000_000
MAXIMUM_DIFFERENCES = 20_000_000_000


@dataclass(frozen=True)
class Labelling:
    """Where labels come from; images with the query's label are relevant.

    Attributes:
        source: "folder" for the column label, which is the folder's name unless an ingest was given
            another, or "metadata:KEY".
        regex: overrides `source`: the label is its first group in the file name; ignores case.

    """

    source: str = "folder"
    regex: str | None = None

    @property
    def key(self) -> str | None:
        """The metadata key that the label is read from; None if it is not read from metadata."""
        kind, _, key = self.source.partition(":")
        return key if kind == "metadata" else None

    def read(self, images: Iterable[labels.Image]) -> list[str | None]:
        """Return each image's label; None if it has none.

        Raises:
            InvalidInput: the source is unknown, or the expression is invalid or has no group.

        """
        if self.regex is not None:
            pattern = compiled(self.regex, re.IGNORECASE)
            if not pattern.groups:
                raise InvalidInput(
                    f"--label-regex {self.regex!r} has no group. Put parentheses around the "
                    "label: '^([a-z]+)'"
                )
            found = (pattern.search(image.name) for image in images)
            return [match[1].casefold() if match and match[1] else None for match in found]
        if self.source == "folder":
            return [image.label for image in images]
        if self.key:
            return [image.value for image in images]
        if self.source == "none":
            raise InvalidInput("--label none is for --improve. Use folder or metadata:KEY.")
        raise InvalidInput(f"Unknown --label {self.source!r}. Use folder or metadata:KEY.")


FOLDERS = Labelling()


@dataclass(frozen=True)
class Sample:
    """The query images of an evaluation, and their distances to every image.

    Attributes:
        positions: positions of the queries in `images`.
        images: all images of the collection, in order of path.
        labels: the label of each image.
        distances: exact distances, shape (queries, images).

    """

    positions: "NDArray[np.int64]"
    images: list[labels.Image]
    labels: list[str | None]
    distances: "NDArray[np.float64]"

    def rankings(self) -> "Iterator[NDArray[np.int64]]":
        """Yield, for each query, the positions of the other labelled images, nearest first.

        They come one at a time: all together take as much memory as the distances.
        """
        labelled = np.array([label is not None for label in self.labels])
        for own, row in zip(self.positions, self.distances, strict=True):
            order = ranking.nearest_first(row, int(own))
            yield order[labelled[order]]


def require_labels(found: Sequence[str | None], where: str) -> None:
    """Check that at least two images have a label.

    Raises:
        InvalidInput: fewer than two images have a label.

    """
    labelled = sum(label is not None for label in found)
    if labelled < 2:  # noqa: PLR2004 - one image has nothing to find
        raise InvalidInput(
            f"At least 2 images need a label, and {where} gives {labelled}. "
            "Choose another source of labels with --label or --label-regex."
        )


def query_limit(collection: StoredCollection, images: int, metric: Metric) -> int:
    """Return the number of query images that bounded time and memory allow."""
    limit = min(MAXIMUM_QUERIES, MAXIMUM_DISTANCES // images)
    if metric in ranking.ELEMENTWISE:
        limit = min(limit, MAXIMUM_DIFFERENCES // (images * collection.dimensions))
    return max(limit, 1)


def choose_queries(found: Sequence[str | None], limit: int, seed: int) -> "NDArray[np.int64]":
    """Return the positions of at most `limit` labelled images, ascending."""
    positions = np.flatnonzero([label is not None for label in found])
    if len(positions) > limit:
        positions = np.random.default_rng(seed).choice(positions, limit, replace=False)
    return np.sort(positions)


def measure(
    connection: sa.Connection,
    collection: StoredCollection,
    images: list[labels.Image],
    found: list[str | None],
    positions: "NDArray[np.int64]",
    *,
    metric: Metric,
    on_progress: OnProgress,
) -> Sample:
    """Measure the distance of every image to those at `positions`, as the collection ranks.

    Raises:
        InvalidInput: the metric is not defined for the embeddings.

    """
    ids = [images[position].id for position in positions]
    queries = labels.read_embeddings(connection, collection.table, ids)
    project = _projection(connection, collection, metric)
    queries = project(queries)

    def compared() -> "NDArray[np.float64]":
        return _distances(connection, collection, images, queries, project, metric, on_progress)

    distances = compared()
    expansion = Query(metric=metric).expansion_in(collection)
    if expansion:
        near = [
            ranking.nearest_first(row, int(own))[:expansion]
            for row, own in zip(distances, positions, strict=True)
        ]
        wanted = np.unique(np.concatenate(near))
        ids = [images[position].id for position in wanted]
        stored = project(labels.read_embeddings(connection, collection.table, ids))
        queries = np.stack(
            [
                ranking.averaged(query, stored[np.searchsorted(wanted, places)])
                for query, places in zip(queries, near, strict=True)
            ]
        )
        distances = _distances(
            connection, collection, images, queries, project, metric, on_progress
        )
    return Sample(positions, images, found, distances)


def _projection(
    connection: sa.Connection, collection: StoredCollection, metric: Metric
) -> "Callable[[NDArray[Any]], NDArray[Any]]":
    """Return what makes of embeddings the vectors that rank."""
    ranks = Query(metric=metric).ranking_in(collection) is Ranking.compact
    if not ranks or collection.compact is None:
        return lambda embeddings: embeddings
    return vectors.read_projection(connection, collection.compact).project


def _distances(
    connection: sa.Connection,
    collection: StoredCollection,
    images: list[labels.Image],
    queries: "NDArray[Any]",
    project: "Callable[[NDArray[Any]], NDArray[Any]]",
    metric: Metric,
    on_progress: OnProgress,
) -> "NDArray[np.float64]":
    """Return the distances of queries, in the space that ranks, to all images."""
    distances = np.empty((len(queries), len(images)))
    done = 0
    for block in staging.read_blocks(connection, collection.table, embeddings=True, columns=False):
        if metric.needs_non_negative and min(block.embeddings.min(), queries.min()) < 0:
            raise InvalidInput(
                f"Metric {metric!r} needs non-negative embeddings, and collection "
                f"{collection.name!r} has negative ones. Use cosine, l2 or l1."
            )
        rows = slice(done, done + len(block.paths))
        distances[:, rows] = ranking.distances(queries, project(block.embeddings), metric)
        done = rows.stop
        on_progress(f"Comparing in {collection.name}", done, len(images))
    return distances
