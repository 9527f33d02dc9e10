"""Beside each collection's table a view without vectors and a function that orders by distance."""

from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0004"
down_revision = "0003"

ID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
NEAREST = (
    "id uuid, path text, label text, width integer, height integer, taken_at timestamp,"
    " latitude double precision, longitude double precision, metadata jsonb"
)
VIEW = (
    "label, width, height, format, file_size, taken_at, modified_at, latitude, longitude, metadata,"
    " path, id, ingested_at"
)


def upgrade() -> None:
    connection = op.get_bind()
    for name in collection_names(connection):
        table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
        columns = ", ".join(f"i.{column.split()[0]}" for column in NEAREST.split(", "))
        target = f"""
            CASE WHEN image ~ '{ID}'
            THEN (SELECT t.embedding FROM {table} AS t WHERE t.id = CAST(image AS uuid))
            ELSE (SELECT t.embedding FROM {table} AS t WHERE t.path = image LIMIT 1) END"""
        statements = (
            f"""
            CREATE VIEW vecsearch.{name}_view AS
            SELECT regexp_replace(path, '^.*/', '') AS name, {VIEW} FROM {table}""",
            f"""
            COMMENT ON VIEW vecsearch.{name}_view IS
            'Images of {name}, without embeddings, for reading'""",
            f"""
            CREATE FUNCTION vecsearch.{name}_nearest(image text)
            RETURNS TABLE ({NEAREST}, distance double precision, similarity double precision)
            LANGUAGE sql STABLE PARALLEL SAFE
            BEGIN ATOMIC
                SELECT {columns}, i.embedding <=> {target} AS distance,
                    1 - (i.embedding <=> {target}) AS similarity
                FROM {table} AS i WHERE {target} IS NOT NULL ORDER BY distance;
            END""",
            f"""
            COMMENT ON FUNCTION vecsearch.{name}_nearest(text) IS 'Images of {name} by cosine \
distance from one of them, named by its id or its whole path; add WHERE and LIMIT'""",
        )
        for statement in statements:
            connection.exec_driver_sql(statement)
