"""From what a user asks for to the statement that answers it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch import images
from vecsearch.encoders import Encoder, unusable
from vecsearch.errors import ImageUnreadable, InvalidInput
from vecsearch.queries import catalog, nearest
from vecsearch.queries.nearest import Hit, Search

DEFAULT_K = 10


@dataclass(frozen=True)
class Query:
    """What a user asks for; exactly one of `image` and `id`.

    Attributes:
        image: a file, or a file's bytes.
        id: a stored image's id.
        k: at most this many; None is 10, or no limit when there is a cut-off.
        metric: None is the collection's default.
        where: a condition in SQL on the collection's columns.
        min_similarity: cosine only; the same as `max_distance` of 1 less it.
        max_distance: leave out what is farther.
        exact: compare with every row.
        exclude_self: leave out the query image's own row.

    """

    image: Path | bytes | None = None
    id: UUID | str | None = None
    k: int | None = None
    metric: str | None = None
    where: str | None = None
    min_similarity: float | None = None
    max_distance: float | None = None
    exact: bool = False
    exclude_self: bool = False


@dataclass(frozen=True)
class Answer:
    """What a query found, and how; iterating it yields the hits.

    Attributes:
        hits: nearest first.
        sql: the statement that ran, with its settings, ready for psql.
        plan: Postgres' plan for it.
        uses_index: whether the HNSW index served it, or every row was compared.
        metric: what the distances are.
        candidates: how many of the nearest by cosine were compared by the metric; None: all rows.

    """

    hits: list[Hit]
    sql: str
    plan: str
    uses_index: bool
    metric: str
    candidates: int | None

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, nearest first."""
        return iter(self.hits)


def answer(
    connection: sa.Connection,
    collection: catalog.Collection,
    encoder: Encoder,
    query: Query,
    *,
    max_pixels: int,
) -> Answer:
    """Return what `query` finds; see `plan` for the arguments and errors."""
    planned = plan(connection, collection, encoder, query, max_pixels=max_pixels)
    hits, ran = nearest.nearest(connection, planned)
    explained, uses_index = nearest.explain(connection, ran)
    return Answer(hits, nearest.script(ran), explained, uses_index, ran.metric, ran.candidates)


def plan(
    connection: sa.Connection,
    collection: catalog.Collection,
    encoder: Encoder,
    query: Query,
    *,
    max_pixels: int,
) -> Search:
    """Return the search that answers `query`; the encoder is used only for an unknown picture.

    Raises:
        InvalidInput: an option cannot be served.
        ImageUnreadable: the query picture cannot be decoded.
        DatabaseError: Postgres does not understand `where`.

    """
    metric = require_metric(query.metric or collection.default_metric, collection)
    max_distance = _cut_off(query, metric)
    k = query.k
    if k is None and max_distance is None:
        k = DEFAULT_K
    if k is not None:
        require_k(k)
    table = collection.table
    if query.where is not None:
        nearest.check_where(connection, table, query.where)
    target = _target(connection, table, encoder, query, max_pixels)
    search = Search(
        table=table,
        query=target,
        metric=metric,
        k=k,
        where=query.where,
        max_distance=max_distance,
        exclude=target if query.exclude_self and isinstance(target, UUID) else None,
        exact=query.exact,
    )
    if search.candidates is not None and not nearest.has_more(
        connection, search, search.candidates
    ):
        # To choose candidates from so few would leave nobody out.
        return replace(search, exact=True)
    return search


def require_k(k: int) -> None:
    """Refuse a k that asks for nothing.

    Raises:
        InvalidInput: it is less than 1.

    """
    if k < 1:
        raise InvalidInput(f"k is {k}. Ask for at least 1 image.")


def require_metric(metric: str, collection: catalog.Collection) -> str:
    """Return the metric if there is one of this name.

    Raises:
        InvalidInput: there is none.

    """
    if metric not in nearest.DISTANCES:
        raise InvalidInput(
            f"Metric {metric!r} cannot be served by {collection.identity.name} in collection "
            f"{collection.name!r}. Use one of: {', '.join(nearest.DISTANCES)}."
        )
    return metric


def _cut_off(query: Query, metric: str) -> float | None:
    if query.min_similarity is None:
        if query.max_distance is not None and not math.isfinite(query.max_distance):
            raise InvalidInput("--max-distance is not a finite number. Give one, or leave it out.")
        return query.max_distance
    if query.max_distance is not None:
        raise InvalidInput("--min-similarity and --max-distance are one cut-off. Give one of them.")
    if metric != "cosine":
        raise InvalidInput(
            f"Similarity is defined for cosine, not for {metric}. Use --max-distance."
        )
    if not -1 <= query.min_similarity <= 1:
        raise InvalidInput("--min-similarity lies between -1 and 1. 0.65 is a common choice.")
    return 1.0 - query.min_similarity


def _target(
    connection: sa.Connection,
    table: sa.Table,
    encoder: Encoder,
    query: Query,
    max_pixels: int,
) -> UUID | NDArray[np.float32]:
    if (query.image is None) == (query.id is None):
        raise InvalidInput("Say what to search for: either an image or --id ID.")
    if query.id is not None:
        return stored_id(connection, table, query.id)
    path, content = _read(query.image)
    sha256 = images.bytes_sha256(content)
    stored = catalog.image_by_sha256(connection, table, sha256, path)
    if stored is not None:
        return stored
    name = path or "The picture on standard input"
    image = images.decode(content, name, max_pixels=max_pixels)
    if isinstance(image, images.Unreadable):
        raise ImageUnreadable(f"{name} cannot be searched for. {image.reason}")
    embedding: NDArray[np.float32] = encoder.embed(encoder.prepare(image.pixels)[np.newaxis])[0]
    reason = unusable(embedding)
    if reason is not None:
        raise ImageUnreadable(f"{name} cannot be searched for. {reason}")
    return embedding


def stored_id(connection: sa.Connection, table: sa.Table, image_id: UUID | str) -> UUID:
    """Return the id of a stored image.

    Raises:
        InvalidInput: it is not an id, or nothing has it.

    """
    try:
        parsed = image_id if isinstance(image_id, UUID) else UUID(image_id)
    except ValueError as error:
        raise InvalidInput(
            f"{image_id!r} is not an id. Ids look like {UUID(int=0)}; every hit shows its own."
        ) from error
    if not catalog.has_image(connection, table, parsed):
        raise InvalidInput(
            f"Collection {table.name!r} has no image {parsed}. Every hit shows its id."
        )
    return parsed


def _read(image: Path | bytes | None) -> tuple[str | None, bytes]:
    if isinstance(image, bytes):
        return None, image
    assert image is not None  # noqa: S101 - for the type checker
    path = image.absolute()
    try:
        return images.storable(str(path)), path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist. Check the path.") from error
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}. Name an image file."
        ) from error
