"""From what a user asks for to the statement that answers it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from time import perf_counter
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.postgres import catalog
from vecsearch.postgres.rows import image_id
from vecsearch.search import nearest
from vecsearch.search.embedder import Picture
from vecsearch.search.filters import NO_FILTERS, Filters
from vecsearch.search.indexes import compact
from vecsearch.search.nearest import Hit, Search

DEFAULT_K = 10


@dataclass(frozen=True)
class Query:
    """What a user asks for; exactly one of `image` and `id`.

    Attributes:
        image: a file, its bytes, or a picture that was read; its stored vector is used if its
            content is in the collection.
        id: a stored image's id.
        k: at most this many; None is 10, or no limit when there is a cut-off.
        metric: None is the collection's default.
        where: a condition in SQL on the collection's columns, from the user's own hand.
        filters: conditions of typed values, from anybody.
        min_similarity: cosine only; the same as `max_distance` of 1 less it.
        max_distance: leave out what is farther.
        exact: compare with every row.
        exclude_self: leave out the query image's own row.
        model: what the user says the collection's encoder is; None takes the collection's word.
        weights: where its weights are now; None: where they were.

    """

    image: str | Path | bytes | Picture | None = None
    _: KW_ONLY
    id: UUID | str | None = None
    k: int | None = None
    metric: str | None = None
    where: str | None = None
    filters: Filters = NO_FILTERS
    min_similarity: float | None = None
    max_distance: float | None = None
    exact: bool = False
    exclude_self: bool = False
    model: str | None = None
    weights: str | Path | None = None


@dataclass(frozen=True)
class Answer:
    """What a query found, and how; iterating it yields the hits.

    Attributes:
        hits: nearest first.
        sql: the statement that ran, with its settings, ready for psql.
        plan: Postgres' plan for it.
        uses_index: whether the HNSW index served it, or every row was compared.
        metric: what the distances are.
        candidates: how many of the nearest, by cosine or by compact vectors, were compared by the
            metric; None: all rows, or the index knows the metric.
        seconds: how long the database took to find them.
        image: the stored image whose vector was used; None: the picture is not in the collection.
        beyond: with a cut-off and a k, the hits that only the cut-off left out.

    """

    hits: list[Hit]
    sql: str
    plan: str
    uses_index: bool
    metric: str
    candidates: int | None
    seconds: float
    image: UUID | None = None
    beyond: Sequence[Hit] = ()

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, nearest first."""
        return iter(self.hits)


def check(connection: sa.Connection, collection: catalog.StoredCollection, query: Query) -> None:
    """Check what needs no picture, before one is embedded.

    Raises:
        InvalidInput: an option cannot be served.
        DatabaseError: Postgres does not understand `where`.

    """
    if (query.image is None) == (query.id is None):
        raise InvalidInput("Say what to search for: either an image or --id ID.")
    _cut_off(query, require_metric(query.metric or collection.default_metric, collection))
    if query.k is not None:
        require_k(query.k)
    if query.where is not None:
        nearest.check_where(connection, collection.table, query.where)


def find_target(
    connection: sa.Connection, table: sa.Table, query: Query, picture: Picture | None
) -> UUID | None:
    """Return the stored image that is asked for; None if the picture is not in the collection.

    Raises:
        ImageNotFound: nothing has the id that is asked for.

    """
    if query.id is not None:
        return stored_id(connection, table, query.id)
    assert picture is not None  # noqa: S101 - for the type checker
    return catalog.image_by_sha256(connection, table, picture.sha256, picture.path)


def answer(
    connection: sa.Connection,
    collection: catalog.StoredCollection,
    target: UUID | NDArray[np.float32],
    query: Query,
) -> Answer:
    """Return what `query`, which `check` has passed, finds near `target`."""
    planned = plan(connection, collection, target, query)
    # A cut-off truncates the ordered list of the nearest k.
    limit = None if planned.k is None else planned.max_distance
    started = perf_counter()
    hits, ran = nearest.nearest(
        connection, planned if limit is None else replace(planned, max_distance=None)
    )
    seconds = perf_counter() - started
    ran = replace(ran, max_distance=planned.max_distance)
    within = sum(limit is None or hit.distance <= limit for hit in hits)
    explained, uses_index = nearest.explain(connection, ran)
    return Answer(
        hits[:within],
        nearest.script(ran),
        explained,
        uses_index,
        ran.metric,
        ran.candidates,
        seconds,
        image=target if isinstance(target, UUID) else None,
        beyond=hits[within:],
    )


def plan(
    connection: sa.Connection,
    collection: catalog.StoredCollection,
    target: UUID | NDArray[np.float32],
    query: Query,
) -> Search:
    """Return the search that answers `query`, which `check` has passed, with what is near `target`.

    Args:
        connection: in a transaction.
        collection: where to search.
        target: a stored image's id, or an embedding, shape (dimensions,).
        query: the rest.

    """
    metric = query.metric or collection.default_metric
    max_distance = _cut_off(query, metric)
    search = Search(
        table=collection.table,
        query=target,
        metric=metric,
        k=DEFAULT_K if query.k is None and max_distance is None else query.k,
        where=query.where,
        filters=query.filters,
        max_distance=max_distance,
        exclude=target if query.exclude_self and isinstance(target, UUID) else None,
        exact=query.exact,
        compact=collection.compact,
    )
    search = replace(search, breadth=_tuned(collection, search))
    if search.compact is not None and not isinstance(target, UUID) and not search.is_exact:
        projection = compact.read_projection(connection, search.compact)
        search = replace(search, point=projection.project(target[np.newaxis])[0])
    # Cosine's candidates are few, and the planner weighs them against all rows that match.
    if (
        search.candidates is not None
        and metric != "cosine"
        and not nearest.has_more(connection, search, search.candidates)
    ):
        # To choose candidates from so few would leave nobody out.
        return replace(search, exact=True)
    return search


def _tuned(collection: catalog.StoredCollection, search: Search) -> int | None:
    """Return the breadth that `index tune` found, if it is enough for this k."""
    tuned = collection.breadths.get(search.metric)
    if tuned is None or search.k is None or search.k > tuned["k"]:
        return None
    return int(tuned["breadth"])


def require_k(k: int) -> None:
    """Refuse a k that asks for nothing.

    Raises:
        InvalidInput: it is less than 1.

    """
    if k < 1:
        raise InvalidInput(f"k is {k}. Ask for at least 1 image.")


def require_metric(metric: str, collection: catalog.StoredCollection) -> str:
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


def stored_id(connection: sa.Connection, table: sa.Table, image_id: UUID | str) -> UUID:
    """Return the id of a stored image.

    Raises:
        ImageNotFound: it is not an id, or nothing has it.

    """
    try:
        parsed = image_id if isinstance(image_id, UUID) else UUID(image_id)
    except ValueError as error:
        raise ImageNotFound(
            f"{image_id!r} is not an id. Ids look like {UUID(int=0)}; every hit shows its own."
        ) from error
    if not catalog.has_image(connection, table, parsed):
        raise ImageNotFound(
            f"Collection {table.name!r} has no image {parsed}. Every hit shows its id."
        )
    return parsed


def named_id(connection: sa.Connection, table: sa.Table, name: UUID | str) -> UUID:
    """Return the id of a stored image, named by its id or its path.

    Raises:
        ImageNotFound: nothing is called that.

    """
    try:
        return stored_id(connection, table, UUID(str(name)))
    except ValueError:
        path = str(Path(str(name)).absolute())
    found = image_id(path)
    if not catalog.has_image(connection, table, found):
        raise ImageNotFound(
            f"Collection {table.name!r} has no image {path}. Name one by its path or its id."
        )
    return found
