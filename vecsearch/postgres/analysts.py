"""Create the views and the functions of a collection's table, for people who use only SQL.

`NAME_view` is the table without its vectors. `NAME_tags` lists the most probable concepts of each
image. `NAME_nearest(image)` lists every image, nearest
first; clients add WHERE, JOIN, ORDER BY and LIMIT. It is a plain SELECT that Postgres inlines, so
the index serves it as it serves our own searches. `NAME_similarity(image, other)` is the cosine
similarity of two images.

`NAME_neighbours`, `NAME_duplicates` and `NAME_clusters` have what `vecsearch refresh` made.
`NAME_changes` is a feed of the collection's changes, which triggers on its table write.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import schema, tables
from vecsearch.postgres.columns import NEAREST, VIEW, names

# A UUID (RFC 9562) as text.
ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"

# A statement's changed rows are handed to the trigger of its kind at once.
_TRIGGERS = {
    "INSERT": "REFERENCING NEW TABLE AS arriving",
    "UPDATE": "REFERENCING OLD TABLE AS leaving NEW TABLE AS arriving",
    "DELETE": "REFERENCING OLD TABLE AS leaving",
    "TRUNCATE": "",
}
_IMAGE = {"id": "Id of the image", "path": "Its path"}


@dataclass(frozen=True)
class _View:
    """A view of one collection's rows in an internal table.

    Attributes:
        select: its statement, without the WHERE clause.
        alias: of the internal table in the statement.
        comment: on the view.
        columns: comments on its columns.
        more: further conditions.

    """

    select: str
    alias: str
    comment: str
    columns: dict[str, str]
    more: str = ""


_VIEWS = {
    "_neighbours": _View(
        """
        SELECT n.id, i.path, n.rank, n.neighbour, o.path AS neighbour_path, n.distance
        FROM {internal}.neighbours AS n
        JOIN {table} AS i ON i.id = n.id JOIN {table} AS o ON o.id = n.neighbour""",
        "n",
        "The nearest images of each image of {name}, as of the last vecsearch refresh neighbours",
        {
            **_IMAGE,
            "rank": "From 1, the nearest first",
            "neighbour": "Id of the near image",
            "neighbour_path": "Its path",
            "distance": "Cosine distance of the two",
        },
    ),
    "_duplicates": _View(
        """
        SELECT d.id, i.path, d.group_number, d.first, d.distance, d.difference
        FROM {internal}.duplicates AS d JOIN {table} AS i ON i.id = d.id""",
        "d",
        "Groups of near-duplicates of {name}, as of the last vecsearch refresh duplicates",
        {
            **_IMAGE,
            "group_number": "Group, from 1; another refresh may number them otherwise",
            "first": "Id of the group''s oldest image",
            "distance": "Cosine distance to that image",
            "difference": "Of their thumbnails, 0 to 2; NULL: one is missing",
        },
    ),
    "_clusters": _View(
        """
        SELECT c.id, i.path, c.cluster, c.distance
        FROM {internal}.clusters AS c JOIN {table} AS i ON i.id = c.id""",
        "c",
        "Clusters of similar images of {name}, as of the last vecsearch refresh clusters",
        {
            **_IMAGE,
            "cluster": "Cluster, from 1, the largest",
            "distance": "Cosine distance to its centre",
        },
    ),
    "_changes": _View(
        """
        SELECT c.position, c.number, c.kind, c.id, c.at FROM {internal}.changes AS c""",
        "c",
        "Changes of {name}, in transactions that all ended; continue after the largest position",
        {
            "position": "Place in the feed; the changes of a transaction share one",
            "number": "Order within a transaction",
            "kind": str(tables.changes.c.kind.comment),
            "id": "Id of the image; NULL: reset",
            "at": "When its transaction began",
        },
        # A transaction may commit after another that began later. Whoever read only what is
        # committed, and continued after it, would miss the changes of the first.
        """
        AND c.position < pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (
            SELECT l.position - l.transaction FROM {internal}.changes AS l
            WHERE l.collection = {own} ORDER BY l.position DESC, l.number DESC LIMIT 1)""",
    ),
}


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
        CREATE VIEW {view} AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(names(VIEW))} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        f"""
        CREATE VIEW {tags} AS
        SELECT i.id, i.path, t.rank, t.name, t.probability, t.number
        FROM {table.schema}.tags AS t JOIN {source} AS i ON i.id = t.id
        WHERE t.collection = {_own_name(source)}""",
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
    for statement in statements:
        connection.exec_driver_sql(statement)
    own = _own_name(source)
    for suffix, shown in _VIEWS.items():
        place = f"{table.schema}.{name}{suffix}"
        select = f"{shown.select} WHERE {shown.alias}.collection = {{own}}{shown.more}".format(
            internal=tables.INTERNAL, table=source, own=own
        )
        connection.exec_driver_sql(
            f"CREATE VIEW {place} WITH (security_invoker = true) AS {select}"
        )
        connection.exec_driver_sql(
            f"COMMENT ON VIEW {place} IS '{shown.comment.format(name=name)}'"
        )
        for column, comment in shown.columns.items():
            connection.exec_driver_sql(f"COMMENT ON COLUMN {place}.{column} IS '{comment}'")


def _own_name(source: str) -> str:
    """Return SQL for a table's name, by its number, so that it follows when it is renamed."""
    return f"""(
            SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
            WHERE oid = CAST('{source}' AS regclass))"""


def start_feed(connection: sa.Connection, table: sa.Table) -> None:
    """Let triggers record the changes of a collection's table from now on."""
    for event, transition in _TRIGGERS.items():
        connection.exec_driver_sql(
            f"CREATE TRIGGER changes_{event.lower()} AFTER {event} ON {schema.sql_name(table)}"
            f" {transition} FOR EACH STATEMENT"
            f" EXECUTE FUNCTION {tables.INTERNAL}.record_changes()"
        )
    # Whoever follows the feed builds anew at this, and has not missed what is older.
    connection.exec_driver_sql(
        f"INSERT INTO {tables.INTERNAL}.changes (collection, position, transaction, kind)"
        f" SELECT '{table.name}', {tables.INTERNAL}.change_position('{table.name}'),"
        " pg_current_xact_id()::text::bigint, 'reset'"
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
