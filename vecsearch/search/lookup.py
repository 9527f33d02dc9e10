"""Find stored images by id, path or content."""

from uuid import UUID

import sqlalchemy as sa

from vecsearch.errors import ImageNotFound, Unclear
from vecsearch.imaging import scan
from vecsearch.postgres.rows import image_id

# Images to choose from if an ending of a path names several.
MOST_CHOICES = 10


def missing(collection: str, name: UUID | str) -> ImageNotFound:
    """Return the error for an id or a path that no image has."""
    image = _id_or_path(name)
    step = "Every hit shows its id."
    if not isinstance(image, UUID):
        step = "Name one by its path or its id."
    return ImageNotFound(f"Collection {collection!r} has no image {image}.", step=step)


def _id_or_path(name: UUID | str) -> UUID | str:
    try:
        return UUID(str(name))
    except ValueError:
        return scan.absolute(str(name))


def named_id(connection: sa.Connection, table: sa.Table, name: UUID | str) -> UUID:
    """Return the id of a stored image, named by its id, its path or an ending of its path.

    Raises:
        ImageNotFound: no image has this id or path.
        Unclear: several paths end so.

    """
    image = _id_or_path(name)
    found = image if isinstance(image, UUID) else image_id(image)
    if has_image(connection, table, found):
        return found
    ending = str(name).strip().removeprefix("./")
    if isinstance(image, UUID) or not ending or ending.startswith(("/", "../")):
        raise missing(table.name, name)
    return _by_ending(connection, table, ending)


def _by_ending(connection: sa.Connection, table: sa.Table, ending: str) -> UUID:
    """Return the id of the only image whose path ends in a file's name, with or without folders.

    Reads paths until there are too many to choose from, or every row.
    """
    rows = connection.execute(
        sa.select(table.c.id, table.c.path)
        .where(table.c.path.endswith(f"/{ending}", autoescape=True))
        .limit(MOST_CHOICES + 1)
    ).all()
    if not rows:
        raise missing(table.name, ending)
    if len(rows) == 1:
        found: UUID = rows[0].id
        return found
    several = f"More than {MOST_CHOICES}" if len(rows) > MOST_CHOICES else f"{len(rows)}"
    raise Unclear(
        f"{several} paths in collection {table.name!r} end in {ending}. Give more of the path.",
        near={"paths": sorted(row.path for row in rows)[:MOST_CHOICES]},
    )


def asked_id(connection: sa.Connection, table: sa.Table, name: UUID | str) -> UUID:
    """Return an id, stored or not, or the id of the stored image with a path; see `named_id`.

    Raises:
        ImageNotFound: no image has this path.
        Unclear: several paths end so.

    """
    found = _id_or_path(name)
    return found if isinstance(found, UUID) else named_id(connection, table, name)


def image_by_sha256(
    connection: sa.Connection, table: sa.Table, sha256: str, path: str | None = None
) -> UUID | None:
    """Return the id of a row with this content, preferably the one at `path`; None if none."""
    found: UUID | None = connection.scalar(
        sa.select(table.c.id)
        .where(table.c.sha256 == sha256)
        .order_by((table.c.path == (path or "")).desc(), table.c.path)
        .limit(1)
    )
    return found


def has_image(connection: sa.Connection, table: sa.Table, image: UUID) -> bool:
    """Return whether there is a row with this id."""
    return connection.scalar(sa.select(sa.literal(1)).where(table.c.id == image)) is not None


def count(connection: sa.Connection, table: sa.Table) -> int:
    """Return the number of rows."""
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def has_rows(connection: sa.Connection, table: sa.Table, rows: int) -> bool:
    """Return whether there are at least `rows` rows, without counting them all."""
    found = sa.select(sa.literal(1)).select_from(table).offset(rows - 1).limit(1)
    return connection.scalar(found) is not None


def sample_ids(connection: sa.Connection, table: sa.Table, limit: int) -> list[UUID]:
    """Return the first `limit` ids in order; ids are hashes, so this is a random sample."""
    return list(connection.scalars(sa.select(table.c.id).order_by(table.c.id).limit(limit)))
