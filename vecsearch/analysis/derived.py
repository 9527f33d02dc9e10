"""Refresh the tables that are derived from a collection, for analysts to join.

Each has a view of one collection: `NAME_neighbours`, `NAME_duplicates`, `NAME_clusters`,
`NAME_map`; see `vecsearch.postgres.analysts`. Neighbours follow the feed of changes; the others are
made anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.analysis import clusters, maps, neighbours
from vecsearch.analysis.duplicates import groups
from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog, database, migrate, schema, tables
from vecsearch.postgres.rows import analyze, claimed, copy_rows, forget_old_changes
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.vocabulary import DEFAULT_NEIGHBOURS, Derived, Layout, parse

# Any fixed number; with the hash of a collection's name it is the key of the refresh lock.
REFRESH_LOCK_KEY = 0x766566
# At most so many neighbours of an image, and so many clusters.
MOST = 1_000
# Made by default; clusters need an extra.
USUAL = (Derived.neighbours, Derived.duplicates)


@dataclass(frozen=True)
class Refresh:
    """What to refresh, and how.

    Attributes:
        tables: names of `Derived`.
        neighbours: number of neighbours of each image; None keeps it, or uses
            DEFAULT_NEIGHBOURS.
        clusters: number of clusters; None keeps it, or chooses it by the number of images.
        layout: name of a `Layout` of the map; None keeps it, or uses pca.
        whole: search for the neighbours of all images, not only of those that changes concern.
        exact: compare every image with every other, without the index.
        on_progress: called with the current step, the number of images done, and their total.

    """

    tables: Sequence[str] = USUAL
    neighbours: int | None = None
    clusters: int | None = None
    layout: str | None = None
    whole: bool = False
    exact: bool = False
    on_progress: OnProgress = quiet

    def __post_init__(self) -> None:
        """Raise `InvalidInput` if an option has an invalid value."""
        for name in self.tables:
            parse(Derived, name)
        for name, number in (("neighbours", self.neighbours), ("clusters", self.clusters)):
            if number is not None and not 1 <= number <= MOST:
                raise InvalidInput(f"--{name} is {number:,}. Give a number from 1 to {MOST:,}.")
            if number is not None and name not in self.tables:
                raise self._unnamed(name, name)
        if self.layout is not None:
            parse(Layout, self.layout)
            if Derived.map not in self.tables:
                raise self._unnamed("layout", Derived.map)

    def _unnamed(self, option: str, name: str) -> InvalidInput:
        wanted = " ".join([*self.tables, name])
        return InvalidInput(
            f"--{option} says how to refresh {name}, which is not named. Name: {wanted}"
        )


@dataclass(frozen=True)
class Refreshed:
    """A table that was refreshed.

    Attributes:
        view: the view that has it.
        rows: number of its rows.
        images: number of images for which it was made anew.

    """

    view: str
    rows: int
    images: int


def refresh(engine: sa.Engine, name: str, wanted: Refresh) -> list[Refreshed]:
    """Refresh tables of a collection, each in a transaction of its own.

    Raises:
        CollectionNotFound: there is no collection of this name.
        InvalidInput: there are fewer images than clusters, or a table needs an extra.
        DatabaseBusy: another refresh of this collection is running.

    """
    migrate.check(engine)
    busy = f"Another refresh of collection {name!r} is running. Wait until it ends, and retry."
    # Taken before any snapshot, which would else be too old.
    with claimed(engine, REFRESH_LOCK_KEY, name, busy):
        done = [
            _refresh(engine, name, parse(Derived, one), wanted)
            for one in dict.fromkeys(wanted.tables)
        ]
    with database.writing(engine) as connection:
        forget_old_changes(connection, name)
    return done


def _refresh(engine: sa.Engine, name: str, derived: Derived, wanted: Refresh) -> Refreshed:
    # One snapshot: the changes that are read are those of the rows that are read.
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    with database.writing(snapshot) as connection:
        stored = catalog.get_collection(connection, name)
        before = _last(connection, name, derived)
        past: dict[str, Any] = {} if before is None else before.options
        position = max(_settled(connection, name), 0 if before is None else before.position)
        options: dict[str, Any] = {"exact": wanted.exact}
        match derived:
            case Derived.neighbours:
                k = wanted.neighbours or past.get("neighbours", DEFAULT_NEIGHBOURS)
                options["neighbours"] = k
                changed = None
                if not wanted.whole and past == options:
                    changed = neighbours.changes(connection, name, before.position)
                images = neighbours.refresh(
                    connection,
                    stored,
                    k,
                    changed,
                    exact=wanted.exact,
                    on_progress=wanted.on_progress,
                )
            case Derived.duplicates:
                wanted.on_progress("Duplicates", 0, None)
                images = _replace_duplicates(connection, stored, exact=wanted.exact)
            case Derived.clusters:
                options = {"clusters": wanted.clusters or past.get("clusters")}
                images = clusters.refresh(
                    connection, stored, options["clusters"], on_progress=wanted.on_progress
                )
            case Derived.map:
                options = {"layout": wanted.layout or past.get("layout", Layout.pca)}
                images = maps.refresh(
                    connection,
                    stored,
                    parse(Layout, options["layout"]),
                    on_progress=wanted.on_progress,
                )
        _remember(connection, name, derived, position, options)
        table = tables.derived[derived]
        analyze(connection, table)
        rows = sa.select(sa.func.count()).select_from(table).where(table.c.collection == name)
        return Refreshed(f"{name}_{derived}", int(connection.scalar(rows) or 0), images)


def _last(connection: sa.Connection, name: str, derived: Derived) -> Any:
    done = tables.refreshes.c
    where = (done.collection == name) & (done.derived == derived)
    return connection.execute(sa.select(done.position, done.options).where(where)).first()


def _settled(connection: sa.Connection, name: str) -> int:
    """Return the position in the feed before which no transaction is running."""
    view = f"{tables.SCHEMA}.{name}{schema.CHANGES_SUFFIX}"
    position = connection.scalar(sa.text(f"SELECT max(position) FROM {view}"))
    return int(position or 0)


def _remember(
    connection: sa.Connection, name: str, derived: Derived, position: int, options: dict[str, Any]
) -> None:
    statement = postgresql.insert(tables.refreshes).values(
        collection=name, derived=derived, position=position, options=options
    )
    new = {key: statement.excluded[key] for key in ("position", "options", "refreshed_at")}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["collection", "derived"], set_=new)
    )


def _replace_duplicates(
    connection: sa.Connection, stored: catalog.StoredCollection, *, exact: bool
) -> int:
    """Replace the groups of near-duplicates by those that there are now; return the images."""
    found = groups.find(connection, stored, exact=exact).images
    table = tables.duplicates
    connection.execute(sa.delete(table).where(table.c.collection == stored.name))
    firsts: dict[int, Any] = {}
    copy_rows(
        connection,
        table.fullname,
        "text uuid int4 uuid float8 float8",
        (
            (
                stored.name,
                image.id,
                image.group,
                firsts.setdefault(image.group, image.id),
                image.distance,
                image.difference,
            )
            for image in found
        ),
    )
    statement = sa.select(sa.func.count()).select_from(stored.table)
    return int(connection.scalar(statement) or 0)
