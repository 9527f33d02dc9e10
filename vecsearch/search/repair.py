"""Find what is missing of a collection, after something was dropped by hand, and mend it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from vecsearch.encoders import base
from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import CollectionNotFound, DatabaseError, NotConfirmed
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
from vecsearch.vocabulary import Confirm, IndexMethod, Metric, counted

UNKNOWN_MODEL = "unknown"
# What is wrong with a table that `strays` returns.
MISSING_ENTRY = "its entry in the register is missing"


class Remedy(Enum):
    """What mends a problem.

    Attributes:
        plan: what it will do, as an imperative.
        done: what it did.

    """

    remove = (
        "remove its entry, tags and errors, and thumbnails of no other image",
        "removed what was left of it",
    )
    register = (
        "register it again, as images of an unknown encoder",
        "registered again, as images of an unknown encoder",
    )
    replace = ("make it again", "made again")
    rebuild = ("build the index again", "the index was built again")
    delete = ("delete them", "deleted")
    none = ("nothing: drop the collection, and ingest it again",) * 2

    def __init__(self, plan: str, done: str) -> None:
        self.plan = plan
        self.done = done

    @property
    def needs_yes(self) -> bool:
        """Whether it deletes something, and so must be confirmed."""
        return self in {Remedy.remove, Remedy.delete}


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

    def __str__(self) -> str:
        return f"{self.collection}: {self.problem}" if self.collection else self.problem


@dataclass(frozen=True)
class Repaired:
    """A problem, and what was done about it, or in a dry run, what would be."""

    collection: str
    problem: str
    done: str


class RepairRefused(NotConfirmed):
    """Everything was mended but what needs a yes.

    Attributes:
        repaired: what was found and done.

    """

    def __init__(self, refused: Sequence[Problem], repaired: list[Repaired]) -> None:
        plans = "; ".join(f"{each}: {each.remedy.plan}" for each in refused)
        super().__init__(
            f"Not done without a yes: {plans}. Everything else was done. To do this: --yes"
        )
        self.repaired = repaired


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


def require_whole(connection: sa.Connection, stored: StoredCollection) -> None:
    """Check that a collection has what its searches read.

    Raises:
        DatabaseError: something of it was dropped.

    """
    for problem in find(connection, stored):
        if problem.remedy is not Remedy.replace:
            raise DatabaseError(
                f"Collection {stored.name!r} is broken: {problem.problem}. To see what can be "
                f"mended: vecsearch db repair {stored.name} --dry-run"
            )


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
    place = sa.literal(f"{tables.SCHEMA}.")
    relation = sa.func.to_regclass(schema.sql_name(table))
    triggers = _catalog("pg_trigger", "tgname", "tgrelid")
    columns = _catalog("pg_attribute", "attname", "attrelid", "attisdropped")
    functions_ = _catalog("pg_proc", "proname", "pronamespace")
    each = sa.column("each", sa.Text)
    is_relation = sa.func.to_regclass(place + sa.func.quote_ident(each)).is_not(None)
    is_function = sa.exists().where(
        functions_.proname == each,
        functions_.pronamespace == sa.func.to_regnamespace(tables.SCHEMA),
    )
    is_trigger = sa.exists().where(triggers.tgname == each, triggers.tgrelid == relation)
    is_column = sa.exists().where(
        columns.attname == each, columns.attrelid == relation, ~columns.attisdropped
    )
    # By kind: the names that there should be, and whether there is one.
    wanted: dict[str, tuple[Iterable[str], sa.ColumnElement[bool]]] = {
        "table": ([name], is_relation),
        "view": ([name + suffix for suffix in schema.VIEW_SUFFIXES], is_relation),
        "index": ([str(index.name) for index in table.indexes], is_relation),
        "compact": (
            [] if compact is None else [schema.sql_name(compact)],
            sa.func.to_regclass(each).is_not(None),
        ),
        "function": ([name + suffix for suffix in suffixes], is_function),
        "trigger": (() if stored.is_distributed else analysts.TRIGGERS, is_trigger),
        "column": ([column.name for column in COLUMNS], is_column),
    }
    absent = sa.union_all(
        *(
            sa.select(sa.literal(kind), each)
            .select_from(
                sa.func.unnest(sa.cast([*names], ARRAY(sa.Text)))
                .table_valued(each, name="names")
                .render_derived()
            )
            .where(~exists)
            for kind, (names, exists) in wanted.items()
        )
    )
    missing: dict[str, list[str]] = {kind: [] for kind in wanted}
    for kind, absent_name in connection.execute(absent):
        missing[kind].append(absent_name)
    return missing


def _catalog(table: str, *columns: str) -> Any:
    """Return the columns of one of Postgres' own tables."""
    return sa.table(table, *map(sa.column, columns), schema="pg_catalog").c


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
        undo = {
            each.collection: drop.lost_undo(connection, each.collection)
            for each in problems
            if each.remedy is Remedy.remove
        }
    if left:
        problems.append(Problem("", f"{counted(left, 'thumbnail')} of no image", Remedy.delete))
    chosen = [each for each in problems if name is None or each.collection == name]
    done, refused = [], []
    for problem in chosen:
        remedy = problem.remedy
        also = undo.get(problem.collection)
        if dry_run:
            what = remedy.plan if also is None else f"{remedy.plan}. {also}"
        elif remedy.needs_yes and not confirm(
            " ".join(filter(None, (f"{problem}. This will {remedy.plan}.", also)))
        ):
            refused.append(problem)
            what = f"nothing: with --yes, {remedy.plan}"
        else:
            _mend(engine, problem, stored.get(problem.collection), lost, resources)
            what = remedy.done if also is None else f"{remedy.done}. {also}"
        done.append(Repaired(problem.collection, problem.problem, what))
    if refused:
        raise RepairRefused(refused, done)
    return done


def _mend(
    engine: sa.Engine,
    problem: Problem,
    stored: StoredCollection | None,
    lost: dict[str, int],
    resources: Resources,
) -> None:
    name = problem.collection
    match problem.remedy:
        case Remedy.remove:
            with database.writing(engine) as connection:
                drop.drop(connection, name)
        case Remedy.delete:
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
