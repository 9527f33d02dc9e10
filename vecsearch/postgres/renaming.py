"""Rename a collection: its tables, indexes, views and functions, and the rows that name it.

The objects are looked up in the database, because the tables may be of any earlier version.
"""

import itertools
from collections.abc import Iterator

import sqlalchemy as sa
from psycopg import sql

from vecsearch.postgres import schema, tables
from vecsearch.postgres.database import driver_connection


def free_reserved_names(connection: sa.Connection) -> dict[str, str]:
    """Rename collections with names that vecsearch reserves; return new names by old names.

    Earlier versions did not reserve all of these names.

    Args:
        connection: in a transaction; tables may be of any version, or missing.

    """
    driver = driver_connection(connection)
    register = driver.execute("SELECT to_regclass('vecsearch.collections')").fetchone()
    if register == (None,):
        return {}
    names = [str(name) for (name,) in driver.execute("SELECT name FROM vecsearch.collections")]
    renamed: dict[str, str] = {}
    for name in sorted(filter(schema.is_reserved, names)):
        renamed[name] = _free_name(connection, name, {*names, *renamed.values()})
        rename(connection, name, renamed[name])
    return renamed


def rename(connection: sa.Connection, old: str, new: str) -> None:
    """Rename a collection of any version of vecsearch.

    Args:
        connection: in a transaction.
        old: the current name.
        new: the new name, which nothing else has.

    """
    driver = driver_connection(connection)
    for kind, before, after in list(_objects(connection, old, new)):
        renamed = sql.Identifier(after).as_string()
        driver.execute(f"ALTER {kind} {before} RENAME TO {renamed}".encode())
    naming = driver.execute(
        "SELECT nspname, relname, attname FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid"
        " JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE nspname = ANY(%(schemas)s) AND relkind = 'r' AND (attname = 'collection'"
        "  AND relname = ANY(%(ours)s) OR attname = 'name' AND relname = 'collections')",
        {
            "schemas": [*tables.SCHEMAS],
            "ours": [table.name for table in tables.metadata.sorted_tables],
        },
    ).fetchall()
    for namespace, table, column in naming:
        driver.execute(
            sql.SQL("UPDATE {} SET {column} = %s WHERE {column} = %s").format(
                sql.Identifier(namespace, table), column=sql.Identifier(column)
            ),
            [new, old],
        )


def _objects(connection: sa.Connection, old: str, new: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind, the name as SQL, and the new name of each object of the collection."""
    driver = driver_connection(connection)
    # Compact vectors were beside the collection's table once.
    owned = driver.execute(
        "SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE nspname = ANY(%(schemas)s) AND relkind = 'r'"
        " AND (nspname = 'vecsearch' AND relname = %(old)s OR relname ~ %(compact)s"
        "  AND relname NOT IN (SELECT name FROM vecsearch.collections))",
        {
            "schemas": [*tables.SCHEMAS],
            "old": old,
            "compact": f"^{old}{schema.COMPACT}[0-9]+$",
        },
    ).fetchall()
    relations = driver.execute(
        "SELECT CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE 'INDEX' END,"
        " relnamespace::regnamespace::text, relname"
        " FROM pg_class LEFT JOIN pg_index ON indexrelid = oid"
        " WHERE starts_with(relname, %(old)s) AND (oid = ANY(%(owned)s)"
        "  OR indrelid = ANY(%(owned)s)"
        "  OR relnamespace = 'vecsearch'::regnamespace AND relname = ANY(%(views)s)"
        "  AND relkind = 'v')",
        {
            "old": old,
            "owned": [oid for (oid,) in owned],
            "views": [f"{old}{suffix}" for suffix in schema.VIEW_SUFFIXES],
        },
    )
    for kind, namespace, name in relations:
        yield kind, sql.Identifier(namespace, name).as_string(), new + name.removeprefix(old)
    functions = driver.execute(
        "SELECT format('vecsearch.%%I(%%s)', proname, pg_get_function_identity_arguments(oid)),"
        " proname"
        " FROM pg_proc WHERE pronamespace = 'vecsearch'::regnamespace AND proname = ANY(%s)",
        [[f"{old}{suffix}" for suffix in schema.FUNCTION_SUFFIXES]],
    )
    for signature, name in functions:
        yield "FUNCTION", signature, new + name.removeprefix(old)


def _free_name(connection: sa.Connection, name: str, taken: set[str]) -> str:
    """Return an unused collection name that begins like `name`."""
    driver = driver_connection(connection)
    for number in itertools.count(1):
        found = f"{name[: schema.LONGEST_NAME - 4]}_{number}"
        relation = driver.execute("SELECT to_regclass(%s)", [f"{tables.SCHEMA}.{found}"])
        if found not in taken and relation.fetchone() == (None,) and not schema.is_reserved(found):
            return found
    raise AssertionError
