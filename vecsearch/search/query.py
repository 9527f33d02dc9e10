"""A user's query, and its answer."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from uuid import UUID

from vecsearch.errors import InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.filters import NO_FILTERS, Filters
from vecsearch.search.gallery import ImageFacts
from vecsearch.search.questions.pictures import Crop, Given
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import (
    DEFAULT_K,
    Metric,
    Ranking,
    parse,
    ranked,
    require_expansion,
)

P = ParamSpec("P")
Self_ = TypeVar("Self_")
Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Query:
    """A query: an image, an id, words or several of them, with metric, filters and limits.

    The command line, the API, the page and `Collection.query` all build one of these. One of
    `image`, `id` and `text` is asked for as it is. Several, or weights, become one vector: the sum
    of the normalised vectors times their weights.

    Attributes:
        image: a path, a URL, a file's bytes, a Pillow image or an array of pixels, as
            `vecsearch.search.questions.pictures.Picture.read` takes them; the stored vector of a
            file is used if its content is in the collection.
        id: a stored image's id.
        text: any sentence, if the collection's encoder reads text; else a concept's name, a synonym
            of it, or words that describe it; if several concepts match, an image's distance is that
            to the nearest. Any other phrase means a mixture of the concepts nearest to it. By
            cosine only.
        crop: search by this part of the first image or id that is searched for; of a stored image,
            its file is read.
        terms: further parts of the question, or all of them.
        expand: add so many of the nearest images to the question, weighted by similarity^3, and
            search again; None uses the collection's number, but 0 for words. By cosine only. A
            stored image is not among its own nearest; `where` does not limit them.
        ranking: a name of `Ranking`; None uses the collection's, but the embeddings for words,
            which lie where images differ little. By cosine only.
        k: the largest number of hits; None means 10, or no limit if there is a cut-off.
        metric: a name of `Metric`; None uses the collection's default.
        where: an SQL condition on the collection's columns; only from a trusted user.
        filters: typed conditions; safe from untrusted callers.
        min_similarity: for cosine only; equals a `max_distance` of 1 - `min_similarity`.
        max_distance: the largest distance of a hit.
        exact: compare with every row, without the index.
        exclude_self: exclude the query image's own row.
        model: the encoder that the collection must have; None accepts any.
        weights: where its weights are now; None uses the stored location.

    """

    image: "Given | None" = None
    _: KW_ONLY
    id: UUID | str | None = None
    text: str | None = None
    crop: Crop | None = None
    terms: Sequence[Term] = ()
    expand: int | None = None
    ranking: str | None = None
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
        """Check the options that need neither a picture nor a database.

        Raises:
            InvalidInput: an option has an invalid value.

        """
        for term in self.parts:
            term.check()
        if all(term.weight < 0 for term in self.parts):
            raise InvalidInput(
                "The question only says what hits should be unlike. Add what they should be like."
            )
        metric = self.ranked_by(default_metric)
        if metric is not Metric.cosine:
            for given, what in (
                (self.has_words, "Words are"),
                (not self.is_single, "Several pictures are"),
                (bool(self.expand), "Expanded questions are"),
                (self.ranking is not None, "Rankings are"),
            ):
                if given:
                    raise InvalidInput(
                        f"{what} compared by cosine, not by {metric}. "
                        f"{'Choose cosine' if self.metric is None else 'Omit the metric'}."
                    )
        if self.expand is not None:
            require_expansion(self.expand)
        self.cut_off(default_metric)
        self.filters.check()
        if self.k is not None:
            require_k(self.k)

    @property
    def parts(self) -> list[Term]:
        """The parts of the question, `image`, `id` or `text` first."""
        given = any(target is not None for target in (self.image, self.id, self.text))
        first = [Term(self.image, id=self.id, text=self.text)]
        parts = [*(first if given or not self.terms else []), *self.terms]
        if self.crop is not None:
            wanted = (at for at, term in enumerate(parts) if term.text is None and term.weight > 0)
            cropped = next(wanted, 0)
            parts[cropped] = replace(parts[cropped], crop=self.crop)
        return parts

    @property
    def is_single(self) -> bool:
        """Whether there is one part, whose vector is asked for as it is."""
        return len(self.parts) == 1

    @property
    def limits(self) -> str:
        """Which images may be hits, as clauses; empty if all may."""
        given: list[str] = []
        if self.max_distance is not None:
            given.append(f"distance at most {self.max_distance:g}")
        if self.min_similarity is not None:
            given.append(f"similarity at least {self.min_similarity:g}")
        if self.where is not None:
            given.append(f"where {' '.join(self.where.split())}")
        given += [f"{name.replace('_', ' ')} {value}" for name, value in self.filters.given()]
        return "; ".join(given)

    @property
    def has_words(self) -> bool:
        """Whether a part of the question is words."""
        return any(term.text is not None for term in self.parts)

    @property
    def is_far(self) -> bool:
        """Whether the question lies far from all images: words do, and differences."""
        return self.has_words or any(term.weight < 0 for term in self.parts)

    def ranking_in(self, collection: StoredCollection) -> Ranking:
        """Return what orders the hits in a collection.

        Raises:
            InvalidInput: the collection cannot rank by compact vectors.

        """
        if self.ranked_by(collection.default_metric) is not Metric.cosine:
            return Ranking.full
        if self.ranking is None:
            return Ranking.full if self.has_words else collection.ranking
        chosen = parse(Ranking, self.ranking)
        if chosen is Ranking.compact and not collection.has_ranking_compact:
            raise InvalidInput(
                f"Collection {collection.name!r} has no compact vectors that rank.",
                step="To make them, for all searches by cosine: "
                f"vecsearch index ranking compact --collection {collection.name}",
            )
        return chosen

    def expansion_in(self, collection: StoredCollection) -> int:
        """Return the number of nearest images by which the question is expanded in a collection."""
        if self.ranked_by(collection.default_metric) is not Metric.cosine:
            return 0
        if self.expand is None:
            return 0 if self.has_words else collection.expansion
        return self.expand

    def ranked_by(self, default_metric: Metric) -> Metric:
        """Return the metric that ranks the answer."""
        if self.metric is not None:
            return parse(Metric, self.metric)
        return default_metric if self.is_single and not self.has_words else Metric.cosine

    def cut_off(self, default_metric: Metric) -> float | None:
        """Return the largest distance of a hit; None if there is no cut-off.

        Raises:
            InvalidInput: both cut-offs are given, or one is invalid for the metric.

        """
        metric = self.ranked_by(default_metric)
        if self.min_similarity is None:
            if self.max_distance is not None and not math.isfinite(self.max_distance):
                raise InvalidInput("The largest distance is not finite. Give a number, or omit it.")
            return self.max_distance
        if self.max_distance is not None:
            raise InvalidInput("Give a least similarity or a largest distance, not both.")
        if metric is not Metric.cosine:
            raise InvalidInput(
                f"Similarity is defined for cosine, not for {metric}. Give a largest distance."
            )
        if not -1 <= self.min_similarity <= 1:
            raise InvalidInput("The least similarity is out of range. Give a number from -1 to 1.")
        return 1.0 - self.min_similarity

    def limit(self, default_metric: Metric) -> int | None:
        """Return the largest number of hits; None for every hit within the cut-off."""
        if self.k is None and self.cut_off(default_metric) is None:
            return DEFAULT_K
        return self.k


@dataclass(frozen=True)
class _Ranked:
    """The fields that precede a hit's facts."""

    rank: int
    id: UUID
    path: str
    distance: float
    similarity: float | None


# Dataclasses take fields from the last base first.
@dataclass(frozen=True)
class Hit(ImageFacts, _Ranked):
    """One row of an answer; see `vecsearch.postgres.columns` for the stored columns.

    Attributes:
        rank: rank from 1, nearest first.
        distance: the distance that SQL ordered by; for `ip`, the negative inner product.
        similarity: 1 - cosine distance; None for other metrics.

    """

    metadata: dict[str, Any]


# The columns of a row that a hit has, in the order of its fields.
HIT_COLUMNS = [
    name for name in Hit.__dataclass_fields__ if name not in {"rank", "distance", "similarity"}
]


class Statement(Protocol):
    """The statement that found an answer."""

    @property
    def sql(self) -> str:
        """The statement that ran, with its settings, ready to paste into psql."""

    @property
    def short_sql(self) -> str:
        """The same with psql's variables, :'q1' and so on, in the place of vectors."""

    @property
    def plan(self) -> str:
        """Postgres' plan for the statement."""

    @property
    def uses_index(self) -> bool:
        """Whether the plan uses the HNSW index, instead of comparing every row."""


@dataclass(frozen=True)
class Answer:
    """The hits of a query, and how they were found; iterating yields the hits.

    `sql`, `short_sql`, `plan`, `uses_index` and `how` are computed when they are first read; the
    library must still be open then.

    Attributes:
        hits: the hits, nearest first.
        metric: the metric of the distances.
        candidates: number of candidates, chosen by cosine or compact vectors, that the metric
            re-ranked; None if the metric ranked all rows, or the index serves it directly.
        seconds: time that the database took.
        statement: the statement that found the hits.
        image: the stored image whose vector was used; None if the picture is not in the collection.
        concepts: names of the concepts that the query's text means; none if the encoder read it.
        meaning: what the query's text was taken for, as a sentence; None for a picture.
        beyond: with both a cut-off and a k, the hits that only the cut-off removed.
        ranking: what ordered the hits by cosine.
        dims: dimensions of a compact vector; None if there are none.
        expansion: the number of nearest images that were added to the question.
        limits: which images could be hits, as clauses; empty if all could.
        labelled: labels that the query's words name, each with its number of images.

    """

    hits: list[Hit]
    metric: Metric
    candidates: int | None
    seconds: float
    statement: Statement = field(repr=False)
    image: UUID | None = None
    concepts: Sequence[str] = ()
    meaning: str | None = None
    beyond: Sequence[Hit] = ()
    ranking: Ranking = Ranking.full
    dims: int | None = None
    expansion: int = 0
    limits: str = ""
    labelled: Mapping[str, int] = field(default_factory=dict)

    @property
    def sql(self) -> str:
        """See `Statement`."""
        return self.statement.sql

    @property
    def short_sql(self) -> str:
        """See `Statement`."""
        return self.statement.short_sql

    @property
    def plan(self) -> str:
        """See `Statement`."""
        return self.statement.plan

    @property
    def uses_index(self) -> bool:
        """See `Statement`."""
        return self.statement.uses_index

    @property
    def is_reranked(self) -> bool:
        """Whether the metric ranked only candidates, which cosine had chosen."""
        return self.candidates is not None and self.metric is not Metric.cosine

    @property
    def ranked(self) -> str:
        """How the hits are ranked, as a clause; empty if simply by the embeddings."""
        is_plain = self.ranking is Ranking.full and not self.expansion
        return "" if is_plain else ranked(self.ranking, self.dims, self.expansion)

    @property
    def how(self) -> str:
        """How the hits were found, and by cosine what ordered them, as sentences."""
        by = "by the HNSW index" if self.uses_index else "by an exact scan: every row is compared"
        if self.metric is Metric.cosine:
            ordered = ranked(self.ranking, self.dims, self.expansion)
            return f"Answered {by}. {ordered[0].upper()}{ordered[1:]}."
        if not self.is_reranked:
            return f"Answered {by}."
        return (
            f"{self.candidates:,} candidates by cosine, found {by}; then ranked by {self.metric}."
        )

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, nearest first."""
        return iter(self.hits)


def require_k(k: int) -> None:
    """Check that k is at least 1.

    Raises:
        InvalidInput: k is less than 1.

    """
    if k < 1:
        raise InvalidInput(f"k is {k}. Ask for at least 1 image.")


def taking(
    make: Callable[P, Q],
) -> Callable[[Callable[[Self_, Q], R]], Callable[Concatenate[Self_, P], R]]:
    """Return a decorator that builds a method's one argument by calling `make`.

    The decorated method takes the arguments of `make`.
    """

    def decorate(method: Callable[[Self_, Q], R]) -> Callable[Concatenate[Self_, P], R]:
        def call(self: Self_, /, *arguments: P.args, **options: P.kwargs) -> R:
            return method(self, make(*arguments, **options))

        call.__doc__, call.__name__ = method.__doc__, method.__name__
        return call

    return decorate
