"""Which images a collection is judged by: their labels, and how far every image is from them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from vecsearch.analysis import labels, ranking
from vecsearch.errors import InvalidInput
from vecsearch.ingest import staging
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.build import OnProgress
from vecsearch.vocabulary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAXIMUM_QUERIES = 1_000
# Distances held at once, and numbers subtracted for metrics that are no matrix product: some
# hundreds of megabytes, and about a minute.
MAXIMUM_DISTANCES = 50_000_000
MAXIMUM_DIFFERENCES = 20_000_000_000


@dataclass(frozen=True)
class Labelling:
    """Where an image's label comes from: what shares it is relevant.

    Attributes:
        source: "folder" for the name of the folder, or "metadata:KEY".
        regex: its first group on the file name instead of `source`; upper and lower case are
            the same.

    """

    source: str = "folder"
    regex: str | None = None

    @property
    def key(self) -> str | None:
        """The key of the metadata that the label is read from, if it is."""
        kind, _, key = self.source.partition(":")
        return key if kind == "metadata" else None

    def read(self, images: Iterable[labels.Image]) -> list[str | None]:
        """Return each image's label; None if it has none.

        Raises:
            InvalidInput: the source is not known, or the expression is wrong or has no group.

        """
        if self.regex is not None:
            try:
                pattern = re.compile(self.regex, re.IGNORECASE)
            except re.error as error:
                raise InvalidInput(
                    f"--label-regex {self.regex!r} is not a regular expression: {error}. Mend it."
                ) from error
            if not pattern.groups:
                raise InvalidInput(
                    f"--label-regex {self.regex!r} has no group. Put what is the label in "
                    "parentheses: '^([a-z]+)'"
                )
            found = (pattern.search(image.name) for image in images)
            return [match[1].casefold() if match and match[1] else None for match in found]
        if self.source == "folder":
            return [image.label for image in images]
        if self.key:
            return [image.value for image in images]
        raise InvalidInput(f"--label {self.source!r} is neither folder nor metadata:KEY. Use one.")


FOLDERS = Labelling()


@dataclass(frozen=True)
class Sample:
    """Some images of a collection, and how far each of its images is from them.

    Attributes:
        positions: of the queries among `images`.
        images: all, in order of path.
        labels: of each of them.
        distances: shape (queries, images).

    """

    positions: "NDArray[np.int64]"
    images: list[labels.Image]
    labels: list[str | None]
    distances: "NDArray[np.float64]"

    def rankings(self) -> "Iterator[NDArray[np.int64]]":
        """Yield, for each query, the positions of the other labelled images, nearest first.

        One at a time: all of them take as much memory as the distances.
        """
        labelled = np.array([label is not None for label in self.labels])
        for own, row in zip(self.positions, self.distances, strict=True):
            order = ranking.nearest_first(row, int(own))
            yield order[labelled[order]]


def require_labels(found: Sequence[str | None], where: str) -> None:
    """Refuse what has nothing to find.

    Raises:
        InvalidInput: there are fewer than two images with a label.

    """
    labelled = sum(label is not None for label in found)
    if labelled < 2:  # noqa: PLR2004 - one image has nothing to find
        raise InvalidInput(
            f"{labelled} images of {where} have such a label, and it takes two to compare. "
            "Name another with --label or --label-regex."
        )


def query_limit(collection: StoredCollection, images: int, metric: Metric) -> int:
    """Return how many of a collection's images can be asked with in bounded time and memory."""
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
    """Measure how far every image is from those at `positions`.

    Raises:
        InvalidInput: the metric is not defined for the embeddings.

    """
    ids = [images[position].id for position in positions]
    queries = labels.read_embeddings(connection, collection.table, ids)
    distances = np.empty((len(positions), len(images)))
    done = 0
    for block in staging.read_blocks(connection, collection.table, embeddings=True, columns=False):
        if metric.needs_non_negative and min(block.embeddings.min(), queries.min()) < 0:
            raise InvalidInput(
                f"Metric {metric!r} is not defined for the embeddings of collection "
                f"{collection.name!r}: some numbers are negative. Use cosine, l2 or l1."
            )
        rows = slice(done, done + len(block.paths))
        distances[:, rows] = ranking.distances(queries, block.embeddings, metric)
        done = rows.stop
        on_progress(f"Comparing in {collection.name}", done, len(images))
    return Sample(positions, images, found, distances)
