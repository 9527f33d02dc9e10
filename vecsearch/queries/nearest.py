"""Search: one statement, and the guarantee that it is never silently short."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import HALFVEC

from vecsearch import schema
from vecsearch.database import driver_connection, translated
from vecsearch.queries.catalog import sql_text

# pgvector's own limits and the least that keeps recall high at small k.
MINIMUM_EF_SEARCH = 100
MAXIMUM_EF_SEARCH = 1_000
# Postgres' limit for LIMIT is larger; no screen is.
MAXIMUM_K = 1_000_000

OPERATORS = {"cosine": "<=>", "l2": "<->", "l1": "<+>", "ip": "<#>"}


@dataclass(frozen=True)
class Search:
    """What to search for.

    Attributes:
        table: the collection's table.
        query: an embedding, shape (dimensions,), or the id of a stored image.
        metric: one of `OPERATORS`.
        k: how many rows at most; None: every row within `max_distance`, or every row.
        where: a condition in SQL on the table's columns, from the user's own hand.
        max_distance: leave out what is farther.
        exclude: leave out the row with this id.
        exact: compare with every row rather than through the index.

    """

    table: sa.Table
    query: NDArray[np.float32] | UUID
    metric: str
    k: int | None
    where: str | None = None
    max_distance: float | None = None
    exclude: UUID | None = None
    exact: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the index is out of the question: asked for, or the answer has no LIMIT."""
        return self.exact or self.k is None


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
    width: int
    height: int
    format: str
    file_size: int
    modified_at: datetime
    taken_at: datetime | None
    latitude: float | None
    longitude: float | None
    metadata: dict[str, Any]


def statement(search: Search) -> sa.Select[Any]:
    """Return the search as a statement.

    The index serves only a bare `ORDER BY embedding <=> … LIMIT k`, so the cut-off goes around it.
    """
    # Under its bare name, so that conditions and readers can call it that.
    table = search.table.alias(search.table.name)
    embedding = table.c.embedding
    target: sa.ColumnElement[Any]
    if isinstance(search.query, UUID):
        stored = search.table.alias("query_image")
        target = sa.select(stored.c.embedding).where(stored.c.id == search.query).scalar_subquery()
    else:
        target = sa.cast(sa.literal(search.query, embedding.type), HALFVEC(len(search.query)))
    distance: sa.ColumnElement[float] = embedding.op(
        OPERATORS[search.metric], return_type=sa.Double()
    )(target)
    columns = [
        table.c[name]
        for name in Hit.__dataclass_fields__
        if name not in {"rank", "distance", "similarity"}
    ]
    inner = sa.select(*columns, distance.label("distance"))
    if search.where is not None:
        # Lines of its own, so that a comment ends and an error can be pointed at.
        inner = inner.where(sa.literal_column(f"(\n{search.where}\n)", sa.Boolean))
    if search.exclude is not None:
        inner = inner.where(table.c.id != search.exclude)
    inner = inner.order_by(sa.text("distance"))
    if search.k is not None:
        inner = inner.limit(search.k)
    if search.max_distance is None:
        return inner
    nearest = inner.subquery("nearest")
    return (
        sa.select(nearest)
        .where(nearest.c.distance <= search.max_distance)
        .order_by(nearest.c.distance)
    )


def session_settings(search: Search) -> dict[str, str]:
    """Return the settings a search runs under, each for its transaction alone."""
    if search.is_exact:
        return {"enable_indexscan": "off"}
    ef_search = min(max(MINIMUM_EF_SEARCH, 2 * (search.k or 0)), MAXIMUM_EF_SEARCH)
    return {
        "hnsw.ef_search": str(ef_search),
        # Otherwise LIMIT above ef_search, or a filter, ends the answer early without a word.
        "hnsw.iterative_scan": "strict_order",
    }


def script(search: Search) -> str:
    """Return what runs, to be pasted into psql: the settings, then the statement."""
    settings = "".join(
        f"SET {name} = '{value}';\n" for name, value in session_settings(search).items()
    )
    return f"{settings}{sql_text(statement(search))};"


def check_where(connection: sa.Connection, table: sa.Table, where: str) -> None:
    """Let Postgres judge the condition on its own, before it stands between our parentheses.

    Raises:
        DatabaseError: Postgres' own message, with a caret under the place.

    """
    text = f"EXPLAIN SELECT FROM {table.fullname} AS {table.name} WHERE\n{where}"
    with translated(text):
        driver_connection(connection).execute(text.encode(), prepare=True)


def nearest(connection: sa.Connection, search: Search) -> list[Hit]:
    """Return the nearest rows: always min(k, matching rows), whatever the index finds.

    The index may stop early: a filter that few rows pass, a node no path leads to. An answer that
    came out short is asked for again without it.
    """
    hits = _run(connection, search)
    if search.is_exact or search.k is None or len(hits) == search.k:
        return hits
    uncut = replace(search, max_distance=None)
    if search.max_distance is not None and len(_run(connection, uncut)) == search.k:
        return hits  # short because of the cut-off, as it should be
    return _run(connection, replace(search, exact=True))


def explain(connection: sa.Connection, search: Search) -> tuple[str, bool]:
    """Return the statement's plan, and whether the HNSW index answers it."""
    text = f"EXPLAIN {sql_text(statement(search))}"
    _apply(connection, session_settings(search))
    with translated(text):
        rows = driver_connection(connection).execute(text.encode(), prepare=True).fetchall()
    plan = "\n".join(row[0] for row in rows)
    return plan, schema.hnsw_index(search.table.name) in plan


def _run(connection: sa.Connection, search: Search) -> list[Hit]:
    text = sql_text(statement(search))
    with connection.begin_nested() as savepoint:
        _apply(connection, session_settings(search))
        # As text, exactly as --show-sql prints it; prepared, so that it is one statement.
        with translated(text):
            rows = driver_connection(connection).execute(text.encode(), prepare=True).fetchall()
        savepoint.rollback()  # and with it the settings
    # Equal distances come in the order of their paths, a stored image before its copies.
    rows.sort(key=lambda row: (row[-1], row[0] != search.query, row[1]))
    return [
        Hit(
            rank,
            row[0],
            row[1],
            row[-1],
            1.0 - row[-1] if search.metric == "cosine" else None,
            *row[2:-1],
        )
        for rank, row in enumerate(rows, start=1)
    ]


def _apply(connection: sa.Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        connection.execute(sa.select(sa.func.set_config(name, value, True)))
