"""Run searches: in few round trips, and with a guarantee that no answer is silently short."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from pgvector import HalfVector
from psycopg.adapt import Dumper
from psycopg.pq import Format

from vecsearch.errors import DatabaseError, InvalidInput, Unclear
from vecsearch.postgres import catalog, database
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.postgres.sessions.settings import READING_LIMITS
from vecsearch.search import repair, statement
from vecsearch.search.lookup import has_image, missing
from vecsearch.search.plan import Search, plan
from vecsearch.search.query import HIT_COLUMNS, Answer, Hit, Query
from vecsearch.search.questions.embedder import Embedders
from vecsearch.search.questions.pictures import Picture
from vecsearch.search.questions.question import Question
from vecsearch.vocabulary import MAXIMUM_EF_SEARCH, IndexMethod, Metric

Row = tuple[Any, ...]


class Half(bytes):
    """A halfvec in Postgres' binary format; its text form would be 20 kB to parse."""


class _HalfDumper(Dumper):
    # The statement casts the parameter, so its type need not be known here.
    format = Format.BINARY

    def dump(self, obj: Half) -> bytes:
        return obj


psycopg.adapters.register_dumper(Half, _HalfDumper)


def ask(engine: sa.Engine, name: str, query: Query, embedders: Embedders) -> Answer:
    """Answer a query in a collection; see `_ask`."""
    try:
        return _ask(engine, name, query, embedders)
    except DatabaseError as error:
        cause = error.__cause__
        cause = getattr(cause, "orig", cause)
        if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            # Dropped meanwhile, or broken, unless the condition is wrong.
            with catalog.reading(engine, name) as (connection, stored):
                repair.require_whole(connection, stored)
        raise


def _ask(engine: sa.Engine, name: str, query: Query, embedders: Embedders) -> Answer:
    """Answer a query in a collection.

    Args:
        engine: the database's engine.
        name: the collection.
        query: the query.
        embedders: encoders of new pictures and sentences; no connection is held while they embed.

    Raises:
        VecsearchError: the query cannot be answered.

    """
    question = Question(query)
    with _opened(engine, name, question.first_picture) as (connection, collection, known):
        check(connection, collection, query)
        question.find(connection, collection, known)
        embedder = embedders.of(collection, query.model, query.weights)
        if question.recall(embedder):
            return _answer(engine, connection, collection, question, query)
    try:
        question.embed(embedder, embedders)
    except Unclear as error:
        with _opened(engine, name, None) as (connection, collection, _):
            raise question.unknown(connection, collection, error) from None
    with _opened(engine, name, None) as (connection, collection, _):
        return _answer(engine, connection, collection, question, query)


def check(connection: sa.Connection, collection: StoredCollection, query: Query) -> None:
    """Check the query's options, before a picture is embedded.

    Raises:
        InvalidInput: an option has an invalid value.
        DatabaseError: Postgres does not accept `where`.

    """
    query.check(collection.default_metric)
    query.ranking_in(collection)
    if query.where is not None:
        statement.require_condition(
            connection,
            collection.table,
            query.where,
            is_distributed=collection.is_distributed,
        )


def nearest(connection: sa.Connection, search: Search) -> tuple[list[Hit], Search]:
    """Return the nearest rows within the cut-off, and the search that found them.

    Its settings end with it, so the transaction can run other searches afterwards.
    """
    with connection.begin_nested() as savepoint:
        hits, ran = _nearest(connection, search, ends=False)
        savepoint.rollback()
    return hits[: _within(search, hits)], ran


def _nearest(connection: sa.Connection, search: Search, *, ends: bool) -> tuple[list[Hit], Search]:
    """Return the nearest rows, always min(k, matching rows), and the search that found them.

    The index may return too few rows: few rows pass the filter, or a node is unreachable in the
    graph. If an answer is short, or lacks the stored query image, or may lack rows within the
    cut-off, an exact search runs instead.
    """
    exact = replace(search, exact=True)
    rows = _run(connection, search, ends=ends)
    if not search.is_exact and (
        len(rows) != search.k or _lacks_own(search, rows) or _lacks_near(search, rows)
    ):
        search, rows = exact, _run(connection, exact, ends=ends)
    if _lacks_own(search, rows):
        # Either a condition excludes it, or more than k copies have the same distance.
        own = _run(connection, replace(exact, own_only=True), ends=ends)
        rows = _sorted(search, [*own, *rows])[: search.k]
    return _hits(search, rows), search


def timed(connection: sa.Connection, search: Search) -> tuple[list[Hit], float]:
    """Return the hits of one statement, even if they are too few, and the seconds it took."""
    with connection.begin_nested() as savepoint:
        _apply(driver_connection(connection), search)
        text = search.sent  # before the clock starts: compiling is not the database's time
        started = perf_counter()
        with _cursor(connection) as cursor, translated(text):
            rows = cursor.execute(text.encode(), _parameters(search), prepare=True).fetchall()
        seconds = perf_counter() - started
        savepoint.rollback()  # and with it the settings
    return _hits(search, _sorted(search, rows)), seconds


def explain(connection: sa.Connection, search: Search, *, alone: bool = False) -> tuple[str, bool]:
    """Return the statement's plan, and whether it uses the HNSW index, in one round trip.

    Args:
        connection: in a transaction, or from `vecsearch.postgres.database.pipelining` if `alone`.
        search: the search.
        alone: begin a transaction and commit it.

    """
    text = f"EXPLAIN {search.sent_with_cut_off}"
    rows = _send(connection, search, text, begins=alone, ends=alone)
    found = "\n".join(row[0] for row in rows)
    return found, search.index.name in found


class _Ran:
    """A search that has run; computes SQL and plan on demand. See `query.Statement`."""

    def __init__(self, engine: sa.Engine, search: Search) -> None:
        self._engine = engine
        self._search = search

    @cached_property
    def sql(self) -> str:
        return self._search.script()

    @cached_property
    def short_sql(self) -> str:
        return self._search.script(has_vectors=False)

    @property
    def plan(self) -> str:
        return self._explained[0]

    @property
    def uses_index(self) -> bool:
        return self._explained[1]

    @cached_property
    def _explained(self) -> tuple[str, bool]:
        with database.pipelining(self._engine) as connection:
            return explain(connection, self._search, alone=True)


@contextmanager
def _opened(
    engine: sa.Engine, name: str, picture: Picture | None
) -> Iterator[tuple[sa.Connection, StoredCollection, UUID | None]]:
    """Yield a connection, the collection, and the stored id of the picture, if it has one."""
    content = None if picture is None else (picture.sha256, picture.path)
    with database.pipelining(engine) as connection:
        collection, known = catalog.open_collection(connection, name, content)
        yield connection, collection, known


def _answer(
    engine: sa.Engine,
    connection: sa.Connection,
    collection: StoredCollection,
    question: Question,
    query: Query,
) -> Answer:
    target = question.target(connection, collection)
    search = plan(connection, collection, target, query, question.own)
    started = perf_counter()
    hits, ran = _nearest(connection, search, ends=query.where is None)
    seconds = perf_counter() - started
    if query.where is not None:
        # A user's condition may change settings, which the rollback restores.
        driver_connection(connection).rollback()
    within = _within(search, hits)
    return Answer(
        hits[:within],
        ran.metric,
        ran.candidates,
        seconds,
        _Ran(engine, ran),
        image=target if isinstance(target, UUID) else None,
        concepts=question.names,
        meaning=question.meaning,
        beyond=hits[within:],
        ranking=ran.ranking,
        dims=None if collection.compact is None else collection.compact.dimensions,
        expansion=ran.expansion,
        limits=query.limits,
        labelled=question.labelled,
    )


def _run(connection: sa.Connection, search: Search, *, ends: bool = False) -> list[Row]:
    """Return the rows that a search finds, nearest first, in one round trip.

    Args:
        connection: in a transaction.
        search: the search.
        ends: commit in the same round trip; later statements run in another transaction.

    Raises:
        ImageNotFound: no image has the query's id.
        InvalidInput: it has no compact vector, and those rank.

    """
    rows = _send(connection, search, search.sent, ends=ends)
    if isinstance(search.target, UUID) and (not rows or rows[0][-1] is None):
        _require_target(connection, search, search.target)
    return _sorted(search, rows)


def _require_target(connection: sa.Connection, search: Search, image: UUID) -> None:
    """Check that the query image has the vector that ranks.

    Raises:
        ImageNotFound: no image has the query's id.
        InvalidInput: it has no compact vector, and those rank.

    """
    name = search.collection.name
    if not has_image(connection, search.collection.table, image):
        raise missing(name, image)
    if not has_image(connection, search.shape.columns[0].table, image):
        raise InvalidInput(
            f"Image {image} was not written by vecsearch, so it has no compact vector yet. Run: "
            f"vecsearch index create --method {IndexMethod.compact} --collection {name}"
        )


def _send(
    connection: sa.Connection, search: Search, text: str, *, begins: bool = False, ends: bool
) -> list[Row]:
    """Return the rows of a search's statement, run with its settings, in one round trip."""
    driver = driver_connection(connection)
    with translated(text), _cursor(connection) as cursor:
        with driver.pipeline():
            if begins:
                driver.execute(database.BEGIN)
            _apply(driver, search)
            cursor.execute(text.encode(), _parameters(search), prepare=True)
            if ends:
                driver.execute("COMMIT")
        return cursor.fetchall()


def _lacks_own(search: Search, rows: list[Row]) -> bool:
    """Return whether the rows lack the stored query image, which should be the nearest."""
    return (
        isinstance(search.target, UUID)
        and not search.excluded
        and search.own_is_nearest
        and all(row[0] != search.target for row in rows)
    )


def _lacks_near(search: Search, rows: list[Row]) -> bool:
    """Return whether the rows may lack some that are within the cut-off.

    A scan for more than ef_search rows is iterative and finds some rows late; farther ones, which
    the cut-off removes, may take their place.
    """
    most = search.max_distance
    if most is None or search.k is None or search.k <= MAXIMUM_EF_SEARCH:
        return False
    return not rows[-1][-1] <= most


def _sorted(search: Search, rows: list[Row]) -> list[Row]:
    """Return rows sorted by distance; among equal ones, the query image first, then by path."""
    own = search.target if isinstance(search.target, UUID) else None
    return sorted(rows, key=lambda row: (row[-1], row[0] != own, row[1]))


def _hits(search: Search, rows: list[Row]) -> list[Hit]:
    """Return the hits of sorted rows."""
    is_cosine = search.metric is Metric.cosine
    return [
        Hit(
            rank=rank,
            distance=row[-1],
            similarity=1.0 - row[-1] if is_cosine else None,
            **dict(zip(HIT_COLUMNS, row, strict=False)),
        )
        for rank, row in enumerate(rows, start=1)
    ]


def _within(search: Search, hits: list[Hit]) -> int:
    """Return how many hits are within the cut-off."""
    most = search.max_distance
    return len(hits) if most is None else sum(hit.distance <= most for hit in hits)


def _parameters(search: Search) -> list[Any]:
    if isinstance(search.target, UUID):
        return [search.target]
    bound: list[Any] = [Half(HalfVector(vector).to_binary()) for vector in search.bound]
    return [*bound, search.excluded] if search.excluded else bound


def _cursor(connection: sa.Connection) -> psycopg.RawCursor[Row]:
    # Only `$1` marks a parameter, so percent signs in the user's condition are left alone.
    return psycopg.RawCursor(driver_connection(connection))


def _apply(driver: "psycopg.Connection[Any]", search: Search) -> None:
    """Apply a search's settings until the transaction ends."""
    settings = search.settings()
    if search.is_exact or search.forced:
        # A prepared statement may reuse a plan that was made under other settings.
        settings = {**settings, "plan_cache_mode": "force_custom_plan"}
    database.apply_settings(driver, settings)
    if search.query.where is not None:
        database.apply_limits(driver, READING_LIMITS)
