"""The pages. Each has an address that can be bookmarked, shared, and gone back to."""

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.imaging import thumbnails
from vecsearch.search.embedder import Picture
from vecsearch.search.gallery import StoredImage
from vecsearch.web.guard import admitted, ours, same
from vecsearch.web.parameters import PAGE_K, DuplicatesQuestion, PageQuestion, Sha256, Words
from vecsearch.web.site import Served, Site, require_label
from vecsearch.web.views import Address, error_page, render, slider

if TYPE_CHECKING:
    from vecsearch.library import Answer, Collection

BROWSED = 60
GROUPS = 50
CHOICES_OF_K = (PAGE_K, 100, 300, 1_000)

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True)
class Asked:
    """The query as the page shows it.

    Attributes:
        image: the stored image; None if it was uploaded and is not in the collection, or for words.
        thumbnail: the address of its thumbnail; None for words.
        name: its title.

    """

    image: StoredImage | None
    thumbnail: str | None
    name: str

    @classmethod
    def stored(cls, collection: str, image: StoredImage) -> Self:
        """Show an image of the collection."""
        address = f"/api/collections/{collection}/images/{image.id}/thumbnail"
        return cls(image, address, PurePath(image.path).name)

    @classmethod
    def uploaded(cls, sha256: str) -> Self:
        """Show an uploaded picture."""
        return cls(None, f"/uploads/{sha256}", "Your picture")


@router.get("/")
def home(site: Served, request: Request, question: Annotated[PageQuestion, Query()]) -> Response:
    """Show the images nearest to the query image or, without one, some images to start from."""
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection, names)
    shown: dict[str, Any] = {
        "question": question,
        "collection": collection.name,
        "collections": names,
        "choices_of_k": _choices(question.k or PAGE_K),
        "k": question.k or PAGE_K,
        "address": Address(question, collection.name),
        "max_bytes": site.options.max_bytes,
        "asked": None,
        "metric": question.metric,
        "cut_off": None,
    }
    try:
        if (question.id, question.image, question.text) == (None, None, None):
            return render(request, "browse.html.jinja", **shown | _browsed(question, collection))
        asked, answer = _ask(site, question, collection)
    except ImageNotFound:
        raise
    except InvalidInput as error:
        # The form stays, so that the question can be corrected there.
        return render(request, "refused.html.jinja", code=400, **shown, sentence=error)
    chosen = question.max_distance
    if question.min_similarity is not None:
        chosen = 1 - question.min_similarity
    # The slider reaches as far as the hits would without it.
    nearest = [*answer.hits, *answer.beyond]
    found = {
        "asked": asked,
        "answer": answer,
        "metric": answer.metric,
        "cut_off": slider(nearest[0].distance, nearest[-1].distance, chosen) if nearest else None,
    }
    return render(request, "answer.html.jinja", **shown | found)


@router.post("/")
def upload(
    site: Served,
    question: Annotated[PageQuestion, Query()],
    image: Annotated[UploadFile | str, Form()] = "",
    text: Annotated[Words, Form()] = "",
) -> Response:
    """Redirect to the address of the answer: to words, or to a picture, which is kept."""
    collection = site.choose(question.collection)
    # A cut-off belongs to what it was chosen for.
    cleared = dict.fromkeys("id image text after max_distance min_similarity".split())
    address = Address(question, collection.name)
    if text.strip() and (isinstance(image, str) or not image.size):
        return RedirectResponse(address(**cleared | {"text": text.strip()}), 303)
    picture = Picture(b"" if isinstance(image, str) else image.file.read())
    known = collection.image_of(picture)
    if known is None:
        site.uploads.keep(picture)
    asked = {"image": picture.sha256} if known is None else {"id": known.id}
    return RedirectResponse(address(**cleared | asked), 303)


@router.get("/uploads/{name}")
def uploaded(site: Served, name: Sha256) -> Response:
    """Return the thumbnail of an uploaded picture."""
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
    collection = site.choose(question.collection, names)
    found = site.duplicates(collection, question)
    groups = [list(group) for _, group in groupby(found.images, key=lambda row: row.group)]
    page = question.page or 1
    return render(
        request,
        "duplicates.html.jinja",
        collection=collection.name,
        collections=names,
        question=question,
        found=found,
        groups=groups[(page - 1) * GROUPS : page * GROUPS],
        count=len(groups),
        page=page,
        pages=max(1, math.ceil(len(groups) / GROUPS)),
        address=Address(question, collection.name, "/duplicates"),
    )


@router.post("/token")
def enter(
    site: Served,
    request: Request,
    given: Annotated[str, Form()] = "",
    address: Annotated[str, Form()] = "/",
) -> Response:
    """Admit a browser that sends the token."""
    token = site.options.token
    if token is None:
        return RedirectResponse(ours(address), 303)
    if not same(given, token):
        return error_page(request, 401, "That is not the token. Try again.", {}, ours(address))
    return admitted(request, token, address)


def _choices(k: int) -> list[int]:
    """Return the numbers of hits to choose from, with the chosen one among them."""
    return sorted({k, *CHOICES_OF_K})


def _browsed(question: PageQuestion, collection: "Collection") -> dict[str, Any]:
    found = collection.browse(question.filters(), after=question.after, limit=BROWSED + 1)
    if not found:
        require_label(collection, question.label)
    return {
        "metric": question.metric or collection.default_metric(),
        "images": found[:BROWSED],
        "next_after": found[BROWSED - 1].id if len(found) > BROWSED else None,
    }


def _ask(site: Site, question: PageQuestion, collection: "Collection") -> "tuple[Asked, Answer]":
    """Search by the words or the query image that the address of the page names.

    Raises:
        ImageNotFound: it does not exist.
        InvalidInput: the question makes no sense.

    """
    # An address with several has an id typed beside words or an uploaded picture: the id counts.
    if question.id is None and question.text is not None:
        # Only cosine compares words, whichever metric the form shows.
        by_cosine = question.model_copy(update={"metric": None})
        answer = site.ask_of(collection, question.text, by_cosine)
        return Asked(None, None, question.text), answer
    if question.id is None and question.image is not None:
        answer = site.ask_of(collection, site.uploads.find(question.image), question)
        if answer.image is None:
            return Asked.uploaded(question.image), answer
        # It was ingested after it was uploaded, or for another collection.
        image = collection.image(answer.image)
    else:
        image = collection.image(_named(question.id or ""))
        answer = site.ask_of(collection, image.id, question)
    return Asked.stored(collection.name, image), answer


def _named(name: str) -> UUID | str:
    """Return the id or the path that somebody typed; a path must be absolute.

    Raises:
        ImageNotFound: it is neither.

    """
    name = name.strip()
    try:
        return UUID(name)
    except ValueError:
        if name.startswith("/"):
            return name
    raise ImageNotFound(
        f"{name!r} is neither an id nor an absolute path. "
        "Click an image: the address then contains its id."
    )
