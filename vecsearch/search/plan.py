"""Plan a search: how a query is answered in a collection, by which index and settings."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC

from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import statement
from vecsearch.search.indexes import serving
from vecsearch.search.indexes.base import MAXIMUM_K, Expression, Index
from vecsearch.search.query import Query
from vecsearch.search.statement import EXACT_SETTINGS, FORCED_SETTINGS, Shape
from vecsearch.vocabulary import Metric, Ranking, least_ef_search


@dataclass(frozen=True)
class Search:
    """A query with everything needed to build its statement.

    Attributes:
        collection: the collection to search.
        target: embeddings, shape (n, dimensions) or (dimensions,), of which the nearest counts, or
            the id of a stored image.
        query: the other options; `target` replaces its images, ids and words.
        own: ids of the stored images that the query names, beside a `target` that is an id.
        chosen: ef_search, or the number of candidates if they are re-ranked; None chooses one that
            is enough for k.
        exact: compare with every row, even if the query does not request it.
        forced: use the index even if the planner prefers a scan; for measuring it.
        own_only: return only the stored query image's own row.
        vectors: the bound vectors, from `Index.vectors`; if empty, `targets` alone.

    """

    collection: StoredCollection
    target: NDArray[np.float32] | UUID
    query: Query
    own: tuple[UUID, ...] = ()
    chosen: int | None = None
    exact: bool = False
    forced: bool = False
    own_only: bool = False
    vectors: tuple[NDArray[np.float32], ...] = ()

    @cached_property
    def index(self) -> Index:
        """The collection's index, as it serves the ranking."""
        return serving(replace(self.collection, ranking=self.ranking))

    @cached_property
    def metric(self) -> Metric:
        """The metric that ranks the hits."""
        return self.query.ranked_by(self.collection.default_metric)

    @cached_property
    def ranking(self) -> Ranking:
        """What orders the hits by cosine."""
        return self.query.ranking_in(self.collection)

    @cached_property
    def expansion(self) -> int:
        """The number of nearest images by which the question is expanded."""
        return self.query.expansion_in(self.collection)

    @cached_property
    def k(self) -> int | None:
        """The largest number of hits; None for every hit within the cut-off."""
        return self.query.limit(self.collection.default_metric)

    @cached_property
    def max_distance(self) -> float | None:
        """The largest distance of a hit; None for no cut-off."""
        return self.query.cut_off(self.collection.default_metric)

    @cached_property
    def targets(self) -> tuple[NDArray[np.float32], ...]:
        """The embeddings to compare with; none if the query is by id."""
        return () if isinstance(self.target, UUID) else tuple(np.atleast_2d(self.target))

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared.

        On request, because the answer has no LIMIT, or because an index orders by one vector only.
        """
        return self.exact or self.query.exact or self.k is None or len(self.targets) > 1

    @property
    def candidates(self) -> int | None:
        """The number of candidates to re-rank; None if the search needs no re-ranking."""
        if self.is_exact or self.k is None:
            return None
        return self.index.candidates(self.metric, self.k, self.chosen, is_far=self.query.is_far)

    @property
    def own_is_nearest(self) -> bool:
        """Whether no other image is nearer to a stored query image than itself."""
        return self.metric.own_is_nearest and not self.expansion

    @property
    def excluded(self) -> list[UUID]:
        """The query images whose own rows are excluded."""
        if not self.query.exclude_self:
            return []
        return [self.target] if isinstance(self.target, UUID) else list(self.own)

    @property
    def shape(self) -> Shape:
        """The shape, by which its statement is cached."""
        return Shape(
            index=self.index,
            metric=self.metric,
            k=None if self.k is None else min(self.k, MAXIMUM_K),
            candidates=self.candidates,
            expansion=self.expansion,
            where=self.query.where,
            filters=self.query.filters,
            max_distance=self.max_distance,
            by_id=isinstance(self.target, UUID),
            targets=max(1, len(self.targets)),
            excludes_own=bool(self.excluded),
            own_only=self.own_only,
            is_distributed=self.collection.is_distributed,
        )

    @property
    def bound(self) -> list[NDArray[np.float32]]:
        """The vectors that the statement compares with; none if the query is by id."""
        vectors = self.vectors or self.targets
        # An exact search may follow one with candidates; it needs only what ranks.
        return list(vectors if self.candidates is not None else vectors[: len(self.targets)])

    def text(self, *, has_vectors: bool = True) -> str:
        """Return the statement with its values written out, ready for any client.

        Args:
            has_vectors: write vectors out, too; otherwise psql's variables stand for them: :'q1'.

        """
        vectors = enumerate(self.bound, start=1)

        def target(column: sa.Column[Any]) -> Expression:
            if isinstance(self.target, UUID):
                return statement.stored_vector(
                    column,
                    sa.literal(self.target, sa.Uuid),
                    is_distributed=self.collection.is_distributed,
                )
            number, vector = next(vectors)
            value: Expression = sa.literal(vector, column.type)
            if not has_vectors:
                value = sa.literal_column(f":'q{number}'")
            return sa.cast(value, HALFVEC(len(vector)))

        image = sa.literal(self.target, sa.Uuid)
        excluded = sa.cast(sa.literal(self.excluded, sa.ARRAY(sa.Uuid)), sa.ARRAY(sa.Uuid))
        built = statement.build(self.shape, target, image, excluded)
        if not self.is_exact and self.max_distance is None:
            nearest = built.subquery("nearest")
            built = statement.in_order(sa.select(nearest), nearest)
        return statement.written(built)

    @property
    def sent(self) -> str:
        """The statement as it is sent: `$1` is the id or the embedding.

        If there is a k, the caller applies the cut-off: it only truncates an ordered list, and the
        caller must distinguish a short list from a truncated one.
        """
        shape = self.shape
        return statement.sent(shape if shape.k is None else replace(shape, max_distance=None))

    @property
    def sent_with_cut_off(self) -> str:
        """The statement with its cut-off, and `$1` for the id or the embedding."""
        return statement.sent(self.shape)

    def settings(self) -> dict[str, str]:
        """Return the Postgres settings for the statement, which apply to its transaction only."""
        if self.is_exact or self.k is None:
            return EXACT_SETTINGS
        settings = self.index.settings(self.candidates, self.k, self.chosen)
        return (FORCED_SETTINGS if self.forced else {}) | settings

    def script(self, *, has_vectors: bool = True) -> str:
        """Return the settings and the statement as one transaction, for psql; see `text`."""
        settings = "".join(
            f"SET LOCAL {name} = '{value}';\n" for name, value in self.settings().items()
        )
        return f"BEGIN;\n{settings}{self.text(has_vectors=has_vectors)};\nCOMMIT;"


def plan(
    connection: sa.Connection,
    collection: StoredCollection,
    target: NDArray[np.float32] | UUID,
    query: Query,
    own: tuple[UUID, ...] = (),
) -> Search:
    """Return the search that answers a query.

    Args:
        connection: in a transaction.
        collection: the collection to search.
        target: see `Search`.
        own: see `Search`.
        query: the other options, already checked by `Query.check`.

    """
    search = Search(collection, target, query, own)
    search = replace(search, chosen=_tuned(collection, search))
    if search.targets:
        candidates = search.candidates is not None
        vectors = search.index.vectors(
            connection, search.targets, search.metric, candidates=candidates
        )
        search = replace(search, vectors=tuple(vectors))
    if search.metric.is_reranked and search.candidates is None:
        # Every row is compared by a slow metric, so in parallel.
        return replace(search, exact=True)
    # Cosine has few candidates, and the planner itself compares their cost with an exact search.
    if search.candidates is not None and search.metric is not Metric.cosine:
        more = matching(search).offset(search.candidates).limit(1)
        if connection.scalar(more) is None:
            # No more rows match than there are candidates, so an exact search compares the same.
            return replace(search, exact=True)
    return search


def _tuned(collection: StoredCollection, search: Search) -> int | None:
    """Return the setting that `index tune` found, if it was tuned for this k or a larger one."""
    tuned = collection.breadths.get(search.metric)
    # It was tuned with images as questions, in the collection's ranking.
    is_cosine = search.metric is Metric.cosine
    is_alike = not is_cosine or search.ranking is collection.ranking
    is_alike &= not search.query.is_far
    if not is_alike or tuned is None or search.k is None or search.k > tuned["k"]:
        return None
    if search.index.reranks(search.metric):
        return int(tuned["breadth"])
    # A graph that has grown since is searched the more widely.
    growth = least_ef_search(collection.rows) / least_ef_search(tuned.get("rows", 0))
    return round(int(tuned["breadth"]) * max(1.0, growth))


def matching(search: Search) -> sa.Select[Any]:
    """Return a statement that yields 1 for each row that meets the search's conditions."""
    table = search.collection.table.alias(search.collection.name)
    rows = sa.select(sa.literal(1)).select_from(table)
    return statement.filtered(rows, table, search.query.where, search.query.filters)
