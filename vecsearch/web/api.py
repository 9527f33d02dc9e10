"""The JSON API, under /api: for other programs. It reads and never writes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, TypeAdapter

from vecsearch import __version__
from vecsearch.analysis.duplicates.groups import Duplicate
from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.imaging import thumbnails
from vecsearch.imaging.formats import MEDIA_TYPES
from vecsearch.library import Collection, CollectionStatus
from vecsearch.search.gallery import Label, Map, StoredImage
from vecsearch.search.query import Hit
from vecsearch.search.questions.originals import open_original
from vecsearch.search.tags import Tag
from vecsearch.vocabulary import command_line
from vecsearch.web.metrics import MEDIA_TYPE
from vecsearch.web.parameters import CollectionName, DuplicatesRule, MapRule, QueryForm
from vecsearch.web.site import POINTS, Served, unplaced

LABELS = 1_000
CHUNK = 2**16
# The content behind an address changes when the file is ingested again, so it expires soon.
CACHED = "private, max-age=60"


router = APIRouter(prefix="/api")


class Problem(BaseModel):
    """What went wrong, and what to do next."""

    detail: str


@dataclass(frozen=True)
class TaggedHit(Hit):
    """A hit, and its tags, the most probable first; none if the encoder has no classifier."""

    tags: list[Tag]


@dataclass(frozen=True)
class TaggedImage(StoredImage):
    """An image, and its tags, the most probable first; none if the encoder has no classifier."""

    tags: list[Tag]


@dataclass(frozen=True)
class QueryAnswer:
    """The hits of a query, and how they were found.

    Attributes:
        collection: the one that was searched.
        metric: of the distances.
        ranking: what ordered the hits, if the metric is cosine: the embeddings (full) or compact
            vectors.
        expansion: the number of nearest images that were added to the question.
        concepts: that the words of the question mean; empty without words.
        meaning: what the text was taken for, as a sentence; null for a picture.
        labels: of the collection that the words name, with their numbers of images; the field label
            finds these.
        uses_index: whether the HNSW index found the hits; otherwise every row was compared.
        candidates: the number of candidates that the metric re-ranked; null: none were, because
            every row was compared or the index orders by this metric.
        seconds: that the database took to find the hits.
        sql: the statement, with its settings, for psql; vectors are variables, :'q1' and so on,
            unless `full_sql` asks for them.
        hits: nearest first.
        notes: what is missing, as sentences.

    """

    collection: str
    metric: str
    ranking: str
    expansion: int
    concepts: list[str]
    meaning: str | None
    labels: list[Label]
    uses_index: bool
    candidates: int | None
    seconds: float
    sql: str
    hits: list[TaggedHit]
    notes: list[str]


@dataclass(frozen=True)
class DuplicatesAnswer:
    """Groups of near-duplicates, and what decided.

    Attributes:
        collection: the one that was searched.
        max_distance: the cosine distance of embeddings within which pairs were candidates; for a
            typical image, unless one was given.
        max_distance_alone: the same for pairs that nothing but their embeddings decided.
        max_difference: the largest difference of the thumbnails of a pair.
        unconfirmed: the number of candidates without a comparable thumbnail.
        split: whether one group may be returned as several.
        images: of all groups, group by group; distances are to the group's first image.

    """

    collection: str
    max_distance: float
    max_distance_alone: float
    max_difference: float
    unconfirmed: int
    split: bool
    images: list[Duplicate]


def tagged(collection: Collection, hits: Sequence[Hit]) -> list[TaggedHit]:
    """Return hits with their tags."""
    tags = collection.tags.of(hit.id for hit in hits)
    return [TaggedHit(**vars(hit), tags=tags[hit.id]) for hit in hits]


def tagged_image(collection: Collection, image: StoredImage) -> TaggedImage:
    """Return an image with its tags."""
    return TaggedImage(**vars(image), tags=collection.tags.of([image.id])[image.id])


_QUERY_ANSWER = TypeAdapter(QueryAnswer)
_MAP = TypeAdapter(Map)


@dataclass(frozen=True)
class Health:
    """The server and its database respond; callers without access are not told the version."""

    status: str
    version: str | None = None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in (401, 403, 421, 422, 429, 503, *statuses)}


@router.get("/health", responses=_problems(), response_model_exclude_none=True)
def health(site: Served, request: Request) -> Health:
    """Check that the database responds and that its tables, if any, fit this version.

    Needs no token. Without one, the answer does not say more than whether they do.
    """
    if getattr(request.state, "admitted", False):
        site.library.check()
        return Health("ok", __version__)
    if site.pulse.is_well():
        return Health("ok")
    raise HTTPException(503, "The server cannot use its database.")


@router.get(
    "/metrics",
    response_class=Response,
    responses=_problems() | {200: {"content": {"text/plain": {}}}},
)
def prometheus(site: Served) -> Response:
    """Return counters and histograms for Prometheus."""
    return Response(site.metrics.text(), media_type=MEDIA_TYPE)


@router.post(
    "/query",
    response_model=QueryAnswer,
    responses=_problems(400, 404, 408, 409, 413, 415),
)
def query(
    site: Served, form: Annotated[QueryForm, Form(media_type="multipart/form-data")]
) -> Response:
    """Return the images nearest to a picture, a stored image, words, or a sum of several."""
    collection, answer = site.ask(form.terms(), form)
    shown = QueryAnswer(
        collection=collection.name,
        metric=answer.metric,
        ranking=answer.ranking,
        expansion=answer.expansion,
        concepts=list(answer.concepts),
        meaning=answer.meaning,
        labels=[Label(*each) for each in answer.labelled.items()],
        uses_index=answer.uses_index,
        candidates=answer.candidates,
        seconds=answer.seconds,
        sql=answer.sql if form.full_sql else answer.short_sql,
        hits=tagged(collection, answer.hits),
        notes=form.notes(len(answer.hits)),
    )
    # FastAPI would validate it first, in another thread.
    return Response(_QUERY_ANSWER.dump_json(shown), media_type="application/json")


@router.get("/collections", responses=_problems())
def collections(site: Served) -> list[CollectionStatus]:
    """Return every collection with its size and the state of its index."""
    return site.library.collections()


@router.get("/collections/{collection}", responses=_problems(404))
def one_collection(site: Served, collection: CollectionName) -> CollectionStatus:
    """Return one collection with its size and the state of its index."""
    return site.library.collection(collection).status()


@router.get("/collections/{collection}/labels", responses=_problems(404))
def labels(site: Served, collection: CollectionName) -> list[Label]:
    """Return the labels, those with most images first, at most a thousand."""
    return site.library.collection(collection).labels(LABELS)


@router.get("/collections/{collection}/duplicates", responses=_problems(404))
def duplicates(
    site: Served, collection: CollectionName, rule: Annotated[DuplicatesRule, Query()]
) -> DuplicatesAnswer:
    """Return groups of near-duplicates: candidates by embedding, confirmed by thumbnail."""
    found = site.duplicates(site.library.collection(collection), rule)
    return DuplicatesAnswer(
        collection=collection,
        max_distance=found.typical,
        max_distance_alone=found.alone,
        max_difference=found.max_difference,
        unconfirmed=found.unconfirmed,
        split=found.split,
        images=found.images,
    )


@router.get("/collections/{collection}/map", response_model=Map, responses=_problems(400, 404))
def map_of(site: Served, collection: CollectionName, rule: Annotated[MapRule, Query()]) -> Response:
    """Return the map's points, at most 50,000: a sample, the same each time, of larger ones."""
    found = site.library.collection(collection).map(rule.by, rule.colour, points=POINTS)
    if found.images and not found.placed:
        raise InvalidInput(unplaced(collection, rule.by))
    # FastAPI would validate it first, in another thread.
    return Response(_MAP.dump_json(found), media_type="application/json")


@router.get("/collections/{collection}/images/{id}", responses=_problems(404))
def image(
    site: Served,
    collection: CollectionName,
    id: UUID,  # noqa: A002 - the field's name
) -> TaggedImage:
    """Return the row of an image, without its embedding, and its tags."""
    images = site.library.collection(collection)
    return tagged_image(images, images.image(id))


@router.get(
    "/collections/{collection}/images/{id}/thumbnail",
    response_class=Response,
    responses=_problems(404)
    | {
        200: {"content": {kind: {} for kind in thumbnails.MEDIA_TYPES}},
        304: {"description": "Not modified"},
    },
)
def thumbnail(
    site: Served,
    collection: CollectionName,
    id: UUID,  # noqa: A002 - the field's name
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return the thumbnail of an image; it is stored, so the file need not exist."""
    images = site.library.collection(collection)
    found = images.thumbnail(id)
    if found is None:
        path = images.image(id).path
        step = command_line("ingest", path, collection=collection)
        raise ImageNotFound(f"{path} has no thumbnail. Run: {step}")
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
    """Open the file of an image; it is closed when the response is sent or abandoned."""
    stored = site.library.collection(collection).image(id)
    with open_original(stored) as original:
        yield stored, original


@router.get(
    "/collections/{collection}/images/{id}/file",
    response_class=StreamingResponse,
    responses=_problems(404) | {200: {"content": {"image/*": {}}}},
)
def file(opened: Annotated[tuple[StoredImage, IO[bytes]], Depends(_opened)]) -> StreamingResponse:
    """Return the file of an image, if it has not changed since it was ingested."""
    stored, original = opened
    size = os.fstat(original.fileno()).st_size
    return StreamingResponse(
        _chunks(original),
        media_type=MEDIA_TYPES.get(stored.format or "", "application/octet-stream"),
        headers={"Content-Length": str(size), "Cache-Control": CACHED},
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
