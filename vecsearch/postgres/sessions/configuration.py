"""Configure a database of the user's own, so that plain SQL from any client is right."""

from dataclasses import dataclass
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import SchemaMissing
from vecsearch.postgres import tables
from vecsearch.postgres.database import VECTOR_SCHEMA, driver_connection
from vecsearch.postgres.sessions.settings import EF_SEARCH, SEARCH
from vecsearch.vocabulary import least_ef_search

COMMAND = "vecsearch db configure"


@dataclass(frozen=True)
class Configuration:
    """The settings that new sessions lack, and where they are to be set.

    Attributes:
        database: name of the database.
        role: the role, if only its own sessions can be configured; None: every role's, because this
            role owns the database.
        missing: values by setting.

    """

    database: str
    role: str | None
    missing: dict[str, str]

    @property
    def where(self) -> str:
        """Whose sessions the settings are for."""
        if self.role is None:
            return f"database {self.database!r}"
        return f"role {self.role!r} in database {self.database!r}"


def read(connection: sa.Connection) -> Configuration:
    """Return what new sessions of this role lack in this database.

    Raises:
        SchemaMissing: pgvector is not installed yet, so its settings are unknown.

    """
    driver = driver_connection(connection)
    place = _load(driver)
    (database, is_owner, role) = _row(
        driver,
        "SELECT datname, pg_has_role(datdba, 'USAGE'), current_user FROM pg_database"
        " WHERE datname = current_database()",
    )
    # reset_val: what a new session starts with, whatever this one has set.
    found = dict(
        driver.execute(
            "SELECT name, reset_val FROM pg_settings WHERE name = ANY(%s)",
            [[*SEARCH, "search_path"]],
        ).fetchall()
    )
    wanted = {**SEARCH, EF_SEARCH: str(least_ef_search(_most_rows(driver)))}
    missing = {name: value for name, value in wanted.items() if _is_less(found[name], value)}
    path = _path(driver, found["search_path"], [tables.SCHEMA, place])
    if path != found["search_path"]:
        missing = {"search_path": path, **missing}
    return Configuration(database, None if is_owner else role, missing)


def apply(connection: sa.Connection, wanted: Configuration) -> None:
    """Store the missing settings for new sessions; the caller commits."""
    driver = driver_connection(connection)
    _load(driver)
    database = sql.Identifier(wanted.database)
    target = (
        sql.SQL("DATABASE {}").format(database)
        if wanted.role is None
        else sql.SQL("ROLE CURRENT_USER IN DATABASE {}").format(database)
    )
    for name, value in wanted.missing.items():
        # FROM CURRENT: Postgres itself quotes the schemas of a search_path.
        driver.execute("SELECT set_config(%s, %s, true)", [name, value])
        driver.execute(sql.SQL("ALTER {} SET {} FROM CURRENT").format(target, sql.SQL(name)))


def advice(connection: sa.Connection) -> list[str]:
    """Return a note that names the command, if settings are missing."""
    wanted = read(connection)
    note = (
        f"Plain SQL needs settings that {wanted.where} lacks: without them, an index search may "
        f"leave rows out. Set them: {COMMAND}"
    )
    return [note] if wanted.missing else []


def _load(driver: "psycopg.Connection[Any]") -> str:
    """Load pgvector, whose settings Postgres knows only then; return its schema."""
    try:
        driver.execute("SELECT CAST('[1]' AS vector)")
    except psycopg.errors.UndefinedObject as error:
        raise SchemaMissing(
            "This database has no vecsearch tables yet. Create them first: vecsearch db upgrade"
        ) from error
    return str(_row(driver, f"SELECT {VECTOR_SCHEMA}")[0])


def _path(driver: "psycopg.Connection[Any]", path: str, schemas: list[str]) -> str:
    """Return a search_path with these schemas after its own.

    Programs that share the database create their tables in the path's first schema, so it stays.
    """
    present = [part.strip().strip('"') for part in path.split(",")]
    added = [schema for schema in dict.fromkeys(schemas) if schema not in present]
    quoted = [_row(driver, "SELECT quote_ident(%s)", schema)[0] for schema in added]
    return ", ".join([path, *quoted] if path else quoted)


def _most_rows(driver: "psycopg.Connection[Any]") -> float:
    """Return about how many rows the largest of our tables has."""
    (rows,) = _row(
        driver,
        "SELECT coalesce(max(reltuples), 0) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s)",
        tables.SCHEMA,
    )
    return float(rows)


def _is_less(found: str, wanted: str) -> bool:
    """Return whether a setting is lower than wanted, or another word."""
    try:
        return float(found) < float(wanted)
    except ValueError:
        return found != wanted


def _row(driver: "psycopg.Connection[Any]", statement: str, *parameters: object) -> tuple[Any, ...]:
    row = driver.execute(statement.encode(), parameters).fetchone()
    assert row is not None  # noqa: S101 - for the type checker: these always return one row
    return tuple(row)
