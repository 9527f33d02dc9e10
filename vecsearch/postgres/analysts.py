"""Create the views of a collection's table, for people who use only SQL.

`NAME_view` is the table without its vectors. `NAME_tags` lists the most probable concepts of each
image. Both check the rights of whoever reads them, row-level security included.
`vecsearch.search.functions` creates the functions.

`NAME_neighbours`, `NAME_duplicates`, `NAME_clusters` and `NAME_map` have what `vecsearch refresh`
made. `NAME_changes` is a feed of the collection's changes, which triggers on its table write.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from psycopg import sql

from vecsearch.postgres import schema, tables
from vecsearch.postgres.columns import VIEW, names

# The columns of NAME_tags after the image's id and path.
TAGS = ("rank", "name", "probability", "number")

# A statement's changed rows are handed to the trigger of its kind at once.
_TRIGGERS = {
    "INSERT": "REFERENCING NEW TABLE AS arriving",
    "UPDATE": "REFERENCING OLD TABLE AS leaving NEW TABLE AS arriving",
    "DELETE": "REFERENCING OLD TABLE AS leaving",
    "TRUNCATE": "",
}
# The names of those triggers.
TRIGGERS = tuple(f"changes_{event.lower()}" for event in _TRIGGERS)
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
        JOIN {table} AS i ON i.id = n.id
        JOIN (SELECT id, path FROM {table}) AS o ON o.id = n.neighbour""",
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
        SELECT c.id, i.path, c.cluster, c.distance, c.name
        FROM {internal}.clusters AS c JOIN {table} AS i ON i.id = c.id""",
        "c",
        "Clusters of similar images of {name}, as of the last vecsearch refresh clusters",
        {
            **_IMAGE,
            "cluster": "Cluster, from 1, the largest",
            "distance": "Cosine distance to its centre",
            "name": "Concept nearest to its centre; NULL: the encoder has no concepts",
        },
    ),
    "_map": _View(
        """
        SELECT m.id, i.path, m.x, m.y
        FROM {internal}.map AS m JOIN {table} AS i ON i.id = m.id""",
        "m",
        "Places of the images of {name} on a map, as of the last vecsearch refresh map",
        {
            **_IMAGE,
            "x": "To the right; near images are similar, and only distances mean anything",
            "y": "Upwards",
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
    """Create or replace the views of a collection's table, with comments."""
    name = table.name
    source = schema.sql_name(table)
    view, tags = (
        f"{table.schema}.{name}{suffix}" for suffix in (schema.VIEW_SUFFIX, schema.TAGS_SUFFIX)
    )
    statements = (
        f"""
        CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {", ".join(names(VIEW))} FROM {source}""",
        f"COMMENT ON VIEW {view} IS 'Images of {name}, without embeddings, for reading'",
        f"""
        CREATE OR REPLACE VIEW {tags} WITH (security_invoker = true) AS
        SELECT i.id, i.path, {", ".join(f"t.{column}" for column in TAGS)}
        FROM {tables.tags.fullname} AS t JOIN {source} AS i ON i.id = t.id
        WHERE t.collection = {_own_name(source)}""",
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
    own = _own_name(source)
    for suffix, beside in _VIEWS.items():
        place = f"{table.schema}.{name}{suffix}"
        select = f"{beside.select} WHERE {beside.alias}.collection = {{own}}{beside.more}".format(
            internal=tables.INTERNAL, table=source, own=own
        )
        connection.exec_driver_sql(
            f"CREATE OR REPLACE VIEW {place} WITH (security_invoker = true) AS {select}"
        )
        connection.exec_driver_sql(
            f"COMMENT ON VIEW {place} IS '{beside.comment.format(name=name)}'"
        )
        for column, comment in beside.columns.items():
            connection.exec_driver_sql(f"COMMENT ON COLUMN {place}.{column} IS '{comment}'")


def _own_name(source: str) -> str:
    """Return SQL for a table's name, by its number, so that it follows when it is renamed."""
    return f"""(
            SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
            WHERE oid = CAST('{source}' AS regclass))"""


def start_feed(connection: sa.Connection, table: sa.Table) -> None:
    """Let triggers record the changes of a collection's table from now on."""
    for trigger, (event, transition) in zip(TRIGGERS, _TRIGGERS.items(), strict=True):
        connection.exec_driver_sql(
            f"CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {schema.sql_name(table)}"
            f" {transition} FOR EACH STATEMENT"
            f" EXECUTE FUNCTION {tables.INTERNAL}.record_changes()"
        )
    # Whoever follows the feed builds anew at this, and has not missed what is older.
    connection.exec_driver_sql(
        f"INSERT INTO {tables.INTERNAL}.changes (collection, position, transaction, kind)"
        f" SELECT '{table.name}', {tables.INTERNAL}.change_position('{table.name}'),"
        " pg_current_xact_id()::text::bigint, 'reset'"
    )


def stop_feed(connection: sa.Connection, table: sa.Table) -> None:
    """Drop the triggers, and what they recorded: nobody may follow a feed that goes no further."""
    for trigger in TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger} ON {schema.sql_name(table)}")
    connection.execute(sa.delete(tables.changes).where(tables.changes.c.collection == table.name))
