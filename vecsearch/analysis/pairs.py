"""Which images lie near each other: a self-join that the index drives."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import apply_settings, driver_connection
from vecsearch.search.indexes import serving
from vecsearch.search.indexes.base import MAXIMUM_EF_SEARCH, MINIMUM_EF_SEARCH
from vecsearch.search.statement import EXACT_SETTINGS, FORCED_SETTINGS, index_settings

# So many of an image's nearest are looked at, itself left out; and so many more, of other
# embeddings than its own, where all of those are within the cut-off.
NEIGHBOURS = 20
MORE_NEIGHBOURS = 200
# In single precision, equal embeddings may lie this far apart.
NOISE = 1e-6


@dataclass(frozen=True)
class CutOff:
    """How near is near: a pair's distance is at most the geometric mean of both images' reaches.

    An image's reach is `ratio` times the distance to its `rank`th neighbour, and `floor` at least.
    A ratio of 0 makes `floor` the cut-off of every pair.
    """

    floor: float
    ratio: float = 0.0
    rank: int = 1


@dataclass(frozen=True)
class Pair:
    """Two images, the smaller id first, and the cosine distance between them."""

    image: UUID
    other: UUID
    distance: float


@dataclass(frozen=True)
class Member:
    """An image that is near another one."""

    id: UUID
    path: str
    width: int | None
    height: int | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None


def neighbour_distances(
    connection: sa.Connection, collection: StoredCollection, images: int, *, exact: bool = False
) -> list[list[float]]:
    """Return how far the neighbours of some images are, each image's nearest first.

    Args:
        connection: in a transaction.
        collection: whose.
        images: how many at most; in order of their ids, which are hashes, they are a fair sample.
        exact: compare with every row.

    """
    source = schema.sql_name(collection.table)
    _set_up(connection, NEIGHBOURS, exact=exact)
    rows = connection.execute(
        sa.text(
            f"""
            SELECT array_agg(n.distance ORDER BY n.distance)
            FROM (SELECT id, embedding FROM {source} ORDER BY id LIMIT :images) AS i
            {_neighbours(collection, exact=exact)} AND n.id <> i.id GROUP BY i.id"""
        ),
        {"images": images, "neighbours": NEIGHBOURS + 1},
    )
    return [row[0] for row in rows]


def near_pairs(
    connection: sa.Connection, collection: StoredCollection, cut_off: CutOff, *, exact: bool = False
) -> tuple[list[Pair], set[UUID]]:
    """Return pairs within the cut-off, nearest first: enough to join all that such pairs join.

    Not all of them: files of equal content are a chain, and equal embeddings share their nearest.
    An image that does not find itself is lost to the index; it is compared with every row, and its
    own reach decides.

    Returns:
        The pairs, and images that have more neighbours within `floor` than were looked at. Nothing
        is missing unless those are in more than one group: the rest know all of their neighbours.

    """
    source = schema.sql_name(collection.table)
    _set_up(connection, NEIGHBOURS, exact=exact)
    rows = connection.execute(
        sa.text(
            f"""
            WITH near AS MATERIALIZED (
                SELECT i.id AS image, n.id AS other, n.distance
                FROM {source} AS i {_neighbours(collection, exact=exact)}
            ), reaches AS (
                SELECT image, greatest(CAST(:floor AS float8), CAST(:ratio AS float8) *
                        coalesce((array_agg(distance ORDER BY distance)
                            FILTER (WHERE other <> image))[:rank], 0)) AS reach,
                    count(*) FILTER (WHERE distance <= :floor) >= :neighbours AS is_crowded,
                    NOT bool_or(other = image) AND max(distance) > :noise AS is_lost
                FROM near GROUP BY image
            )
            SELECT near.image, other, distance, mine.is_crowded, mine.is_lost FROM near
            JOIN reaches AS mine ON mine.image = near.image
            JOIN reaches AS its ON its.image = near.other
            WHERE distance * distance <= mine.reach * its.reach OR mine.is_lost
            UNION ALL
            SELECT image, other, 0, false, false FROM (
                SELECT id AS image, lead(id) OVER (PARTITION BY sha256 ORDER BY id) AS other
                FROM {source} WHERE sha256 IS NOT NULL) AS copies
            WHERE other IS NOT NULL"""
        ),
        {
            "floor": cut_off.floor,
            "ratio": cut_off.ratio,
            "rank": cut_off.rank,
            "neighbours": NEIGHBOURS + 1,
            "noise": NOISE,
        },
    ).all()
    lost = {row.image for row in rows if row.is_lost}
    crowded = {row.image for row in rows if row.is_crowded} - lost
    more = _more_neighbours(connection, collection, crowded, cut_off.floor, exact=exact)
    more += _lost_neighbours(connection, collection, lost, cut_off)
    distances: dict[tuple[UUID, UUID], float] = {}
    for row in [*(row for row in rows if row.image != row.other and not row.is_lost), *more]:
        key = (min(row.image, row.other), max(row.image, row.other))
        distances[key] = min(row.distance, distances.get(key, row.distance))
    pairs = [Pair(*key, distance) for key, distance in distances.items()]
    counts = Counter(row.image for row in more)
    return (
        sorted(pairs, key=lambda pair: (pair.distance, pair.image, pair.other)),
        {image for image, count in counts.items() if count >= MORE_NEIGHBOURS},
    )


def members(connection: sa.Connection, table: sa.Table, ids: Sequence[UUID]) -> list[Member]:
    """Return what is known of these images."""
    columns = [table.c[name] for name in Member.__dataclass_fields__]
    rows = connection.execute(sa.select(*columns).where(table.c.id == _any(ids)))
    return [Member(*row) for row in rows]


def distances_to(
    connection: sa.Connection, table: sa.Table, firsts: Sequence[UUID], others: Sequence[UUID]
) -> list[float]:
    """Return the cosine distance of each of `firsts` to the one of `others` in its place."""
    source = schema.sql_name(table)
    rows = connection.execute(
        sa.text(
            f"""
            SELECT greatest(a.embedding <=> b.embedding, 0)
            FROM unnest(CAST(:firsts AS uuid[]), CAST(:others AS uuid[]))
                WITH ORDINALITY AS pair (first, other, position)
            JOIN {source} AS a ON a.id = first JOIN {source} AS b ON b.id = other
            ORDER BY position"""
        ),
        {"firsts": list(firsts), "others": list(others)},
    )
    return list(rows.scalars())


def not_duplicates(connection: sa.Connection, table: sa.Table) -> list[tuple[UUID, UUID]]:
    """Return the pairs that somebody has said are no near-duplicates."""
    said = schema.not_duplicates
    rows = connection.execute(
        sa.select(said.c.image, said.c.other).where(said.c.collection == table.name)
    )
    return [(row.image, row.other) for row in rows]


def remember_not(connection: sa.Connection, table: sa.Table, one: UUID, other: UUID) -> bool:
    """Remember that two images are no near-duplicates; tell whether that is new."""
    statement = postgresql.insert(schema.not_duplicates).values(
        collection=table.name, image=min(one, other), other=max(one, other)
    )
    new = statement.on_conflict_do_nothing().returning(schema.not_duplicates.c.image)
    return connection.scalar(new) is not None


def _more_neighbours(
    connection: sa.Connection,
    collection: StoredCollection,
    crowded: set[UUID],
    floor: float,
    *,
    exact: bool,
) -> list[Any]:
    """Return pairs within `floor` of images whose nearest all were, once per embedding."""
    if not crowded:
        return []
    source = schema.sql_name(collection.table)
    _set_up(connection, MORE_NEIGHBOURS, exact=exact)
    rows = connection.execute(
        sa.text(
            f"""
            SELECT i.id AS image, n.id AS other, n.distance
            FROM (SELECT DISTINCT ON (embedding) id, embedding FROM {source}
                WHERE id = ANY(:crowded) ORDER BY embedding, id) AS i
            {_neighbours(collection, "o.embedding <> i.embedding", exact=exact)}
            AND n.distance <= :floor"""
        ),
        {"crowded": list(crowded), "floor": floor, "neighbours": MORE_NEIGHBOURS},
    )
    return list(rows)


def _lost_neighbours(
    connection: sa.Connection, collection: StoredCollection, lost: set[UUID], cut_off: CutOff
) -> list[Any]:
    """Return pairs within the reach of images that no path in the index leads to."""
    if not lost:
        return []
    source = schema.sql_name(collection.table)
    _set_up(connection, MORE_NEIGHBOURS, exact=True)
    rows = connection.execute(
        sa.text(
            f"""
            SELECT i.id AS image, n.id AS other, n.distance
            FROM (SELECT id, embedding FROM {source} WHERE id = ANY(:lost)) AS i
            {_neighbours(collection, exact=True)} AND n.id <> i.id ORDER BY i.id, n.distance"""
        ),
        {"lost": list(lost), "neighbours": MORE_NEIGHBOURS + 1},
    )
    found = []
    for _, group in itertools.groupby(rows, key=lambda row: row.image):
        nearest_first = list(group)
        beyond = nearest_first[: cut_off.rank][-1].distance
        reach = max(cut_off.floor, cut_off.ratio * beyond)
        found += [row for row in nearest_first if row.distance <= reach]
    return found


def _neighbours(collection: StoredCollection, where: str = "true", *, exact: bool) -> str:
    """Return the join of each image `i` with its nearest, `n`.

    The index serves only the bare ORDER BY. It compares numbers that were normalised and rounded;
    the distance that comes back is of those that are stored, where equal ones may differ by 1e-7.
    Compact vectors choose candidates, twice as many as are asked for; an image that has none does
    not find itself, and so is lost.
    """
    source = f"{schema.sql_name(collection.table)} AS o"
    if not exact:
        source, where = serving(collection).neighbours(source, where)
    return f"""
        CROSS JOIN LATERAL (
            SELECT o.id, greatest(o.embedding <=> i.embedding, 0) AS distance
            FROM {source} WHERE {where} ORDER BY o.embedding <=> i.embedding LIMIT :neighbours
        ) AS n WHERE n.distance < 'NaN'"""


def _set_up(connection: sa.Connection, neighbours: int, *, exact: bool) -> None:
    settings = EXACT_SETTINGS
    if not exact:
        # Every image asks, and a planner that guesses the table small would compare all with all.
        ef_search = max(MINIMUM_EF_SEARCH, 2 * neighbours)
        settings = FORCED_SETTINGS | index_settings(min(ef_search, MAXIMUM_EF_SEARCH))
    apply_settings(driver_connection(connection), settings)


def _any(ids: Sequence[UUID]) -> sa.ColumnElement[Any]:
    return sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid)))
