"""The SQL functions by which any client searches: what `vecsearch query` does, as SQL.

Of each collection:

- `NAME_distances(image)`, every image with its distance, in no order. Postgres inlines it, so the
  conditions, joins, ORDER BY and LIMIT around it reach the index.
- `NAME_search(image, k, condition)`, the k nearest, as the collection ranks. It knows k and the
  condition, so it chooses how to search, and is never short.
- `NAME_embedding(image)` and `NAME_similarity(image, other)`.

An image is an id, a path, or an embedding. `functions.sql` has what all collections share. All of
them are replaced when the tables are upgraded to this version: a change here needs a migration, but
one that does nothing is enough.
"""

import re
from collections.abc import Iterator
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from psycopg import sql

from vecsearch.postgres import catalog, distributed, migrate, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.columns import HIT, names
from vecsearch.postgres.database import driver_connection
from vecsearch.search import statement
from vecsearch.search.indexes.base import CANDIDATES_PER_ROW, Expression
from vecsearch.search.plan import Search
from vecsearch.search.query import Query
from vecsearch.search.statement import Shape
from vecsearch.vocabulary import (
    EF_SEARCH_IMAGES,
    MAXIMUM_EF_SEARCH,
    MINIMUM_EF_SEARCH,
    IndexMethod,
    Metric,
    Ranking,
    ranked,
)

# A UUID (RFC 9562) as text.
UUID_PATTERN: Final = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
_IMAGES = ("image", "other")
# So many columns of `HIT` precede distance and similarity in the type.
FIRST_FACTS = 9
T = TypeVar("T")
# What divides `functions.sql`.
_BELOW = "-- BELOW:"
# Where the condition goes in a statement.
_CONDITION = "condition_of_the_search"
# An HNSW scan returns rows nearly in order of distance, so more than k are fetched and sorted.
FETCHED_PER_ROW = 2
MINIMUM_FETCHED = 20
# For an embedding that may be a word's.
MINIMUM_FETCHED_FAR = 100
# Comparing two embeddings, in the planner's units of cost; measured by benchmarks/sql_matrix.py.
COST_PER_DIMENSION = 1 / 512


def refresh(connection: sa.Connection) -> None:
    """Create or replace all functions, of a database whose tables are of this version."""
    # A connection that was opened before pgvector was installed does not have it on its path.
    connection.exec_driver_sql(
        f"SET LOCAL search_path = {tables.SCHEMA}, {migrate.pgvector_schema(connection)}"
    )
    share(connection)
    for stored in catalog.list_collections(connection):
        replace(connection, stored)
        _replace_nearest(connection, stored)


def share(connection: sa.Connection) -> None:
    """Create or replace the functions that collections share."""
    pgvector = migrate.pgvector_schema(connection)
    text = Path(__file__).with_name("functions.sql").read_text()
    for name, value in {
        "PGVECTOR": pgvector,
        "UUID": UUID_PATTERN,
        "PROJECTIONS": tables.projections.fullname,
        "LEAST_EF": f"{MINIMUM_EF_SEARCH} * sqrt(greatest(1, total / {EF_SEARCH_IMAGES}))",
        "MOST_EF": str(MAXIMUM_EF_SEARCH),
        "IS_DISTRIBUTED": distributed.IS_DISTRIBUTED.format("collection"),
    }.items():
        text = text.replace(name, value)
    everywhere, here = text.split(_BELOW)
    driver_connection(connection).execute(everywhere.encode())
    with distributed.here_alone(connection):
        driver_connection(connection).execute(f"--{here}".encode())


def replace(connection: sa.Connection, stored: StoredCollection) -> None:
    """Create or replace a collection's functions, as its index serves them and its ranking is."""
    with distributed.here_alone(connection):
        for created in _functions(stored):
            connection.exec_driver_sql(created)


def _replace_nearest(connection: sa.Connection, stored: StoredCollection) -> None:
    """Rewrite NAME_nearest, which earlier versions made, if something still depends on it."""
    nearest = f"{tables.SCHEMA}.{stored.name}{schema.NEAREST_SUFFIX}(image text)"
    found = connection.execute(
        sa.text(
            "SELECT pg_get_function_result(oid), (SELECT string_agg(quote_ident(name), ', ')"
            " FROM unnest(proargnames, proargmodes) AS given (name, mode) WHERE mode = 't')"
            " FROM pg_proc WHERE oid = to_regprocedure(:nearest)"
        ),
        {"nearest": nearest.replace("image ", "")},
    ).one_or_none()
    if found is None:
        return
    returns, columns = found
    distances = f"{tables.SCHEMA}.{stored.name}{schema.DISTANCES_SUFFIX}"
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {nearest} RETURNS {returns} LANGUAGE sql STABLE PARALLEL SAFE "
        f"BEGIN ATOMIC SELECT {columns} FROM {distances}(image) ORDER BY distance; END"
    )
    connection.exec_driver_sql(
        f"COMMENT ON FUNCTION {nearest} IS 'Replaced by {stored.name}{schema.SEARCH_SUFFIX} and "
        f"{stored.name}{schema.DISTANCES_SUFFIX}; kept because a view or function uses it'"
    )


def _functions(stored: StoredCollection) -> Iterator[str]:
    """Yield SQL that creates and comments a collection's functions."""
    name = stored.name
    collection = f"CAST({_literal(schema.sql_name(stored.table))} AS regclass)"

    def id_of(path: str) -> str:
        return f"vecsearch_internal.image_id({collection}, {path})"

    def embedding_of(image: str) -> str:
        return f"vecsearch_internal.embedding({collection}, {image})"

    for type_, image, other in (("uuid", "image", "other"), ("text", *map(id_of, _IMAGES))):
        yield from _function(
            f"{name}{schema.EMBEDDING_SUFFIX}",
            f"image {type_}",
            "halfvec",
            f"SELECT {embedding_of(image)}",
            f"Embedding of an image of {name}; an error if there is none",
        )
        yield from _function(
            f"{name}{schema.SIMILARITY_SUFFIX}",
            f"image {type_}, other {type_}",
            "double precision",
            f"SELECT 1 - ({embedding_of(image)} <=> {embedding_of(other)})",
            f"Cosine similarity of two images of {name}",
        )
    hits = f"SETOF {tables.SCHEMA}.{schema.HIT}"
    dims = None if stored.compact is None else stored.compact.dimensions
    how = ranked(stored.ranking, dims, stored.expansion)
    # By type: the id and the embedding of the question, and what gives its distances.
    for type_, image, embedding, vector in (
        ("uuid", "image", "NULL", embedding_of("image")),
        ("text", id_of("image"), "NULL", embedding_of(id_of("image"))),
        ("halfvec", "NULL", "image", "image"),
    ):
        yield from (_computed if stored.is_distributed else _function)(
            f"{name}{schema.DISTANCES_SUFFIX}",
            f"image {type_}",
            hits,
            _distances(stored, vector),
            f"Every image of {name} with its cosine distance, in no order: "
            "add ORDER BY distance LIMIT",
        )
        statements = _statements(stored, by_id=type_ != "halfvec")
        yield from _function(
            f"{name}{schema.SEARCH_SUFFIX}",
            f"image {type_}, k bigint DEFAULT 10, condition text DEFAULT NULL",
            hits,
            f"SELECT * FROM vecsearch_internal.search({collection}, {image}, {embedding}, k,"
            f" condition, current_setting('search_path'), {statements})",
            f"The k nearest images of {name}, {how}; condition is SQL, as after WHERE",
            # It changes settings while it runs, which a parallel query forbids.
            parallel="UNSAFE",
        )


def _function(
    name: str, parameters: str, returns: str, body: str, comment: str, parallel: str = "SAFE"
) -> Iterator[str]:
    signature = f"{tables.SCHEMA}.{name}({parameters})"
    yield (
        f"CREATE OR REPLACE FUNCTION {signature} RETURNS {returns} LANGUAGE sql STABLE"
        f" PARALLEL {parallel} BEGIN ATOMIC {body}; END"
    )
    signature = re.sub(r" DEFAULT \w+", "", signature)
    yield f"COMMENT ON FUNCTION {signature} IS {_literal(comment)}"


def _computed(name: str, parameters: str, returns: str, body: str, comment: str) -> Iterator[str]:
    """Yield SQL like `_function`; Citus refuses functions in SQL that read shards.

    Postgres does not inline it.
    """
    signature = f"{tables.SCHEMA}.{name}({parameters})"
    yield (
        f"CREATE OR REPLACE FUNCTION {signature} RETURNS {returns} LANGUAGE plpgsql STABLE"
        f" AS {_literal(f'#variable_conflict use_column BEGIN RETURN QUERY {body}; END')}"
    )
    yield f"COMMENT ON FUNCTION {signature} IS {_literal(comment)}"


def _distances(stored: StoredCollection, vector: str) -> str:
    """Return SQL of NAME_distances; each scalar subquery is evaluated once."""
    given = ""
    if stored.is_distributed:
        # A CTE is answered before the shards are asked.
        given = f"WITH asked AS MATERIALIZED (SELECT {vector} AS vector) "
        vector = "vector FROM asked"
    elif stored.index_method is IndexMethod.hnsw:
        vector = f"vecsearch_internal.question({vector})"
    facts = [f"i.{name}" for name in names(HIT)]
    distance = f"i.embedding <=> (SELECT {vector})"
    columns = _row(facts, f"{distance} AS distance", f"1 - ({distance}) AS similarity")
    table = schema.sql_name(stored.table)
    chosen = f"FROM {table} AS i WHERE (SELECT {vector}) IS NOT NULL"
    return f"{given}SELECT {', '.join(columns)} {chosen}"


def _statements(stored: StoredCollection, *, by_id: bool) -> str:
    """Return SQL of the shared function's arguments from `indexed` on."""
    query = Query(metric=Metric.cosine, where=_CONDITION, k=1)
    if by_id:
        search = Search(stored, UUID(int=0), query)
    else:
        # It may be a word, which no other ranking finds.
        plain = replace_fields(query, ranking=Ranking.full, expand=0)
        search = Search(stored, np.zeros(stored.dimensions, np.float32), plain)
    index, shape = search.index, search.shape
    indexed, minimum, per_row = "NULL", 0, 0
    candidates = index.candidates(Metric.cosine, 1, None, is_far=not by_id)
    if candidates is not None:
        indexed = _cut(shape, k="$2", candidates="$3")
        minimum, per_row = candidates, CANDIDATES_PER_ROW
    elif index.method is not IndexMethod.none:
        indexed = _cut(shape, k="$3", candidates=None)
        minimum = MINIMUM_FETCHED if by_id else MINIMUM_FETCHED_FAR
        per_row = FETCHED_PER_ROW
    exact = _cut(shape, k="$2", candidates=None)
    vectors = schema.sql_name(shape.columns[0].table)
    cost = stored.dimensions * COST_PER_DIMENSION
    return f"{indexed}, {exact}, {minimum}, {per_row}, {cost}, {_literal(vectors)}"


def _cut(shape: Shape, k: str, candidates: str | None) -> str:
    """Return SQL of an array of a statement's text before the condition and after it."""
    image: Expression = sa.literal_column("CAST($1 AS uuid)", sa.Uuid)

    def target(column: sa.Column[Any]) -> Expression:
        if shape.by_id:
            return statement.stored_vector(column, image, is_distributed=shape.is_distributed)
        if column.table.name == shape.index.table.name:
            dims = statement.dimensions(column)
            return sa.literal_column(f"CAST($4 AS halfvec({dims}))", column.type)
        version = column.table.name.rpartition("_")[2]
        projected = f"(SELECT vecsearch_internal.compact({version}, $4))"
        return sa.literal_column(projected, column.type)

    limited = replace_fields(
        shape,
        k=sa.literal_column(k),
        candidates=None if candidates is None else sa.literal_column(candidates),
    )
    rows = statement.build(limited, target, image, image).subquery("found")
    distance: Expression = rows.c.distance
    facts: list[Expression] = [rows.c[name] for name in names(HIT)]
    # Among equally near ones, the image itself is the first.
    own = [rows.c.id != image] if shape.by_id else []
    listed = sa.select(*_row(facts, distance, 1 - distance)).where(distance.is_not(None))
    listed = statement.in_order(listed, rows).order_by(*own, rows.c.path)
    listed = listed.limit(sa.literal_column("$2"))
    before, after = statement.written(listed).split(_CONDITION)
    return f"ARRAY[{_literal(before)}, {_literal(after)}]"


def _row(facts: list[T], distance: T, similarity: T) -> list[T]:
    """Return the attributes of a hit in their order; later versions add to its end."""
    return [*facts[:FIRST_FACTS], distance, similarity, *facts[FIRST_FACTS:]]


def _literal(text: str) -> str:
    return sql.Literal(text).as_string()
