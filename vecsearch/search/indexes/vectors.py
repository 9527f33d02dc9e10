"""Compact vectors in Postgres: the register of projections, and a table of vectors for each.

A collection's table stays as it is: a column would be an UPDATE of every row. Beside it are tables
`NAME_compact_VERSION`, one for each of its projections: the one that searches use and, while its
successor is built, that one. Whoever writes to the collection writes to them all, so that nothing
is missed; whoever reads knows by the version which projection made a table's vectors.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import Compact, compact_versions
from vecsearch.postgres.database import driver_connection
from vecsearch.search.indexes.projection import Projection

# Rows that are read, projected and written at once: 20 MB at 2,048 dimensions.
CHUNK = 5_000
_CACHE = "vecsearch.projections"
# COPY's binary format: a header, rows of fields that each tell their length, a trailer.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def register(connection: sa.Connection, collection: str, projection: Projection) -> Compact:
    """Keep a projection and make its table, empty; from now on writers fill it, too.

    The connection is in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
    """
    projections = schema.projections
    row = connection.execute(
        sa.insert(projections)
        .values(
            collection=collection,
            dimensions=len(projection.components),
            mean=projection.mean.astype("<f4").tobytes(),
            components=projection.components.astype("<f4").tobytes(),
            sample=projection.sample,
            variance_kept=projection.variance_kept,
        )
        .returning(projections.c.version, projections.c.dimensions, projections.c.fitted_at)
    ).one()
    compact = Compact(collection, *row)
    compact.table.create(connection)
    _grant_alike(connection, compact.table, collection)
    return compact


def _grant_alike(connection: sa.Connection, table: sa.Table, collection: str) -> None:
    """Let those read the table who may read the register or the collection: searches need it."""
    grantees = connection.scalars(
        sa.text(
            "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END"
            " FROM pg_class, aclexplode(relacl) AS held"
            " WHERE oid IN ('vecsearch.collections'::regclass, CAST(:collection AS regclass))"
            " AND privilege_type = 'SELECT' AND grantee <> relowner"
        ),
        {"collection": f'{schema.SCHEMA}."{collection}"'},
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON {schema.sql_name(table)} TO {grantee}")


def read_projection(connection: sa.Connection, compact: Compact) -> Projection:
    """Return a projection; a connection keeps what it has read once, a megabyte or so."""
    cache: dict[Compact, Projection] = connection.info.setdefault(_CACHE, {})
    found = cache.get(compact)
    if found is None:
        projections = schema.projections
        row = connection.execute(
            sa.select(projections).where(
                projections.c.collection == compact.collection,
                projections.c.version == compact.version,
            )
        ).one()
        mean = np.frombuffer(row.mean, "<f4").astype(np.float32)
        components = np.frombuffer(row.components, "<f4").astype(np.float32)
        found = Projection(
            mean, components.reshape(row.dimensions, -1), row.sample, row.variance_kept
        )
        for other in [other for other in cache if other.collection == compact.collection]:
            if other.version < compact.version - 1:
                del cache[other]
        cache[compact] = found
    return found


def sample(
    connection: sa.Connection, table: sa.Table, limit: int, *, since: datetime | None = None
) -> NDArray[np.float32]:
    """Return so many embeddings in order of id: ids are hashes, so it is a fair sample.

    Args:
        connection: in a transaction.
        table: the collection's.
        limit: how many at most.
        since: only of rows that were written later.

    Returns:
        Shape (rows, dimensions).

    """
    source = schema.sql_name(table)
    where = "" if since is None else f" WHERE ingested_at > '{since.isoformat()}'"
    query = f"SELECT id, embedding FROM {source}{where} ORDER BY id LIMIT {limit}"
    return _read(connection, query)[1]


def fill(
    connection: sa.Connection, source: str, compact: Compact, after: uuid.UUID | None
) -> tuple[int, uuid.UUID | None]:
    """Add the compact vectors of the next chunk of rows that have none.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        source: SQL for a table with columns id and embedding.
        compact: whose table is filled.
        after: the id behind which the chunk begins; None: the first.

    Returns:
        How many were added, and the id behind which the next chunk begins; None: there is none.

    """
    target = schema.sql_name(compact.table)
    start = uuid.UUID(int=0) if after is None else after
    # The second bound spares a look at all that was filled before.
    behind = f"id {'>=' if after is None else '>'} '{start}'"
    ids, embeddings = _read(
        connection,
        f"SELECT id, embedding FROM {source} AS i WHERE {behind} AND NOT EXISTS"
        f" (SELECT FROM {target} AS c WHERE c.id = i.id AND c.{behind}) ORDER BY id LIMIT {CHUNK}",
    )
    if len(ids) > 0:
        vectors = read_projection(connection, compact).project(embeddings)
        _write(connection, target, ids, vectors)
    last = uuid.UUID(bytes=ids[-1].tobytes()) if len(ids) == CHUNK else None
    return len(ids), last


def follow(connection: sa.Connection, collection: str, staged: str) -> None:
    """Bring every table of compact vectors up to rows that have just been written.

    Args:
        connection: see `fill`.
        collection: where the rows were written.
        staged: a table of this session with their columns id and embedding.

    """
    for compact in compact_versions(connection, collection):
        connection.exec_driver_sql(
            f"DELETE FROM {schema.sql_name(compact.table)} AS c USING {staged} AS s"
            " WHERE c.id = s.id"
        )
        after: uuid.UUID | None = None
        while True:
            _, after = fill(connection, staged, compact, after)
            if after is None:
                break


def follow_known(connection: sa.Connection, collection: str) -> None:
    """Bring every table up to `known`, before its moved sources go: see `vecsearch.ingest.writes`.

    A source that a table which is being filled still lacks leaves its row to be filled later.
    """
    for compact in compact_versions(connection, collection):
        table = schema.sql_name(compact.table)
        taken = f"taken_{compact.version}"
        for statement in (
            # Beforehand, because rows may take each other's places.
            f"""
            CREATE TEMP TABLE {taken} ON COMMIT DROP AS SELECT known.id, source.compact
            FROM known LEFT JOIN {table} AS source ON source.id = known.source
            WHERE known.source <> known.id""",
            f"DELETE FROM {table} AS c USING {taken} WHERE c.id = {taken}.id",
            f"INSERT INTO {table} SELECT id, compact FROM {taken} WHERE compact IS NOT NULL",
            f"DELETE FROM {table} AS c USING known WHERE known.moved AND c.id = known.source",
        ):
            connection.exec_driver_sql(statement)


def delete(connection: sa.Connection, collection: str, ids: Sequence[uuid.UUID]) -> None:
    """Delete the compact vectors of rows that go."""
    for compact in compact_versions(connection, collection):
        table = compact.table
        connection.execute(
            sa.delete(table).where(table.c.id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid))))
        )


def delete_orphans(connection: sa.Connection, source: sa.Table, compact: Compact) -> None:
    """Delete compact vectors whose rows are gone."""
    connection.exec_driver_sql(
        f"DELETE FROM {schema.sql_name(compact.table)} AS c WHERE NOT EXISTS"
        f" (SELECT FROM {schema.sql_name(source)} AS i WHERE i.id = c.id)"
    )


def _row(dimensions: int) -> "np.dtype[Any]":
    """Return the layout of one row, id and halfvec, in COPY's binary format."""
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


def _read(connection: sa.Connection, query: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the ids, as bytes, and the embeddings that a query finds, all of one length."""
    statement = f"COPY ({query}) TO STDOUT (FORMAT BINARY)"
    with driver_connection(connection).cursor() as cursor, cursor.copy(statement.encode()) as copy:
        data = b"".join(copy)
    body = memoryview(data)[len(_HEADER) : -len(_TRAILER)]
    if not body:
        return np.empty(0, "V16"), np.empty((0, 0), np.float32)
    # In the first row, behind the id and the vector's length.
    dimensions = int(np.frombuffer(body, ">i2", 1, offset=26)[0])
    rows = np.frombuffer(body, _row(dimensions))
    return rows["id"], rows["numbers"].astype(np.float32)


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
