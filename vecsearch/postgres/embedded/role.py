"""The roles without superuser's rights: readers, writers with their own schema, and LOCAL.

Readers and writers connect by TCP; LOCAL is the reader as which the owner's own commands read, so
that an SQL condition, or what `vecsearch sql` is given, can do only what a reader can.

A reader has no right to change anything, takes no lock that keeps others from writing, and leaves
nothing behind. Its timeouts are against mistakes, for each role can unset its own; what else it
could hold up, `vecsearch.postgres.sessions.waits` bounds.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from vecsearch.postgres import tables
from vecsearch.postgres.database import VECTOR_SCHEMA
from vecsearch.postgres.embedded.access import (
    DATABASE,
    FORMER_WRITERS,
    LOCAL,
    LOCAL_SETTINGS,
    READERS,
    WRITERS,
)
from vecsearch.postgres.embedded.credentials import Credentials
from vecsearch.postgres.sessions.settings import READING_LIMITS

# Enough for a BI tool's pool.
CONNECTIONS = 20
READER_SETTINGS = {
    "default_transaction_read_only": "on",
    **READING_LIMITS,
    "idle_in_transaction_session_timeout": "1min",
    "lock_timeout": "10s",
    # Only a superuser can change these two. They keep the disk from filling, with what large
    # sorts put aside and with messages that the server would log.
    "temp_file_limit": "4GB",
    "log_min_messages": "fatal",
}
WRITER_SETTINGS = {
    "idle_in_transaction_session_timeout": "10min",
    "lock_timeout": "1min",
}
# Functions that everyone may call by default and that outlast the caller's query or keep others
# from working: vecsearch's own locks are advisory, large objects are stored data, and a role may
# end all sessions of its name.
_REVOKE_FUNCTIONS = rf"""
    DO $$ BEGIN EXECUTE (
        SELECT 'REVOKE EXECUTE ON FUNCTION '
            || string_agg(CAST(CAST(oid AS regprocedure) AS text), ', ') || ' FROM PUBLIC'
        FROM pg_proc WHERE pronamespace = CAST('pg_catalog' AS regnamespace) AND (
            proname ~ '^pg_(try_)?advisory_' OR proname ~ '^(lo_|loread$|lowrite$)'
            OR proname IN ('pg_logical_emit_message', 'pg_cancel_backend',
                'pg_terminate_backend')));
    END $$;
    REVOKE TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC;
    GRANT TEMPORARY ON DATABASE {DATABASE} TO {WRITERS};
    GRANT {READERS} TO {WRITERS}, {FORMER_WRITERS};
"""
# Default privileges: collections that are made later are readable, too.
_GRANT = """
    GRANT USAGE ON SCHEMA {schema} TO {readers};
    GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {readers};
    ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {readers};
"""

# Readers see what a writer makes.
_OWN_SCHEMA = (
    "CREATE SCHEMA IF NOT EXISTS {name} AUTHORIZATION {name}",
    "GRANT USAGE ON SCHEMA {name} TO {readers}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {name} IN SCHEMA {name} GRANT SELECT ON TABLES TO {readers}",
)

Driver = psycopg.Connection[Any]


@dataclass(frozen=True)
class Role:
    """A role that connects by TCP, and its open sessions."""

    name: str
    kind: str
    sessions: int


def settings(driver: Driver, credentials: Credentials) -> dict[str, str]:
    """Return the settings of a role's sessions."""
    own = [credentials.name] if credentials.is_writer else []
    # Before pgvector is installed: where it will be.
    found = driver.execute(f"SELECT coalesce(quote_ident({VECTOR_SCHEMA}), 'public')".encode())
    path = ", ".join([*own, tables.SCHEMA, *(str(name) for (name,) in found)])
    limits = WRITER_SETTINGS if credentials.is_writer else READER_SETTINGS
    return {"search_path": path, **limits}


def prepare_groups(driver: Driver) -> None:
    """Create the groups, or bring them up to date, and take from everyone what only they have."""
    for group in (READERS, WRITERS, FORMER_WRITERS):
        if not exists(driver, group):
            driver.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(group)))
    driver.execute(_REVOKE_FUNCTIONS.encode())
    grant_reading(driver)


def grant_reading(driver: Driver) -> None:
    """Let readers read those of our schemas that there are, and what is created in them later."""
    found = driver.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s)"
        " AND NOT has_schema_privilege(%s, oid, 'USAGE')",
        [list(tables.SCHEMAS), READERS],
    ).fetchall()
    for (schema,) in found:
        driver.execute(
            sql.SQL(_GRANT).format(schema=sql.Identifier(schema), readers=sql.Identifier(READERS))
        )


def prepare_local(driver: Driver) -> None:
    """Create LOCAL, or restore its rights and settings."""
    prepare_groups(driver)
    name = sql.Identifier(LOCAL)
    if not exists(driver, LOCAL):
        driver.execute(sql.SQL("CREATE ROLE {}").format(name))
    driver.execute(
        sql.SQL(
            "ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
            " PASSWORD NULL; GRANT {readers} TO {name}; ALTER ROLE {name} RESET ALL"
        ).format(name=name, readers=sql.Identifier(READERS))
    )
    for setting, value in LOCAL_SETTINGS.items():
        driver.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.SQL(setting), sql.Literal(value))
        )


def apply(driver: Driver, credentials: Credentials) -> None:
    """Create a role, or restore it: its password, limits, membership, settings and schema.

    The password is sent, and perhaps logged, only as its verifier.
    """
    name = sql.Identifier(credentials.name)
    known = exists(driver, credentials.name)
    group = WRITERS if credentials.is_writer else READERS
    statements = [
        sql.SQL("{} ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT {}").format(
            sql.SQL("ALTER" if known else "CREATE"), name, credentials.verifier, CONNECTIONS
        ),
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), name),
        sql.SQL("ALTER ROLE {} RESET ALL").format(name),
        sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(name, sql.Identifier(DATABASE)),
    ]
    for setting, value in settings(driver, credentials).items():
        # A list of schemas, each quoted already, would be one name as a literal.
        given = sql.SQL(value) if setting == "search_path" else sql.Literal(value)
        statements.append(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.SQL(setting), given)
        )
    if credentials.is_writer:
        statements += [
            sql.SQL(statement).format(name=name, readers=sql.Identifier(READERS))
            for statement in _OWN_SCHEMA
        ]
    for statement in statements:
        driver.execute(statement)


def restore(driver: Driver, stored: list[Credentials]) -> list[str]:
    """Restore the roles that differ from their credentials; return their names.

    Their sessions end: one that is changing its role now would keep this from doing so.
    """
    changed = []
    driver.execute("SET LOCAL lock_timeout = '5s'")
    for credentials in stored:
        found = driver.execute(
            "SELECT rolpassword, rolconnlimit, coalesce((SELECT setconfig FROM pg_db_role_setting"
            " WHERE setrole = role.oid AND setdatabase = 0), '{}'), EXISTS (SELECT FROM"
            " pg_db_role_setting WHERE setrole = role.oid AND setdatabase <> 0)"
            " FROM pg_authid AS role WHERE rolname = %s",
            [credentials.name],
        ).fetchone()
        if found is None:
            continue  # it is being created or dropped
        verifier, limit, configured, is_set_elsewhere = found
        wanted = {f"{name}={value}" for name, value in settings(driver, credentials).items()}
        if (verifier, limit, set(configured), is_set_elsewhere) != (
            credentials.verifier,
            CONNECTIONS,
            wanted,
            False,
        ):
            end_sessions(driver, credentials.name)
            apply(driver, credentials)
            changed.append(credentials.name)
    return changed


def find(driver: Driver) -> list[Role]:
    """Return the roles that connect by TCP, by name."""
    rows = driver.execute(
        "SELECT member.rolname, CASE groups.rolname WHEN %s THEN 'reader' ELSE 'writer' END,"
        " (SELECT count(*) FROM pg_stat_activity WHERE usesysid = member.oid)"
        " FROM pg_auth_members JOIN pg_roles AS groups ON groups.oid = roleid"
        " JOIN pg_roles AS member ON member.oid = pg_auth_members.member"
        " WHERE groups.rolname = ANY(%s) AND member.rolcanlogin AND member.rolname <> %s"
        " ORDER BY 1",
        [READERS, [READERS, WRITERS], LOCAL],
    )
    return [Role(*row) for row in rows]


def end_sessions(driver: Driver, name: str) -> None:
    """End the sessions that a role has now."""
    driver.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [name]
    )


def lock_out(driver: Driver, name: str) -> None:
    """End a role's sessions, and let no new ones begin. This commits."""
    end_sessions(driver, name)
    driver.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))
    driver.commit()
    end_sessions(driver, name)


def drop(driver: Driver, name: str) -> None:
    """Drop a role; what it owns stays, and is from now on that of FORMER_WRITERS.

    It must not be a superuser's: functions with SECURITY DEFINER and views run with their owner's
    rights.
    """
    names = {"role": sql.Identifier(name), "former": sql.Identifier(FORMER_WRITERS)}
    for statement in (
        "REASSIGN OWNED BY {role} TO {former}",
        "DROP OWNED BY {role}",
        "DROP ROLE {role}",
    ):
        driver.execute(sql.SQL(statement).format(**names))


def exists(driver: Driver, name: str) -> bool:
    """Return whether the server has a role of this name."""
    return driver.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def has_schema(driver: Driver, name: str) -> bool:
    """Return whether the database has a schema of this name."""
    found = driver.execute("SELECT FROM pg_namespace WHERE nspname = %s", [name]).fetchone()
    return found is not None
