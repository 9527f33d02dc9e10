"""Drop a collection, with everything that is stored for it."""

import psycopg
import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import DatabaseBusy, InvalidInput
from vecsearch.postgres import catalog, schema, tables, thumbnails
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import lock_collection
from vecsearch.postgres.sessions import waits

# Long enough for most running searches. New searches on this collection wait behind the drop.
LOCK_TIMEOUT_S = 30

# Selects the objects that depend on given relations and functions, or on their row types, and are
# not among them. A view depends through its rule. Indexes, triggers and policies have other
# dependency types ("a", "i") and are dropped with their table.
_DEPENDENTS = """
    WITH ours AS (
        SELECT 'pg_class'::regclass AS catalog, oid FROM unnest(%(relations)s::oid[]) AS oid
        UNION ALL
        SELECT 'pg_proc'::regclass, oid FROM unnest(%(functions)s::oid[]) AS oid
        UNION ALL
        SELECT 'pg_type'::regclass, unnest(ARRAY[pg_type.oid, typarray])
        FROM pg_type WHERE typrelid = ANY(%(relations)s::oid[])
    ), dependents AS (
        SELECT DISTINCT
            CASE WHEN rule.oid IS NULL THEN classid ELSE 'pg_class'::regclass END AS catalog,
            coalesce(rule.ev_class, objid) AS oid
        FROM pg_depend JOIN ours ON refclassid = ours.catalog AND refobjid = ours.oid
        LEFT JOIN pg_rewrite AS rule
            ON classid = 'pg_rewrite'::regclass AND rule.oid = objid
        WHERE deptype = 'n'
    )
    SELECT pg_describe_object(catalog, oid, 0) FROM dependents
    WHERE (catalog, oid) NOT IN (SELECT catalog, oid FROM ours) ORDER BY 1
"""


def drop(connection: sa.Connection, name: str) -> list[str]:
    """Drop a collection: its tables, views and functions, and all rows stored for it elsewhere.

    Thumbnails, quantised models and concepts that another collection uses are kept. Return notes
    for the user.

    Args:
        connection: in a transaction.
        name: the collection.

    Raises:
        CollectionNotFound: there is no collection of this name.
        InvalidInput: views, functions or tables that the user created depend on it.
        DatabaseBusy: other programs are using its table.

    """
    driver = driver_connection(connection)
    notes: list[str] = []
    driver.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'".encode())
    try:
        with waits.bounded(connection, notes):
            # Take locks in the same order as an ingest.
            lock_collection(connection, name)
            thumbnails.lock(connection)
            catalog.lock_creation(connection)
            collection = catalog.get_collection(connection, name)
            views = [
                sql.Identifier(tables.SCHEMA, name + suffix) for suffix in schema.VIEW_SUFFIXES
            ]
            owned = [
                sql.Identifier(str(table.schema), table.name)
                for table in (
                    *(one.table for one in catalog.compact_versions(connection, name)),
                    collection.table,
                )
            ]
            relations, functions = _objects(driver, name, [*views, *owned])
            _refuse_dependents(driver, name, relations, functions)
            _drop_objects(driver, views, owned, functions)
            identity = collection.identity
            _delete_rows(driver, name, identity.precision, identity.weights_sha256)
            thumbnails.delete_orphans(connection)
    except (psycopg.errors.LockNotAvailable, sa.exc.OperationalError) as error:
        cause = error.orig if isinstance(error, sa.exc.OperationalError) else error
        if not isinstance(cause, psycopg.errors.LockNotAvailable):
            raise
        raise DatabaseBusy(
            f"Other programs are using collection {name!r}. Wait until they finish, and retry."
        ) from error
    return notes


def _objects(
    driver: "psycopg.Connection[tuple[object, ...]]", name: str, relations: list[sql.Identifier]
) -> tuple[list[object], dict[object, str]]:
    """Return the ids of the collection's relations, and its functions' signatures by id."""
    found = driver.execute(
        "SELECT oid FROM pg_class"
        " WHERE oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)",
        [[relation.as_string() for relation in relations]],
    )
    functions = driver.execute(
        "SELECT oid, format('%%I.%%I(%%s)', 'vecsearch', proname,"
        " pg_get_function_identity_arguments(oid)) FROM pg_proc"
        " WHERE pronamespace = 'vecsearch'::regnamespace AND proname = ANY(%s)",
        [[f"{name}{suffix}" for suffix in schema.FUNCTION_SUFFIXES]],
    )
    return [oid for (oid,) in found], {oid: str(signature) for oid, signature in functions}


def _refuse_dependents(
    driver: "psycopg.Connection[tuple[object, ...]]",
    name: str,
    relations: list[object],
    functions: dict[object, str],
) -> None:
    parameters = {"relations": relations, "functions": list(functions)}
    found = [str(row[0]) for row in driver.execute(_DEPENDENTS, parameters)]
    if found:
        raise InvalidInput(f"Collection {name!r} is used by {', '.join(found)}. Drop those first.")


def _drop_objects(
    driver: "psycopg.Connection[tuple[object, ...]]",
    views: list[sql.Identifier],
    owned: list[sql.Identifier],
    functions: dict[object, str],
) -> None:
    # At once, because one may depend on another.
    if functions:
        driver.execute(f"DROP FUNCTION {', '.join(functions.values())}".encode())
    for kind, relations in (("VIEW", views), ("TABLE", owned)):
        for relation in relations:
            driver.execute(sql.SQL(f"DROP {kind} IF EXISTS {{}}").format(relation))


def _delete_rows(
    driver: "psycopg.Connection[tuple[object, ...]]",
    name: str,
    precision: str,
    encoder: str | None,
) -> None:
    of_collections = [
        table for table in tables.metadata.tables.values() if "collection" in table.columns
    ]
    for table in of_collections:
        driver.execute(f"DELETE FROM {table.fullname} WHERE collection = %s".encode(), [name])
    driver.execute("DELETE FROM vecsearch.collections WHERE name = %s", [name])
    driver.execute(
        (
            f"DELETE FROM {tables.quantized_models.fullname} AS model WHERE precision = %s"
            " AND NOT EXISTS (SELECT FROM vecsearch.collections AS other"
            " WHERE other.precision = model.precision)"
        ).encode(),
        [precision],
    )
    driver.execute(
        "DELETE FROM vecsearch.concepts AS concept WHERE encoder = %s AND NOT EXISTS"
        " (SELECT FROM vecsearch.collections AS other WHERE weights_sha256 = concept.encoder)",
        [encoder],
    )
