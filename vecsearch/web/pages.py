"""The pages. Each has an address that can be bookmarked, shared, and gone back to."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from vecsearch.errors import ImageNotFound, ImageUnreadable, InvalidInput, Unclear
from vecsearch.imaging import thumbnails
from vecsearch.render.figures import human_numbers
from vecsearch.search.questions.pictures import Picture
from vecsearch.web.access.guard import ours
from vecsearch.web.asked import Asked, is_name, read
from vecsearch.web.parameters import PAGE_K, MapQuestion, PageQuestion, Sha256, Text
from vecsearch.web.site import POINTS, Served, Site, refreshing, require_label
from vecsearch.web.views import (
    PARTS,
    Address,
    error_page,
    for_visitors,
    render,
    shared_folder,
    slider,
)

if TYPE_CHECKING:
    from vecsearch.library import Answer, Collection

BROWSED = 60
# Images that are counted one by one, at most.
MOST_COUNTED = 100_000
# Groups on a map that have a colour of their own; static/map.css has them.
COLOURS = 10
CHOICES_OF_K = (PAGE_K, 100, 300, 1_000)
CHOICES_OF_EXPANSION = (0, 5, 10, 20)

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
def home(site: Served, request: Request, question: Annotated[PageQuestion, Query()]) -> Response:
    """Show the images nearest to the query image or, without one, some images to start from."""
    return _page(site, request, question)


@router.post("/")
def upload(
    site: Served,
    request: Request,
    question: Annotated[PageQuestion, Query()],
    image: Annotated[UploadFile | str, Form()] = "",
    text: Annotated[Text, Form()] = "",
    part: Annotated[Literal["new", "add", "exclude"], Form()] = "new",
) -> Response:
    """Redirect to the address of the answer: to words, or to a picture, which is kept.

    What is neither leaves the question as it was, with a sentence.

    Args:
        site: the server.
        request: of this form.
        question: what was asked before.
        image: a picture; it counts if there are words, too.
        text: words, or a stored image's id or path.
        part: whether this is a new question or is added to the one before, or what the hits of
            that should be unlike.

    """
    collection = site.choose(question.collection)
    address = Address(question, collection.name)
    text = text.strip()
    file = None if isinstance(image, str) or not image.filename else image
    if text and file is None:
        field, value = "id" if is_name(text) else "text", text
    elif file is None:
        problem = "Type words, or choose a picture."
        return _page(site, request, question, problem=problem, code=422)
    else:
        picture = Picture(file.file.read())
        known = collection.image_of(picture)
        try:
            if known is None:
                site.uploads.keep(picture)
        except ImageUnreadable as error:
            return _page(site, request, question, problem=for_visitors(error), code=415)
        field, value = ("image", picture.sha256) if known is None else ("id", str(known.id))
    made = {
        "new": address.only,
        "add": address.plus,
        "exclude": address.minus,
    }
    return RedirectResponse(made[part](field, value), 303)


def _page(
    site: Site, request: Request, question: PageQuestion, *, problem: str = "", code: int = 200
) -> Response:
    """Return the page of a question.

    Args:
        site: the server.
        request: what is answered.
        question: its address.
        problem: what is wrong with what was sent to be searched for instead.
        code: the status of HTTP, unless the question itself is refused.

    """
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection, names)
    shown: dict[str, Any] = {
        "question": question,
        "collection": collection.name,
        "collections": names,
        "choices_of_k": _choices(question.limit()),
        "expansions": _expansions(question.expand),
        "k": question.limit(),
        "address": Address(question, collection.name),
        "max_bytes": site.options.max_bytes,
        "asked": None,
        "typed": "",
        "tags": {},
        "metric": question.metric,
        "cut_off": None,
        "reads_text": collection.reads_text(),
        "has_compact": collection.has_compact(),
        "shared": "",
        "problem": problem,
    }
    try:
        asked = read(question, collection, site.uploads)
    except (ImageNotFound, Unclear) as error:
        # The form stays, with what was typed.
        named = [*question.id, *question.not_id]
        question = question.model_copy(update={part: [] for part in PARTS})
        shown |= {
            "question": question,
            "address": Address(question, collection.name),
            "typed": named[0] if named else "",
        }
        code = 404 if isinstance(error, ImageNotFound) else 400
        return render(request, "refused.html.jinja", code=code, **shown, error=error)
    if asked is not None:
        question = asked.canonical(question)
        shown |= {
            "asked": asked,
            "typed": question.text[0] if asked.is_single and question.text else "",
            "question": question,
            "address": Address(question, collection.name),
        }
    try:
        if asked is None:
            browsed = _browsed(question, collection)
            return render(request, "browse.html.jinja", code=code, **shown | browsed)
        asked, answer = _ask(site, question, collection, asked)
    except ImageNotFound:
        raise
    except InvalidInput as error:
        # The form stays, so that the question can be corrected there.
        return render(request, "refused.html.jinja", code=400, **shown, error=error)
    return render(
        request,
        "answer.html.jinja",
        code=code,
        **shown | _answered(question, collection, asked, answer),
    )


def _answered(
    question: PageQuestion, collection: "Collection", asked: Asked, answer: "Answer"
) -> dict[str, Any]:
    """Return what the page of an answer shows."""
    chosen = question.max_distance
    if question.min_similarity is not None:
        chosen = 1 - question.min_similarity
    # The slider reaches as far as the hits would without it.
    nearest = [*answer.hits, *answer.beyond]
    own = [] if asked.image is None else [asked.image.id]
    paths = [hit.path for hit in nearest] + ([] if asked.image is None else [asked.image.path])
    cut_off = slider(nearest[0].distance, nearest[-1].distance, chosen) if nearest else None
    numbers: list[str] = []
    if cut_off is not None:
        # All numbers of a page have the same decimals.
        numbers = human_numbers([hit.distance for hit in nearest], cut_off.decimals)
        cut_off = replace(cut_off, decimals=len(numbers[0].partition(".")[2]))
    return {
        "shared": shared_folder(paths),
        "numbers": numbers,
        "distances": [f"{hit.distance:.6g}" for hit in nearest],
        "tags": collection.tags.of([*own, *(hit.id for hit in answer.hits)]),
        "asked": asked,
        "answer": answer,
        "decimals": 0 if cut_off is None else cut_off.decimals,
        "labels": {
            label: images for label, images in answer.labelled.items() if label != question.label
        },
        "metric": answer.metric,
        "cut_off": cut_off,
    }


@router.get("/uploads/{name}")
def uploaded(site: Served, name: Sha256) -> Response:
    """Return the thumbnail of an uploaded picture."""
    content = site.uploads.thumbnail(name)
    return Response(
        content,
        media_type=thumbnails.media_type(content),
        headers={"Cache-Control": "private, max-age=86400, immutable"},
    )


@router.get("/map")
def map_of(site: Served, request: Request, question: Annotated[MapQuestion, Query()]) -> Response:
    """Show the map's labels or clusters; a script asks the API for the points, and draws them."""
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection, names)
    return render(
        request,
        "map.html.jinja",
        collection=collection.name,
        collections=names,
        question=question,
        found=collection.map(question.by, question.colour, points=0),
        points=POINTS,
        colours=COLOURS,
        refreshing=refreshing,
        has_place=collection.has_place(),
        address=Address(question, collection.name, "/map"),
    )


class ClusterQuestion(MapQuestion):
    """The address of a cluster of the map."""

    cluster: Annotated[int, Field(ge=1, le=2**31 - 1)]
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


@router.get("/map/cluster")
def cluster_of(
    site: Served, request: Request, question: Annotated[ClusterQuestion, Query()]
) -> Response:
    """Show the images of a cluster, nearest to its centre first."""
    collection = site.choose(question.collection)
    start = (question.page - 1) * BROWSED
    found = collection.cluster(question.cluster, offset=start, limit=BROWSED)
    return render(
        request,
        "cluster.html.jinja",
        collection=collection.name,
        found=found,
        page=question.page,
        pages=math.ceil(found.all_images / BROWSED),
        address=Address(question, collection.name, "/map/cluster"),
    )


@router.post("/token")
async def enter(
    site: Served,
    request: Request,
    given: Annotated[str, Form()] = "",
    address: Annotated[str, Form()] = "/",
) -> Response:
    """Admit a browser that sends the token."""
    access = site.access
    if access.token is None or access.is_token(request, given):
        return access.admitted(request, address)
    return error_page(request, 401, "Wrong token. Try again.", {}, ours(address))


def _choices(k: int) -> list[int]:
    """Return the numbers of hits to choose from, with the chosen one among them."""
    return sorted({k, *CHOICES_OF_K})


def _expansions(expand: int | None) -> list[int]:
    """Return the numbers of images to expand by, with the chosen one among them."""
    return sorted({0 if expand is None else expand, *CHOICES_OF_EXPANSION})


def _browsed(question: PageQuestion, collection: "Collection") -> dict[str, Any]:
    if question.crop is not None:
        raise InvalidInput("There is no picture to crop. Choose one.")
    # One image more tells whether there are more.
    filters = question.filters()
    found = collection.browse(
        filters, after=question.after, before=question.before, limit=BROWSED + 1
    )
    every = collection.count(most=MOST_COUNTED)
    if not found:
        require_label(collection, question.label)
    backwards = question.before is not None
    images = found[-BROWSED:] if backwards else found[:BROWSED]
    more = len(found) > BROWSED
    has_previous = more if backwards else question.after is not None
    has_next = backwards or more
    return {
        "metric": question.metric or collection.default_metric(),
        "images": images,
        "tags": collection.tags.of(image.id for image in images),
        "previous": images[0].id if images and has_previous else None,
        "next": images[-1].id if images and has_next else None,
        "count": collection.count(filters, most=MOST_COUNTED) if filters else every,
        "all": every,
        "most": MOST_COUNTED,
        "has_concepts": collection.has_concepts(),
    }


def _ask(
    site: Site, question: PageQuestion, collection: "Collection", asked: Asked
) -> "tuple[Asked, Answer]":
    """Search, and return the question with what the search found out about it.

    Raises:
        InvalidInput: the question makes no sense.

    """
    if asked.by_cosine:
        # The form always sends a metric.
        question = question.model_copy(update={"metric": None})
    answer = site.ask_of(collection, asked.terms, question)
    if answer.image is not None and asked.image is None:
        # It was ingested after it was uploaded, or for another collection.
        return asked.found(collection.name, collection.image(answer.image)), answer
    return asked, answer
