"""What stands beside a collection's table for people whose tools speak only SQL.

`NAME_view` is the table without its vectors. `NAME_nearest(image)` is every image in order of
distance from one of them, of which a client's own WHERE, JOIN and LIMIT take what they want: it is
a plain SELECT that Postgres expands in place, so the index serves it as it serves ours.
`NAME_similarity(image, other)` is the cosine similarity of two of them.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import schema
from vecsearch.postgres.columns import NEAREST, VIEW, names
from vecsearch.search.indexes.compact import Compact

# Re-ranked by the function, where compact vectors choose them.
CANDIDATES = 200
# A UUID (RFC 9562) as text.
_ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"


def create(connection: sa.Connection, table: sa.Table) -> None:
    """Create the view and the functions of a collection's table, all commented."""
    name = table.name
    source = schema.sql_name(table)
    view, similarity = (
        f"{table.schema}.{name}{suffix}"
        for suffix in (schema.VIEW_SUFFIX, schema.SIMILARITY_SUFFIX)
    )
    image, other = _embedding_of("image", source), _embedding_of("other", source)
    statements = (
        f"""
        CREATE VIEW {view} AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(names(VIEW))} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        f"""
        CREATE FUNCTION {similarity}(image text, other text) RETURNS double precision
        LANGUAGE sql STABLE PARALLEL SAFE
        BEGIN ATOMIC
            SELECT 1 - ({image} <=> {other});
        END""",
        f"""
        COMMENT ON FUNCTION {similarity}(text, text) IS 'Cosine similarity of two images of \
{name}, each named by its id or its whole path; NULL if one is not there'""",
    )
    for statement in statements:
        connection.exec_driver_sql(statement)
    replace_nearest(connection, table, None)


def replace_nearest(connection: sa.Connection, table: sa.Table, compact: Compact | None) -> None:
    """Create the function that orders a collection by distance, as its index can serve it.

    By compact vectors, the nearest candidates come first, re-ranked, and then all the others in the
    order of their compact vectors: a LIMIT within the former never looks at the latter, and a WHERE
    reaches both.
    """
    source = schema.sql_name(table)
    nearest = f"{table.schema}.{table.name}{schema.NEAREST_SUFFIX}"
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    types = ", ".join(f"{name} {table.c[name].type.compile(dialect)}" for name in names(NEAREST))
    order = ""
    if compact is None:
        image = _embedding_of("image", source)
        row = _row_of(image)
        body = f"SELECT {row} FROM {source} AS i WHERE {image} IS NOT NULL ORDER BY distance"
    else:
        vectors = schema.sql_name(compact.table)
        place = _compact_of("image", source, vectors)
        numbers: int = table.c.embedding.type.dim  # type: ignore[attr-defined]  # of HALFVEC
        # A copy of its own, or it would be fetched from out of line for every comparison.
        image = _embedding_of("image", source, f"subvector(t.embedding, 1, {numbers})")
        row = _row_of(image)
        # Read by both branches, so that neither runs in parallel and loses its order.
        body = f"""
            WITH candidates AS MATERIALIZED (
                SELECT c.id FROM {vectors} AS c WHERE {place} IS NOT NULL
                ORDER BY c.compact <-> {place} LIMIT {CANDIDATES})
            (SELECT {row} FROM candidates JOIN {source} AS i ON i.id = candidates.id
            ORDER BY distance)
            UNION ALL
            (SELECT {row} FROM {vectors} AS c JOIN {source} AS i ON i.id = c.id
            WHERE {place} IS NOT NULL AND c.id NOT IN (SELECT candidates.id FROM candidates)
            ORDER BY c.compact <-> {place})"""
        order = (
            f". In exact order among the nearest {CANDIDATES}, beyond them nearly so: to be sure, \
ORDER BY distance"
        )
    for statement in (
        f"""
        CREATE OR REPLACE FUNCTION {nearest}(image text)
        RETURNS TABLE ({types}, distance double precision, similarity double precision)
        LANGUAGE sql STABLE PARALLEL SAFE
        BEGIN ATOMIC
            {body};
        END""",
        f"""
        COMMENT ON FUNCTION {nearest}(text) IS 'Images of {table.name} by cosine distance from \
one of them, named by its id or its whole path; add WHERE and LIMIT{order}'""",
    ):
        connection.exec_driver_sql(statement)


def _row_of(image: str) -> str:
    """Return SQL for what the function tells of the row `i`; `image` is the query's embedding."""
    columns = ", ".join(f"i.{name}" for name in names(NEAREST))
    distance = f"i.embedding <=> {image}"
    return f"{columns}, {distance} AS distance, 1 - ({distance}) AS similarity"


def _embedding_of(parameter: str, source: str, value: str = "t.embedding") -> str:
    """Return SQL for the embedding of the image that a parameter names; NULL if there is none.

    An id is found in the primary key; a path is compared with every row's.
    """
    return f"""
        CASE WHEN {parameter} ~ '{_ID}'
        THEN (SELECT {value} FROM {source} AS t WHERE t.id = CAST({parameter} AS uuid))
        ELSE (SELECT {value} FROM {source} AS t WHERE t.path = {parameter} LIMIT 1) END"""


def _compact_of(parameter: str, source: str, vectors: str) -> str:
    """Return SQL for the compact vector of the image that a parameter names; NULL if none."""
    return f"""
        CASE WHEN {parameter} ~ '{_ID}'
        THEN (SELECT t.compact FROM {vectors} AS t WHERE t.id = CAST({parameter} AS uuid))
        ELSE (SELECT t.compact FROM {source} AS s JOIN {vectors} AS t ON t.id = s.id
            WHERE s.path = {parameter} LIMIT 1) END"""
