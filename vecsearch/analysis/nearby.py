"""Find the nearest images of many images of a collection: by one join, or by a search for each.

Postgres joins each image with a search that uses the index. Citus has no such join of shards.
"""

import math
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import apply_settings, driver_connection
from vecsearch.search.execute import Half
from vecsearch.search.indexes import serving
from vecsearch.search.statement import EXACT_SETTINGS, FORCED_SETTINGS

# Images whose vectors are read at once, and whose searches are sent without waiting for answers.
CHUNK = 500


_FOUND = (
    "SELECT * FROM unnest(CAST(:images AS uuid[]), CAST(:others AS uuid[]),"
    " CAST(:distances AS float8[])) AS near (image, other, distance)"
)


def find(
    connection: sa.Connection,
    collection: StoredCollection,
    images: str,
    values: dict[str, Any],
    neighbours: int,
    *,
    differing: bool = False,
    exact: bool,
) -> tuple[str, dict[str, Any]]:
    """Return SQL of each image's nearest images: image, other, distance; and its parameters.

    The index serves only a plain ORDER BY. It compares normalised and rounded numbers; the returned
    distance is computed from the stored embeddings, where equal ones may differ by 1e-7. Compact
    vectors choose twice as many candidates as requested; an image without a compact vector does
    not find itself, and so counts as unreachable.

    Args:
        connection: in a transaction, whose settings change.
        collection: the collection.
        images: SQL of the images' ids and embeddings, as `i`.
        values: its parameters.
        neighbours: number of nearest images, with the image itself.
        differing: only images with another embedding.
        exact: compare with every row, without the index.

    """
    _set_up(connection, collection, neighbours, exact=exact)
    if collection.is_distributed:
        ids = connection.scalars(sa.text(f"SELECT i.id FROM {images}"), values)
        text = _searched(collection, "$1", "$2", neighbours, differing=differing, exact=exact)
        return _in_shards(connection, collection, list(ids), text, exact=exact)
    one = _searched(collection, "i.embedding", None, neighbours, differing=differing, exact=exact)
    joined = f"{images} CROSS JOIN LATERAL ({one}) AS n WHERE n.distance < 'NaN'"
    return f"SELECT i.id AS image, n.id AS other, n.distance FROM {joined}", values


def _searched(
    collection: StoredCollection,
    embedding: str,
    place: str | None,
    neighbours: int,
    *,
    differing: bool,
    exact: bool,
) -> str:
    """Return SQL of one image's nearest images, whose embedding and compact vector are given."""
    source = f"{schema.sql_name(collection.table)} AS o"
    where = f"o.embedding <> {embedding}" if differing else "true"
    # An index cannot order by ids, too.
    ties = ", o.id" if exact else ""
    if not exact:
        source, where = serving(collection).neighbours(source, where, place, neighbours)
    return f"""
        SELECT o.id, greatest(o.embedding <=> {embedding}, 0) AS distance
        FROM {source} WHERE {where}
        ORDER BY o.embedding <=> {embedding}{ties} LIMIT {neighbours}"""


def _set_up(
    connection: sa.Connection, collection: StoredCollection, neighbours: int, *, exact: bool
) -> None:
    settings = EXACT_SETTINGS
    if not exact:
        # Every image is a query. If the planner expects a small table, it compares all with all.
        settings = FORCED_SETTINGS | serving(collection).neighbours_settings(neighbours)
    apply_settings(driver_connection(connection), settings)


def _in_shards(
    connection: sa.Connection,
    collection: StoredCollection,
    ids: Sequence[UUID],
    text: str,
    *,
    exact: bool,
) -> tuple[str, dict[str, Any]]:
    """Run a search for each image; return SQL of what was found, and its parameters.

    Its rows are: image, other, distance. They are held in memory, about 100 bytes each.

    Args:
        connection: in a transaction that has the search's settings.
        collection: the collection.
        ids: ids of the images.
        text: SQL of ids and distances, where $1 is the image's embedding, and $2 its vector in
            `chosen_by`, if an index that has vectors of its own is used.
        exact: no index is used.

    """
    driver = driver_connection(connection)
    index = serving(collection)
    embedding, chosen = collection.table.c.embedding, index.chosen_by()
    columns = [embedding] if exact or chosen is embedding else [embedding, chosen]
    for number, column in enumerate(columns, start=1):
        dims = column.type.dim  # type: ignore[attr-defined]  # of HALFVEC
        text = text.replace(f"${number}", f"CAST(${number} AS halfvec({dims}))")
    asked = _asked(columns)
    images: list[UUID] = []
    others: list[UUID] = []
    distances: list[float] = []
    for start in range(0, len(ids), CHUNK):
        chunk = list(ids[start : start + CHUNK])
        found = []
        rows = driver.execute(asked.encode(), [chunk]).fetchall()
        with driver.pipeline():
            for image, *vectors in rows:
                cursor = psycopg.RawCursor(driver)
                cursor.execute(
                    text.encode(), [vector and Half(vector) for vector in vectors], prepare=True
                )
                found.append((image, cursor))
        for image, cursor in found:
            for other, distance in cursor:
                # A zero vector is at no distance from any other.
                if not math.isnan(distance):
                    images.append(image)
                    others.append(other)
                    distances.append(distance)
    return _FOUND, {"images": images, "others": others, "distances": distances}


def _asked(columns: Sequence[sa.Column[Any]]) -> str:
    """Return SQL of images' ids and vectors, in binary form."""
    named = [schema.sql_name(column.table.name) for column in columns]
    sources = [
        f"{schema.sql_name(column.table)} AS {name}"
        for name, column in zip(named, columns, strict=True)
    ]
    sent = ", ".join(
        f"halfvec_send({name}.{column.name})" for name, column in zip(named, columns, strict=True)
    )
    joined = " LEFT JOIN ".join(sources) + (" USING (id)" if len(sources) > 1 else "")
    return f"SELECT {named[0]}.id, {sent} FROM {joined} WHERE {named[0]}.id = ANY(%s)"
