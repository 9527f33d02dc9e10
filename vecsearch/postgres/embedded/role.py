"""The reader: a role that can select from every collection, and change nothing."""

from itertools import product

import sqlalchemy as sa
from psycopg import sql

from vecsearch.postgres import catalog, tables
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.embedded.access import READER

# Settings of the role's sessions: they find the tables by name, and write nothing.
SETTINGS = {
    "search_path": "vecsearch, public",
    "default_transaction_read_only": "on",
}


def create(connection: sa.Connection, password: str) -> None:
    """Create the role, or bring it up to date; it can also read collections created later.

    The password is sent, and perhaps logged, only as the verifier that Postgres stores (RFC 5802).
    """
    driver = driver_connection(connection)
    verifier = driver.pgconn.encrypt_password(
        password.encode(), READER.encode(), b"scram-sha-256"
    ).decode()
    role = sql.Identifier(READER)
    # A collection is created either before this or after it, and is readable in both cases.
    catalog.lock_creation(connection)
    known = driver.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [READER]).fetchone()
    driver.execute(
        sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
            sql.SQL("CREATE" if known is None else "ALTER"), role, sql.Literal(verifier)
        )
    )
    for name, value in SETTINGS.items():
        driver.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.SQL(name), sql.SQL(value))
        )
    for statement, namespace in product(
        (
            "CREATE SCHEMA IF NOT EXISTS {schema}",
            "GRANT USAGE ON SCHEMA {schema} TO {role}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
        ),
        tables.SCHEMAS,
    ):
        driver.execute(sql.SQL(statement).format(schema=sql.Identifier(namespace), role=role))
