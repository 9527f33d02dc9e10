"""Browse a collection: single images, pages of images, labels, its map."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.postgres import tables
from vecsearch.search.filters import Filters
from vecsearch.vocabulary import Axes, Colouring

# Decimals of a point's place: of a degree, this is a metre.
PLACES = 5


@dataclass(frozen=True)
class ImageFacts:
    """The columns that hits and stored images both show; see `StoredImage`."""

    label: str
    width: int | None
    height: int | None
    format: str | None
    file_size: int | None
    modified_at: datetime | None
    taken_at: datetime | None
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True)
class _Located:
    """The fields that precede a stored image's facts."""

    id: UUID
    path: str
    sha256: str | None


# Dataclasses take fields from the last base first.
@dataclass(frozen=True)
class StoredImage(ImageFacts, _Located):
    """A row without its embedding; values read from a file are None if it was imported without one.

    Attributes:
        sha256: SHA-256 of the file's bytes, in hex.
        width, height: pixels of the upright picture.
        modified_at: when the file was last modified.
        taken_at: the camera's local time, without a time zone.
        latitude, longitude: degrees north and east.
        exif, metadata: JSON.

    """

    exif: dict[str, Any]
    metadata: dict[str, Any]
    ingested_at: datetime


@dataclass(frozen=True)
class Label:
    """A label and the number of images that have it."""

    label: str
    images: int


@dataclass(frozen=True)
class Group:
    """Images on a map that share a colour.

    Attributes:
        name: the label, or the concept of the cluster; None for a cluster without one.
        cluster: its number; None for a label, and for images that are in no cluster.
        images: number of images.
        image: id of the one nearest to the centre of the cluster; None for a label.

    """

    name: str | None
    cluster: int | None
    images: int
    image: UUID | None


@dataclass(frozen=True)
class Map:
    """Images as points; `ids`, `x`, `y` and `group` have one value for each point.

    Attributes:
        images: number of images in the collection.
        placed: number of those that have a place; if there are more than points, these are a
            sample, the same each time.
        groups: the largest, the largest first.
        all_groups: number of all groups.
        ids: of the images.
        x, y: to the right and upwards; if the axes are a place, degrees east and north.
        group: position in `groups`, from 0; -1 for a smaller group.

    """

    images: int
    placed: int
    groups: list[Group]
    all_groups: int
    ids: list[UUID]
    x: list[float]
    y: list[float]
    group: list[int]


@dataclass(frozen=True)
class Cluster:
    """A cluster as `refresh(["clusters"])` made it, and some of its images.

    Attributes:
        cluster: its number, from 1.
        name: the concept nearest to its centre; None: its encoder has no concepts.
        all_images: number of its images.
        images: those that were asked for, nearest to its centre first.

    """

    cluster: int
    name: str | None
    all_images: int
    images: list[StoredImage]


def find_image(connection: sa.Connection, table: sa.Table, image_id: UUID) -> StoredImage | None:
    """Return the image with this id; None if there is none."""
    row = connection.execute(_images(table).where(table.c.id == image_id)).first()
    return None if row is None else StoredImage(*row)


def browse(
    connection: sa.Connection,
    table: sa.Table,
    filters: Filters,
    limit: int,
    *,
    after: UUID | None = None,
    before: UUID | None = None,
) -> list[StoredImage]:
    """Return a page of images in order of id; ids are hashes, so the order looks random."""
    filters.check()
    statement = _images(table).where(*filters.conditions(table.c)).limit(limit)
    if before is not None:
        nearest = statement.where(table.c.id < before).order_by(table.c.id.desc())
        return [StoredImage(*row) for row in connection.execute(nearest)][::-1]
    statement = statement.order_by(table.c.id)
    if after is not None:
        statement = statement.where(table.c.id > after)
    return [StoredImage(*row) for row in connection.execute(statement)]


def count(connection: sa.Connection, table: sa.Table, filters: Filters, most: int) -> int:
    """Return the number of images that pass the filters, at most `most`."""
    found = sa.select(sa.literal(1)).select_from(table).where(*filters.conditions(table.c))
    counted = sa.select(sa.func.count()).select_from(found.limit(most).subquery())
    return connection.scalar(counted) or 0


def list_labels(connection: sa.Connection, table: sa.Table, limit: int) -> list[Label]:
    """Return the most frequent labels, the most frequent first. Reads every row."""
    count = sa.func.count()
    rows = connection.execute(
        sa.select(table.c.label, count)
        .group_by(table.c.label)
        .order_by(count.desc(), table.c.label)
        .limit(limit)
    )
    return [Label(*row) for row in rows]


def has_label(connection: sa.Connection, table: sa.Table, label: str) -> bool:
    """Return whether any image has this label."""
    found = sa.select(sa.literal(1)).where(table.c.label == label).limit(1)
    return connection.scalar(found) is not None


def has_place(connection: sa.Connection, table: sa.Table) -> bool:
    """Return whether any image has a latitude and a longitude."""
    is_placed = table.c.latitude.is_not(None) & table.c.longitude.is_not(None)
    return connection.scalar(sa.select(sa.literal(1)).where(is_placed).limit(1)) is not None


def find_cluster(
    connection: sa.Connection, table: sa.Table, number: int, *, offset: int, limit: int
) -> Cluster | None:
    """Return a cluster with a page of its images; None if it has none."""
    # A subquery, as in `_placed`.
    own = (
        sa.select(tables.clusters)
        .where(tables.clusters.c.collection == table.name, tables.clusters.c.cluster == number)
        .subquery()
    )
    members = own.join(table, table.c.id == own.c.id)
    count, name = connection.execute(
        sa.select(sa.func.count(), sa.func.min(own.c.name)).select_from(members)
    ).one()
    if not count:
        return None
    rows = connection.execute(
        _images(table)
        .select_from(members)
        .order_by(own.c.distance, table.c.id)
        .offset(offset)
        .limit(limit)
    )
    return Cluster(number, name, count, [StoredImage(*row) for row in rows])


def read_map(
    connection: sa.Connection,
    table: sa.Table,
    axes: Axes,
    colouring: Colouring,
    *,
    points: int,
    groups: int,
) -> Map:
    """Return at most so many points and groups; see `Map`. Reads every row.

    The points are the first in order of id; ids are hashes, so this is a random sample.
    """
    placed = _placed(table, axes, colouring).subquery()
    key, count = placed.c.key, sa.func.count()
    nearest = postgresql.aggregate_order_by(placed.c.id, placed.c.distance, placed.c.id)
    grouped = connection.execute(
        sa.select(
            key,
            sa.func.min(placed.c.name),
            count,
            sa.func.array_agg(nearest)[1] if colouring is Colouring.cluster else sa.null(),
            sa.func.count().over(),
            sa.func.sum(count).over(),
        )
        .group_by(key)
        .order_by(count.desc(), key)
        .limit(groups)
    ).all()
    numbers = {row[0]: number for number, row in enumerate(grouped)}
    found = connection.execute(
        sa.select(placed.c.id, placed.c.x, placed.c.y, key).order_by(placed.c.id).limit(points)
    ).all()
    return Map(
        images=int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0),
        placed=int(grouped[0][5]) if grouped else 0,
        groups=[
            Group(key, None, images, None)
            if colouring is Colouring.label
            else Group(name, key, images, image if key is not None else None)
            for key, name, images, image, *_ in grouped
        ],
        all_groups=grouped[0][4] if grouped else 0,
        ids=[row.id for row in found],
        x=[round(row.x, PLACES) for row in found],
        y=[round(row.y, PLACES) for row in found],
        group=[numbers.get(row.key, -1) for row in found],
    )


def _placed(table: sa.Table, axes: Axes, colouring: Colouring) -> sa.Select[Any]:
    """Return a SELECT of the images that have a place: id, x, y, key and name of their group."""
    of, images = sa.literal(table.name), table.c
    source: sa.FromClause = table
    x: sa.ColumnElement[Any]
    y: sa.ColumnElement[Any]
    key: sa.ColumnElement[Any]
    name: sa.ColumnElement[Any]
    distance: sa.ColumnElement[Any]
    if axes is Axes.place:
        x, y = images.longitude, images.latitude
    else:
        # Subqueries, because Citus joins these with shards, but not the tables themselves.
        places = sa.select(tables.maps).where(tables.maps.c.collection == of).subquery()
        source = source.join(places, places.c.id == images.id)
        x, y = places.c.x, places.c.y
    key, name, distance = images.label, sa.null(), sa.null()
    if colouring is Colouring.cluster:
        own = sa.select(tables.clusters).where(tables.clusters.c.collection == of).subquery()
        source = source.outerjoin(own, own.c.id == images.id)
        key, name, distance = own.c.cluster, own.c.name, own.c.distance
    return (
        sa.select(
            images.id,
            x.label("x"),
            y.label("y"),
            key.label("key"),
            sa.cast(name, sa.Text).label("name"),
            sa.cast(distance, sa.Double).label("distance"),
        )
        .select_from(source)
        .where(x.is_not(None), y.is_not(None))
    )


def _images(table: sa.Table) -> sa.Select[Any]:
    return sa.select(*(table.c[field.name] for field in fields(StoredImage)))
