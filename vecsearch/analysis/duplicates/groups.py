"""Near-duplicates: join similar pairs into groups.

Embeddings choose candidates; thumbnails confirm them. Two photos of one subject have near
embeddings, too, so that no cut-off finds a greyscale copy and leaves out the other photo.
"""

import math
import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict
from uuid import UUID

import sqlalchemy as sa

from vecsearch.analysis.duplicates import apart, keeping, pairs
from vecsearch.analysis.duplicates.confirm import Confirmer
from vecsearch.analysis.duplicates.keeping import ORDERS
from vecsearch.analysis.duplicates.pairs import NOISE, CutOff, Member, Pair
from vecsearch.errors import InvalidInput
from vecsearch.imaging.sources import existence
from vecsearch.postgres import catalog, schema, tables
from vecsearch.vocabulary import MAX_DIFFERENCE, KeepRule, counted, parse

# Candidates are at most this many times as far as an image's tenth neighbour. On photos with
# tf_efficientnet_lite0 (benchmarks/duplicates.py), that includes 99 % of greyscale copies and all
# other variants.
CANDIDATE_RATIO = 1.25
# Candidates beyond the cut-off may differ by this share of what nearer pairs may: drawings of one
# layout are far from each other, but differ little.
FAR_SHARE = 0.5
# The suggested cut-off, which alone decides pairs without thumbnails, is at most half of the
# distance to an image's tenth neighbour. It is smaller where ordinary images lie that near: at most
# the share CHANCE may have such a neighbour by chance.
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
        sha256: of the file's bytes; None if it was imported without one.
        distance: cosine distance to the group's first image.
        difference: of its thumbnail from that of the group's first image, 0 to 2, as
            `vecsearch.imaging.alignment` defines it; None if they cannot be compared.
        could_go: whether another image of the group is kept; None if nobody chose, or if its file
            is gone.
        missing: whether its file is gone; None if nothing is kept, so that nobody looked.

    """

    group: int
    id: UUID
    path: str
    sha256: str | None
    distance: float
    difference: float | None
    width: int | None
    height: int | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None
    could_go: bool | None
    missing: bool | None


@dataclass(frozen=True)
class Duplicates:
    """Groups of near-duplicates.

    Attributes:
        images: the images of all groups, group by group, in the requested order.
        cut_off: the cut-off that was used.
        typical: the cosine distance of a typical image within which others were candidates.
        alone: the same for images without a comparable thumbnail, which nothing but their
            embeddings decided.
        max_difference: the largest difference of thumbnails of a pair within `alone`; farther
            pairs may differ by FAR_SHARE of it.
        unconfirmed: the number of candidates without a comparable thumbnail.
        split: whether some image has so many near neighbours that one group may be returned as
            several.

    """

    images: list[Duplicate]
    cut_off: CutOff
    typical: float
    alone: float
    max_difference: float
    unconfirmed: int
    split: bool

    def missing_note(self, collection: str) -> str | None:
        """Return a note about rows whose files are gone; None if there are none."""
        return keeping.missing_note([each.path for each in self.images if each.missing], collection)


class Options(TypedDict, total=False):
    """The options of `find`."""

    max_distance: float | None
    max_difference: float | None
    mirrored: bool
    order: str | None
    keep: str | None
    prefer: str | None
    gone: Collection[UUID] | None
    exact: bool


@dataclass(frozen=True)
class Suggestion:
    """A cut-off, and what it is for a typical image; see `Duplicates`."""

    cut_off: CutOff
    typical: float
    alone: float


def find(
    connection: sa.Connection,
    collection: catalog.StoredCollection,
    *,
    max_distance: float | None = None,
    max_difference: float | None = None,
    mirrored: bool = False,
    order: str | None = None,
    keep: str | None = None,
    prefer: str | None = None,
    gone: Collection[UUID] | None = None,
    exact: bool = False,
) -> Duplicates:
    """Group images that are linked by near and confirmed pairs; delete nothing.

    Args:
        connection: in a transaction.
        collection: the collection to search.
        max_distance: the largest cosine distance of a pair; None chooses a cut-off from the
            collection's own distances.
        max_difference: the largest difference of their thumbnails; None uses MAX_DIFFERENCE. For
            candidates beyond the suggested cut-off, FAR_SHARE of it.
        mirrored: a mirrored copy counts, too.
        order: rule for the order within a group; None uses `keep`, or oldest first.
        keep: rule for the image of a group to keep; the others get `could_go`. One whose file is
            gone is neither kept nor could go; a symbolic link is kept only if all others are, too.
        prefer: a folder: if a group has images in it, keep one of those.
        gone: ids of the images that could go, whatever the rule would keep; only their groups are
            returned, and the first other image of each is kept.
        exact: compare every image with every other, without the index.

    Raises:
        InvalidInput: an option has an invalid value.

    """
    if max_distance is not None and not 0 <= max_distance < math.inf:
        raise InvalidInput("--max-distance must be 0 or more. Give a distance such as 0.05.")
    if max_difference is not None and not 0 <= max_difference < math.inf:
        raise InvalidInput("--max-difference must be 0 or more. Give a difference such as 0.1.")
    if prefer is not None and keep is None:
        raise InvalidInput("--prefer is for --keep. Say which image of a folder to keep, too.")
    rule = ORDERS[KeepRule.oldest if keep is None else parse(KeepRule, keep)]
    ordered = None if order is None else ORDERS[parse(KeepRule, order)]
    table = collection.table
    if max_distance is None:
        suggestion = suggest(pairs.neighbour_distances(connection, collection, SAMPLE, exact=exact))
    else:
        # No cosine distance exceeds 2. The square of a tiny one would underflow in Postgres.
        floor = min(max_distance, 2.0) if max_distance > NOISE**2 else 0.0
        suggestion = Suggestion(CutOff(floor), max_distance, max_distance)
    candidates, crowded = pairs.candidates(connection, collection, suggestion.cut_off, exact=exact)
    confirmer = Confirmer(
        connection,
        table,
        (id_ for pair in candidates for id_ in (pair.image, pair.other)),
        mirrored=mirrored,
    )
    differ_most = MAX_DIFFERENCE if max_difference is None else max_difference
    compared = confirmer.differences((pair.image, pair.other) for pair in candidates)
    confirmed = (
        pair
        for pair, difference in zip(candidates, compared, strict=True)
        if _is_confirmed(pair, difference, differ_most)
    )
    groups = group(confirmed, apart.pairs(connection, table))
    found = {
        member.id: member
        for member in pairs.members(connection, table, [id_ for ids in groups for id_ in ids])
    }
    kept = missing = None
    if keep is not None or gone is not None:
        # A share that stalls, or a thousand URLs, may take longer than a role may idle.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        paths = [member.path for member in found.values()]
        missing, links = existence.gone(paths), existence.links(paths)
        kept = keeping.order(rule, prefer, missing, links, gone or ())
    ordered = ordered or kept or rule
    sorted_groups = sorted(
        (sorted((found[id_] for id_ in ids), key=ordered) for ids in groups),
        key=lambda members: members[0].path,
    )
    if gone is not None:
        sorted_groups = _with_gone(sorted_groups, gone)
    keepers = [None if kept is None else min(members, key=kept) for members in sorted_groups]
    rows = [
        (number, members[0].id, member, keeping.could_go(member, keeper, missing, gone))
        for number, (members, keeper) in enumerate(zip(sorted_groups, keepers, strict=True), 1)
        for member in members
    ]
    firsts, ids = [row[1] for row in rows], [row[2].id for row in rows]
    distances = pairs.distances_to(connection, table, firsts, ids)
    differences = confirmer.differences(zip(firsts, ids, strict=True))
    return Duplicates(
        [
            Duplicate(
                group=number,
                distance=0.0 if first == member.id else distance,
                difference=0.0 if difference and first == member.id else difference,
                could_go=could_go,
                missing=None if missing is None else member.path in missing,
                **vars(member),
            )
            for (number, first, member, could_go), distance, difference in zip(
                rows, distances, differences, strict=True
            )
        ],
        suggestion.cut_off,
        suggestion.typical,
        suggestion.alone,
        differ_most,
        unconfirmed=len(confirmer.unconfirmed),
        split=sum(not crowded.isdisjoint(ids) for ids in groups) > 1,
    )


def _with_gone(groups: list[list[Member]], gone: Collection[UUID]) -> list[list[Member]]:
    """Return the groups that images should go from.

    Raises:
        InvalidInput: a group would lose all its images, or an image is in no group.

    """
    chosen = [members for members in groups if any(member.id in gone for member in members)]
    whole = next((each for each in chosen if all(member.id in gone for member in each)), None)
    if whole is not None:
        raise InvalidInput(
            f"All {len(whole)} images of a group are selected, such as {whole[0].path}. "
            "Leave at least one."
        )
    grouped = {member.id for members in chosen for member in members}
    lone = len(set(gone) - grouped)
    if lone:
        raise InvalidInput(
            f"{counted(lone, 'selected image')} without a duplicate now. List the duplicates again."
        )
    return chosen


def _is_confirmed(pair: Pair, difference: float | None, differ_most: float) -> bool:
    if difference is None:
        return pair.is_near
    return difference <= (differ_most if pair.is_near else FAR_SHARE * differ_most)


def state(connection: sa.Connection, collection: catalog.StoredCollection) -> tuple[int, ...]:
    """Return numbers that change when rows, thumbnails or `not_duplicates` do. Reads every row."""
    count = "SELECT count(*), coalesce(max(xmin::text::bigint), 0) FROM "
    row = connection.execute(
        sa.text(
            f"SELECT * FROM ({count} {schema.sql_name(collection.table)}) AS images,"
            f" ({count} vecsearch.not_duplicates) AS apart,"
            f" (SELECT count(*) FROM {tables.thumbnails.fullname}) AS thumbnails"
        )
    ).one()
    return tuple(row)


def suggest(distances: Iterable[list[float]]) -> Suggestion:
    """Suggest a cut-off from the neighbour distances of a sample of images, nearest first.

    It decides pairs by their embeddings alone; its `wide` chooses candidates for a confirmation.

    Near-duplicates are nearer than their other neighbours. How near an ordinary neighbour comes by
    chance depends on the intrinsic dimension d of the images: among m neighbours within distance s,
    m (r / s)^(d / 2) are expected within r (a cosine distance is half a squared length). d is
    estimated from the tenth and the fifth neighbour, as in Levina and Bickel (Maximum Likelihood
    Estimation of Intrinsic Dimension, 2004).
    """
    neighbours = [item for item in distances if item]
    if not neighbours:
        return Suggestion(CutOff(NOISE), NOISE, NOISE)
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
    alone = max(ratio * usual, NOISE)
    cut_off = CutOff(max(FLOOR_RATIO * alone, NOISE), ratio, rank, CANDIDATE_RATIO)
    return Suggestion(cut_off, max(CANDIDATE_RATIO * usual, NOISE), alone)


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
