"""Pairs of images that a user recorded as no near-duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.errors import InvalidInput
from vecsearch.postgres import tables
from vecsearch.search.lookup import named_id

_PAIRS = tables.not_duplicates


@dataclass(frozen=True)
class Apart:
    """What was recorded at once: that an image is not a duplicate of others.

    Attributes:
        at: when.
        image, path: of the image.
        others, other_paths: of the others, at least one, in order of path.

    """

    at: datetime
    image: UUID
    path: str
    others: Sequence[UUID]
    other_paths: Sequence[str]


def pairs(connection: sa.Connection, table: sa.Table) -> list[tuple[UUID, UUID]]:
    """Return all recorded pairs of a collection."""
    rows = connection.execute(
        sa.select(_PAIRS.c.image, _PAIRS.c.other).where(_PAIRS.c.collection == table.name)
    )
    return [(row.image, row.other) for row in rows]


def remember(
    connection: sa.Connection, table: sa.Table, one: UUID | str, others: Sequence[UUID | str]
) -> bool:
    """Record that an image is not a near-duplicate of others; all named by id or path.

    Returns:
        Whether a pair was not recorded before.

    Raises:
        ImageNotFound: an image is not in the collection.
        InvalidInput: two names refer to the same image.

    """
    rows = [
        {"collection": table.name, "image": min(pair), "other": max(pair)}
        for pair in _named(connection, table, one, others)
    ]
    # The time is the transaction's: pairs that are recorded at once share it.
    statement = postgresql.insert(_PAIRS).values(rows)
    new = statement.on_conflict_do_nothing().returning(_PAIRS.c.image)
    return connection.scalar(new) is not None


def forget(
    connection: sa.Connection, table: sa.Table, one: UUID | str, others: Sequence[UUID | str]
) -> int:
    """Delete what `remember` recorded; return the number of pairs that were recorded.

    Raises:
        ImageNotFound: an image is not in the collection.
        InvalidInput: two names refer to the same image.

    """
    wanted = [(min(pair), max(pair)) for pair in _named(connection, table, one, others)]
    return connection.execute(
        sa.delete(_PAIRS).where(
            _PAIRS.c.collection == table.name,
            sa.tuple_(_PAIRS.c.image, _PAIRS.c.other).in_(wanted),
        )
    ).rowcount


def latest(connection: sa.Connection, table: sa.Table, limit: int) -> list[Apart]:
    """Return what was recorded, the last first; pairs are left out if one of their images is gone.

    Args:
        connection: in a transaction.
        table: the collection's.
        limit: how many to look at.

    """
    own = _PAIRS.c.collection == table.name
    times = sa.select(_PAIRS.c.at).where(own).distinct().order_by(_PAIRS.c.at.desc()).limit(limit)
    recorded: dict[datetime, list[tuple[UUID, UUID]]] = {}
    for row in connection.execute(
        sa.select(_PAIRS.c.at, _PAIRS.c.image, _PAIRS.c.other)
        .where(own, _PAIRS.c.at.in_(times))
        .order_by(_PAIRS.c.at.desc(), _PAIRS.c.image, _PAIRS.c.other)
    ):
        recorded.setdefault(row.at, []).append((row.image, row.other))
    ids = {id_ for found in recorded.values() for pair in found for id_ in pair}
    wanted = sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid)))
    paths = {
        row.id: row.path
        for row in connection.execute(
            sa.select(table.c.id, table.c.path).where(table.c.id == wanted)
        )
    }
    made = []
    for at, found in recorded.items():
        # Whatever is recorded at once has one image in common; a single pair has two.
        common = set(found[0]).intersection(*found) or found[0]
        image = min(common, key=lambda id_: paths.get(id_, ""))
        others = {id_ for pair in found for id_ in pair if id_ != image and id_ in paths}
        if image in paths and others:
            by_path = sorted(others, key=lambda id_: paths[id_])
            made.append(Apart(at, image, paths[image], by_path, [paths[id_] for id_ in by_path]))
    return made


def _named(
    connection: sa.Connection, table: sa.Table, one: UUID | str, others: Sequence[UUID | str]
) -> list[tuple[UUID, UUID]]:
    if not others:
        raise InvalidInput("Name two images, or more.")
    first = named_id(connection, table, one)
    ids = [named_id(connection, table, name) for name in others]
    same = next((name for name, id_ in zip(others, ids, strict=True) if id_ == first), None)
    if same is not None:
        raise InvalidInput(f"{one} and {same} are the same image. Name two different ones.")
    return [(first, id_) for id_ in ids]
