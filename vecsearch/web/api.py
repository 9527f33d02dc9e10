"""/api: what other programs ask. Everything is read; nothing here writes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Header, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from vecsearch import __version__
from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.imaging import thumbnails
from vecsearch.postgres import catalog
from vecsearch.postgres import thumbnails as stored_thumbnails
from vecsearch.search import gallery
from vecsearch.search.gallery import Label, StoredImage
from vecsearch.search.query import Hit
from vecsearch.search.status import CollectionStatus, collection_status
from vecsearch.web.metrics import MEDIA_TYPE
from vecsearch.web.originals import MEDIA_TYPES, open_original
from vecsearch.web.parameters import CollectionName, QueryForm
from vecsearch.web.site import Served, Site

LABELS = 1_000
CHUNK = 2**16
# A thumbnail's address stays when its file is ingested anew, so a browser asks again soon.
CACHED = "private, max-age=60"


router = APIRouter(prefix="/api")


class Problem(BaseModel):
    """What went wrong, and what to do next."""

    detail: str


@dataclass(frozen=True)
class QueryAnswer:
    """What a query found, and how.

    Attributes:
        collection: which was asked.
        metric: what the distances are.
        uses_index: whether the HNSW index served it, or every row was compared.
        candidates: how many of the nearest, by cosine or by compact vectors, were compared by the
            metric; null: all rows, or the index knows the metric.
        seconds: how long the database took to find the hits.
        sql: the statement that ran, with its settings, ready for psql.
        hits: nearest first.

    """

    collection: str
    metric: str
    uses_index: bool
    candidates: int | None
    seconds: float
    sql: str
    hits: list[Hit]


@dataclass(frozen=True)
class Health:
    """That the server answers, and so does its database."""

    status: str
    version: str


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in (401, 421, 422, 503, *statuses)}


@router.get("/health", responses=_problems())
def health(site: Served) -> Health:
    """Tell whether the database answers, and its tables, if there are any, fit this version."""
    site.library.check()
    return Health("ok", __version__)


@router.get(
    "/metrics",
    response_class=Response,
    responses=_problems() | {200: {"content": {"text/plain": {}}}},
)
def prometheus(site: Served) -> Response:
    """Return counts and times, for Prometheus."""
    return Response(site.metrics.text(), media_type=MEDIA_TYPE)


@router.post("/query", responses=_problems(400, 403, 404, 409, 413, 415))
def query(
    site: Served, form: Annotated[QueryForm, Form(media_type="multipart/form-data")]
) -> QueryAnswer:
    """Return the images nearest to a picture, or to a stored image."""
    collection = site.choose(form.collection)
    if (form.image is None) == (form.id is None):
        raise InvalidInput("Say what to search for: either an image or an id.")
    target = form.id if form.image is None else form.image.file.read()
    assert target is not None  # noqa: S101 - for the type checker
    answer = site.ask(target, collection, form)
    return QueryAnswer(
        collection=collection,
        metric=answer.metric,
        uses_index=answer.uses_index,
        candidates=answer.candidates,
        seconds=answer.seconds,
        sql=answer.sql,
        hits=answer.hits,
    )


@router.get("/collections", responses=_problems())
def collections(site: Served) -> list[CollectionStatus]:
    """Return every collection, its size, and the state of its index."""
    return site.library.collections()


@router.get("/collections/{collection}", responses=_problems(404))
def one_collection(site: Served, collection: CollectionName) -> CollectionStatus:
    """Return one collection."""
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        return collection_status(connection, stored)


@router.get("/collections/{collection}/labels", responses=_problems(404))
def labels(site: Served, collection: CollectionName) -> list[Label]:
    """Return the commonest labels, a thousand at most."""
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        return gallery.list_labels(connection, stored.table, LABELS)


@router.get("/collections/{collection}/images/{id}", responses=_problems(404))
def image(
    site: Served,
    collection: CollectionName,
    id: UUID,  # noqa: A002 - the field's name
) -> StoredImage:
    """Return what is known of an image."""
    return _find_image(site, collection, id)


@router.get(
    "/collections/{collection}/images/{id}/thumbnail",
    response_class=Response,
    responses=_problems(404)
    | {
        200: {"content": {kind: {} for kind in thumbnails.MEDIA_TYPES}},
        304: {"description": "Not changed"},
    },
)
def thumbnail(
    site: Served,
    collection: CollectionName,
    id: UUID,  # noqa: A002 - the field's name
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return an image's thumbnail, which stays when the file goes."""
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        found = stored_thumbnails.get(connection, stored.table, id)
    if found is None:
        name = _find_image(site, collection, id).path
        raise ImageNotFound(f"{name} has no thumbnail. Run: vecsearch ingest {name}")
    sha256, content = found
    headers = {"ETag": f'"{sha256}"', "Cache-Control": CACHED}
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if known & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=thumbnails.media_type(content), headers=headers)


def _opened(
    site: Served,
    collection: CollectionName,
    id: UUID,  # noqa: A002 - the field's name
) -> Iterator[tuple[StoredImage, IO[bytes]]]:
    """Open an image's file; it is closed when the answer has gone, or nobody waits for it."""
    stored = _find_image(site, collection, id)
    with open_original(stored) as original:
        yield stored, original


@router.get(
    "/collections/{collection}/images/{id}/file",
    response_class=StreamingResponse,
    responses=_problems(404) | {200: {"content": {"image/*": {}}}},
)
def file(opened: Annotated[tuple[StoredImage, IO[bytes]], Depends(_opened)]) -> StreamingResponse:
    """Return an image's file, if it still is what was ingested."""
    stored, original = opened
    size = os.fstat(original.fileno()).st_size
    return StreamingResponse(
        _chunks(original),
        media_type=MEDIA_TYPES.get(stored.format or "", "application/octet-stream"),
        headers={"Content-Length": str(size), "Cache-Control": CACHED},
    )


def _find_image(site: Site, collection: str, image_id: UUID) -> StoredImage:
    """Return a stored image.

    Raises:
        ImageNotFound: nothing has this id.

    """
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        found = gallery.find_image(connection, stored.table, image_id)
    if found is None:
        raise ImageNotFound(
            f"Collection {collection!r} has no image {image_id}. Every hit shows its id."
        )
    return found


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
