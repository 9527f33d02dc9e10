"""Drop a collection, with everything that is stored for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import DatabaseBusy, InvalidInput
from vecsearch.postgres import catalog, schema, tables, thumbnails
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import lock_collection
from vecsearch.postgres.sessions import waits
from vecsearch.vocabulary import NOT_UNDONE, FileAction, counted, parse

# Long enough for most running searches. New searches on this collection wait behind the drop.
LOCK_TIMEOUT_S = 30

# Selects the objects that depend on given relations and functions, or on their row types, or on
# what depends on those, and are not among them. A view depends through its rule. Indexes, triggers
# and policies have other dependency types ("a", "i") and are dropped with their table.
_DEPENDENTS = """
    WITH RECURSIVE found AS (
        SELECT 'pg_class'::regclass AS catalog, oid, true AS is_ours
        FROM unnest(%(relations)s::oid[]) AS oid
        UNION ALL
        SELECT 'pg_proc'::regclass, oid, true FROM unnest(%(functions)s::oid[]) AS oid
        UNION
        SELECT next.* FROM found CROSS JOIN LATERAL (
            SELECT CASE WHEN rule.oid IS NULL THEN classid ELSE 'pg_class'::regclass END,
                coalesce(rule.ev_class, objid), false
            FROM pg_depend LEFT JOIN pg_rewrite AS rule
                ON classid = 'pg_rewrite'::regclass AND rule.oid = objid
            WHERE deptype = 'n' AND refclassid = found.catalog AND refobjid = found.oid
            UNION ALL
            SELECT 'pg_type'::regclass, unnest(ARRAY[pg_type.oid, typarray]), is_ours
            FROM pg_type WHERE found.catalog = 'pg_class'::regclass AND typrelid = found.oid
        ) AS next (catalog, oid, is_ours)
    )
    SELECT pg_describe_object(catalog, oid, 0) FROM found
    WHERE catalog <> 'pg_type'::regclass
        AND (catalog, oid) NOT IN (SELECT catalog, oid FROM found WHERE is_ours)
    GROUP BY catalog, oid ORDER BY 1
"""


# What was done to a file, in words; links are one.
_ACTED = {
    FileAction.move: "moved",
    FileAction.trash: "sent to the trash",
    FileAction.hardlink: "replaced by links",
    FileAction.symlink: "replaced by links",
}


def lost_undo(connection: sa.Connection, name: str) -> str | None:
    """Return, as a sentence, what undo cannot bring back after a drop; None: nothing is lost."""
    acted = tables.file_actions.c
    files: dict[str, int] = {}
    for action, count in connection.execute(
        sa.select(acted.action, sa.func.count())
        .where(acted.collection == name, acted.state.in_(NOT_UNDONE))
        .group_by(acted.action)
    ):
        what = _ACTED[parse(FileAction, action)]
        files[what] = files.get(what, 0) + count
    if not files:
        return None
    *most, last = (what for what in dict.fromkeys(_ACTED.values()) if what in files)
    what = f"{', '.join(most)} or {last}" if most else last
    return (
        f"Without collection {name!r}, undo can no longer bring back "
        f"{counted(sum(files.values()), 'file')} that duplicates --apply {what}."
    )


def drop(connection: sa.Connection, name: str, *, cascade: bool = False) -> list[str]:
    """Drop a collection: its tables, views and functions, and all rows stored for it elsewhere.

    Thumbnails, quantised models and concepts that another collection uses are kept. Return notes
    for the user, among them what `lost_undo` says.

    Args:
        connection: in a transaction.
        name: the collection.
        cascade: drop views, functions and constraints that the user created upon it, too.

    Raises:
        CollectionNotFound: there is no collection of this name.
        InvalidInput: views, functions or tables that the user created depend on it.
        DatabaseBusy: other programs are using its table.

    """
    driver = driver_connection(connection)
    with exclusively(connection, name) as notes:
        collection = catalog.get_collection(connection, name)
        views, owned = _owned(connection, collection)
        relations, functions = _objects(driver, name, [*views, *owned])
        found = _dependents(driver, relations, functions)
        if found and not cascade:
            raise InvalidInput(
                f"Collection {name!r} is used by {', '.join(found)}. Drop those first, or all "
                f"at once: vecsearch drop {name} --cascade"
            )
        if found:
            notes.append(f"Dropped with it: {', '.join(found)}.")
        if (lost := lost_undo(connection, name)) is not None:
            notes.append(lost)
        _drop_objects(driver, views, owned, functions, cascade=cascade)
        identity = collection.identity
        _delete_rows(driver, name, identity.precision, identity.weights_sha256)
        thumbnails.delete_orphans(connection)
    return notes


@contextmanager
def exclusively(connection: sa.Connection, name: str, *others: str) -> Iterator[list[str]]:
    """Hold the locks that whoever drops or renames a collection needs; yield notes for the user.

    Args:
        connection: in a transaction.
        name: the collection.
        others: names that it will have.

    Raises:
        DatabaseBusy: other programs are using its table.

    """
    notes: list[str] = []
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
    try:
        with waits.bounded(connection, notes):
            # Take locks in the same order as an ingest.
            for each in sorted({name, *others}):
                lock_collection(connection, each)
            thumbnails.lock(connection)
            catalog.lock_creation(connection)
            yield notes
    except (psycopg.errors.LockNotAvailable, sa.exc.OperationalError) as error:
        cause = error.orig if isinstance(error, sa.exc.OperationalError) else error
        if not isinstance(cause, psycopg.errors.LockNotAvailable):
            raise
        raise DatabaseBusy(
            f"Other programs are using collection {name!r}. Wait until they finish, and retry."
        ) from error


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


def dependents(connection: sa.Connection, name: str) -> list[str]:
    """Describe what depends on a collection beside what is its own.

    Raises:
        CollectionNotFound: there is no collection of this name.

    """
    views, owned = _owned(connection, catalog.get_collection(connection, name))
    driver = driver_connection(connection)
    return _dependents(driver, *_objects(driver, name, [*views, *owned]))


def _owned(
    connection: sa.Connection, collection: catalog.StoredCollection
) -> tuple[list[sql.Identifier], list[sql.Identifier]]:
    """Return a collection's views and tables."""
    versions = catalog.compact_versions(connection, collection.name)
    return [
        sql.Identifier(tables.SCHEMA, collection.name + suffix) for suffix in schema.VIEW_SUFFIXES
    ], [
        sql.Identifier(str(table.schema), table.name)
        for table in (*(one.table for one in versions), collection.table)
    ]


def _dependents(
    driver: "psycopg.Connection[tuple[object, ...]]",
    relations: list[object],
    functions: dict[object, str],
) -> list[str]:
    parameters = {"relations": relations, "functions": list(functions)}
    return [str(row[0]) for row in driver.execute(_DEPENDENTS, parameters)]


def _drop_objects(
    driver: "psycopg.Connection[tuple[object, ...]]",
    views: list[sql.Identifier],
    owned: list[sql.Identifier],
    functions: dict[object, str],
    *,
    cascade: bool,
) -> None:
    also = " CASCADE" if cascade else ""
    # At once, because one may depend on another.
    if functions:
        driver.execute(f"DROP FUNCTION {', '.join(functions.values())}{also}".encode())
    for kind, relations in (("VIEW", views), ("TABLE", owned)):
        for relation in relations:
            driver.execute(sql.SQL(f"DROP {kind} IF EXISTS {{}}{also}").format(relation))


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
