"""Migrate a database's tables to this version, and check that they are of this version."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from vecsearch.errors import (
    DatabaseError,
    ExtensionMissing,
    SchemaMissing,
    SchemaNewer,
    SchemaOutdated,
)
from vecsearch.postgres import schema, tables
from vecsearch.postgres.database import (
    EXTENSION_HELP,
    VECTOR_SCHEMA,
    driver_connection,
    reading,
    writing,
)
from vecsearch.postgres.sessions import configuration, waits

# Earlier versions have an overflow in parallel index builds, and vacuum may corrupt an index.
RECOMMENDED_PGVECTOR = (0, 8, 4)
# SQL for the revision of the tables, and for the version of pgvector in this database.
REVISION = f"(SELECT version_num FROM {tables.SCHEMA}.{schema.VERSION_TABLE})"
PGVECTOR = "(SELECT extversion FROM pg_extension WHERE extname = 'vector')"
# Alembic has one context per process, so threads take turns.
_alembic = threading.Lock()


def run(engine: sa.Engine, notes: list[str] | None = None) -> dict[str, str]:
    """Apply all missing migrations in a transaction of its own; see `upgrade`.

    Args:
        engine: the database's engine.
        notes: notes for the user are added.

    """
    notes = [] if notes is None else notes
    with writing(engine) as connection, waits.bounded(connection, notes):
        renamed = upgrade(connection)
    # Connections that were open before pgvector was installed do not have it on their path.
    engine.dispose()
    return renamed


@contextmanager
def reading_current(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection in a read-only transaction; refuse tables of another version."""
    with reading(engine) as connection:
        require_current(connection)
        yield connection


def check(engine: sa.Engine) -> None:
    """Refuse tables of another version; see `require_current`."""
    with reading_current(engine):
        pass


def prepare(engine: sa.Engine) -> list[str]:
    """Create the tables in a database that has none; refuse tables of another version.

    Return notes for the user, who may have to configure a new database.
    """
    try:
        check(engine)
    except SchemaMissing:
        notes: list[str] = []
        run(engine, notes)
        with reading(engine) as connection:
            return notes + configuration.advice(connection)
    return []


def upgrade(connection: sa.Connection) -> dict[str, str]:
    """Apply all missing migrations, in one transaction under a lock.

    Collections with names that vecsearch now reserves are renamed first. Return the new names by
    the old names.

    Raises:
        ExtensionMissing: pgvector is absent, too old, or this role may not install it.
        SchemaNewer: a newer vecsearch has migrated the tables.

    """
    from alembic import command
    from alembic.config import Config

    require_server(connection)
    if _revision(connection) is not None:
        _refuse_newer(connection)
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
    # A vector extension that an administrator installed may be older than we can use.
    _check_pgvector(pgvector_version(connection))
    renamed: dict[str, str] = config.attributes["renamed"]
    return renamed


def require_current(connection: sa.Connection) -> None:
    """Check, in one round trip, that server, extension and tables fit this version of vecsearch.

    Raises:
        SchemaMissing, SchemaOutdated, SchemaNewer, ExtensionMissing, DatabaseError: one does not.

    """
    require_server(connection)
    try:
        revision, pgvector = connection.execute(sa.text(f"SELECT {REVISION}, {PGVECTOR}")).one()
    except sa.exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.UndefinedTable):
            raise
        raise SchemaMissing(
            "This database has no vecsearch tables yet. Start with: vecsearch ingest FOLDER"
        ) from error
    if revision == schema.REVISION:
        _check_pgvector(pgvector)
        return
    _refuse_newer(connection)
    raise SchemaOutdated(
        f"The tables are at revision {revision}, and this vecsearch needs {schema.REVISION}. "
        "Run: vecsearch db upgrade"
    )


def require_server(connection: sa.Connection) -> None:
    """Check the server's version.

    Raises:
        DatabaseError: the server is older than PostgreSQL 16.

    """
    major = driver_connection(connection).info.server_version // 10_000
    if major < schema.MINIMUM_POSTGRES:
        raise DatabaseError(
            f"The server is PostgreSQL {major}, and vecsearch needs {schema.MINIMUM_POSTGRES} "
            "or newer. Upgrade it, or use the embedded database by leaving the URL out."
        )


def pgvector_version(connection: sa.Connection) -> str | None:
    """Return the version of pgvector installed in this database, such as "0.8.5"."""
    version: str | None = connection.scalar(sa.text(f"SELECT {PGVECTOR}"))
    return version


def pgvector_schema(connection: sa.Connection) -> str:
    """Return SQL for the name of the schema in which pgvector is installed."""
    return str(connection.scalar(sa.text(f"SELECT quote_ident({VECTOR_SCHEMA})")))


def pgvector_advice(version: str | None) -> str | None:
    """Return a warning about this version for an administrator; None if there is none."""
    if version is None or tuple(map(int, version.split("."))) >= RECOMMENDED_PGVECTOR:
        return None
    return (
        f"pgvector {version} has bugs in index builds and vacuum; upgrade it to "
        f"{'.'.join(map(str, RECOMMENDED_PGVECTOR))} or newer."
    )


def collection_names(connection: sa.Connection) -> list[str]:
    """Return the name of every collection's table, for migrations that change them all."""
    statement = sa.text(f"SELECT name FROM {tables.SCHEMA}.collections ORDER BY name")
    return list(connection.scalars(statement))


def _revision(connection: sa.Connection) -> str | None:
    table = f"{tables.SCHEMA}.{schema.VERSION_TABLE}"
    if connection.scalar(sa.text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    revision: str | None = connection.scalar(sa.text(f"SELECT {REVISION}"))
    return revision


def is_known(revision: str | None) -> bool:
    """Return whether this vecsearch has this revision; otherwise a newer version made it."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(schema.MIGRATIONS)).walk_revisions()
    return revision in {script.revision for script in scripts}


def _refuse_newer(connection: sa.Connection) -> None:
    revision = _revision(connection)
    if not is_known(revision):
        raise SchemaNewer(
            f"The tables are at revision {revision}, made by a newer vecsearch than this one. "
            "Run: pip install --upgrade vecsearch"
        )


def is_usable(version: str | None) -> bool:
    """Return whether this version of pgvector is new enough; False for None."""
    return (
        version is not None
        and tuple(int(part) for part in version.split(".")[:2]) >= schema.MINIMUM_PGVECTOR
    )


def _check_pgvector(version: str | None) -> None:
    if version is None:
        raise ExtensionMissing(f"This database lacks the extension pgvector. {EXTENSION_HELP}")
    if not is_usable(version):
        needed = ".".join(map(str, schema.MINIMUM_PGVECTOR))
        raise ExtensionMissing(
            f"The database has pgvector {version}, and vecsearch needs {needed} or newer. "
            "Upgrade it on the server, then run: ALTER EXTENSION vector UPDATE"
        )
