"""Create the views and the functions of a collection's table, for people who use only SQL.

`NAME_view` is the table without its vectors. `NAME_tags` lists the most probable concepts of each
image. Both check the rights of whoever reads them, row-level security included.
`NAME_nearest(image)` lists every image, nearest first; clients add WHERE, JOIN, ORDER BY and LIMIT.
It is a plain SELECT that Postgres inlines, so the index serves it as it serves our own searches.
`NAME_similarity(image, other)` is the cosine similarity of two images.
"""

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import schema, tables
from vecsearch.postgres.columns import NEAREST, VIEW, names

# A UUID (RFC 9562) as text.
ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
# The columns of NAME_tags after the image's id and path.
TAGS = ("rank", "name", "probability", "number")


def create(connection: sa.Connection, table: sa.Table) -> None:
    """Create the views and the similarity function of a collection's table, with comments."""
    name = table.name
    source = schema.sql_name(table)
    view, tags, similarity = (
        f"{table.schema}.{name}{suffix}"
        for suffix in (schema.VIEW_SUFFIX, schema.TAGS_SUFFIX, schema.SIMILARITY_SUFFIX)
    )
    image, other = embedding_of("image", source), embedding_of("other", source)
    statements = (
        f"""
        CREATE VIEW {view} WITH (security_invoker = true) AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(names(VIEW))} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        # By the table's number, so that the view follows when the collection is renamed.
        f"""
        CREATE VIEW {tags} WITH (security_invoker = true) AS
        SELECT i.id, i.path, {", ".join(f"t.{column}" for column in TAGS)}
        FROM {tables.tags.fullname} AS t JOIN {source} AS i ON i.id = t.id
        WHERE t.collection = (
            SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
            WHERE oid = CAST('{source}' AS regclass))""",
        f"""
        COMMENT ON VIEW {tags} IS 'The most probable concepts of each image of {name}, at most \
five; for WHERE name = ''rock crab'' AND probability > 0.5'""",
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
    shown = {"name": "Name of the file, the end of its path"}
    shown |= {column.name: column.comment for column in VIEW}
    tagged = {name: shown[name] for name in ("id", "path")}
    tagged |= {name: str(tables.tags.c[name].comment) for name in TAGS}
    for statement in statements:
        connection.exec_driver_sql(statement)
    for commented, columns in ((view, shown), (tags, tagged)):
        for column, comment in columns.items():
            connection.exec_driver_sql(
                f"COMMENT ON COLUMN {commented}.{column} IS {sql.Literal(comment).as_string()}"
            )


def replace_nearest(
    connection: sa.Connection, table: sa.Table, order: tuple[str, str] | None
) -> None:
    """Create or replace NAME_nearest, written so that the collection's index can serve it.

    Args:
        connection: in a transaction.
        table: the collection's table.
        order: SQL of the function's body, and a remark for its comment; None orders all rows by
            their embeddings, which an index on the embeddings serves.

    """
    source = schema.sql_name(table)
    nearest = f"{table.schema}.{table.name}{schema.NEAREST_SUFFIX}"
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    types = ", ".join(f"{name} {table.c[name].type.compile(dialect)}" for name in names(NEAREST))
    image = embedding_of("image", source)
    plain = f"SELECT {row_of(image)} FROM {source} AS i WHERE {image} IS NOT NULL ORDER BY distance"
    body, remark = order or (plain, "")
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
one of them, named by its id or its whole path; add WHERE and LIMIT{remark}'""",
    ):
        connection.exec_driver_sql(statement)


def row_of(image: str) -> str:
    """Return SQL for the function's columns of row `i`; `image` is SQL of the query's embedding."""
    columns = ", ".join(f"i.{name}" for name in names(NEAREST))
    distance = f"i.embedding <=> {image}"
    return f"{columns}, {distance} AS distance, 1 - ({distance}) AS similarity"


def embedding_of(parameter: str, source: str, value: str = "t.embedding") -> str:
    """Return SQL for the embedding of the image that a parameter names; NULL if there is none.

    An id is looked up in the primary key; a path is compared with every row.
    """
    return f"""
        CASE WHEN {parameter} ~ '{ID}'
        THEN (SELECT {value} FROM {source} AS t WHERE t.id = CAST({parameter} AS uuid))
        ELSE (SELECT {value} FROM {source} AS t WHERE t.path = {parameter} LIMIT 1) END"""
