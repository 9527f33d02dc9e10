"""From a query to its one SQL statement.

Where no index serves the metric itself, one that serves another order finds candidates, which the
metric re-ranks in the same statement.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
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

MAXIMUM_SCAN_TUPLES = 2**31 - 1
# Times work_mem, of which a walk takes some 100 bytes a row.
MAXIMUM_SCAN_MEM_MULTIPLIER = 1_000
# They are on by default; where somebody has changed that, the index must not win. Embeddings lie
# out of line, so the planner thinks a scan of them too small for a second process.
EXACT_SETTINGS = {
    "enable_indexscan": "off",
    "enable_seqscan": "on",
    "enable_sort": "on",
    "min_parallel_table_scan_size": "0",
    "parallel_setup_cost": "0",
}
# Of an index that the planner would rather not use.
FORCED_SETTINGS = {"enable_seqscan": "off", "enable_sort": "off"}


@dataclass(frozen=True)
class Shape:
    """What tells statements apart, but for the image or vector that is asked with.

    Attributes:
        index: what serves the collection.
        metric: what ranks.
        k: at most so many rows; None: every one.
        candidates: how many are re-ranked; None: none are.
        where, filters: see `Query`.
        max_distance: leave out what is farther.
        by_id: whether a stored image is asked with, rather than a vector.
        excludes_own: whether that image's own row is left out.
        own_only: whether it alone is wanted.

    """

    index: Index
    metric: Metric
    k: int | None
    candidates: int | None
    where: str | None
    filters: Filters
    max_distance: float | None
    by_id: bool
    excludes_own: bool
    own_only: bool


@dataclass(frozen=True)
class Search:
    """A query, and all that it takes to write its statement.

    Attributes:
        collection: where to search.
        target: an embedding, shape (dimensions,), or the id of a stored image.
        query: the rest; its image or id is `target` by now.
        chosen: ef_search or, where candidates are re-ranked, their number; None: enough for k.
        exact: compare with every row, whatever the query says.
        forced: use the index even where the planner would rather not, to measure it.
        own_only: of the rows, only the stored query image's own.
        vectors: what a vector is compared with, from `Index.vectors`; empty: `target` alone.

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
        """What serves the collection."""
        return serving(self.collection)

    @cached_property
    def metric(self) -> Metric:
        """What ranks the hits."""
        return self.query.ranked_by(self.collection.default_metric)

    @cached_property
    def k(self) -> int | None:
        """How many hits at most; None: every one within the cut-off."""
        return self.query.limit(self.collection.default_metric)

    @cached_property
    def max_distance(self) -> float | None:
        """Beyond which hits are left out."""
        return self.query.cut_off(self.collection.default_metric)

    @property
    def is_exact(self) -> bool:
        """Whether the index is out of the question: asked for, or the answer has no LIMIT."""
        return self.exact or self.query.exact or self.k is None

    @property
    def candidates(self) -> int | None:
        """How many candidates are compared by the metric; None: every row is, or the index does."""
        if self.is_exact or self.k is None:
            return None
        return self.index.candidates(self.metric, self.k, self.chosen)

    @property
    def excludes_own(self) -> bool:
        """Whether the stored query image's own row is left out."""
        return self.query.exclude_self and isinstance(self.target, UUID)

    @property
    def shape(self) -> Shape:
        """What its statement shares with others like it."""
        return Shape(
            index=self.index,
            metric=self.metric,
            k=self.k,
            candidates=self.candidates,
            where=self.query.where,
            filters=self.query.filters,
            max_distance=self.max_distance,
            by_id=isinstance(self.target, UUID),
            excludes_own=self.excludes_own,
            own_only=self.own_only,
        )

    @property
    def text(self) -> str:
        """The statement with its values written out, ready for any client."""
        shape = self.shape
        vectors = iter(self.vectors or (self.target,))

        def target(column: sa.Column[Any]) -> Expression:
            if isinstance(self.target, UUID):
                return _stored(column, sa.literal(self.target, sa.Uuid))
            vector = next(vectors)
            return sa.cast(sa.literal(vector, column.type), HALFVEC(len(vector)))  # type: ignore[arg-type]  # not an id

        return _written(_statement(shape, target, sa.literal(self.target, sa.Uuid)))

    @property
    def sent(self) -> str:
        """The statement as it is sent: `$1` is the id or the embedding.

        The cut-off is left to the caller where there is a k: it only truncates an ordered list,
        and a list that came out short must be told from one that was cut.
        """
        shape = self.shape
        return _sent(shape if shape.k is None else replace(shape, max_distance=None))

    @property
    def sent_with_cut_off(self) -> str:
        """The statement as it is shown, with `$1` in place of what is asked with."""
        return _sent(self.shape)

    def settings(self) -> dict[str, str]:
        """Return the settings it runs under, each for its transaction alone."""
        if self.is_exact or self.k is None:
            return EXACT_SETTINGS
        settings = index_settings(self.index.ef_search(self.candidates, self.k, self.chosen))
        if self.candidates is not None:
            # Too few hits are noticed and asked for again; too few candidates would not be.
            settings["hnsw.max_scan_tuples"] = str(MAXIMUM_SCAN_TUPLES)
            settings["hnsw.scan_mem_multiplier"] = str(MAXIMUM_SCAN_MEM_MULTIPLIER)
        return (FORCED_SETTINGS if self.forced else {}) | settings

    def script(self) -> str:
        """Return what runs, to be pasted into psql: the settings, for once, and the statement."""
        settings = "".join(
            f"SET LOCAL {name} = '{value}';\n" for name, value in self.settings().items()
        )
        return f"BEGIN;\n{settings}{self.text};\nCOMMIT;"


def index_settings(ef_search: int) -> dict[str, str]:
    """Return the settings under which the index keeps so many nodes in view, and never ends early.

    Otherwise LIMIT above ef_search, or a filter, shortens an answer without a word.
    """
    return {
        "hnsw.ef_search": str(ef_search),
        "hnsw.iterative_scan": "strict_order",
        # A disk's 4 makes the planner compare 100,000 embeddings rather than walk a graph of them.
        "random_page_cost": "1.1",
    }


def matching(search: Search) -> sa.Select[Any]:
    """Return a statement with a 1 for each row that meets the search's conditions."""
    table = search.collection.table.alias(search.collection.name)
    rows = sa.select(sa.literal(1)).select_from(table)
    return _filtered(rows, table, search.query.where, search.query.filters)


@lru_cache(maxsize=512)
def _sent(shape: Shape) -> str:
    """Return the statement as it is sent; written once for each shape."""
    image: Expression = sa.literal_column("CAST($1 AS uuid)", sa.Uuid)
    places = iter(("$1", "$2"))

    def target(column: sa.Column[Any]) -> Expression:
        if shape.by_id:
            return _stored(column, image)
        return sa.cast(sa.literal_column(next(places)), HALFVEC(_dimensions(column)))

    return _written(_statement(shape, target, image))


def _statement(shape: Shape, target: Target, image: Expression) -> sa.Select[Any]:
    """Return a search as a statement.

    An index serves only a bare `ORDER BY column <=> … LIMIT n`, so a cut-off goes around it, and so
    does the distance by which candidates are re-ranked.

    Args:
        shape: of the statement.
        target: what a column of vectors is compared with.
        image: the stored query image's id, if that is asked with.

    """
    table = shape.index.table
    # Under its bare name, so that conditions and readers can call it that.
    images = table.alias(table.name)
    own = target(table.c.embedding)
    everything = sa.select(*(images.c[name] for name in [*HIT_COLUMNS, "embedding"]))
    found = _filtered(everything, images, shape.where, shape.filters)
    if shape.own_only:
        found = found.where(images.c.id == image)
    if shape.excludes_own:
        found = found.where(images.c.id != image)
    rows: sa.FromClause = images
    if shape.candidates is not None:

        def once(column: sa.Column[Any]) -> Expression:
            return own if column is table.c.embedding else target(column)

        ordered = shape.index.choose(found, images, once, by_id=shape.by_id)
        rows = ordered.limit(shape.candidates).subquery("candidates")
        found = sa.select(rows)
    measured = distance(shape.metric, rows.c.embedding, own).label("distance")
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
    """Return a stored image's own vector in a column.

    A copy of its own, or it would be fetched from out of line for every comparison.
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
    # Lines of its own, so that a comment ends and an error can be pointed at.
    return rows.where(sa.literal_column(f"(\n{where}\n)", sa.Boolean))


def _written(statement: sa.Select[Any]) -> str:
    """Return a statement with its values written out."""
    # The named style is the one in which SQLAlchemy leaves percent signs alone.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # untyped there
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def condition_check(table: sa.Table, where: str) -> str:
    """Return a statement by which Postgres judges a condition, before it is between parentheses."""
    source = f"{schema.sql_name(table)} AS {schema.sql_name(table.name)}"
    return f"EXPLAIN SELECT FROM {source} WHERE\n{where}"
