"""Create the views of a collection's table, for people who use only SQL.

`NAME_view` is the table without its vectors. `NAME_tags` lists the most probable concepts of each
image. `vecsearch.search.functions` creates the functions.
"""

import sqlalchemy as sa

from vecsearch.postgres import schema
from vecsearch.postgres.columns import VIEW, names


def create(connection: sa.Connection, table: sa.Table) -> None:
    """Create the views of a collection's table, with comments."""
    name = table.name
    source = schema.sql_name(table)
    view, tags = (f"{table.schema}.{name}{suffix}" for suffix in schema.VIEW_SUFFIXES)
    statements = (
        f"""
        CREATE VIEW {view} AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(names(VIEW))} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        # By the table's number, so that the view follows when the collection is renamed.
        f"""
        CREATE VIEW {tags} AS
        SELECT i.id, i.path, t.rank, t.name, t.probability, t.number
        FROM {table.schema}.tags AS t JOIN {source} AS i ON i.id = t.id
        WHERE t.collection = (
            SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
            WHERE oid = CAST('{source}' AS regclass))""",
        f"""
        COMMENT ON VIEW {tags} IS 'The most probable concepts of each image of {name}, at most \
five; for WHERE name = ''rock crab'' AND probability > 0.5'""",
    )
    for statement in statements:
        connection.exec_driver_sql(statement)
