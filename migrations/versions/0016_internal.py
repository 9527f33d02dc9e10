"""Move what analysts need not see to a schema of its own; views check their callers' rights."""

import sqlalchemy as sa
from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0016"
down_revision = "0015"

INTERNAL = "vecsearch_internal"
COMMENTS = {
    "vecsearch": "Collections of images: their tables, views and functions, and what they share",
    INTERNAL: "What the views and functions of the schema vecsearch read; subject to change",
}
VIEW = (
    "label, width, height, format, file_size, taken_at, modified_at, latitude, longitude, metadata,"
    " path, id, ingested_at, sha256"
)
TAGS = "id, path"


def upgrade() -> None:
    connection = op.get_bind()
    create_schema(connection)
    compact = connection.scalars(
        sa.text("SELECT collection || '_compact_' || version FROM vecsearch.projections")
    ).all()
    for table in ("projections", "quantized_models", "tags", "thumbnails", *compact):
        connection.exec_driver_sql(f"ALTER TABLE IF EXISTS vecsearch.{table} SET SCHEMA {INTERNAL}")
    comment_schemas(connection)
    for name in collection_names(connection):
        replace_views(connection, name)


def create_schema(connection: sa.Connection) -> None:
    """Create the schema, for the owner of the other one and all who have rights on that."""
    # IF NOT EXISTS would need the right to create schemas even if there is one.
    if connection.scalar(sa.text(f"SELECT to_regnamespace('{INTERNAL}')")) is None:
        owner = connection.scalar(
            sa.text(
                "SELECT quote_ident(pg_get_userbyid(nspowner)) FROM pg_namespace"
                " WHERE nspname = 'vecsearch' AND pg_has_role(nspowner, 'USAGE')"
                " AND pg_has_role(nspowner, 'SET')"
            )
        )
        connection.exec_driver_sql(
            f"CREATE SCHEMA {INTERNAL} AUTHORIZATION {owner or 'CURRENT_USER'}"
        )
    grants = connection.scalars(
        sa.text(
            f"SELECT format('GRANT %s ON SCHEMA {INTERNAL} TO %s', privilege_type,"
            " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)"
            " FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))"
            " WHERE nspname = 'vecsearch'"
            # Tables that this role, or one it belongs to, creates later.
            " UNION ALL"
            f" SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA {INTERNAL}"
            " GRANT %s ON TABLES TO %s', pg_get_userbyid(defaclrole), privilege_type,"
            " CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)"
            " FROM pg_default_acl, aclexplode(defaclacl)"
            " WHERE defaclnamespace = 'vecsearch'::regnamespace AND defaclobjtype = 'r'"
            " AND grantee <> defaclrole AND pg_has_role(defaclrole, 'MEMBER')"
        )
    )
    for grant in grants.all():
        connection.exec_driver_sql(grant)


def comment_schemas(connection: sa.Connection) -> None:
    """Comment the schemas that this role owns."""
    for schema, comment in COMMENTS.items():
        if connection.scalar(
            sa.text(
                "SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = :schema"
            ),
            {"schema": schema},
        ):
            connection.exec_driver_sql(f"COMMENT ON SCHEMA {schema} IS '{comment}'")


def replace_views(connection: sa.Connection, name: str) -> None:
    """Let the views of a collection check their callers' rights, and comment their columns."""
    table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
    view, tags = f"vecsearch.{name}_view", f"vecsearch.{name}_tags"
    for statement in (
        # Not dropped, for the sake of what depends on it. A new column is then the last.
        f"""
        CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS
        SELECT regexp_replace(path, '^.*/', '') AS name, {VIEW} FROM {table}""",
        f"ALTER VIEW {tags} SET (security_invoker = true)",
        f"COMMENT ON COLUMN {view}.name IS 'Name of the file, the end of its path'",
    ):
        connection.exec_driver_sql(statement)
    for statement in (
        *column_comments(connection, view, table),
        # Both have a column id, and the view has the collection's.
        *column_comments(connection, tags, f"{INTERNAL}.tags"),
        *column_comments(connection, tags, table),
        *grants(connection, view, table, VIEW),
        *grants(connection, tags, table, TAGS),
        *grants(connection, tags, f"{INTERNAL}.tags"),
    ):
        connection.exec_driver_sql(statement)


def column_comments(connection: sa.Connection, view: str, table: str) -> list[str]:
    """Return SQL that gives a view's columns the comments of a table's columns of that name."""
    return list(
        connection.scalars(
            sa.text(
                "SELECT format('COMMENT ON COLUMN %s.%I IS %L', CAST(:view AS text), attname,"
                " col_description(source.attrelid, source.attnum))"
                " FROM pg_attribute AS shown JOIN pg_attribute AS source USING (attname)"
                " WHERE shown.attrelid = CAST(:view AS regclass)"
                " AND source.attrelid = CAST(:table AS regclass) AND shown.attnum > 0"
                " ORDER BY shown.attnum"
            ),
            {"view": view, "table": table},
        )
    )


def grants(connection: sa.Connection, view: str, table: str, columns: str = "") -> list[str]:
    """Return SQL that lets those who may read a view, but not its table, go on reading the view."""
    chosen = f" ({columns})" if columns else ""
    return list(
        connection.scalars(
            sa.text(
                "SELECT DISTINCT format('GRANT SELECT%s ON %s TO %s', CAST(:chosen AS text),"
                " CAST(:table AS text), reader)"
                " FROM pg_class, aclexplode(relacl), LATERAL (SELECT CASE grantee WHEN 0"
                " THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END) AS named (reader)"
                " WHERE oid = CAST(:view AS regclass) AND privilege_type = 'SELECT'"
                " AND grantee <> relowner AND NOT CASE grantee"
                " WHEN 0 THEN has_table_privilege('public', CAST(:table AS regclass), 'SELECT')"
                " ELSE has_table_privilege(grantee, CAST(:table AS regclass), 'SELECT') END"
            ),
            {"view": view, "table": table, "chosen": chosen},
        )
    )
