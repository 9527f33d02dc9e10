"""Search: one statement, and the guarantee that it is never silently short."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC

from vecsearch import schema
from vecsearch.database import driver_connection, translated
from vecsearch.queries.catalog import sql_text
from vecsearch.queries.filters import NO_FILTERS, Filters

# pgvector's own limits and the least that keeps recall high at small k.
MINIMUM_EF_SEARCH = 100
MAXIMUM_EF_SEARCH = 1_000
MAXIMUM_SCAN_TUPLES = 2**31 - 1
# Times work_mem, of which a walk takes some 100 bytes a row.
MAXIMUM_SCAN_MEM_MULTIPLIER = 1_000
# What LIMIT takes.
MAXIMUM_K = 2**63 - 1

# Candidates for a metric that no index serves: the nearest by cosine, this many for each asked for.
MINIMUM_CANDIDATES = 1_000
CANDIDATES_PER_ROW = 4

# They are on by default; where somebody has changed that, the index must not win.
EXACT_SETTINGS = {"enable_indexscan": "off", "enable_seqscan": "on", "enable_sort": "on"}
# Of an index that the planner would rather not use.
FORCED_SETTINGS = {"enable_seqscan": "off", "enable_sort": "off"}

Expression = sa.ColumnElement[Any]


def _operator(symbol: str) -> Callable[[Expression, Expression], Expression]:
    return lambda embedding, target: embedding.op(symbol, return_type=sa.Double())(target)


def _chi2(embedding: Expression, target: Expression) -> Expression:
    return sa.func.vecsearch.chi2_distance(embedding, target, type_=sa.Double())


DISTANCES = {
    "cosine": _operator("<=>"),
    "l2": _operator("<->"),
    "l1": _operator("<+>"),
    "ip": _operator("<#>"),
    "chi2": _chi2,
}
# Too slow to compute for every row of a large table, unless that is asked for.
RERANKED = frozenset({"chi2"})


@dataclass(frozen=True)
class Search:
    """What to search for.

    Attributes:
        table: the collection's table.
        query: an embedding, shape (dimensions,), or the id of a stored image.
        metric: one of `DISTANCES`.
        k: how many rows at most; None: every row within `max_distance`, or every row.
        where: a condition in SQL on the table's columns, from the user's own hand.
        filters: conditions of typed values, from anybody.
        max_distance: leave out what is farther.
        exclude: leave out the row with this id.
        exact: compare with every row rather than through the index.
        breadth: how many nodes the index keeps in view (hnsw.ef_search) or, where candidates are
            re-ranked, how many; None: enough for k.
        forced: use the index even where the planner would rather not, to measure it.
        own_row_only: of the rows, only the stored query image's own.

    """

    table: sa.Table
    query: NDArray[np.float32] | UUID
    metric: str
    k: int | None
    where: str | None = None
    filters: Filters = NO_FILTERS
    max_distance: float | None = None
    exclude: UUID | None = None
    exact: bool = False
    breadth: int | None = None
    forced: bool = False
    own_row_only: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the index is out of the question: asked for, or the answer has no LIMIT."""
        return self.exact or self.k is None

    @property
    def candidates(self) -> int | None:
        """How many of the nearest by cosine are compared by the metric; None: every row is."""
        if self.metric not in RERANKED or self.k is None or self.exact:
            return None
        enough = max(MINIMUM_CANDIDATES, CANDIDATES_PER_ROW * self.k)
        return min(max(self.breadth or enough, self.k), MAXIMUM_K)


@dataclass(frozen=True)
class Hit:
    """One row of a result.

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


def statement(search: Search) -> sa.Select[Any]:
    """Return the search as a statement.

    The index serves only a bare `ORDER BY embedding <=> … LIMIT k`, so a cut-off goes around it,
    and so does the distance by which candidates are re-ranked.
    """
    # Under its bare name, so that conditions and readers can call it that.
    table = search.table.alias(search.table.name)
    target: Expression
    if isinstance(search.query, UUID):
        stored = search.table.alias("query_image")
        target = sa.select(stored.c.embedding).where(stored.c.id == search.query).scalar_subquery()
    else:
        literal = sa.literal(search.query, table.c.embedding.type)
        target = sa.cast(literal, HALFVEC(len(search.query)))
    columns = [
        name for name in Hit.__dataclass_fields__ if name not in {"rank", "distance", "similarity"}
    ]
    everything = sa.select(*(table.c[name] for name in [*columns, "embedding"]))
    found = _filtered(everything, table, search)
    if search.own_row_only:
        found = found.where(table.c.id == search.query)
    if search.exclude is not None:
        found = found.where(table.c.id != search.exclude)
    rows: sa.FromClause = table
    if search.candidates is not None:
        by_cosine = DISTANCES["cosine"](table.c.embedding, target)
        rows = found.order_by(by_cosine).limit(search.candidates).subquery("candidates")
        found = sa.select(rows)
    distance = DISTANCES[search.metric](rows.c.embedding, target)
    inner = found.with_only_columns(*(rows.c[name] for name in columns), distance.label("distance"))
    inner = inner.order_by(sa.text("distance"))
    if search.k is not None:
        inner = inner.limit(min(search.k, MAXIMUM_K))
    if search.max_distance is None:
        return inner
    nearest = inner.subquery("nearest")
    return (
        sa.select(nearest)
        .where(nearest.c.distance <= search.max_distance)
        .order_by(nearest.c.distance)
    )


def _filtered(rows: sa.Select[Any], table: sa.FromClause, search: Search) -> sa.Select[Any]:
    rows = rows.where(*search.filters.conditions(table.c))
    if search.where is None:
        return rows
    # Lines of its own, so that a comment ends and an error can be pointed at.
    return rows.where(sa.literal_column(f"(\n{search.where}\n)", sa.Boolean))


def session_settings(search: Search) -> dict[str, str]:
    """Return the settings a search runs under, each for its transaction alone."""
    if search.is_exact:
        return EXACT_SETTINGS
    ef_search = search.breadth or max(MINIMUM_EF_SEARCH, 4 * (search.candidates or search.k or 0))
    settings = index_settings(ef_search)
    if search.candidates is not None:
        # Too few hits are noticed and asked for again; too few candidates would not be.
        settings["hnsw.max_scan_tuples"] = str(MAXIMUM_SCAN_TUPLES)
        settings["hnsw.scan_mem_multiplier"] = str(MAXIMUM_SCAN_MEM_MULTIPLIER)
    return (FORCED_SETTINGS if search.forced else {}) | settings


def index_settings(ef_search: int) -> dict[str, str]:
    """Return the settings under which the index keeps so many nodes in view, and never ends early.

    Otherwise LIMIT above ef_search, or a filter, shortens an answer without a word.
    """
    return {
        "hnsw.ef_search": str(min(ef_search, MAXIMUM_EF_SEARCH)),
        "hnsw.iterative_scan": "strict_order",
    }


def script(search: Search) -> str:
    """Return what runs, to be pasted into psql: the settings, for once, and the statement."""
    settings = "".join(
        f"SET LOCAL {name} = '{value}';\n" for name, value in session_settings(search).items()
    )
    return f"BEGIN;\n{settings}{sql_text(statement(search))};\nCOMMIT;"


def check_where(connection: sa.Connection, table: sa.Table, where: str) -> None:
    """Let Postgres judge the condition on its own, before it stands between our parentheses.

    Raises:
        DatabaseError: Postgres' own message, with a caret under the place.

    """
    source = f"{schema.sql_name(table)} AS {schema.sql_name(table.name)}"
    text = f"EXPLAIN SELECT FROM {source} WHERE\n{where}"
    with translated(text):
        driver_connection(connection).execute(text.encode(), prepare=True)


def has_more(connection: sa.Connection, search: Search, rows: int) -> bool:
    """Tell whether more than so many rows meet the condition, without counting them all."""
    table = search.table.alias(search.table.name)
    matching = _filtered(sa.select(sa.literal(1)).select_from(table), table, search)
    return connection.scalar(matching.offset(rows).limit(1)) is not None


def nearest(connection: sa.Connection, search: Search) -> tuple[list[Hit], Search]:
    """Return the nearest rows, always min(k, matching rows), and the search that found them.

    The index may stop early: a filter that few rows pass, a node no path leads to. An answer that
    came out short, or without the stored image it was asked for, is asked for again without it.
    """
    exact = replace(search, exact=True)
    hits = _run(connection, search)
    if not search.is_exact and (_is_short(connection, search, hits) or _lacks_own(search, hits)):
        search, hits = exact, _run(connection, exact)
    if _lacks_own(search, hits):
        # Either a condition excludes it, or more copies than k are as near as it is.
        own = _run(connection, replace(exact, own_row_only=True))
        hits = _ranked(search, [*own, *hits][: search.k])
    return hits, search


def _is_short(connection: sa.Connection, search: Search, hits: list[Hit]) -> bool:
    if len(hits) == search.k:
        return False
    if search.max_distance is None:
        return True
    # The cut-off shortens an answer, as it should; did the index, too?
    return len(_run(connection, replace(search, max_distance=None))) != search.k


def _lacks_own(search: Search, hits: list[Hit]) -> bool:
    """Tell whether the nearest row of all, the stored query image's own, is not among the hits."""
    return (
        isinstance(search.query, UUID)
        and search.exclude != search.query
        and search.metric != "ip"  # by inner product, longer vectors are nearer
        and all(hit.id != search.query for hit in hits)
    )


def timed(connection: sa.Connection, search: Search) -> tuple[list[Hit], float]:
    """Return what the statement finds, short or not, and the seconds that it took."""
    text = sql_text(statement(search))
    driver = driver_connection(connection)
    with connection.begin_nested() as savepoint:
        apply_settings(connection, session_settings(search))
        started = perf_counter()
        # As text, exactly as --show-sql prints it; prepared, so that it is one statement.
        with translated(text):
            rows = driver.execute(text.encode(), prepare=True).fetchall()
        seconds = perf_counter() - started
        savepoint.rollback()  # and with it the settings
    hits = [
        Hit(
            0,
            row[0],
            row[1],
            row[-1],
            1.0 - row[-1] if search.metric == "cosine" else None,
            *row[2:-1],
        )
        for row in rows
    ]
    return _ranked(search, hits), seconds


def has_index(connection: sa.Connection, table: sa.Table) -> bool:
    """Tell whether the collection has an HNSW index that is ready."""
    name = f"{table.schema}.{schema.hnsw_index(table.name)}"
    ready = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
    return bool(connection.scalar(sa.text(ready), {"name": name}))


def explain(connection: sa.Connection, search: Search) -> tuple[str, bool]:
    """Return the statement's plan, and whether the HNSW index answers it."""
    text = f"EXPLAIN {sql_text(statement(search))}"
    apply_settings(connection, session_settings(search))
    with translated(text):
        rows = driver_connection(connection).execute(text.encode(), prepare=True).fetchall()
    plan = "\n".join(row[0] for row in rows)
    return plan, schema.hnsw_index(search.table.name) in plan


def _run(connection: sa.Connection, search: Search) -> list[Hit]:
    hits, _ = timed(connection, search)
    return hits


def _ranked(search: Search, hits: list[Hit]) -> list[Hit]:
    """Rank the hits; of equal distances the query's own row is first, then by path."""
    own = search.query if isinstance(search.query, UUID) else None
    ordered = sorted(hits, key=lambda hit: (hit.distance, hit.id != own, hit.path))
    return [replace(hit, rank=rank) for rank, hit in enumerate(ordered, start=1)]


def apply_settings(connection: sa.Connection, settings: dict[str, str]) -> None:
    """Put settings in force until the transaction ends."""
    for name, value in settings.items():
        connection.execute(sa.select(sa.func.set_config(name, value, True)))
