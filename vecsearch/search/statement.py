"""Build the one SQL statement of a query.

If no index serves the metric directly, an index with another order chooses candidates, and the
same statement re-ranks them by the metric.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.filters import Filters
from vecsearch.search.indexes import serving
from vecsearch.search.indexes.base import MAXIMUM_K, Expression, Index, Target, distance
from vecsearch.search.query import HIT_COLUMNS, Query
from vecsearch.vocabulary import Metric

# Scans and sorts are on by default, but a server may turn them off; an exact search needs them.
# Embeddings are stored out of line (TOAST), so the planner underestimates the table and would not
# use parallel workers.
EXACT_SETTINGS = {
    "enable_indexscan": "off",
    "enable_seqscan": "on",
    "enable_sort": "on",
    "min_parallel_table_scan_size": "0",
    "parallel_setup_cost": "0",
}
# Make the planner use the index even if it estimates a higher cost.
FORCED_SETTINGS = {"enable_seqscan": "off", "enable_sort": "off"}


@dataclass(frozen=True)
class Shape:
    """Everything that determines a statement's text, except the query's id or vector.

    Attributes:
        index: the collection's index.
        metric: metric that ranks the rows.
        k: the largest number of rows; None for all rows.
        candidates: number of candidates to re-rank; None if there is no re-ranking.
        where, filters: see `Query`.
        max_distance: the largest distance of a row; None for no cut-off.
        by_id: whether the query is a stored image's id instead of vectors.
        targets: the number of vectors to compare with; the nearest counts.
        excludes_own: whether the query image's own row is excluded.
        own_only: whether only the query image's own row is returned.

    """

    index: Index
    metric: Metric
    k: int | None
    candidates: int | None
    where: str | None
    filters: Filters
    max_distance: float | None
    by_id: bool
    targets: int
    excludes_own: bool
    own_only: bool


@dataclass(frozen=True)
class Search:
    """A query with everything needed to build its statement.

    Attributes:
        collection: the collection to search.
        target: embeddings, shape (n, dimensions) or (dimensions,), of which the nearest counts, or
            the id of a stored image.
        query: the other options; `target` replaces its image or id.
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
    chosen: int | None = None
    exact: bool = False
    forced: bool = False
    own_only: bool = False
    vectors: tuple[NDArray[np.float32], ...] = ()

    @cached_property
    def index(self) -> Index:
        """The collection's index."""
        return serving(self.collection)

    @cached_property
    def metric(self) -> Metric:
        """The metric that ranks the hits."""
        return self.query.ranked_by(self.collection.default_metric)

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
        return self.index.candidates(self.metric, self.k, self.chosen)

    @property
    def excludes_own(self) -> bool:
        """Whether the stored query image's own row is excluded."""
        return self.query.exclude_self and isinstance(self.target, UUID)

    @property
    def shape(self) -> Shape:
        """The shape, by which its statement is cached."""
        return Shape(
            index=self.index,
            metric=self.metric,
            k=self.k,
            candidates=self.candidates,
            where=self.query.where,
            filters=self.query.filters,
            max_distance=self.max_distance,
            by_id=isinstance(self.target, UUID),
            targets=max(1, len(self.targets)),
            excludes_own=self.excludes_own,
            own_only=self.own_only,
        )

    @property
    def text(self) -> str:
        """The statement with its values written out, ready for any client."""
        shape = self.shape
        vectors = iter(self.vectors or self.targets)

        def target(column: sa.Column[Any]) -> Expression:
            if isinstance(self.target, UUID):
                return _stored(column, sa.literal(self.target, sa.Uuid))
            vector = next(vectors)
            return sa.cast(sa.literal(vector, column.type), HALFVEC(len(vector)))

        return _written(_statement(shape, target, sa.literal(self.target, sa.Uuid)))

    @property
    def sent(self) -> str:
        """The statement as it is sent: `$1` is the id or the embedding.

        If there is a k, the caller applies the cut-off: it only truncates an ordered list, and the
        caller must distinguish a short list from a truncated one.
        """
        shape = self.shape
        return _sent(shape if shape.k is None else replace(shape, max_distance=None))

    @property
    def sent_with_cut_off(self) -> str:
        """The statement with its cut-off, and `$1` for the id or the embedding."""
        return _sent(self.shape)

    def settings(self) -> dict[str, str]:
        """Return the Postgres settings for the statement, which apply to its transaction only."""
        if self.is_exact or self.k is None:
            return EXACT_SETTINGS
        settings = self.index.settings(self.candidates, self.k, self.chosen)
        return (FORCED_SETTINGS if self.forced else {}) | settings

    def script(self) -> str:
        """Return the settings and the statement as one transaction, ready to paste into psql."""
        settings = "".join(
            f"SET LOCAL {name} = '{value}';\n" for name, value in self.settings().items()
        )
        return f"BEGIN;\n{settings}{self.text};\nCOMMIT;"


def matching(search: Search) -> sa.Select[Any]:
    """Return a statement that yields 1 for each row that meets the search's conditions."""
    table = search.collection.table.alias(search.collection.name)
    rows = sa.select(sa.literal(1)).select_from(table)
    return _filtered(rows, table, search.query.where, search.query.filters)


@lru_cache(maxsize=512)
def _sent(shape: Shape) -> str:
    """Return the statement as it is sent; compiled once for each shape."""
    image: Expression = sa.literal_column("CAST($1 AS uuid)", sa.Uuid)
    places = count(1)

    def target(column: sa.Column[Any]) -> Expression:
        if shape.by_id:
            return _stored(column, image)
        return sa.cast(sa.literal_column(f"${next(places)}"), HALFVEC(_dimensions(column)))

    return _written(_statement(shape, target, image))


def _statement(shape: Shape, target: Target, image: Expression) -> sa.Select[Any]:
    """Return the statement of a search.

    An index serves only a plain `ORDER BY column <=> … LIMIT n`, so the cut-off and the re-ranking
    of candidates are in an outer SELECT.

    Args:
        shape: the shape of the statement.
        target: returns the expression to compare a vector column with.
        image: the stored query image's id, if the query is by id.

    """
    table = shape.index.table
    # Aliased to its unqualified name, which the user's condition can use.
    images = table.alias(table.name)
    owns = [target(table.c.embedding) for _ in range(shape.targets)]
    everything = sa.select(*(images.c[name] for name in [*HIT_COLUMNS, "embedding"]))
    found = _filtered(everything, images, shape.where, shape.filters)
    if shape.own_only:
        found = found.where(images.c.id == image)
    if shape.excludes_own:
        found = found.where(images.c.id != image)
    rows: sa.FromClause = images
    if shape.candidates is not None:

        def once(column: sa.Column[Any]) -> Expression:
            return owns[0] if column is table.c.embedding else target(column)

        ordered = shape.index.choose(found, images, once, by_id=shape.by_id)
        rows = ordered.limit(shape.candidates).subquery("candidates")
        found = sa.select(rows)
    if len(owns) > 1:
        # Copied once a row; otherwise Postgres would read it from TOAST for every comparison.
        copy = sa.func.subvector(images.c.embedding, 1, _dimensions(table.c.embedding))
        facts = (images.c[name] for name in HIT_COLUMNS)
        rows = found.with_only_columns(*facts, copy.label("embedding")).offset(0).subquery("copied")
        found = sa.select(rows)
    distances = [distance(shape.metric, rows.c.embedding, own) for own in owns]
    nearest_of = distances[0] if len(distances) == 1 else sa.func.least(*distances)
    measured = nearest_of.label("distance")
    inner = found.with_only_columns(*(rows.c[name] for name in HIT_COLUMNS), measured)
    inner = inner.order_by(sa.text("distance"))
    if shape.k is not None:
        inner = inner.limit(min(shape.k, MAXIMUM_K))
    if shape.max_distance is None:
        return inner
    nearest = inner.subquery("nearest")
    return (
        sa.select(nearest)
        .where(nearest.c.distance <= shape.max_distance)
        .order_by(nearest.c.distance)
    )


def _stored(column: sa.Column[Any], image: Expression) -> Expression:
    """Return SQL for a stored image's own vector in a column.

    `subvector` copies it once; otherwise Postgres would read it from TOAST for every comparison.
    """
    stored = column.table.alias("query_image")
    own = sa.func.subvector(stored.c[column.name], 1, _dimensions(column))
    return sa.select(own).where(stored.c.id == image).scalar_subquery()


def _dimensions(column: sa.Column[Any]) -> int:
    dimensions: int = column.type.dim  # type: ignore[attr-defined]  # of HALFVEC
    return dimensions


def _filtered(
    rows: sa.Select[Any], images: sa.FromClause, where: str | None, filters: Filters
) -> sa.Select[Any]:
    rows = rows.where(*filters.conditions(images.c))
    if where is None:
        return rows
    # On lines of its own, so that a comment in it ends there and an error's position is clear.
    return rows.where(sa.literal_column(f"(\n{where}\n)", sa.Boolean))


def _written(statement: sa.Select[Any]) -> str:
    """Return a statement's text with literal values."""
    # Only in the named style does SQLAlchemy leave percent signs unchanged.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # untyped there
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def condition_check(table: sa.Table, where: str) -> str:
    """Return a statement with which Postgres checks a condition without parentheses around it."""
    source = f"{schema.sql_name(table)} AS {schema.sql_name(table.name)}"
    return f"EXPLAIN SELECT FROM {source} WHERE\n{where}"
