"""Move what analysts need not see to a schema of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

INTERNAL = "vecsearch_internal"
COMMENTS = {
    "vecsearch": "Collections of images: their tables, views and functions, and what they share",
    INTERNAL: "What the views and functions of the schema vecsearch read; subject to change",
}


def upgrade() -> None:
    connection = op.get_bind()
    create_schema(connection)
    compact = connection.scalars(
        sa.text("SELECT collection || '_compact_' || version FROM vecsearch.projections")
    ).all()
    for table in ("projections", "quantized_models", "tags", "thumbnails", *compact):
        connection.exec_driver_sql(f"ALTER TABLE IF EXISTS vecsearch.{table} SET SCHEMA {INTERNAL}")
    comment_schemas(connection)


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
