"""The table of each image's nearest images, and how it follows changes of the collection.

A change makes the neighbours of three kinds of image stale: of changed and new images; of those
that have a changed or deleted image among theirs; and of those to which a changed or new image is
now nearer than their farthest neighbour. The others keep theirs. So the table is what it would be
if it were made anew (with an index, as far as that finds the same neighbours each time).
"""

from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.analysis.duplicates import pairs
from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import copy_rows
from vecsearch.search.indexes import vectors
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.indexes.projection import normalised

# Images whose neighbours are searched by one statement.
CHUNK = 1_000
# If a larger share of the images changed, searching for all takes less time.
MOST_CHANGED = 0.25
# Postgres' distances and ours, of the same numbers, differ by less.
ROUNDING = 1e-4


def changes(connection: sa.Connection, name: str, position: int) -> set[UUID] | None:
    """Return the images that changed after a position; None if any may have.

    Those of transactions that began before others that still run are included, too, and will be
    once more: they are after the position that the next refresh starts from.
    """
    feed = tables.changes.c
    own = feed.collection == name
    oldest = connection.scalar(sa.select(sa.func.min(feed.position)).where(own))
    if oldest is None or oldest > position:
        return None
    later = sa.select(feed.id).where(own, feed.position > position).distinct()
    found = set(connection.scalars(later))
    return None if None in found else found


def refresh(
    connection: sa.Connection,
    collection: StoredCollection,
    k: int,
    changed: set[UUID] | None,
    *,
    exact: bool,
    on_progress: OnProgress,
) -> int:
    """Bring the table up to date, and return the number of images whose neighbours were searched.

    Args:
        connection: in a transaction on one snapshot.
        collection: the collection.
        k: number of neighbours of each image.
        changed: ids of images that were added, changed or deleted; None searches for all images.
        exact: compare with every row, without the index.
        on_progress: called after each chunk of images.

    """
    table = tables.neighbours
    own = table.c.collection == collection.name
    every = list(connection.scalars(sa.select(collection.table.c.id)))
    if changed is None or len(changed) > MOST_CHANGED * len(every):
        stale = set(every)
        connection.execute(sa.delete(table).where(own))
    else:
        stale = _stale(connection, collection, k, changed)
        driver_connection(connection).execute(
            f"DELETE FROM {table.fullname} WHERE collection = %s AND id = ANY(%s)".encode(),
            [collection.name, list(stale)],
        )
        stale &= set(every)
    ordered = sorted(stale)
    for start in range(0, len(ordered), CHUNK):
        ids = ordered[start : start + CHUNK]
        found = pairs.nearest(connection, collection, ids, k, exact=exact)
        copy_rows(
            connection,
            table.fullname,
            "text uuid int2 uuid float8",
            (
                (collection.name, image, rank, other, distance)
                for image, near in found.items()
                for rank, (other, distance) in enumerate(near, start=1)
            ),
        )
        on_progress("Neighbours", start + len(ids), len(ordered))
    return len(stale)


def _stale(
    connection: sa.Connection, collection: StoredCollection, k: int, changed: set[UUID]
) -> set[UUID]:
    """Return the images whose neighbours may no longer be right, and those that are gone."""
    if not changed:
        return set()
    driver = driver_connection(connection)
    having = driver.execute(
        f"SELECT id FROM {tables.neighbours.fullname}"
        " WHERE collection = %s AND neighbour = ANY(%s)".encode(),
        [collection.name, list(changed)],
    )
    stale = changed | {row[0] for row in having}
    source = schema.sql_name(collection.table)
    wanted = ", ".join(f"'{id_}'" for id_ in changed)
    _, new = vectors.read(connection, f"SELECT id, embedding FROM {source} WHERE id IN ({wanted})")
    if len(new) == 0:
        return stale
    farthest = dict(
        driver.execute(
            f"SELECT id, distance FROM {tables.neighbours.fullname}"
            " WHERE collection = %s AND rank = %s".encode(),
            [collection.name, k],
        ).fetchall()
    )
    others = normalised(new)
    for ids, embeddings in vectors.chunks(connection, source):
        # Where there are fewer neighbours than asked for, every image is one.
        reach = np.array([farthest.get(id_, np.inf) for id_ in ids])
        nearest = _nearest(normalised(embeddings), others)
        stale.update(ids[position] for position in np.flatnonzero(nearest <= reach + ROUNDING))
    return stale


def _nearest(embeddings: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return of each embedding the smallest cosine distance to one of the others."""
    best = np.full(len(embeddings), -np.inf, np.float32)
    for start in range(0, len(others), CHUNK):
        similar = embeddings @ others[start : start + CHUNK].T
        np.maximum(best, similar.max(axis=1), out=best)
    return 1 - best
