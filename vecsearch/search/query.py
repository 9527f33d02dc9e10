"""What a user asks, and what comes back."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from uuid import UUID

from vecsearch.errors import InvalidInput
from vecsearch.search.embedder import Picture
from vecsearch.search.filters import NO_FILTERS, Filters
from vecsearch.vocabulary import DEFAULT_K, Metric, parse

P = ParamSpec("P")
Self_ = TypeVar("Self_")
Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Query:
    """What a user asks for: exactly one of `image` and `id`, and how to rank and cut the answer.

    The command line, the API, the page and `Collection.query` all make one of these.

    Attributes:
        image: a file, its bytes, or a picture that was read; its stored vector is used if its
            content is in the collection.
        id: a stored image's id.
        k: at most this many; None: 10, or no limit when there is a cut-off.
        metric: a name of `Metric`; None: the collection's default.
        where: a condition in SQL on the collection's columns, from the user's own hand.
        filters: conditions of typed values, from anybody.
        min_similarity: cosine only; the same as a `max_distance` of 1 less it.
        max_distance: leave out what is farther.
        exact: compare with every row.
        exclude_self: leave out the query image's own row.
        model: what the user says the collection's encoder is; None: whatever it is.
        weights: where its weights are now; None: where they were.

    """

    image: str | Path | bytes | Picture | None = None
    _: KW_ONLY
    id: UUID | str | None = None
    k: int | None = None
    metric: str | None = None
    where: str | None = None
    filters: Filters = NO_FILTERS
    min_similarity: float | None = None
    max_distance: float | None = None
    exact: bool = False
    exclude_self: bool = False
    model: str | None = None
    weights: str | Path | None = None

    def check(self, default_metric: Metric) -> None:
        """Check what needs neither a picture nor a database.

        Raises:
            InvalidInput: an option cannot be served.

        """
        if (self.image is None) == (self.id is None):
            raise InvalidInput("Say what to search for: either an image or --id ID.")
        self.cut_off(default_metric)
        if self.k is not None:
            require_k(self.k)

    def ranked_by(self, default_metric: Metric) -> Metric:
        """Return the metric that orders the answer."""
        return default_metric if self.metric is None else parse(Metric, self.metric)

    def cut_off(self, default_metric: Metric) -> float | None:
        """Return the distance beyond which hits are left out.

        Raises:
            InvalidInput: there are two, or one that makes no sense for the metric.

        """
        metric = self.ranked_by(default_metric)
        if self.min_similarity is None:
            if self.max_distance is not None and not math.isfinite(self.max_distance):
                raise InvalidInput("--max-distance is not finite. Give a number, or leave it out.")
            return self.max_distance
        if self.max_distance is not None:
            raise InvalidInput("Give --min-similarity or --max-distance, not both.")
        if metric is not Metric.cosine:
            raise InvalidInput(
                f"Similarity is defined for cosine, not for {metric}. Use --max-distance."
            )
        if not -1 <= self.min_similarity <= 1:
            raise InvalidInput("--min-similarity is out of range. Give a number from -1 to 1.")
        return 1.0 - self.min_similarity

    def limit(self, default_metric: Metric) -> int | None:
        """Return how many hits to answer with at most; None: every one within the cut-off."""
        if self.k is None and self.cut_off(default_metric) is None:
            return DEFAULT_K
        return self.k


@dataclass(frozen=True)
class Hit:
    """One row of a result; see `vecsearch.postgres.schema` for its columns.

    Attributes:
        rank: from 1, nearest first.
        distance: what SQL ordered by; for `ip` it is the negative inner product.
        similarity: 1 - cosine distance; None for other metrics.

    """

    rank: int
    id: UUID
    path: str
    distance: float
    similarity: float | None
    label: str
    width: int | None
    height: int | None
    format: str | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None
    latitude: float | None
    longitude: float | None
    metadata: dict[str, Any]


# What a hit has of its row, in the order of its fields.
HIT_COLUMNS = [
    name for name in Hit.__dataclass_fields__ if name not in {"rank", "distance", "similarity"}
]


class Statement(Protocol):
    """How an answer was found."""

    @property
    def sql(self) -> str:
        """The statement that ran, with its settings, ready for psql."""

    @property
    def plan(self) -> str:
        """Postgres' plan for it."""

    @property
    def uses_index(self) -> bool:
        """Whether the HNSW index served it, or every row was compared."""


@dataclass(frozen=True)
class Answer:
    """What a query found, and how; iterating it yields the hits.

    `sql` is written, and Postgres is asked for `plan` and `uses_index`, when they are first read,
    for which the library must still be open.

    Attributes:
        hits: nearest first.
        metric: what the distances are.
        candidates: how many of the nearest, by cosine or by compact vectors, were compared by the
            metric; None: all rows, or the index knows the metric.
        seconds: how long the database took to find them.
        statement: how they were found.
        image: the stored image whose vector was used; None: the picture is not in the collection.
        beyond: with a cut-off and a k, the hits that only the cut-off left out.

    """

    hits: list[Hit]
    metric: Metric
    candidates: int | None
    seconds: float
    statement: Statement = field(repr=False)
    image: UUID | None = None
    beyond: Sequence[Hit] = ()

    @property
    def sql(self) -> str:
        """See `Statement`."""
        return self.statement.sql

    @property
    def plan(self) -> str:
        """See `Statement`."""
        return self.statement.plan

    @property
    def uses_index(self) -> bool:
        """See `Statement`."""
        return self.statement.uses_index

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, nearest first."""
        return iter(self.hits)


def require_k(k: int) -> None:
    """Refuse a k that asks for nothing.

    Raises:
        InvalidInput: it is less than 1.

    """
    if k < 1:
        raise InvalidInput(f"k is {k}. Ask for at least 1 image.")


def taking(
    make: Callable[P, Q],
) -> Callable[[Callable[[Self_, Q], R]], Callable[Concatenate[Self_, P], R]]:
    """Let a method that takes a value be called with the arguments that make the value."""

    def decorate(method: Callable[[Self_, Q], R]) -> Callable[Concatenate[Self_, P], R]:
        def call(self: Self_, /, *arguments: P.args, **options: P.kwargs) -> R:
            return method(self, make(*arguments, **options))

        call.__doc__, call.__name__ = method.__doc__, method.__name__
        return call

    return decorate
