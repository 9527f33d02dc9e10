"""The most probable concepts of each image, and a view of them beside each collection's table."""

import sqlalchemy as sa
from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    connection = op.get_bind()
    op.create_table(
        "tags",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the image"),
        sa.Column("id", sa.Uuid, primary_key=True, comment="Id of the image"),
        sa.Column(
            "rank", sa.SmallInteger, primary_key=True, comment="From 1, the most probable first"
        ),
        sa.Column("name", sa.Text, nullable=False, comment="The concept's name"),
        sa.Column("number", sa.SmallInteger, nullable=False, comment="Its number in concepts"),
        sa.Column(
            "probability", sa.REAL, nullable=False, comment="Among all concepts, from 0 to 1"
        ),
        schema="vecsearch",
        comment="The most probable concepts of each image; the view NAME_tags has one collection's",
    )
    op.create_index("tags_name", "tags", ["collection", "name", "probability"], schema="vecsearch")
    grant_alike(connection, "tags", "concepts")
    for name in collection_names(connection):
        table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
        for statement in (
            f"""
            CREATE VIEW vecsearch.{name}_tags AS
            SELECT i.id, i.path, t.rank, t.name, t.probability, t.number
            FROM vecsearch.tags AS t JOIN {table} AS i ON i.id = t.id
            WHERE t.collection = (
                SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
                WHERE oid = CAST('{table}' AS regclass))""",
            f"""
            COMMENT ON VIEW vecsearch.{name}_tags IS 'The most probable concepts of each image of \
{name}, at most five; for WHERE name = ''rock crab'' AND probability > 0.5'""",
        ):
            connection.exec_driver_sql(statement)
        grant_alike(connection, f"{name}_tags", f"{name}_view")


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
        {"old": f"vecsearch.{old}"},
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON vecsearch.{new} TO {grantee}")
