"""Beside each collection's table a function that compares two images."""

from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0007"
down_revision = "0006"

ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"


def upgrade() -> None:
    connection = op.get_bind()
    for name in collection_names(connection):
        table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
        image, other = (
            f"""
            CASE WHEN {parameter} ~ '{ID}'
            THEN (SELECT t.embedding FROM {table} AS t WHERE t.id = CAST({parameter} AS uuid))
            ELSE (SELECT t.embedding FROM {table} AS t WHERE t.path = {parameter} LIMIT 1) END"""
            for parameter in ("image", "other")
        )
        connection.exec_driver_sql(
            f"""
            CREATE FUNCTION vecsearch.{name}_similarity(image text, other text)
            RETURNS double precision
            LANGUAGE sql STABLE PARALLEL SAFE
            BEGIN ATOMIC
                SELECT 1 - ({image} <=> {other});
            END"""
        )
        connection.exec_driver_sql(
            f"""
            COMMENT ON FUNCTION vecsearch.{name}_similarity(text, text) IS 'Cosine similarity of \
two images of {name}, each named by its id or its whole path; NULL if one is not there'"""
        )
