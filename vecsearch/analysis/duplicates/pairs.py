"""Find pairs of similar images with a self-join that uses the index.

`vecsearch.analysis.nearby` has that join.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from vecsearch.analysis import nearby
from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection

# Nearest neighbours to examine per image, not counting the image itself.
NEIGHBOURS = 20
# If all of those are within the cut-off, neighbours with a different embedding to examine.
MORE_NEIGHBOURS = 200
# Rounding to single precision can give equal embeddings a distance this large.
NOISE = 1e-6


@dataclass(frozen=True)
class CutOff:
    """The rule by which a pair is near: its distance is at most the mean of both images' reaches.

    The mean is geometric. An image's reach is `ratio` times the distance to its `rank`th neighbour,
    but at least `floor`. With a ratio of 0, `floor` is the cut-off of every pair. Pairs that are
    near by the ratio `wide`, if that is larger, are candidates.
    """

    floor: float
    ratio: float = 0.0
    rank: int = 1
    wide: float = 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, the smaller id first, and their cosine distance; `is_near` by the cut-off."""

    image: UUID
    other: UUID
    distance: float
    is_near: bool = True


@dataclass(frozen=True)
class Member:
    """An image that is near another image."""

    id: UUID
    path: str
    sha256: str | None
    width: int | None
    height: int | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None


def neighbour_distances(
    connection: sa.Connection, collection: StoredCollection, images: int, *, exact: bool
) -> list[list[float]]:
    """Return the neighbour distances of a sample of images, nearest first for each image.

    Args:
        connection: in a transaction.
        collection: the collection to sample.
        images: the largest number of images; taken in order of id, which is a hash, so that they
            are a random sample.
        exact: compare with every row, without the index.

    """
    source = schema.sql_name(collection.table)
    near, values = nearby.find(
        connection,
        collection,
        f"(SELECT id, embedding FROM {source} ORDER BY id LIMIT :images) AS i",
        {"images": images},
        NEIGHBOURS + 1,
        exact=exact,
    )
    rows = connection.execute(
        sa.text(
            f"SELECT array_agg(distance ORDER BY distance) FROM ({near}) AS near"
            " WHERE image <> other GROUP BY image"
        ),
        values,
    )
    return [row[0] for row in rows]


def nearest(
    connection: sa.Connection,
    collection: StoredCollection,
    ids: Sequence[UUID],
    k: int,
    *,
    exact: bool,
) -> dict[UUID, list[tuple[UUID, float]]]:
    """Return the k nearest other images of each image, nearest first, with cosine distances.

    Of equally near ones, those with the smaller ids. An image that the index's search does not
    return for itself, see `candidates`, is compared with every row.
    """
    # The index compares rounded numbers: with some more, the k nearest are among them.
    examined = k + 1 if exact else k + 1 + max(k // 4, 4)
    source = schema.sql_name(collection.table)
    near, values = nearby.find(
        connection,
        collection,
        f"(SELECT id, embedding FROM {source} WHERE id = ANY(:ids)) AS i",
        {"ids": list(ids)},
        examined,
        exact=exact,
    )
    rows = connection.execute(sa.text(near), values)
    found: dict[UUID, list[tuple[float, UUID]]] = {}
    for row in rows:
        found.setdefault(row.image, []).append((row.distance, row.other))
    lost = [
        image
        for image, near in found.items()
        if not exact and max(near)[0] > NOISE and all(other != image for _, other in near)
    ]
    result = {
        image: [(other, distance) for distance, other in sorted(near) if other != image][:k]
        for image, near in found.items()
    }
    return result | (nearest(connection, collection, lost, k, exact=True) if lost else {})


def candidates(
    connection: sa.Connection, collection: StoredCollection, cut_off: CutOff, *, exact: bool
) -> tuple[list[Pair], set[UUID]]:
    """Return pairs that may be near-duplicates, nearest first.

    Those within the cut-off are enough to form every group.

    Some pairs are left out: files with equal content are linked in a chain, and images with equal
    embeddings share one neighbour search. An image whose index search does not return the image
    itself is unreachable in the graph; it is compared with every row, and only its own reach
    counts.

    Returns:
        The pairs, and the images with more neighbours within `floor` than were examined. No pair
        is missing unless those images are in more than one group: all neighbours of the other
        images are known.

    """
    source = schema.sql_name(collection.table)
    near, values = nearby.find(
        connection, collection, f"{source} AS i", {}, NEIGHBOURS + 1, exact=exact
    )
    rows = connection.execute(
        sa.text(
            f"""
            WITH near AS MATERIALIZED ({near}), ranked AS (
                SELECT image, coalesce((array_agg(distance ORDER BY distance)
                        FILTER (WHERE other <> image))[:rank], 0) AS at_rank,
                    count(*) FILTER (WHERE distance <= :floor) > {NEIGHBOURS} AS is_crowded,
                    NOT bool_or(other = image) AND max(distance) > :noise AS is_lost
                FROM near GROUP BY image
            ), reaches AS (
                SELECT image, is_crowded, is_lost,
                    greatest(CAST(:floor AS float8), CAST(:ratio AS float8) * at_rank) AS reach,
                    greatest(CAST(:floor AS float8), CAST(:wide AS float8) * at_rank) AS wide
                FROM ranked
            )
            SELECT near.image, other, distance,
                distance * distance <= mine.reach * its.reach AS is_near,
                mine.is_crowded, mine.is_lost FROM near
            JOIN reaches AS mine ON mine.image = near.image
            JOIN reaches AS its ON its.image = near.other
            WHERE distance * distance <= mine.wide * its.wide OR mine.is_lost
            UNION ALL
            SELECT image, other, 0, true, false, false FROM (
                SELECT id AS image, lead(id) OVER (PARTITION BY sha256 ORDER BY id) AS other
                FROM {source} WHERE sha256 IS NOT NULL) AS copies
            WHERE other IS NOT NULL"""
        ),
        {
            "floor": cut_off.floor,
            "ratio": cut_off.ratio,
            "wide": max(cut_off.wide, cut_off.ratio),
            "rank": cut_off.rank,
            "noise": NOISE,
            **values,
        },
    )
    # Many pairs share each image: one object for it instead of a dozen.
    known: dict[UUID, UUID] = {}
    found: dict[tuple[UUID, UUID], Pair] = {}

    def add(one: UUID, two: UUID, distance: float, *, is_near: bool) -> None:
        one, two = known.setdefault(one, one), known.setdefault(two, two)
        key = (one, two) if one < two else (two, one)
        former = found.get(key)
        if former is not None:
            distance, is_near = min(distance, former.distance), is_near or former.is_near
        found[key] = Pair(*key, distance, is_near)

    lost, crowded = set(), set()
    for row in rows:
        if row.is_crowded:
            crowded.add(row.image)
        if row.is_lost:
            lost.add(row.image)
        elif row.image != row.other:
            add(row.image, row.other, row.distance, is_near=row.is_near)
    crowded -= lost
    counts: Counter[UUID] = Counter()
    for row in _more_neighbours(connection, collection, crowded, cut_off.floor, exact=exact):
        counts[row.image] += 1
        add(row.image, row.other, row.distance, is_near=True)
    for row, is_near in _lost_neighbours(connection, collection, lost, cut_off):
        counts[row.image] += is_near
        add(row.image, row.other, row.distance, is_near=is_near)
    return (
        sorted(found.values(), key=lambda pair: (pair.distance, pair.image, pair.other)),
        {image for image, count in counts.items() if count >= MORE_NEIGHBOURS},
    )


def members(connection: sa.Connection, table: sa.Table, ids: Sequence[UUID]) -> list[Member]:
    """Return the stored facts about these images."""
    columns = [table.c[name] for name in Member.__dataclass_fields__]
    rows = connection.execute(sa.select(*columns).where(table.c.id == _any(ids)))
    return [Member(*row) for row in rows]


def distances_to(
    connection: sa.Connection, table: sa.Table, firsts: Sequence[UUID], others: Sequence[UUID]
) -> list[float]:
    """Return the cosine distance of each image in `firsts` to the one at its place in `others`."""
    source = schema.sql_name(table)
    rows = connection.execute(
        sa.text(
            f"""
            SELECT greatest(a.embedding <=> b.embedding, 0)
            FROM unnest(CAST(:firsts AS uuid[]), CAST(:others AS uuid[]))
                WITH ORDINALITY AS pair (first, other, position)
            JOIN {source} AS a ON a.id = first
            JOIN (SELECT id, embedding FROM {source} WHERE id = ANY(:others)) AS b ON b.id = other
            ORDER BY position"""
        ),
        {"firsts": list(firsts), "others": list(others)},
    )
    return list(rows.scalars())


def _more_neighbours(
    connection: sa.Connection,
    collection: StoredCollection,
    crowded: set[UUID],
    floor: float,
    *,
    exact: bool,
) -> list[Any]:
    """Return more pairs within `floor`, for images whose examined neighbours all were.

    Images with equal embeddings are searched once.
    """
    if not crowded:
        return []
    source = schema.sql_name(collection.table)
    near, values = nearby.find(
        connection,
        collection,
        f"(SELECT DISTINCT ON (embedding) id, embedding FROM {source}"
        " WHERE id = ANY(:crowded) ORDER BY embedding, id) AS i",
        {"crowded": list(crowded)},
        MORE_NEIGHBOURS,
        differing=True,
        exact=exact,
    )
    rows = connection.execute(
        sa.text(f"SELECT * FROM ({near}) AS near WHERE distance <= :floor"),
        {"floor": floor, **values},
    )
    return list(rows)


def _lost_neighbours(
    connection: sa.Connection, collection: StoredCollection, lost: set[UUID], cut_off: CutOff
) -> list[tuple[Any, bool]]:
    """Return the candidates for images that are unreachable in the index's graph.

    Each comes with whether it is within the cut-off.
    """
    if not lost:
        return []
    source = schema.sql_name(collection.table)
    near, values = nearby.find(
        connection,
        collection,
        f"(SELECT id, embedding FROM {source} WHERE id = ANY(:lost)) AS i",
        {"lost": list(lost)},
        MORE_NEIGHBOURS + 1,
        exact=True,
    )
    rows = connection.execute(
        sa.text(f"SELECT * FROM ({near}) AS near WHERE image <> other ORDER BY image, distance"),
        values,
    )
    found = []
    for _, group in itertools.groupby(rows, key=lambda row: row.image):
        nearest_first = list(group)
        beyond = nearest_first[: cut_off.rank][-1].distance
        reach = max(cut_off.floor, cut_off.ratio * beyond)
        wide = max(reach, cut_off.wide * beyond)
        found += [(row, row.distance <= reach) for row in nearest_first if row.distance <= wide]
    return found


def _any(ids: Sequence[UUID]) -> sa.ColumnElement[Any]:
    return sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid)))
