"""Create the views of a collection's table, for people who use only SQL.

`NAME_view` is the table without its vectors. `NAME_tags` lists the most probable concepts of each
image. Both check the rights of whoever reads them, row-level security included.
`vecsearch.search.functions` creates the functions.
"""

import sqlalchemy as sa
from psycopg import sql

from vecsearch.postgres import schema, tables
from vecsearch.postgres.columns import VIEW, names

# The columns of NAME_tags after the image's id and path.
TAGS = ("rank", "name", "probability", "number")


def create(connection: sa.Connection, table: sa.Table) -> None:
    """Create the views of a collection's table, with comments."""
    name = table.name
    source = schema.sql_name(table)
    view, tags = (f"{table.schema}.{name}{suffix}" for suffix in schema.VIEW_SUFFIXES)
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
