"""Near-duplicates: join similar pairs into groups, and choose which image of a group to keep."""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from vecsearch.analysis import pairs
from vecsearch.analysis.pairs import NOISE, CutOff, Member, Pair
from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog
from vecsearch.search.lookup import named_id
from vecsearch.vocabulary import KeepRule, parse

# The suggested cut-off is at most half of the distance to an image's tenth neighbour. It is smaller
# where ordinary images lie that near: at most the share CHANCE may have such a neighbour by chance.
RANK = 10
MAXIMUM_RATIO = 0.5
CHANCE = 0.02
# In a large group the tenth neighbour is a duplicate too, so the ratio alone would give too small a
# cut-off. Images within this share of the typical cut-off always count as near.
FLOOR_RATIO = 0.1
SAMPLE = 1_000


@dataclass(frozen=True)
class Duplicate:
    """An image in a group of near-duplicates.

    Attributes:
        group: number of the group, from 1.
        distance: cosine distance to the group's first image.
        could_go: whether the rule keeps another image of the group; None without a rule.

    """

    group: int
    id: UUID
    path: str
    distance: float
    width: int | None
    height: int | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None
    could_go: bool | None


@dataclass(frozen=True)
class Duplicates:
    """Groups of near-duplicates.

    Attributes:
        images: the images of all groups, group by group, in the requested order.
        cut_off: the cut-off that was used.
        typical: the cut-off of a typical image, a cosine distance.
        split: whether some image has so many near neighbours that one group may be returned as
            several.

    """

    images: list[Duplicate]
    cut_off: CutOff
    typical: float
    split: bool


def find(
    connection: sa.Connection,
    collection: catalog.StoredCollection,
    *,
    max_distance: float | None,
    order: str | None,
    keep: str | None,
    exact: bool,
) -> Duplicates:
    """Group images that are linked by pairs within a cut-off; delete nothing.

    Args:
        connection: in a transaction.
        collection: the collection to search.
        max_distance: the largest cosine distance of a pair; None chooses a cut-off from the
            collection's own distances.
        order: rule for the order within a group; None uses `keep`, or oldest first.
        keep: rule for the image of a group to keep; the others get `could_go`.
        exact: compare every image with every other, without the index.

    Raises:
        InvalidInput: an option has an invalid value.

    """
    if max_distance is not None and not 0 <= max_distance < math.inf:
        raise InvalidInput("--max-distance must be 0 or more. Give a distance such as 0.05.")
    kept = None if keep is None else _ORDERS[parse(KeepRule, keep)]
    ordered = _ORDERS[parse(KeepRule, order or keep or KeepRule.oldest)]
    table = collection.table
    if max_distance is None:
        distances = pairs.neighbour_distances(connection, collection, SAMPLE, exact=exact)
        cut_off, typical = suggest(distances)
    else:
        # No cosine distance exceeds 2. The square of a tiny one would underflow in Postgres.
        floor = min(max_distance, 2.0) if max_distance > NOISE**2 else 0.0
        cut_off, typical = CutOff(floor), max_distance
    near, crowded = pairs.near_pairs(connection, collection, cut_off, exact=exact)
    groups = group(near, pairs.not_duplicates(connection, table))
    found = {
        member.id: member
        for member in pairs.members(connection, table, [id_ for ids in groups for id_ in ids])
    }
    sorted_groups = sorted(
        (sorted((found[id_] for id_ in ids), key=ordered) for ids in groups),
        key=lambda members: members[0].path,
    )
    rows = [
        (number, members[0].id, member, None if kept is None else member != min(members, key=kept))
        for number, members in enumerate(sorted_groups, start=1)
        for member in members
    ]
    distances_to_first = pairs.distances_to(
        connection, table, [row[1] for row in rows], [row[2].id for row in rows]
    )
    return Duplicates(
        [
            Duplicate(
                group=number,
                distance=0.0 if first == member.id else distance,
                could_go=could_go,
                **vars(member),
            )
            for (number, first, member, could_go), distance in zip(
                rows, distances_to_first, strict=True
            )
        ],
        cut_off,
        typical,
        split=sum(not crowded.isdisjoint(ids) for ids in groups) > 1,
    )


def suggest(distances: Iterable[list[float]]) -> tuple[CutOff, float]:
    """Suggest a cut-off from the neighbour distances of a sample of images, nearest first.

    Near-duplicates are nearer than their other neighbours. How near an ordinary neighbour comes by
    chance depends on the intrinsic dimension d of the images: among m neighbours within distance s,
    m (r / s)^(d / 2) are expected within r (a cosine distance is half a squared length). d is
    estimated from the tenth and the fifth neighbour, as in Levina and Bickel (Maximum Likelihood
    Estimation of Intrinsic Dimension, 2004).

    Returns:
        The cut-off, and its value for a typical image as a cosine distance.

    """
    neighbours = [item for item in distances if item]
    if not neighbours:
        return CutOff(NOISE), NOISE
    rank = min(RANK, statistics.median_low(len(item) for item in neighbours))
    half = max(rank // 2, 1)
    far = [(item[rank - 1], item[half - 1]) for item in neighbours if len(item) >= rank]
    usual = statistics.median(at_rank for at_rank, _ in far)
    apart = [math.log(at_rank / at_half) for at_rank, at_half in far if at_half > NOISE]
    ratio = MAXIMUM_RATIO
    spread = statistics.median(apart) if apart else 0.0
    if spread > 0:
        dimensions = 2 * sum(1 / number for number in range(half, rank)) / spread
        ratio = min(ratio, (CHANCE / (rank - 1)) ** (2 / dimensions))
    typical = max(ratio * usual, NOISE)
    return CutOff(max(FLOOR_RATIO * typical, NOISE), ratio, rank), typical


def group(near: Iterable[Pair], apart: Iterable[tuple[UUID, UUID]] = ()) -> list[set[UUID]]:
    """Join pairs, nearest first, into groups of two or more; pairs in `apart` stay separate."""
    groups: dict[UUID, set[UUID]] = {}
    enemies: dict[UUID, set[UUID]] = {}
    for image, other in apart:
        enemies.setdefault(image, set()).add(other)
        enemies.setdefault(other, set()).add(image)
    for pair in sorted(near, key=lambda pair: pair.distance):
        small, large = sorted(
            (groups.setdefault(id_, {id_}) for id_ in (pair.image, pair.other)), key=len
        )
        if small is large or any(not large.isdisjoint(enemies.get(id_, ())) for id_ in small):
            continue
        large |= small
        groups.update(dict.fromkeys(small, large))
    return [ids for ids in {id(ids): ids for ids in groups.values()}.values() if len(ids) > 1]


def remember_not(
    connection: sa.Connection,
    collection: catalog.StoredCollection,
    one: UUID | str,
    other: UUID | str,
) -> bool:
    """Record that two images, named by id or path, are not near-duplicates.

    Returns:
        Whether the pair was not recorded before.

    Raises:
        ImageNotFound: an image is not in the collection.
        InvalidInput: both names refer to the same image.

    """
    ids = [named_id(connection, collection.table, name) for name in (one, other)]
    if ids[0] == ids[1]:
        raise InvalidInput(f"{one} and {other} are the same image. Name two different ones.")
    return pairs.remember_not(connection, collection.table, ids[0], ids[1])


def _taken(member: Member) -> float | None:
    """Return the time in seconds at which the picture was taken, or else its file modified."""
    when = member.taken_at or member.modified_at
    if when is None:
        return None
    # Camera times have no time zone.
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _by_time(sign: int) -> Callable[[Member], tuple[Any, ...]]:
    def key(member: Member) -> tuple[Any, ...]:
        taken = _taken(member)
        return (taken is None, sign * (taken or 0.0), member.path)

    return key


def _by_size(member: Member) -> tuple[Any, ...]:
    area = (member.width or 0) * (member.height or 0)
    return (-area, -(member.file_size or 0), member.path)


_ORDERS: dict[KeepRule, Callable[[Member], tuple[Any, ...]]] = {
    KeepRule.oldest: _by_time(1),
    KeepRule.newest: _by_time(-1),
    KeepRule.largest: _by_size,
    KeepRule.path: lambda member: (member.path,),
}
