"""Build the one SQL statement of a query.

If no index serves the metric directly, an index with another order chooses candidates, and the
same statement re-ranks them by the metric.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy.dialects import postgresql

from vecsearch.errors import InvalidInput
from vecsearch.postgres import schema
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.search.filters import Filters
from vecsearch.search.indexes.base import Expression, Index, Target, distance
from vecsearch.search.query import HIT_COLUMNS
from vecsearch.vocabulary import EXPANSION_POWER, Metric

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
# The largest distance by cosine.
MAXIMUM_DISTANCE = 2.0
# Make the planner use the index even if it estimates a higher cost.
FORCED_SETTINGS = {"enable_seqscan": "off", "enable_sort": "off"}


@dataclass(frozen=True)
class Shape:
    """Everything that determines a statement's text, except the query's id or vectors.

    Attributes:
        index: the collection's index.
        metric: metric that ranks the rows.
        k: the largest number of rows, or SQL of it; None for all rows.
        candidates: number of candidates to re-rank, or SQL of it; None if there is no re-ranking.
        expansion: number of nearest images by which the question is expanded.
        where, filters: see `Query`.
        max_distance: the largest distance of a row; None for no cut-off.
        by_id: whether the query is a stored image's id instead of vectors.
        targets: the number of vectors to compare with; the nearest counts.
        excludes_own: whether the query images' own rows are excluded.
        own_only: whether only the query image's own row is returned.
        is_distributed: whether the tables are in shards.

    """

    index: Index
    metric: Metric
    k: int | Expression | None
    candidates: int | Expression | None
    expansion: int
    where: str | None
    filters: Filters
    max_distance: float | None
    by_id: bool
    targets: int
    excludes_own: bool
    own_only: bool
    is_distributed: bool = False

    @property
    def columns(self) -> list[sa.Column[Any]]:
        """The columns of stored vectors that the statement compares: to rank, then to choose."""
        ranked = self.index.ranked_by(self.metric)
        chosen = [] if self.candidates is None else [self.index.chosen_by()]
        return list(dict.fromkeys([ranked, *chosen]))


@lru_cache(maxsize=512)
def sent(shape: Shape) -> str:
    """Return the statement as it is sent; compiled once for each shape."""
    image: Expression = sa.literal_column("CAST($1 AS uuid)", sa.Uuid)
    places = count(1)

    def target(column: sa.Column[Any]) -> Expression:
        if shape.by_id:
            return stored_vector(column, image, is_distributed=shape.is_distributed)
        return sa.cast(sa.literal_column(f"${next(places)}"), HALFVEC(dimensions(column)))

    last = shape.targets + len(shape.columns)
    excluded = sa.literal_column(f"CAST(${last} AS uuid[])", sa.ARRAY(sa.Uuid))
    return written(build(shape, target, image, excluded))


def build(shape: Shape, target: Target, image: Expression, excluded: Expression) -> sa.Select[Any]:
    """Return the statement of a search.

    An index serves only a plain `ORDER BY column <=> … LIMIT n`, so the cut-off and the re-ranking
    of candidates are in an outer SELECT.

    Args:
        shape: the shape of the statement.
        target: returns the expression to compare a vector column with.
        image: the stored query image's id, if the query is by id.
        excluded: an array of ids whose rows are excluded, if the query is not by id.

    """
    table = shape.index.table
    # Aliased to its unqualified name, which the user's condition can use.
    images = table.alias(table.name)
    ranked, *chosen = shape.columns
    questions = [{ranked: target(ranked)} for _ in range(shape.targets)]
    questions[0] |= {column: target(column) for column in chosen}
    if shape.expansion:
        questions = [
            _expanded(shape, images, question, image, number)
            for number, question in enumerate(questions, start=1)
        ]
    found = filtered(sa.select(images), images, shape.where, shape.filters)
    if shape.own_only:
        found = found.where(images.c.id == image)
    if shape.excludes_own:
        found = found.where(images.c.id != (image if shape.by_id else sa.all_(excluded)))
    inner = _ordered(shape, found, images, questions, HIT_COLUMNS)
    if shape.k is not None:
        inner = inner.limit(shape.k)
    if shape.max_distance is None:
        return inner
    nearest = inner.subquery("nearest")
    return in_order(sa.select(nearest).where(nearest.c.distance <= shape.max_distance), nearest)


def in_order(rows: sa.Select[Any], nearest: sa.FromClause) -> sa.Select[Any]:
    """Return rows sorted by distance.

    By an expression, so that Postgres sorts: an index gives nearly this order.
    """
    return rows.order_by(nearest.c.distance + 0)


# What is compared with each column of stored vectors.
_Question = dict[sa.Column[Any], Expression]


def _ordered(
    shape: Shape,
    found: sa.Select[Any],
    images: sa.FromClause,
    questions: list[_Question],
    columns: Iterable[str],
) -> sa.Select[Any]:
    """Return columns of the rows, and their distance, nearest first.

    Args:
        shape: the shape of the statement.
        found: the rows that meet the conditions.
        images: the collection's table, under its alias in `found`.
        questions: of which the nearest counts.
        columns: names of the columns of `images`.

    """
    wanted = list(columns)
    ranked = shape.columns[0]
    if shape.candidates is None:
        rows: sa.FromClause = images
        found, vectors = shape.index.ranked(found, images, shape.metric)
    else:
        found = found.with_only_columns(*(images.c[name] for name in [*wanted, ranked.name]))
        ordered = shape.index.choose(found, images, questions[0].__getitem__, by_id=shape.by_id)
        rows = ordered.limit(shape.candidates).subquery("candidates")
        found, vectors = sa.select(rows), rows.c[ranked.name]
    if len(questions) > 1:
        # Copied once a row; otherwise Postgres would read it from TOAST for every comparison.
        copy = sa.func.subvector(vectors, 1, dimensions(ranked)).label("vector")
        facts = [rows.c[name] for name in wanted]
        rows = found.with_only_columns(*facts, copy).offset(0).subquery("copied")
        found, vectors = sa.select(rows), rows.c.vector
    distances = [distance(shape.metric, vectors, question[ranked]) for question in questions]
    nearest_of = distances[0] if len(distances) == 1 else sa.func.least(*distances)
    selected = [*(rows.c[name] for name in wanted), nearest_of.label("distance")]
    return found.with_only_columns(*selected).order_by(sa.text("distance"))


def _expanded(
    shape: Shape, images: sa.FromClause, question: _Question, image: Expression, number: int
) -> _Question:
    """Return the question plus its nearest images, weighted by similarity^3.

    Source: Chum et al., Total Recall (2007), average query expansion; Radenović et al., Fine-tuning
    CNN Image Retrieval (2018), weights of similarity^3. All ranked vectors are normalised; those
    that choose candidates are averaged with the same weights, as they are. The number tells the
    questions of a statement apart.
    """
    given = [value.label(key.name) for key, value in question.items()]
    asked = _materialized(f"question_{number}", given)
    place: _Question = {key: sa.select(asked.c[key.name]).scalar_subquery() for key in question}
    others = sa.select(images)
    if shape.by_id:
        others = others.where(images.c.id != image)
    candidates = None
    if shape.candidates is not None:
        candidates = shape.index.candidates(shape.metric, shape.expansion, None)
    stage = replace(shape, candidates=candidates)
    near = _ordered(stage, others, images, [place], ["id"]).limit(shape.expansion).subquery("_near")
    joined: sa.FromClause = near
    for table in dict.fromkeys(key.table for key in question):
        joined = joined.join(table, table.c.id == near.c.id)
    similarity = sa.func.greatest(1 - near.c.distance, 0, type_=sa.Double)
    weight = sa.func.power(similarity, EXPANSION_POWER, type_=sa.Double)
    parts = sa.union_all(
        sa.select(asked, sa.literal(1.0, sa.Double).label("weight")),
        sa.select(*question, weight.label("weight"))
        .select_from(joined)
        # Neither NULL nor NaN, which is greater than any number.
        .where(near.c.distance <= MAXIMUM_DISTANCE),
    ).subquery("parts")
    share = (parts.c.weight / sa.func.avg(parts.c.weight, type_=sa.Double).over()).label("share")
    shares = sa.select(*(parts.c[key.name] for key in question), share).subquery("shares")
    ranked, *chosen = question
    units = sa.func.l2_normalize(_single(shares.c[ranked.name], ranked))
    summed = [_weighted(units, ranked, shares.c.share)]
    summed += [_weighted(_single(shares.c[key.name], key), key, shares.c.share) for key in chosen]
    expanded = _materialized(f"expanded_{number}", summed)
    return {key: sa.select(expanded.c[key.name]).scalar_subquery() for key in question}


def _materialized(name: str, columns: list[sa.Label[Any]]) -> sa.CTE:
    return sa.select(*columns).cte(name).prefix_with("MATERIALIZED")


def _single(vectors: Expression, column: sa.Column[Any]) -> Expression:
    """Return stored vectors in single precision: products underflow in half precision, an error."""
    return sa.cast(vectors, VECTOR(dimensions(column)))


def _weighted(vectors: Expression, column: sa.Column[Any], share: Expression) -> sa.Label[Any]:
    """Return the average of vectors times their shares, which average 1."""
    of = dimensions(column)
    filled = sa.func.array_fill(sa.cast(share, sa.REAL), sa.literal_column(f"ARRAY[{of}]"))
    times = vectors.op("*")(sa.cast(filled, VECTOR(of)))
    return sa.cast(sa.func.avg(times), HALFVEC(of)).label(column.name)


def stored_vector(column: sa.Column[Any], image: Expression, *, is_distributed: bool) -> Expression:
    """Return SQL for a stored image's own vector in a column.

    `subvector` copies it once; otherwise Postgres would read it from TOAST for every comparison.
    Citus answers a CTE first, and hands its rows to every shard; it refuses the subquery alone.
    Postgres alone compares in parallel only without a CTE.
    """
    stored = column.table.alias("query_image")
    own = sa.func.subvector(stored.c[column.name], 1, dimensions(column)).label(column.name)
    found = sa.select(own).where(stored.c.id == image)
    if is_distributed:
        asked = found.cte(f"query_{column.name}").prefix_with("MATERIALIZED")
        return sa.select(asked.c[column.name]).scalar_subquery()
    return found.scalar_subquery()


def dimensions(column: sa.Column[Any]) -> int:
    """Return the dimensions of a column of vectors."""
    found: int = column.type.dim  # type: ignore[attr-defined]  # of HALFVEC
    return found


def filtered(
    rows: sa.Select[Any], images: sa.FromClause, where: str | None, filters: Filters
) -> sa.Select[Any]:
    """Return the rows that meet a user's condition and filters; see `Query`."""
    rows = rows.where(*filters.conditions(images.c))
    if where is None:
        return rows
    # On lines of its own, so that a comment in it ends there and an error's position is clear.
    return rows.where(sa.literal_column(f"(\n{where}\n)", sa.Boolean))


def written(statement: sa.Select[Any]) -> str:
    """Return a statement's text with literal values."""
    # Only in the named style does SQLAlchemy leave percent signs unchanged.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # untyped there
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def require_condition(
    connection: sa.Connection, table: sa.Table, where: str, *, is_distributed: bool = False
) -> None:
    """Let Postgres check a user's condition, without parentheses around it.

    Args:
        connection: in a transaction.
        table: the collection's.
        where: the condition.
        is_distributed: whether the table is in shards.

    Raises:
        InvalidInput: it is blank.
        DatabaseError: Postgres does not accept it.

    """
    if not where.strip():
        raise InvalidInput(
            "The condition is empty. Write one, such as \"label = 'cat'\", or omit it."
        )
    source = f"{schema.sql_name(table)} AS {schema.sql_name(table.name)}"
    text = f"EXPLAIN SELECT FROM {source} WHERE\n{where}"
    driver = driver_connection(connection)
    if not is_distributed:
        with translated(text):
            driver.execute(text.encode(), prepare=True)
        return
    # What a shard's server does not accept, Citus says only when the statement runs; but its
    # transaction there has failed then. After a ROLLBACK, psycopg drops all prepared statements;
    # in a pipeline it would do so too late.
    with translated(text):
        driver.execute("SAVEPOINT asked")
        driver.execute(text.encode(), prepare=True)
        driver.execute("ROLLBACK TO asked")
