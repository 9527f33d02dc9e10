"""Alembic's entry: one transaction, under a lock, on a connection that is given or opened here."""

import sqlalchemy as sa
from alembic import context

from vecsearch.postgres import renaming, schema, tables
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.embedded import role
from vecsearch.postgres.embedded.access import READERS
from vecsearch.postgres.sessions import distributed
from vecsearch.search import functions

# Any fixed number: two migrations of one database exclude each other by it.
LOCK_KEY = 0x766563


def run(connection: sa.Connection) -> None:
    """Migrate over `connection`, whose transaction the caller commits."""
    connection.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    distributed.one_by_one(connection)
    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {tables.SCHEMA}"))
    context.configure(
        connection=connection,
        target_metadata=tables.metadata,
        version_table=schema.VERSION_TABLE,
        version_table_schema=tables.SCHEMA,
        include_schemas=True,
    )
    # A user's collection may have a name that a migration needs.
    renamed = renaming.free_reserved_names(connection)
    context.config.attributes["renamed"] = renamed
    before = context.get_context().get_current_revision()
    context.run_migrations()
    after = context.get_context().get_current_revision()
    if after == schema.REVISION and (renamed or before != after):
        functions.refresh(connection)
    driver = driver_connection(connection)
    if role.exists(driver, READERS):
        role.grant_reading(driver)


def main() -> None:
    """Use the connection that `postgres.migrate` hands over, or open the settings' database."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
        return

    from vecsearch.config import Settings
    from vecsearch.library import Library
    from vecsearch.postgres.database import writing

    with Library.open(Settings.load()) as library, writing(library.engine) as opened:
        run(opened)


main()
