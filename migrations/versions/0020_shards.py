"""Collections may be in shards: functions and the view of neighbours are SQL that Citus takes."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

VIEW = """
    CREATE OR REPLACE VIEW vecsearch.{name}_neighbours WITH (security_invoker = true) AS
    SELECT n.id, i.path, n.rank, n.neighbour, o.path AS neighbour_path, n.distance
    FROM vecsearch_internal.neighbours AS n
    JOIN vecsearch.{table} AS i ON i.id = n.id
    JOIN (SELECT id, path FROM vecsearch.{table}) AS o ON o.id = n.neighbour
    WHERE n.collection = (
        SELECT CAST(relname AS text) COLLATE "default" FROM pg_catalog.pg_class
        WHERE oid = CAST('vecsearch.{table}' AS regclass))"""


def upgrade() -> None:
    found = op.get_bind().execute(
        sa.text(
            "SELECT name, quote_ident(name) FROM vecsearch.collections"
            " WHERE to_regclass('vecsearch.' || quote_ident(name)) IS NOT NULL"
        )
    )
    for name, table in found.all():
        op.execute(VIEW.format(name=name, table=table))
