"""Find what is missing of a collection, after something was dropped by hand, and mend it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa

from vecsearch.encoders import base
from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import CollectionNotFound
from vecsearch.postgres import (
    analysts,
    catalog,
    database,
    drop,
    migrate,
    schema,
    tables,
    thumbnails,
)
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.columns import COLUMNS
from vecsearch.postgres.rows import writing
from vecsearch.search import functions
from vecsearch.search.indexes import build
from vecsearch.search.indexes.resources import ANY, Resources
from vecsearch.vocabulary import Confirm, IndexMethod, Metric

UNKNOWN_MODEL = "unknown"
# What is wrong with a table that `strays` returns.
MISSING_ENTRY = "its entry in the register is missing"


class Remedy(Enum):
    """What mends a problem; the value says what was done."""

    remove = "removed what was left of it"
    register = "registered again, as images of an unknown encoder"
    replace = "made again"
    rebuild = "the index was built again"
    delete = "deleted"
    none = "cannot be mended. Drop the collection, and ingest it again"


@dataclass(frozen=True)
class Problem:
    """Something that is missing of a collection, or left of one.

    Attributes:
        collection: its name; empty: none in particular.
        problem: a clause.
        remedy: what mends it.

    """

    collection: str
    problem: str
    remedy: Remedy


@dataclass(frozen=True)
class Repaired:
    """A problem, and what was done about it."""

    collection: str
    problem: str
    done: str


def find(connection: sa.Connection, stored: StoredCollection) -> list[Problem]:
    """Return what is missing of a collection, the worst first."""
    missing = _missing(connection, stored)
    name = stored.name
    if missing["table"]:
        return [Problem(name, f"table {name} is missing", Remedy.remove)]
    problems = []
    required = {column.name for column in COLUMNS if column.required}
    lost = sorted(required & {*missing["column"]})
    if lost:
        problems.append(Problem(name, f"column {', '.join(lost)} is missing", Remedy.none))
    if missing["compact"]:
        problems.append(Problem(name, "its compact vectors are missing", Remedy.rebuild))
    for kind in ("column", "view", "function", "trigger", "index"):
        found = sorted({*missing[kind]} - required)
        if found and not lost:
            what = f"{kind} {', '.join(found)} {'is' if len(found) == 1 else 'are'} missing"
            problems.append(Problem(name, what, Remedy.replace))
    return problems


def strays(connection: sa.Connection) -> list[tuple[str, int]]:
    """Return the tables that are like a collection's and not in the register: names, dimensions.

    A user's copy, made by CREATE TABLE AS, has no primary key, and is not one.
    """
    rows = connection.execute(
        sa.text(
            "SELECT relname, (SELECT atttypmod FROM pg_attribute"
            "  WHERE attrelid = c.oid AND attname = 'embedding')"
            " FROM pg_class AS c WHERE relnamespace = CAST(:schema AS regnamespace)"
            " AND relkind = 'r' AND relname NOT IN (SELECT name FROM vecsearch.collections)"
            " AND EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)"
            " AND CAST(:columns AS text[]) <@ ARRAY(SELECT CAST(attname AS text)"
            "  FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)"
            " ORDER BY 1"
        ),
        {"schema": tables.SCHEMA, "columns": [column.name for column in COLUMNS]},
    )
    return [(row[0], row[1]) for row in rows if not schema.is_reserved(row[0])]


def _missing(connection: sa.Connection, stored: StoredCollection) -> dict[str, list[str]]:
    """Return the names of missing objects by kind."""
    name, table = stored.name, stored.table
    suffixes = [each for each in schema.FUNCTION_SUFFIXES if each != schema.NEAREST_SUFFIX]
    compact = None if stored.compact is None else stored.compact.table
    wanted = {
        "table": [name],
        "view": [name + suffix for suffix in schema.VIEW_SUFFIXES],
        "index": [str(index.name) for index in table.indexes],
        "compact": [] if compact is None else [schema.sql_name(compact)],
        "function": [name + suffix for suffix in suffixes],
        "trigger": list(analysts.TRIGGERS),
        "column": [column.name for column in COLUMNS],
    }
    relation = "to_regclass('vecsearch.' || quote_ident(name)) IS NULL"
    conditions = {
        **dict.fromkeys(("table", "view", "index"), relation),
        "compact": "to_regclass(name) IS NULL",
        "function": "NOT EXISTS (SELECT FROM pg_proc WHERE proname = name"
        " AND pronamespace = 'vecsearch'::regnamespace)",
        "trigger": "NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = name"
        " AND tgrelid = to_regclass(:table))",
        "column": "NOT EXISTS (SELECT FROM pg_attribute WHERE attname = name"
        " AND attrelid = to_regclass(:table) AND NOT attisdropped)",
    }
    selected = ", ".join(
        f"ARRAY(SELECT name FROM unnest(CAST(:{kind} AS text[])) AS name WHERE {condition})"
        for kind, condition in conditions.items()
    )
    values: dict[str, Any] = {
        **{f"{kind}": names for kind, names in wanted.items() if kind != "table"},
        "table": schema.sql_name(table),
    }
    selected = selected.replace("CAST(:table AS text[])", "ARRAY[:name]")
    row = connection.execute(sa.text(f"SELECT {selected}"), {**values, "name": name}).one()
    return dict(zip(conditions, row, strict=True))


def repair(
    engine: sa.Engine,
    name: str | None,
    *,
    dry_run: bool,
    confirm: Confirm,
    resources: Resources = ANY,
) -> list[Repaired]:
    """Mend collections; see `vecsearch.library.Library.repair`."""
    with migrate.reading_current(engine) as connection:
        stored = {each.name: each for each in catalog.list_collections(connection)}
        lost = dict(strays(connection))
        if name is not None and name not in stored and name not in lost:
            catalog.get_collection(connection, name)
            raise CollectionNotFound(name)
        problems = [problem for each in stored.values() for problem in find(connection, each)]
        problems += [Problem(each, MISSING_ENTRY, Remedy.register) for each in lost]
        left = thumbnails.count_orphans(connection) if name is None else 0
    if left:
        problems.append(Problem("", f"{left:,} thumbnails of no image", Remedy.delete))
    chosen = [each for each in problems if name is None or each.collection == name]
    done = []
    for problem in chosen:
        what = problem.remedy.value
        if not dry_run:
            found = stored.get(problem.collection)
            what = _mend(engine, problem, found, lost, confirm, resources)
        done.append(Repaired(problem.collection, problem.problem, what))
    return done


def _mend(
    engine: sa.Engine,
    problem: Problem,
    stored: StoredCollection | None,
    lost: dict[str, int],
    confirm: Confirm,
    resources: Resources,
) -> str:
    """Mend a problem, and return what was done."""
    name = problem.collection
    match problem.remedy:
        case Remedy.remove:
            question = f"{name}: {problem.problem}, and its images with it. Its entry, tags and "
            if not confirm(f"{question}errors, and thumbnails of no other image, will be removed."):
                return "nothing, because that needs a yes: --yes"
            with database.writing(engine) as connection:
                drop.drop(connection, name)
        case Remedy.delete:
            if not confirm(f"There are {problem.problem}. They will be deleted."):
                return "nothing, because that needs a yes: --yes"
            with database.writing(engine) as connection:
                thumbnails.delete_orphans(connection)
        case Remedy.register:
            _register(engine, name, lost[name])
        case Remedy.rebuild if stored is not None:
            build.create(
                engine,
                name,
                IndexMethod.compact,
                stored.index_options,
                resources=resources,
            )
        case Remedy.replace if stored is not None:
            _replace(engine, stored)
    return problem.remedy.value


def _register(engine: sa.Engine, name: str, dimensions: int) -> None:
    identity = Identity(base.UNKNOWN, UNKNOWN_MODEL, base.POOLED, None, {})
    with database.session(engine) as connection, writing(connection, name):
        catalog.lock_creation(connection)
        stored = catalog.register(
            connection,
            name,
            identity,
            Weights(None, None),
            dimensions,
            default_metric=Metric.cosine,
            index_method=IndexMethod.hnsw,
        )
    _replace(engine, stored)


def _replace(engine: sa.Engine, stored: StoredCollection) -> None:
    """Make what is missing beside a collection's rows: columns, indexes, views, functions."""
    with database.session(engine) as connection, writing(connection, stored.name):
        catalog.lock_creation(connection)
        missing = _missing(connection, stored)
        for statement in _additions(stored, missing["column"]):
            connection.exec_driver_sql(statement)
        for index in stored.table.indexes:
            if index.name in missing["index"]:
                index.create(connection)
        analysts.create(connection, stored.table)
        if missing["trigger"]:
            analysts.start_feed(connection, stored.table)
        functions.replace(connection, stored)


def _additions(stored: StoredCollection, columns: list[str]) -> Iterator[str]:
    """Yield statements that add columns to a collection's table."""
    source = schema.sql_name(stored.table)
    for column in COLUMNS:
        if column.name in columns:
            default = "" if column.default is None else f" DEFAULT {column.default}"
            null = "" if column.nullable else " NOT NULL"
            yield f"ALTER TABLE {source} ADD COLUMN {column.name} {column.kind}{default}{null}"
            text = column.comment.replace("'", "''").replace("%", "%%")
            yield f"COMMENT ON COLUMN {source}.{column.name} IS '{text}'"
