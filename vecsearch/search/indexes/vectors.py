"""Compact vectors in Postgres: the table of projections, and a table of vectors for each.

Compact vectors are not a column of the collection's table, because filling it would update every
row. They are in tables `NAME_compact_VERSION`, one per projection: the one that searches use and,
during a build, its successor. Every write to the collection also writes to all of them. The version
in the name identifies the projection that made the vectors.
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector.sqlalchemy import VECTOR

from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import Compact, compact_of, compact_versions, create_compact
from vecsearch.postgres.database import driver_connection
from vecsearch.search.indexes.projection import Projection
from vecsearch.vocabulary import Metric

# Rows to read, project and write at once: 20 MB at 2,048 dimensions.
CHUNK = 5_000
_CACHE = "vecsearch.projections"
# COPY's binary format: a header, rows of fields with their lengths, a trailer.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def register(
    connection: sa.Connection, collection: str, projection: Projection, metric: Metric
) -> Compact:
    """Store a projection and create its empty table, which later writes fill too.

    The metric is that of the HNSW index that its vectors will have.

    The connection is in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
    """
    projections = tables.projections
    row = connection.execute(
        sa.insert(projections)
        .values(
            collection=collection,
            dimensions=len(projection.components),
            mean=projection.mean,
            components=_array(projection.components),
            sample=projection.sample,
            variance_kept=projection.variance_kept,
            metric=metric,
        )
        .returning(*(projections.c[name] for name in "version dimensions fitted_at metric".split()))
    ).one()
    compact = compact_of(collection, row)
    create_compact(connection, compact)
    return compact


def read_projection(connection: sa.Connection, compact: Compact) -> Projection:
    """Return a projection; each connection caches those it has read, about 1 MB each."""
    cache: dict[Compact, Projection] = connection.info.setdefault(_CACHE, {})
    found = cache.get(compact)
    if found is None:
        row = connection.execute(
            sa.text(
                "SELECT vector_send(mean) AS mean, sample, variance_kept, (SELECT"
                " string_agg(vector_send(c.component), '' ORDER BY c.number)"
                " FROM unnest(components) WITH ORDINALITY AS c (component, number)) AS components"
                f" FROM {tables.projections.fullname}"
                " WHERE collection = :collection AND version = :version"
            ),
            {"collection": compact.collection, "version": compact.version},
        ).one()
        (mean,), components = _sent(row.mean), _sent(row.components)
        found = Projection(mean, components, row.sample, row.variance_kept)
        # Keep the latest other one: during a build, two are in use.
        others = [other for other in cache if other.collection == compact.collection]
        for other in sorted(others, key=lambda other: other.version)[:-1]:
            del cache[other]
        cache[compact] = found
    return found


def _array(vectors: NDArray[np.float32]) -> sa.ColumnElement[Any]:
    """Return SQL for an array of vectors, shape (rows, dimensions)."""
    texts = ["[" + ",".join(map(str, vector.tolist())) + "]" for vector in vectors]
    return sa.cast(sa.cast(texts, sa.ARRAY(sa.Text)), sa.ARRAY(VECTOR()))


def _sent(vectors: bytes) -> NDArray[np.float32]:
    """Return vectors from pgvector's binary format, one after another: shape (rows, dimensions)."""
    dimensions = int.from_bytes(vectors[:2], "big")
    layout = np.dtype([("head", "V4"), ("numbers", ">f4", (dimensions,))])
    return np.frombuffer(vectors, layout)["numbers"].astype(np.float32)


def sample(
    connection: sa.Connection, table: sa.Table, limit: int, *, since: datetime | None = None
) -> NDArray[np.float32]:
    """Return the first `limit` embeddings in order of id; ids are hashes, so they are random.

    Args:
        connection: in a transaction.
        table: the collection's table.
        limit: the largest number of rows.
        since: only rows ingested after this time; None for all rows.

    Returns:
        Embeddings, shape (rows, dimensions).

    """
    source = schema.sql_name(table)
    where = "" if since is None else f" WHERE ingested_at > '{since.isoformat()}'"
    query = f"SELECT id, embedding FROM {source}{where} ORDER BY id LIMIT {limit}"
    return read(connection, query)[1]


def fill(
    connection: sa.Connection,
    source: str,
    compact: Compact,
    after: uuid.UUID | None,
    *,
    is_staged: bool = False,
) -> tuple[int, uuid.UUID | None]:
    """Add compact vectors for the next chunk of rows that have none.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        source: SQL for a table with columns id and embedding.
        compact: the projection whose table to fill.
        after: the last id of the previous chunk; None starts with the first row.
        is_staged: no row of the source has one.

    Returns:
        The number of added vectors, and the last id of the chunk; None if no rows are left.

    """
    target = schema.sql_name(compact.table)
    start = uuid.UUID(int=0) if after is None else after
    # The same bound on the compact vectors avoids reading those of earlier chunks.
    behind = f"id {'>=' if after is None else '>'} '{start}'"
    lacking = f"NOT EXISTS (SELECT FROM {target} AS c WHERE c.id = i.id AND c.{behind})"
    ids, embeddings = read(
        connection,
        f"SELECT id, embedding FROM {source} AS i WHERE {behind}"
        f"{'' if is_staged else f' AND {lacking}'} ORDER BY id LIMIT {CHUNK}",
    )
    if len(ids) > 0:
        vectors = read_projection(connection, compact).project(embeddings)
        _write(connection, target, ids, vectors)
    last = uuid.UUID(bytes=ids[-1].tobytes()) if len(ids) == CHUNK else None
    return len(ids), last


def follow(connection: sa.Connection, collection: str, staged: str) -> None:
    """Update every table of compact vectors for rows that have just been written.

    Args:
        connection: see `fill`.
        collection: the collection of the rows.
        staged: a temporary table with the rows' columns id and embedding.

    """
    for compact in compact_versions(connection, collection):
        connection.exec_driver_sql(
            f"DELETE FROM {schema.sql_name(compact.table)} AS c USING {staged} AS s"
            " WHERE c.id = s.id"
        )
        after: uuid.UUID | None = None
        while True:
            _, after = fill(connection, staged, compact, after, is_staged=True)
            if after is None:
                break


def follow_known(connection: sa.Connection, collection: str) -> None:
    """Update every table for the rows in `known`, before the rows they moved from are deleted.

    See `vecsearch.ingest.writes`. If a table is being filled and still lacks the source's vector,
    the row's vector is filled later.
    """
    for compact in compact_versions(connection, collection):
        table = schema.sql_name(compact.table)
        taken = f"taken_{compact.version}"
        for statement in (
            # Read all sources before any change, because rows may swap places.
            f"""
            CREATE TEMP TABLE {taken} ON COMMIT DROP AS SELECT known.id, source.compact
            FROM known LEFT JOIN (SELECT id, compact FROM {table}
                WHERE id IN (SELECT source FROM known)) AS source ON source.id = known.source
            WHERE known.source <> known.id""",
            f"DELETE FROM {table} AS c USING {taken} WHERE c.id = {taken}.id",
            f"INSERT INTO {table} SELECT id, compact FROM {taken} WHERE compact IS NOT NULL",
            f"DELETE FROM {table} AS c USING known WHERE known.moved AND c.id = known.source",
        ):
            connection.exec_driver_sql(statement)


def follow_deleted(connection: sa.Connection, collection: str, ids: Sequence[uuid.UUID]) -> None:
    """Delete the compact vectors of deleted rows."""
    for compact in compact_versions(connection, collection):
        table = compact.table
        connection.execute(
            sa.delete(table).where(table.c.id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid))))
        )


def delete_orphans(connection: sa.Connection, source: sa.Table, compact: Compact) -> None:
    """Delete compact vectors that have no row."""
    connection.exec_driver_sql(
        f"DELETE FROM {schema.sql_name(compact.table)} AS c WHERE NOT EXISTS"
        f" (SELECT FROM {schema.sql_name(source)} AS i WHERE i.id = c.id)"
    )


def _row(dimensions: int) -> "np.dtype[Any]":
    """Return the layout of one row in COPY's binary format: an id and a halfvec."""
    return np.dtype(
        [
            ("fields", ">i2"),
            ("id_bytes", ">i4"),
            ("id", "V16"),
            ("vector_bytes", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("numbers", ">f2", (dimensions,)),
        ]
    )


def read(connection: sa.Connection, query: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the ids, as bytes, and the embeddings, shape (rows, dimensions), of a query.

    The query selects columns id and embedding.
    """
    statement = f"COPY ({query}) TO STDOUT (FORMAT BINARY)"
    with driver_connection(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        data = b"".join(copy)
    body = memoryview(data)[len(_HEADER) : -len(_TRAILER)]
    if not body:
        return np.empty(0, "V16"), np.empty((0, 0), np.float32)
    # The first row has the dimensions after the id and the vector's length.
    dimensions = int(np.frombuffer(body, ">i2", 1, offset=26)[0])
    rows = np.frombuffer(body, _row(dimensions))
    return rows["id"], rows["numbers"].astype(np.float32)


def chunks(
    connection: sa.Connection, source: str
) -> Iterator[tuple[list[uuid.UUID], NDArray[np.float32]]]:
    """Yield the ids and the embeddings of all rows of a table, CHUNK at a time, in order of id."""
    where = ""
    while True:
        found, embeddings = read(
            connection, f"SELECT id, embedding FROM {source}{where} ORDER BY id LIMIT {CHUNK}"
        )
        if len(found) == 0:
            return
        ids = [uuid.UUID(bytes=id_.tobytes()) for id_ in found]
        yield ids, embeddings
        where = f" WHERE id > '{ids[-1]}'"


def _write(
    connection: sa.Connection, target: str, ids: NDArray[Any], vectors: NDArray[np.float32]
) -> None:
    dimensions = vectors.shape[1]
    rows = np.zeros(len(ids), _row(dimensions))
    rows["fields"], rows["id_bytes"], rows["id"] = 2, 16, ids
    rows["vector_bytes"], rows["dimensions"] = 4 + 2 * dimensions, dimensions
    rows["numbers"] = vectors
    statement = f"COPY {target} (id, compact) FROM STDIN (FORMAT BINARY)"
    with driver_connection(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.write(_HEADER + rows.tobytes() + _TRAILER)
