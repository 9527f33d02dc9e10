"""A map of each collection, and names of clusters."""

import sqlalchemy as sa
from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0022"
down_revision = "0021"

INTERNAL = "vecsearch_internal"
NAME = "Concept nearest to its centre; NULL: {} encoder has no concepts"

CLUSTERS = """
    CREATE OR REPLACE VIEW vecsearch.{name}_clusters WITH (security_invoker = true) AS
    SELECT c.id, i.path, c.cluster, c.distance, c.name
    FROM vecsearch_internal.clusters AS c JOIN vecsearch.{table} AS i ON i.id = c.id
    WHERE c.collection = {own}"""
MAP = """
    CREATE VIEW vecsearch.{name}_map WITH (security_invoker = true) AS
    SELECT m.id, i.path, m.x, m.y
    FROM vecsearch_internal.map AS m JOIN vecsearch.{table} AS i ON i.id = m.id
    WHERE m.collection = {own}"""
OWN = """(
        SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
        WHERE oid = CAST('vecsearch.{table}' AS regclass))"""
COMMENTS = {
    "VIEW {view}": "Places of the images of {name} on a map, as of the last vecsearch refresh map",
    "COLUMN {view}.id": "Id of the image",
    "COLUMN {view}.path": "Its path",
    "COLUMN {view}.x": "To the right; near images are similar, and only distances mean anything",
    "COLUMN {view}.y": "Upwards",
}


def upgrade() -> None:
    connection = op.get_bind()
    op.alter_column(
        "refreshes",
        "derived",
        comment="neighbours, duplicates, clusters or map",
        existing_comment="neighbours, duplicates or clusters",
        schema=INTERNAL,
    )
    op.add_column(
        "clusters", sa.Column("name", sa.Text, comment=NAME.format("its")), schema=INTERNAL
    )
    op.create_table(
        "map",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the rows"),
        sa.Column("id", sa.Uuid, primary_key=True, comment="Id of the image"),
        sa.Column(
            "x", sa.REAL, nullable=False, comment="To the right; only distances mean anything"
        ),
        sa.Column("y", sa.REAL, nullable=False, comment="Upwards"),
        schema=INTERNAL,
        comment="Places of images on a map, where similar ones are near each other; see the views "
        "NAME_map",
    )
    grant_alike(connection, f"{INTERNAL}.map", f"{INTERNAL}.clusters")
    for name in collection_names(connection):
        table = connection.dialect.identifier_preparer.quote(name)
        own = OWN.format(table=table)
        view = f"vecsearch.{name}_map"
        for statement in (
            CLUSTERS.format(name=name, table=table, own=own),
            f"COMMENT ON COLUMN vecsearch.{name}_clusters.name IS '{NAME.format('the')}'",
            MAP.format(name=name, table=table, own=own),
            *(
                f"COMMENT ON {what.format(view=view)} IS '{comment.format(name=name)}'"
                for what, comment in COMMENTS.items()
            ),
        ):
            connection.exec_driver_sql(statement)
        grant_alike(connection, view, f"vecsearch.{name}_clusters")


def grant_alike(connection: sa.Connection, new: str, old: str) -> None:
    """Let those read the new table or view who may read the old one."""
    grantees = connection.scalars(
        sa.text(
            "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END"
            " FROM pg_class, aclexplode(relacl)"
            " WHERE oid = to_regclass(:old) AND privilege_type = 'SELECT'"
            " AND grantee <> relowner"
        ),
        {"old": old},
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON {new} TO {grantee}")
