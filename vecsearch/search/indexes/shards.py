"""Put collections into shards on the servers of a Citus cluster."""

from collections.abc import Container
from dataclasses import dataclass
from typing import TypedDict

import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import InvalidInput, NotConfirmed
from vecsearch.postgres import catalog, database, distributed, migrate, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import analyze, writing
from vecsearch.search import functions
from vecsearch.search.indexes import METHODS, build
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.indexes.resources import ANY, Resources
from vecsearch.search.lookup import count
from vecsearch.vocabulary import Confirm, counted, refuse

# Citus' own default.
DEFAULT_SHARDS = 32
# A server compares about so many bytes of embeddings in a second.
SCANNED_PER_S = 2 * 2**30


@dataclass(frozen=True)
class Distributed:
    """A collection in shards.

    Attributes:
        shards: number of them.
        servers: number of servers that hold them.
        changed: whether it was not in shards before.

    """

    collection: str
    images: int
    shards: int
    servers: int
    changed: bool


class Options(TypedDict, total=False):
    """Options of `distribute`."""

    shards: int | None
    confirm: Confirm
    on_progress: OnProgress


def distribute(
    engine: sa.Engine,
    name: str | None,
    resources: Resources = ANY,
    *,
    shards: int | None = None,
    confirm: Confirm = refuse,
    on_progress: OnProgress = quiet,
) -> tuple[list[Distributed], list[str]]:
    """Put a collection, or all, into shards on the servers of a Citus cluster.

    Args:
        engine: the database's engine.
        name: the collection; None: all.
        resources: memory and workers for building indexes again.
        shards: how many; None: Citus' default.
        confirm: takes a sentence, and returns whether to distribute a small collection.
        on_progress: called from time to time.

    Returns:
        The collections as they are in shards now, and notes for the user.

    Raises:
        ExtensionMissing: the database lacks Citus, or Citus has no workers.
        NotConfirmed: a collection is small, and `confirm` returned False.

    """
    if shards is not None and shards < 1:
        raise InvalidInput(f"--shards is {shards}. Give 1 or more.")
    with migrate.reading_current(engine) as connection:
        distributed.require_citus(connection)
        stored = catalog.list_collections(connection) if name is None else []
        if name is not None:
            stored = [catalog.get_collection(connection, name)]
        servers = len(distributed.workers(connection))
        waiting = [each for each in stored if not each.is_distributed]
        small = [_small(connection, each, servers) for each in waiting]
    for sentence in filter(None, small):
        if not confirm(sentence):
            raise NotConfirmed(f"{sentence} To do it all the same: --yes")
    notes = []
    for each in waiting:
        _distribute(engine, each.name, shards)
        notes += build.ensure(engine, each.name, resources=resources, on_progress=on_progress)
    changed = {each.name for each in waiting}
    with migrate.reading_current(engine) as connection:
        if distributed.of_new(connection) is None:
            database_ = sql.Identifier(database.driver_connection(connection).info.dbname)
            notes.append(
                "New collections stay on the coordinator until they are distributed, too. To have "
                f"them in shards at once: ALTER DATABASE {database_.as_string()} SET "
                f"vecsearch.shards = {shards or DEFAULT_SHARDS}"
            )
        done = [_described(connection, each, servers, changed) for each in stored]
    return done, notes


def _small(connection: sa.Connection, stored: StoredCollection, servers: int) -> str | None:
    """Return why shards do not pay for a collection; None if they may."""
    images = count(connection, stored.table)
    if images >= distributed.WORTH_IT:
        return None
    size = images * schema.embedding_bytes(stored.dimensions)
    return (
        f"{stored.name} has {counted(images, 'image')}: one server compares their "
        f"{size / 2**20:,.1f} MB in about {1_000 * size / SCANNED_PER_S:,.0f} ms without an index, "
        f"and a search of {counted(servers, 'server')} waits for the network as well."
    )


def _distribute(engine: sa.Engine, name: str, shards: int | None) -> None:
    with database.session(engine) as connection, writing(connection, name):
        catalog.lock_creation(connection)
        stored = catalog.get_collection(connection, name)
        if stored.is_distributed:
            return
        # Rows are copied one by one; an index is built sooner afterwards.
        for method in METHODS.values():
            for index in method.names(name):
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {tables.SCHEMA}.{index}")
        compacts = catalog.compact_versions(connection, name)
        for compact in compacts:
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {tables.INTERNAL}.{compact.index}")
        distributed.distribute(connection, stored.table, [each.table for each in compacts], shards)
        functions.replace(connection, catalog.get_collection(connection, name))
    with database.writing(engine) as connection:
        analyze(connection, stored.table)


def _described(
    connection: sa.Connection, stored: StoredCollection, servers: int, changed: Container[str]
) -> Distributed:
    return Distributed(
        collection=stored.name,
        images=count(connection, stored.table),
        shards=distributed.shards(connection, stored.table),
        servers=servers,
        changed=stored.name in changed,
    )
