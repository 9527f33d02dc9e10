"""Running a search: few round trips, and the guarantee that an answer is never silently short."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg.adapt import Dumper
from psycopg.pq import Format

from vecsearch.postgres import catalog, database
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.search import statement
from vecsearch.search.embedder import Embedders, Picture
from vecsearch.search.lookup import missing, parse_id
from vecsearch.search.query import HIT_COLUMNS, Answer, Hit, Query
from vecsearch.search.statement import Search
from vecsearch.vocabulary import Metric

Row = tuple[Any, ...]


class _Half(bytes):
    """A halfvec in Postgres' binary format: 20 kB of text need not be parsed."""


class _HalfDumper(Dumper):
    # The type is what the statement casts it to, whichever number the server gave that.
    format = Format.BINARY

    def dump(self, obj: _Half) -> bytes:
        return obj


psycopg.adapters.register_dumper(_Half, _HalfDumper)


def ask(engine: sa.Engine, name: str, query: Query, embedders: Embedders) -> Answer:
    """Answer a query in a collection.

    Args:
        engine: of the database.
        name: the collection.
        query: what is asked.
        embedders: of new pictures; no connection waits for them.

    Raises:
        VecsearchError: the query cannot be answered.

    """
    picture = None if query.image is None else Picture.read(query.image)
    with _opened(engine, name, picture) as (connection, collection, known):
        check(connection, collection, query)
        embedder = embedders.of(collection, query.model, query.weights)
        target: UUID | NDArray[np.float32] | None = known
        if picture is None:
            target = parse_id(query.id or "")
        elif known is None:
            target = embedder.remembered(picture)
        if target is not None:
            return _answer(engine, connection, collection, target, query)
    assert picture is not None  # noqa: S101 - an id is a target
    embedding = embedder.embed(picture)
    with _opened(engine, name, None) as (connection, collection, _):
        return _answer(engine, connection, collection, embedding, query)


def check(connection: sa.Connection, collection: StoredCollection, query: Query) -> None:
    """Check what needs no picture, before one is embedded.

    Raises:
        InvalidInput: an option cannot be served.
        DatabaseError: Postgres does not understand `where`.

    """
    query.check(collection.default_metric)
    if query.where is not None:
        text = statement.condition_check(collection.table, query.where)
        with translated(text):
            driver_connection(connection).execute(text.encode(), prepare=True)


def plan(
    connection: sa.Connection,
    collection: StoredCollection,
    target: NDArray[np.float32] | UUID,
    query: Query,
) -> Search:
    """Return the search that answers a query.

    Args:
        connection: in a transaction.
        collection: where to search.
        target: a stored image's id, or an embedding, shape (dimensions,).
        query: the rest; `Query.check` has passed it.

    """
    search = Search(collection, target, query)
    search = replace(search, chosen=_tuned(collection, search))
    if not isinstance(target, UUID):
        candidates = search.candidates is not None
        vectors = search.index.vectors(connection, target, candidates=candidates)
        search = replace(search, vectors=tuple(vectors))
    # Cosine's candidates are few, and the planner weighs them against all rows that match.
    if search.candidates is not None and search.metric is not Metric.cosine:
        more = statement.matching(search).offset(search.candidates).limit(1)
        if connection.scalar(more) is None:
            # To choose candidates from so few would leave nobody out.
            return replace(search, exact=True)
    return search


def _tuned(collection: StoredCollection, search: Search) -> int | None:
    """Return what `index tune` found, if it is enough for this k."""
    tuned = collection.breadths.get(search.metric)
    if tuned is None or search.k is None or search.k > tuned["k"]:
        return None
    return int(tuned["breadth"])


def nearest(connection: sa.Connection, search: Search) -> tuple[list[Hit], Search]:
    """Return the nearest rows within the cut-off, and the search that found them.

    Settings end with it, so that other searches may follow in the transaction.
    """
    with connection.begin_nested() as savepoint:
        hits, ran = _nearest(connection, search, ends=False)
        savepoint.rollback()
    return hits[: _within(search, hits)], ran


def _nearest(connection: sa.Connection, search: Search, *, ends: bool) -> tuple[list[Hit], Search]:
    """Return the nearest rows, always min(k, matching rows), and the search that found them.

    The index may stop early: a filter that few rows pass, a node no path leads to. An answer that
    came out short, or without the stored image it was asked for, is asked for again without it.
    """
    exact = replace(search, exact=True)
    rows = _run(connection, search, ends=ends)
    if not search.is_exact and (len(rows) != search.k or _lacks_own(search, rows)):
        search, rows = exact, _run(connection, exact, ends=ends)
    if _lacks_own(search, rows):
        # Either a condition excludes it, or more copies than k are as near as it is.
        own = _run(connection, replace(exact, own_only=True), ends=ends)
        rows = _sorted(search, [*own, *rows])[: search.k]
    return _hits(search, rows), search


def timed(connection: sa.Connection, search: Search) -> tuple[list[Hit], float]:
    """Return what the statement finds, short or not, and the seconds that it took."""
    with connection.begin_nested() as savepoint:
        _apply(connection, search)
        text = search.sent  # to write the statement is not the database's time
        started = perf_counter()
        with _cursor(connection) as cursor, translated(text):
            rows = cursor.execute(text.encode(), _parameters(search), prepare=True).fetchall()
        seconds = perf_counter() - started
        savepoint.rollback()  # and with it the settings
    return _hits(search, rows), seconds


def explain(connection: sa.Connection, search: Search) -> tuple[str, bool]:
    """Return the statement's plan, and whether the HNSW index answers it."""
    text = f"EXPLAIN {search.sent_with_cut_off}"
    _apply(connection, search)
    with _cursor(connection) as cursor, translated(text):
        rows = cursor.execute(text.encode(), _parameters(search), prepare=True).fetchall()
    found = "\n".join(row[0] for row in rows)
    return found, search.index.name in found


class _Ran:
    """A search that has run, and what can be asked of it. See `query.Statement`."""

    def __init__(self, engine: sa.Engine, search: Search) -> None:
        self._engine = engine
        self._search = search

    @cached_property
    def sql(self) -> str:
        return self._search.script()

    @property
    def plan(self) -> str:
        return self._explained[0]

    @property
    def uses_index(self) -> bool:
        return self._explained[1]

    @cached_property
    def _explained(self) -> tuple[str, bool]:
        with database.reading(self._engine) as connection:
            return explain(connection, self._search)


@contextmanager
def _opened(
    engine: sa.Engine, name: str, picture: Picture | None
) -> Iterator[tuple[sa.Connection, StoredCollection, UUID | None]]:
    """Yield a connection, a collection, and the id of a picture that it holds, if it does."""
    content = None if picture is None else (picture.sha256, picture.path)
    with database.pipelining(engine) as connection:
        collection, known = catalog.open_collection(connection, name, content)
        yield connection, collection, known


def _answer(
    engine: sa.Engine,
    connection: sa.Connection,
    collection: StoredCollection,
    target: NDArray[np.float32] | UUID,
    query: Query,
) -> Answer:
    search = plan(connection, collection, target, query)
    started = perf_counter()
    hits, ran = _nearest(connection, search, ends=query.where is None)
    seconds = perf_counter() - started
    if query.where is not None:
        # A condition may SET what is not to outlive it.
        driver_connection(connection).rollback()
    within = _within(search, hits)
    return Answer(
        hits[:within],
        ran.metric,
        ran.candidates,
        seconds,
        _Ran(engine, ran),
        image=target if isinstance(target, UUID) else None,
        beyond=hits[within:],
    )


def _run(connection: sa.Connection, search: Search, *, ends: bool = False) -> list[Row]:
    """Return the rows that a search finds, nearest first, in one round trip.

    Args:
        connection: in a transaction.
        search: what for.
        ends: commit in the same round trip; what follows is another transaction.

    Raises:
        ImageNotFound: nothing has the id that is asked with.

    """
    text = search.sent
    driver = driver_connection(connection)
    with translated(text), _cursor(connection) as cursor:
        with driver.pipeline():
            _set(driver, search)
            cursor.execute(text.encode(), _parameters(search), prepare=True)
            if ends:
                driver.execute("COMMIT")
        rows = cursor.fetchall()
    if isinstance(search.target, UUID) and rows and rows[0][-1] is None:
        # An id that nothing has is at no distance from anything.
        raise missing(search.collection.name, search.target)
    return _sorted(search, rows)


def _lacks_own(search: Search, rows: list[Row]) -> bool:
    """Tell whether the nearest row of all, the stored query image's own, is not among the rows."""
    return (
        isinstance(search.target, UUID)
        and not search.excludes_own
        and search.metric is not Metric.ip  # by inner product, longer vectors are nearer
        and all(row[0] != search.target for row in rows)
    )


def _sorted(search: Search, rows: list[Row]) -> list[Row]:
    """Return rows by distance; of equal ones the query's own row is first, then by path."""
    own = search.target if isinstance(search.target, UUID) else None
    return sorted(rows, key=lambda row: (row[-1], row[0] != own, row[1]))


def _hits(search: Search, rows: list[Row]) -> list[Hit]:
    """Return ranked hits."""
    is_cosine = search.metric is Metric.cosine
    return [
        Hit(
            rank=rank,
            distance=row[-1],
            similarity=1.0 - row[-1] if is_cosine else None,
            **dict(zip(HIT_COLUMNS, row, strict=False)),
        )
        for rank, row in enumerate(_sorted(search, rows), start=1)
    ]


def _within(search: Search, hits: list[Hit]) -> int:
    """Return how many hits are within the cut-off."""
    most = search.max_distance
    return len(hits) if most is None else sum(hit.distance <= most for hit in hits)


def _parameters(search: Search) -> list[Any]:
    if isinstance(search.target, UUID):
        return [search.target]
    compared = search.vectors or (search.target,)
    if search.candidates is None:
        # Of an exact search that follows one by candidates.
        compared = compared[:1]
    return [_Half(HalfVector(vector).to_binary()) for vector in compared]


def _cursor(connection: sa.Connection) -> psycopg.RawCursor[Row]:
    # Dollars alone mark parameters, so that signs in the user's condition mean what they say.
    return psycopg.RawCursor(driver_connection(connection))


def _apply(connection: sa.Connection, search: Search) -> None:
    """Put a search's settings in force until the transaction ends."""
    _set(driver_connection(connection), search)


def _set(driver: "psycopg.Connection[Any]", search: Search) -> None:
    settings = search.settings()
    if search.is_exact or search.forced:
        # A prepared statement keeps its plan, which was made under other settings.
        settings = {**settings, "plan_cache_mode": "force_custom_plan"}
    database.apply_settings(driver, settings)
