"""What more images would take: disk, memory and build time, from a collection that there is."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from vecsearch.errors import InvalidInput
from vecsearch.postgres import distributed, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import METHODS, ddl, serving
from vecsearch.search.indexes.resources import Resources, build_seconds, choose
from vecsearch.search.lookup import count
from vecsearch.vocabulary import IndexMethod, command_line

# Memory of one machine, and the share of it that keeps indexes.
MACHINE_BYTES, KEPT_SHARE = 64 * 2**30, 0.75


@dataclass(frozen=True)
class Part:
    """Something that is stored for each image.

    Attributes:
        bytes_per_image: bytes for one image.
        bytes: for all images of the estimate.
        measured: whether the collection has it, or its size was computed.

    """

    part: str
    bytes_per_image: float
    bytes: int
    measured: bool


@dataclass(frozen=True)
class Need:
    """What a collection with an index of one method needs.

    Attributes:
        disk_bytes: rows, thumbnails, keys and tags with this index.
        memory_bytes: the index, which a search reads at random, so that it should stay in memory.
        build_memory_bytes: the graph, for which a build needs memory to be fast.
        build_s: seconds that a build of the graph takes with this memory; computed.
        machines: of MACHINE_BYTES of memory, each with a part of the index.

    """

    index: IndexMethod
    disk_bytes: int
    memory_bytes: int
    build_memory_bytes: int
    build_s: float
    machines: int


@dataclass(frozen=True)
class Capacity:
    """An estimate for a number of images, by the sizes of those that there are.

    Attributes:
        measured_images: how many those are.

    """

    collection: str
    dimensions: int
    images: int
    measured_images: int
    parts: list[Part]
    needs: list[Need]


def estimate(
    connection: sa.Connection, stored: StoredCollection, images: int, resources: Resources
) -> Capacity:
    """Estimate what a collection would take if it had so many images.

    Args:
        connection: in a transaction.
        stored: the collection to measure.
        images: the number of images.
        resources: of an index build.

    Raises:
        InvalidInput: the collection has no images.

    """
    rows = count(connection, stored.table)
    if not rows:
        raise InvalidInput(
            f"Collection {stored.name!r} has no images to measure. First: "
            f"{command_line('ingest', 'FOLDER', collection=stored.name)}"
        )
    common = [
        Part(part, size, round(size * images), measured=True)
        for part, size in _common(connection, stored, rows)
    ]
    parts, needs = [*common], []
    server = ddl.server_settings(connection)
    for method in IndexMethod:
        computed = METHODS[method].computed_bytes(stored)
        if computed is None:
            continue
        measured = _measured(connection, stored, method, rows)
        sizes = measured or computed
        own = [
            Part(part, size, round(size * images), measured=measured is not None)
            for part, size in zip((f"{method} index", f"{method} vectors"), sizes, strict=True)
            if size
        ]
        parts += own
        memory = sum(part.bytes for part in own)
        dimensions = METHODS[method].wanted_dimensions(stored)
        chosen = choose(images, dimensions, server, resources)
        needs.append(
            Need(
                index=method,
                disk_bytes=sum(part.bytes for part in common) + memory,
                memory_bytes=memory,
                build_memory_bytes=chosen.needed,
                build_s=build_seconds(images, dimensions, chosen.workers),
                machines=-(-memory // int(MACHINE_BYTES * KEPT_SHARE)),
            )
        )
    return Capacity(stored.name, stored.dimensions, images, rows, parts, needs)


def _common(
    connection: sa.Connection, stored: StoredCollection, rows: int
) -> Iterator[tuple[str, float]]:
    """Yield what is stored for each image with any index, and its bytes for one."""
    name = schema.sql_name(stored.table)
    table = distributed.table_bytes(connection, name)
    yield "rows and embeddings", table / rows
    index = ddl.find(connection, schema.hnsw_index(stored.name), tables.SCHEMA)
    own = table + (0 if index is None else index.size)
    yield "keys", (distributed.total_bytes(connection, name) - own) / rows
    shared = sa.func.pg_total_relation_size(tables.thumbnails.fullname)
    drawn = count(connection, tables.thumbnails)
    if drawn:
        yield "thumbnails", (connection.scalar(shared) or 0) / drawn
    tags = tables.tags
    tagged = connection.scalar(sa.select(sa.func.count()).where(tags.c.collection == stored.name))
    if tagged:
        size = connection.scalar(sa.select(sa.func.pg_total_relation_size(tags.fullname))) or 0
        yield "tags", size / count(connection, tags) * tagged / rows


def _measured(
    connection: sa.Connection, stored: StoredCollection, method: IndexMethod, rows: int
) -> tuple[float, float] | None:
    """Return the bytes for one image of the index and of vectors beside it, if it is in use."""
    index = serving(stored)
    found = ddl.find(connection, index.name, index.namespace)
    if index.method is not method or found is None or not found.valid:
        return None
    # What is beside the table holds the index, too.
    beside = index.bytes_beside(connection)
    return found.size / rows, max(0, beside - found.size) / rows
