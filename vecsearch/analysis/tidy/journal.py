"""The journal of what was done to files: one row a file, written before and after each step."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from vecsearch.analysis.tidy.plan import Planned
from vecsearch.errors import InvalidInput
from vecsearch.ingest import scope
from vecsearch.postgres import catalog, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import claimed
from vecsearch.search.indexes import vectors
from vecsearch.vocabulary import NOT_UNDONE, FileAction, FileState, command_line, parse

# Any fixed number; with the hash of a collection's name it is the key of the lock.
TIDY_LOCK_KEY = 0x766574
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACTIONS = tables.file_actions


@dataclass(frozen=True)
class Entry:
    """A file in the journal.

    Attributes:
        run, number: of the run in its collection, and of the file in the run.
        action: what is done to it.
        state: how far that is.
        id, path, sha256: of the image.
        kept, kept_path: of the image that is kept in its place.
        target: where the file is now, or is while it is replaced; None: in the trash, or unknown.
        facts: its size, modification time in nanoseconds and mode, when it was planned.
        reason: why it was left alone.

    """

    run: int
    number: int
    action: FileAction
    state: FileState
    id: UUID
    path: str
    sha256: str
    kept: UUID
    kept_path: str
    target: str | None
    facts: dict[str, int]
    reason: str | None


@dataclass(frozen=True)
class Run:
    """One `duplicates --apply`.

    Attributes:
        run: its number.
        at: when it was begun.
        action: what it did.
        files: number of files in it.
        done: those that are done, or were interrupted, and are not undone.
        left: those that were left alone.
        undone: those that were undone.

    """

    run: int
    at: datetime
    action: str
    files: int
    done: int
    left: int
    undone: int


_FIELDS = [_ACTIONS.c[name] for name in Entry.__dataclass_fields__]


def claim(engine: sa.Engine, name: str) -> AbstractContextManager[None]:
    """Hold a collection's journal: one command at a time acts on its files."""
    return claimed(
        engine,
        TIDY_LOCK_KEY,
        name,
        f"Another command acts on the files of collection {name!r}. Wait until it ends, and retry.",
    )


def begin(connection: sa.Connection, name: str, planned: Sequence[Planned]) -> int:
    """Write a run's files to the journal; return the run's number."""
    columns = _ACTIONS.c
    last = connection.scalar(sa.select(sa.func.max(columns.run)).where(columns.collection == name))
    run = int(last or 0) + 1
    rows = [
        {
            "collection": name,
            "run": run,
            "number": number,
            "state": FileState.planned,
            **vars(file),
        }
        for number, file in enumerate(planned, start=1)
    ]
    connection.execute(sa.insert(_ACTIONS), rows)
    return run


def runs(connection: sa.Connection, name: str) -> list[Run]:
    """Return a collection's runs, the last first."""
    columns = _ACTIONS.c

    def number(*states: FileState) -> sa.ColumnElement[int]:
        return sa.func.count().filter(columns.state.in_(states))

    rows = connection.execute(
        sa.select(
            columns.run,
            sa.func.min(columns.at),
            sa.func.min(columns.action),
            sa.func.count(),
            number(*NOT_UNDONE),
            number(FileState.left),
            number(FileState.undone),
        )
        .where(columns.collection == name)
        .group_by(columns.run)
        .order_by(columns.run.desc())
    )
    return [Run(*row) for row in rows]


def entries(
    connection: sa.Connection, name: str, *states: FileState, run: int | None = None
) -> list[Entry]:
    """Return files in some states, of one run or of all, in the order of the journal."""
    columns = _ACTIONS.c
    where = (columns.collection == name) & columns.state.in_(states)
    if run is not None:
        where &= columns.run == run
    rows = connection.execute(
        sa.select(*_FIELDS).where(where).order_by(columns.run, columns.number)
    )
    return [
        Entry(
            **{
                **row,
                "action": parse(FileAction, row["action"]),
                "state": parse(FileState, row["state"]),
            }
        )
        for row in rows.mappings()
    ]


def no_run(what: str, name: str) -> InvalidInput:
    """Return an error about the runs of a collection: what is wrong, and how to list them."""
    listing = command_line("undo --list", collection=name)
    return InvalidInput(f"{what}.", step=f"See what was done: {listing}")


def last_run(connection: sa.Connection, name: str) -> int:
    """Return the number of the last run of which something can be undone.

    Raises:
        InvalidInput: there is none.

    """
    columns = _ACTIONS.c
    found = connection.scalar(
        sa.select(sa.func.max(columns.run)).where(
            columns.collection == name,
            columns.state.in_(NOT_UNDONE),
        )
    )
    if found is None:
        raise no_run(f"There is nothing to undo in collection {name!r}", name)
    return int(found)


def mark(connection: sa.Connection, name: str, entry: Entry, state: FileState, **more: Any) -> None:
    """Write how far a file is."""
    connection.execute(
        sa.update(_ACTIONS)
        .where(
            _ACTIONS.c.collection == name,
            _ACTIONS.c.run == entry.run,
            _ACTIONS.c.number == entry.number,
        )
        .values(state=state, **more)
    )


def take_row(connection: sa.Connection, stored: StoredCollection, entry: Entry) -> None:
    """Delete the row of a file that is gone, keep it in the journal, and mark the file as done.

    What people wrote about the picture goes to the row of the one that is kept. The row of another
    picture, which was ingested under its path since, stays.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        stored: the collection.
        entry: the file.

    """
    table, values = schema.sql_name(stored.table), {"id": entry.id, "kept": entry.kept}
    kept_row = _row_of(connection, stored, entry.id)
    if [row["sha256"] for row in kept_row.get("image", [])] != [entry.sha256]:
        mark(connection, stored.name, entry, FileState.done, reason=None)
        return
    # Keys that the kept row has stay as they are.
    given = connection.scalar(
        sa.text(
            "SELECT jsonb_object_agg(e.key, e.value) FROM"
            f" (SELECT metadata FROM {table} WHERE id = :id) AS gone,"
            f" (SELECT metadata FROM {table} WHERE id = :kept) AS kept,"
            " jsonb_each(gone.metadata) AS e WHERE NOT kept.metadata ? e.key"
        ),
        values,
    )
    if given:
        connection.execute(
            sa.text(
                f"UPDATE {table} SET metadata = metadata || CAST(:given AS jsonb) WHERE id = :kept"
            ).bindparams(sa.bindparam("given", given, sa.JSON)),
            values,
        )
    scope.delete_rows(connection, stored.table, [entry.id])
    mark(
        connection,
        stored.name,
        entry,
        FileState.done,
        stored=kept_row,
        given=given,
        reason=None,
    )


def return_row(connection: sa.Connection, stored: StoredCollection, entry: Entry) -> None:
    """Insert the row of a file that is back, take back what the kept row was given, and mark it.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        stored: the collection.
        entry: the file.

    """
    columns = _ACTIONS.c
    saved = connection.execute(
        sa.select(columns.stored, columns.given).where(
            columns.collection == stored.name,
            columns.run == entry.run,
            columns.number == entry.number,
        )
    ).one()
    table = schema.sql_name(stored.table)
    for name, rows in (saved.stored or {}).items():
        target = _tables_of(connection, stored).get(name)
        if target is not None:
            connection.execute(
                sa.text(
                    f"INSERT INTO {target} SELECT (jsonb_populate_record(CAST(NULL AS {target}),"
                    " value)).* FROM jsonb_array_elements(CAST(:rows AS jsonb))"
                    " ON CONFLICT DO NOTHING"
                ).bindparams(sa.bindparam("rows", rows, sa.JSON))
            )
    # The journal has none for an index that was built since.
    own = f"(SELECT id, embedding FROM {table} WHERE id = '{entry.id}')"
    for compact in catalog.compact_versions(connection, stored.name):
        vectors.fill(connection, own, compact, None)
    if saved.given:
        connection.execute(
            sa.text(
                f"UPDATE {table} AS kept SET metadata = coalesce((SELECT"
                " jsonb_object_agg(e.key, e.value) FROM jsonb_each(kept.metadata) AS e"
                " WHERE NOT CAST(:given AS jsonb) @> jsonb_build_object(e.key, e.value)), '{}')"
                " WHERE id = :kept"
            ).bindparams(sa.bindparam("given", saved.given, sa.JSON)),
            {"kept": entry.kept},
        )
    mark(connection, stored.name, entry, FileState.undone, stored=None)


def return_file(connection: sa.Connection, stored: StoredCollection, entry: Entry) -> None:
    """Give the row of a file that was a link what its own file says again, and mark it.

    An ingest may have read the link's target meanwhile.
    """
    table = stored.table
    own = (table.c.id == entry.id) & (table.c.sha256 == entry.sha256)
    modified = EPOCH + timedelta(microseconds=entry.facts["modified_ns"] // 1_000)
    connection.execute(
        sa.update(table)
        .where(own, table.c.modified_at != sa.literal(modified))
        .values(modified_at=modified)
    )
    mark(connection, stored.name, entry, FileState.undone)


def _tables_of(connection: sa.Connection, stored: StoredCollection) -> dict[str, str]:
    """Return the tables that hold an image's rows, as SQL, by the name that the journal uses."""
    compacts = catalog.compact_versions(connection, stored.name)
    return {
        "image": schema.sql_name(stored.table),
        "tags": tables.tags.fullname,
        **{f"compact {each.version}": schema.sql_name(each.table) for each in compacts},
    }


def _row_of(
    connection: sa.Connection, stored: StoredCollection, image: UUID
) -> dict[str, list[dict[str, Any]]]:
    """Return what is stored of an image: its rows as JSON, by table."""
    found = {}
    for name, table in _tables_of(connection, stored).items():
        own = " AND collection = :collection" if name == "tags" else ""
        rows = connection.scalars(
            sa.text(f"SELECT to_jsonb(stored) FROM {table} AS stored WHERE id = :id{own}"),
            {"id": image, "collection": stored.name} if own else {"id": image},
        ).all()
        if rows:
            found[name] = list(rows)
    return found
