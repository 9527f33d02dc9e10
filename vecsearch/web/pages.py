"""The pages that people see. Each has an address that can be kept, shared, and gone back to."""

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.imaging import thumbnails
from vecsearch.postgres import catalog
from vecsearch.search import gallery, lookup
from vecsearch.search.embedder import Picture
from vecsearch.search.gallery import StoredImage
from vecsearch.vocabulary import Metric
from vecsearch.web.guard import admitted, ours, same
from vecsearch.web.parameters import DuplicatesQuestion, PageQuestion, Sha256
from vecsearch.web.site import DEFAULT_K, Served, Site
from vecsearch.web.views import Address, error_page, render, slider

BROWSED = 60
GROUPS = 50
CHOICES_OF_K = (30, 100, 300, 1_000)

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True)
class Asked:
    """The picture that is asked about.

    Attributes:
        target: what the library is asked by.
        image: the stored one; None if it was uploaded and is not in the collection.
        thumbnail: its thumbnail's address.
        name: what to call it.

    """

    target: UUID | bytes
    image: StoredImage | None
    thumbnail: str
    name: str


@router.get("/")
def home(site: Served, request: Request, question: Annotated[PageQuestion, Query()]) -> Response:
    """Show the nearest images to a picture or, without one, some to begin with."""
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection)
    shared: dict[str, Any] = {
        "question": question,
        "collection": collection,
        "collections": names,
        "metrics": list(Metric),
        "choices_of_k": CHOICES_OF_K,
        "address": Address(question, collection),
        "max_bytes": site.options.max_bytes,
    }
    try:
        site.require_label(collection, question.label)
    except InvalidInput as error:
        # The form stays, for what was mistyped to be mended there.
        refused: dict[str, Any] = {
            "asked": None,
            "metric": question.metric,
            "cut_off": None,
            "sentence": error,
        }
        return render(request, "refused.html.jinja", code=400, **shared, **refused)
    if question.id is None and question.image is None:
        return render(request, "browse.html.jinja", **shared, **_browse(site, question, collection))
    asked = _asked(site, question, collection)
    answer = site.ask(asked.target, collection, question)
    # The slider's range is that of the hits as they would be without it.
    chosen = question.max_distance
    if question.min_similarity is not None:
        chosen = 1 - question.min_similarity
    hits = answer.hits
    if chosen is not None and len(hits) < (question.k or DEFAULT_K):
        unlimited = {"max_distance": None, "min_similarity": None}
        hits = site.ask(asked.target, collection, question.model_copy(update=unlimited)).hits
    return render(
        request,
        "answer.html.jinja",
        **shared,
        asked=asked,
        answer=answer,
        metric=answer.metric,
        cut_off=slider(hits[0].distance, hits[-1].distance, chosen) if hits else None,
    )


@router.post("/")
def upload(
    site: Served,
    question: Annotated[PageQuestion, Query()],
    image: Annotated[UploadFile | str, Form()] = "",
) -> Response:
    """Keep a picture, and go to the address of what is near it."""
    collection = site.choose(question.collection)
    site.require_label(collection, question.label)
    picture = Picture(b"" if isinstance(image, str) else image.file.read())
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        known = lookup.image_by_sha256(connection, stored.table, picture.sha256)
    if known is None:
        site.uploads.keep(picture.content)
    asked_by = {"image": picture.sha256} if known is None else {"id": known}
    # A cut-off belongs to the picture that it was chosen for.
    others = "id image after max_distance min_similarity".split()
    address = Address(question, collection)
    return RedirectResponse(address(**dict.fromkeys(others) | asked_by), 303)


@router.get("/uploads/{name}")
def uploaded(site: Served, name: Sha256) -> Response:
    """Show a picture that was uploaded, small."""
    content = site.uploads.thumbnail(name)
    return Response(
        content,
        media_type=thumbnails.media_type(content),
        headers={"Cache-Control": "private, max-age=86400, immutable"},
    )


@router.get("/duplicates")
def duplicates(
    site: Served, request: Request, question: Annotated[DuplicatesQuestion, Query()]
) -> Response:
    """Show groups of near-duplicates."""
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection)
    found = site.library.collection(collection).duplicates(
        max_distance=question.max_distance, keep=question.keep
    )
    groups = [list(group) for _, group in groupby(found.images, key=lambda row: row.group)]
    page = question.page or 1
    return render(
        request,
        "duplicates.html.jinja",
        collection=collection,
        collections=names,
        question=question,
        found=found,
        groups=groups[(page - 1) * GROUPS : page * GROUPS],
        count=len(groups),
        page=page,
        pages=max(1, math.ceil(len(groups) / GROUPS)),
        address=Address(question, collection, "/duplicates"),
    )


@router.post("/token")
def enter(
    site: Served,
    request: Request,
    given: Annotated[str, Form()] = "",
    address: Annotated[str, Form()] = "/",
) -> Response:
    """Let a browser in that gives the token."""
    token = site.options.token
    if token is None:
        return RedirectResponse(ours(address), 303)
    if not same(given, token):
        return error_page(request, 401, "That is not the token. Try again.", {}, ours(address))
    return admitted(request, token, address)


def _browse(site: Site, question: PageQuestion, collection: str) -> dict[str, Any]:
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        found = gallery.browse(
            connection, stored.table, question.filters(), question.after, BROWSED + 1
        )
        metric = question.metric or stored.default_metric
    return {
        "asked": None,
        "metric": metric,
        "cut_off": None,
        "images": found[:BROWSED],
        "next_after": found[BROWSED - 1].id if len(found) > BROWSED else None,
    }


def _asked(site: Site, question: PageQuestion, collection: str) -> Asked:
    """Find the picture that a page's address asks about.

    Raises:
        ImageNotFound: it is not there, or no more.

    """
    picture = None
    with catalog.reading(site.library.engine, collection) as (connection, stored):
        # Of both, the id is what was typed beside a picture that had been uploaded.
        if question.id is None and question.image is not None:
            picture = site.uploads.find(question.image)
            known = lookup.image_by_sha256(connection, stored.table, picture.sha256)
        else:
            known = _named(connection, stored.table, question.id or "")
        image = None if known is None else gallery.find_image(connection, stored.table, known)
    if image is not None:
        address = f"/api/collections/{collection}/images/{image.id}/thumbnail"
        return Asked(image.id, image, address, PurePath(image.path).name)
    assert picture is not None  # noqa: S101 - an id that nothing has is refused
    return Asked(picture.content, None, f"/uploads/{question.image}", "Your picture")


def _named(connection: sa.Connection, table: sa.Table, name: str) -> UUID:
    """Return the id of a stored image that is named as people do: a path is a whole one."""
    name = name.strip()
    try:
        return lookup.stored_id(connection, table, UUID(name))
    except ValueError:
        if not name.startswith("/"):
            raise ImageNotFound(
                f"{name!r} is neither an id nor a whole path. "
                "Click an image: its id is in the address."
            ) from None
    return lookup.named_id(connection, table, name)
