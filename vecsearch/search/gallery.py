"""Browse a collection: single images, pages of images, labels."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from vecsearch.search.filters import Filters


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


def find_image(connection: sa.Connection, table: sa.Table, image_id: UUID) -> StoredImage | None:
    """Return the image with this id; None if there is none."""
    row = connection.execute(_images(table).where(table.c.id == image_id)).first()
    return None if row is None else StoredImage(*row)


def browse(
    connection: sa.Connection, table: sa.Table, filters: Filters, after: UUID | None, limit: int
) -> list[StoredImage]:
    """Return a page of images in order of id; ids are hashes, so the order looks random."""
    statement = _images(table).where(*filters.conditions(table.c))
    statement = statement.order_by(table.c.id).limit(limit)
    if after is not None:
        statement = statement.where(table.c.id > after)
    return [StoredImage(*row) for row in connection.execute(statement)]


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


def _images(table: sa.Table) -> sa.Select[Any]:
    return sa.select(*(table.c[field.name] for field in fields(StoredImage)))
