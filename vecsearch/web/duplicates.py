"""The page of near-duplicates: shown to everyone, acted on where the server allows it."""

import math
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import AfterValidator

from vecsearch.vocabulary import FileAction, FileState, counted
from vecsearch.web.parameters import MAXIMUM_SELECTED, DuplicatesQuestion
from vecsearch.web.site import Served, Site
from vecsearch.web.views import Address, render, shared_folder

if TYPE_CHECKING:
    from vecsearch.analysis.tidy.journal import Entry
    from vecsearch.library import Collection

GROUPS = 50
# What the page offers; a folder to move files to is named on the command line.
ACTIONS = {
    FileAction.trash: "Send to the trash",
    FileAction.hardlink: "Replace by hard links",
    FileAction.symlink: "Replace by symbolic links",
}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Asked = Annotated[DuplicatesQuestion, Query()]


@router.get("/duplicates")
def duplicates(site: Served, request: Request, question: Asked) -> Response:
    """Show groups of near-duplicates."""
    names = site.library.collection_names()
    if not names:
        return render(request, "empty.html.jinja", collection=None)
    collection = site.choose(question.collection, names)
    found = site.duplicates(collection, question)
    groups = [list(group) for _, group in groupby(found.images, key=lambda row: row.group)]
    pages = max(1, math.ceil(len(groups) / GROUPS))
    page = min(question.page or 1, pages)
    shown = groups[(page - 1) * GROUPS : page * GROUPS]
    return render(
        request,
        "duplicates.html.jinja",
        collection=collection.name,
        collections=names,
        question=question,
        found=found,
        groups=shown,
        count=len(groups),
        page=page,
        pages=pages,
        address=Address(question, collection.name, "/duplicates"),
        shared=shared_folder(image.path for image in found.images),
        actions=ACTIONS if site.editor else {},
    )


def _offered(action: FileAction) -> FileAction:
    if action not in ACTIONS:
        raise ValueError(f"it is not one of {', '.join(ACTIONS)}")
    return action


def _editable(site: Served, question: Asked) -> "Collection":
    """Return the collection to act on.

    Raises:
        HTTPException: this server only reads.

    """
    if site.editor is None:
        raise HTTPException(
            403, "This server only reads. To act on duplicates here, start it with --edit."
        )
    return site.editor.collection(site.choose(question.collection).name)


Editable = Annotated["Collection", Depends(_editable)]
Offered = Annotated[FileAction, AfterValidator(_offered), Form()]
Selected = Annotated[list[UUID], Form(min_length=1, max_length=MAXIMUM_SELECTED)]


@router.post("/duplicates")
def act(
    site: Served,
    request: Request,
    collection: Editable,
    question: Asked,
    action: Offered,
    gone: Selected,
    plan: Annotated[str, Form()] = "",
) -> Response:
    """Show what would be done to the selected files or, if that is confirmed, do it.

    Args:
        site: the server.
        request: the request.
        collection: the collection to act on.
        question: which duplicates were shown.
        action: what to do.
        gone: the images that go.
        plan: the key of the plan that was shown, to confirm it.

    """
    from vecsearch.render.tidying import was_done

    shown = site.take_plan(collection.name, plan)
    if shown is None:
        return _planned(site, request, collection, question, action, gone, is_again=plan != "")
    # What changed since it was shown is found file by file.
    done = collection.tidy.apply(shown)
    acted = sum(entry.state is FileState.done for entry in done)
    undoing = {"run": done[0].run} if acted else {}
    sentence = was_done(shown, acted)
    return _acted(request, collection, question, sentence, _rows(done), undoing, "Undo")


def _planned(
    site: Site,
    request: Request,
    collection: "Collection",
    question: DuplicatesQuestion,
    action: FileAction,
    gone: list[UUID],
    *,
    is_again: bool,
) -> Response:
    """Show what would be done; `is_again` if it was confirmed, but is no longer kept."""
    from vecsearch.render.tidying import will_do

    options = question.options()
    options["gone"] = set(gone)
    plan = collection.tidy.plan(action, **options)
    rows = [(each.path, f"Left alone. {each.reason}") for each in plan.untouched]
    shared = shared_folder([each.path for each in plan.files] + [path for path, _ in rows])
    kept = (each.kept_path.removeprefix(shared) for each in plan.files)
    rows[:0] = [(file.path, f"Kept: {path}") for file, path in zip(plan.files, kept, strict=True)]
    if not plan.files:
        sentence = "There is nothing to do."
        return _acted(request, collection, question, sentence, rows, {}, "")
    sentence = will_do(plan)
    if is_again:
        sentence = f"Nothing was done yet, as this list had expired. Check it again. {sentence}"
    again = {
        "action": action,
        "gone": [file.id for file in plan.files],
        "plan": site.keep_plan(collection.name, plan),
    }
    return _acted(request, collection, question, sentence, rows, again, "Do it")


@router.post("/duplicates/undo")
def undo(
    request: Request, collection: Editable, question: Asked, run: Annotated[int, Form(ge=1)]
) -> Response:
    """Bring back the files and rows of a run."""
    done = collection.tidy.undo(run)
    back = sum(entry.state is FileState.undone for entry in done)
    sentence = f"Brought {counted(back, 'file')} back."
    again = {"run": run} if back < len(done) else {}
    return _acted(request, collection, question, sentence, _rows(done), again, "Undo the rest")


@router.post("/duplicates/apart")
def apart(
    collection: Editable,
    question: Asked,
    image: Annotated[UUID, Form()],
    other: Selected,
) -> Response:
    """Record that an image is no duplicate of others."""
    for each in other:
        if each != image:
            collection.not_duplicates(image, each)
    return RedirectResponse(Address(question, collection.name, "/duplicates")(), 303)


def _rows(done: "list[Entry]") -> list[tuple[str, str]]:
    return [(each.path, each.reason or f"{each.state}".capitalize()) for each in done]


def _acted(
    request: Request,
    collection: "Collection",
    question: DuplicatesQuestion,
    sentence: str,
    rows: list[tuple[str, str]],
    again: Mapping[str, Any],
    button: str,
) -> Response:
    path = "/duplicates/undo" if "run" in again else "/duplicates"
    return render(
        request,
        "acted.html.jinja",
        collection=collection.name,
        sentence=sentence,
        rows=rows,
        shared=shared_folder(path for path, _ in rows),
        again=again,
        button=button,
        form=Address(question, collection.name, path)(),
        back=Address(question, collection.name, "/duplicates")(),
    )
