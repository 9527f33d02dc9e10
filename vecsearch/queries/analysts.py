"""What stands beside a collection's table for people whose tools speak only SQL.

`NAME_view` is the table without its vectors. `NAME_nearest(image)` is every image in order of
distance from one of them, of which a client's own WHERE, JOIN and LIMIT take what they want: it is
a plain SELECT that Postgres expands in place, so the index serves it as it serves ours.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch import schema

# The file's own name comes first, what only machines read comes last.
VIEW = (
    "label width height format file_size taken_at modified_at latitude longitude metadata path id"
    " ingested_at"
).split()
NEAREST = "id path label width height taken_at latitude longitude metadata".split()
# A UUID (RFC 9562) as text.
_ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"


def create(connection: sa.Connection, table: sa.Table) -> None:
    """Create the view and the function of a collection's table, both commented."""
    name = table.name
    source = schema.sql_name(table)
    view, function = (
        f"{table.schema}.{name}{suffix}" for suffix in (schema.VIEW_SUFFIX, schema.NEAREST_SUFFIX)
    )
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    types = ", ".join(f"{column} {table.c[column].type.compile(dialect)}" for column in NEAREST)
    columns = ", ".join(f"i.{column}" for column in NEAREST)
    # An id is found in the primary key; a path is compared with every row's.
    target = f"""
        CASE WHEN image ~ '{_ID}'
        THEN (SELECT t.embedding FROM {source} AS t WHERE t.id = CAST(image AS uuid))
        ELSE (SELECT t.embedding FROM {source} AS t WHERE t.path = image LIMIT 1) END"""
    statements = (
        f"""
        CREATE VIEW {view} AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(VIEW)} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        f"""
        CREATE FUNCTION {function}(image text)
        RETURNS TABLE ({types}, distance double precision, similarity double precision)
        LANGUAGE sql STABLE PARALLEL SAFE
        BEGIN ATOMIC
            SELECT {columns}, i.embedding <=> {target} AS distance,
                1 - (i.embedding <=> {target}) AS similarity
            FROM {source} AS i WHERE {target} IS NOT NULL ORDER BY distance;
        END""",
        f"""
        COMMENT ON FUNCTION {function}(text) IS 'Images of {name} by cosine distance from one of \
them, named by its id or its whole path; add WHERE and LIMIT'""",
    )
    for statement in statements:
        connection.exec_driver_sql(statement)
