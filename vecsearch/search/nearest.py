"""Search: one statement, and the guarantee that it is never silently short.

Where no index serves the metric itself, one that serves another order finds candidates, which the
metric re-ranks in the same statement: the direct index, by cosine, or compact vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.sqlalchemy import HALFVEC
from psycopg.adapt import Dumper
from psycopg.pq import Format

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection, sql_text
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.search.filters import NO_FILTERS, Filters
from vecsearch.search.indexes.compact import Compact

# pgvector's own limits and the least that keeps recall high at small k.
MINIMUM_EF_SEARCH = 100
MAXIMUM_EF_SEARCH = 1_000
MAXIMUM_SCAN_TUPLES = 2**31 - 1
# Times work_mem, of which a walk takes some 100 bytes a row.
MAXIMUM_SCAN_MEM_MULTIPLIER = 1_000
# What LIMIT takes.
MAXIMUM_K = 2**63 - 1

# Candidates to be re-ranked: this many for each row asked for. Cosine needs few, because it orders
# much as what chose them does.
MINIMUM_CANDIDATES = 1_000
MINIMUM_COSINE_CANDIDATES = 100
CANDIDATES_PER_ROW = 4

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
        compact: where candidates are chosen by compact vectors.
        point: the compact vector of an embedding that is asked with, shape (compact dimensions,).

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
    compact: Compact | None = None
    point: NDArray[np.float32] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the index is out of the question: asked for, or the answer has no LIMIT."""
        return self.exact or self.k is None

    @property
    def candidates(self) -> int | None:
        """How many candidates are compared by the metric; None: every row is, or the index does."""
        if self.is_exact or self.k is None or not self.reranks:
            return None
        least = MINIMUM_COSINE_CANDIDATES if self.metric == "cosine" else MINIMUM_CANDIDATES
        enough = max(least, CANDIDATES_PER_ROW * self.k)
        return min(max(self.breadth or enough, self.k), MAXIMUM_K)

    @property
    def reranks(self) -> bool:
        """Whether an index of another order serves the metric."""
        return self.compact is not None or self.metric in RERANKED

    @property
    def index(self) -> str:
        """The name of the HNSW index that serves it, if there is one."""
        direct = schema.hnsw_index(self.table.name)
        return direct if self.compact is None else self.compact.index

    @cached_property
    def text(self) -> str:
        """The statement as it is shown, ready for any client."""
        return sql_text(statement(self))

    @cached_property
    def sent(self) -> tuple[bytes, list[Any]]:
        """The statement as it is sent, and its parameters: in binary, 20 kB are not parsed."""
        text = sql_text(statement(self, bound=True))
        if self.is_exact or self.forced:
            # Prepared statements keep their plans: what runs under other settings is another text.
            text += "\n-- exact" if self.is_exact else "\n-- forced"
        return text.encode(), self._parameters()

    def _parameters(self) -> list[Any]:
        if isinstance(self.query, UUID):
            return [self.query]
        vectors = [self.query]
        if self.candidates is not None and self.point is not None:
            vectors.append(self.point)
        return [_Half(HalfVector(vector).to_binary()) for vector in vectors]


class _Half(bytes):
    """A halfvec in Postgres' binary format."""


class _HalfDumper(Dumper):
    # The type is what the statement casts it to, whichever number the server gave that.
    format = Format.BINARY

    def dump(self, obj: _Half) -> bytes:
        return obj


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


def statement(search: Search, *, bound: bool = False) -> sa.Select[Any]:
    """Return the search as a statement.

    An index serves only a bare `ORDER BY column <=> … LIMIT n`, so a cut-off goes around it, and so
    does the distance by which candidates are re-ranked.

    Args:
        search: what for.
        bound: leave what is asked with to the parameters of `Search.sent`.

    """
    # Under its bare name, so that conditions and readers can call it that.
    table = search.table.alias(search.table.name)
    image: Expression = sa.literal(search.query, sa.Uuid)
    if bound:
        image = sa.literal_column("CAST($1 AS uuid)", sa.Uuid)
    target = _target(search.table.c.embedding, search.query, image, "$1" if bound else None)
    columns = [
        name for name in Hit.__dataclass_fields__ if name not in {"rank", "distance", "similarity"}
    ]
    everything = sa.select(*(table.c[name] for name in [*columns, "embedding"]))
    found = _filtered(everything, table, search)
    if search.own_row_only:
        found = found.where(table.c.id == image)
    if search.exclude is not None:
        found = found.where(
            table.c.id != (image if search.exclude == search.query else search.exclude)
        )
    rows: sa.FromClause = table
    if search.candidates is not None:
        if search.compact is None:
            order = DISTANCES["cosine"](table.c.embedding, target)
        else:
            vectors = search.compact.table.alias("vectors")
            query = search.point if search.point is not None else search.query
            place = _target(search.compact.table.c.compact, query, image, "$2" if bound else None)
            order = DISTANCES["l2"](vectors.c.compact, place)
            # Without a place there is no order; the empty answer is asked for again.
            found = found.join_from(table, vectors, table.c.id == vectors.c.id)
            found = found.where(place.is_not(None)) if isinstance(query, UUID) else found
        rows = found.order_by(order).limit(search.candidates).subquery("candidates")
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


def _target(
    column: sa.Column[Any], query: NDArray[np.float32] | UUID, image: Expression, bound: str | None
) -> Expression:
    """Return what a column of vectors is compared with: that of a stored image, or a vector."""
    if isinstance(query, UUID):
        stored = column.table.alias("query_image")
        # A copy of its own, or it would be fetched from out of line for every comparison.
        numbers: int = column.type.dim  # type: ignore[attr-defined]  # of HALFVEC
        own = sa.func.subvector(stored.c[column.name], 1, numbers)
        return sa.select(own).where(stored.c.id == image).scalar_subquery()
    vector = sa.literal(query, column.type) if bound is None else sa.literal_column(bound)
    return sa.cast(vector, HALFVEC(len(query)))


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
    if search.compact is not None:
        # To look at more compact vectors costs less than to re-rank more, and finds as much.
        ef_search = max(MINIMUM_EF_SEARCH, search.candidates or 0)
    else:
        enough = 4 * (search.candidates or search.k or 0)
        ef_search = search.breadth or max(MINIMUM_EF_SEARCH, enough)
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
        # A disk's 4 makes the planner compare 100,000 embeddings rather than walk a graph of them.
        "random_page_cost": "1.1",
    }


def script(search: Search) -> str:
    """Return what runs, to be pasted into psql: the settings, for once, and the statement."""
    settings = "".join(
        f"SET LOCAL {name} = '{value}';\n" for name, value in session_settings(search).items()
    )
    return f"BEGIN;\n{settings}{search.text};\nCOMMIT;"


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
    with connection.begin_nested() as savepoint:
        apply_settings(connection, session_settings(search))
        _ = search.sent  # to write the statement is not the database's time
        started = perf_counter()
        rows = _execute(connection, search)
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


def _execute(connection: sa.Connection, search: Search, prefix: bytes = b"") -> list[Any]:
    text, parameters = search.sent
    # Dollars alone mark parameters, so that signs in the user's condition mean what they say.
    with psycopg.RawCursor(driver_connection(connection)) as cursor:
        cursor.adapters.register_dumper(_Half, _HalfDumper)
        with translated((prefix + text).decode()):
            return cursor.execute(prefix + text, parameters, prepare=True).fetchall()


def has_index(connection: sa.Connection, collection: StoredCollection) -> bool:
    """Tell whether the collection has an HNSW index that is ready."""
    compact = collection.compact
    index = schema.hnsw_index(collection.name) if compact is None else compact.index
    ready = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
    return bool(connection.scalar(sa.text(ready), {"name": f"{schema.SCHEMA}.{index}"}))


def explain(connection: sa.Connection, search: Search) -> tuple[str, bool]:
    """Return the statement's plan, and whether the HNSW index answers it."""
    apply_settings(connection, session_settings(search))
    plan = "\n".join(row[0] for row in _execute(connection, search, b"EXPLAIN "))
    return plan, search.index in plan


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
    connection.execute(sa.select(*(sa.func.set_config(*item, True) for item in settings.items())))
