"""The page of near-duplicates: shown to everyone, acted on where the server allows it."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import AfterValidator, Field

from vecsearch.vocabulary import NOT_UNDONE, FileAction, FileState, parse
from vecsearch.web.parameters import MAXIMUM_SELECTED, DuplicatesQuestion
from vecsearch.web.site import Served
from vecsearch.web.views import Address, folder_around, render, shared_folder

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates.apart import Apart
    from vecsearch.library import Collection

GROUPS = 50
# A group of more images is probably a chain of similar pairs, not one picture.
LARGE = 50
# Of what was done, to undo it there.
LATELY = 5
# Images of a group that a sentence names.
MOST_NAMED = 3
# What the page offers; a folder to move files to is named on the command line.
ACTIONS = {
    FileAction.trash: "Send to the trash",
    FileAction.hardlink: "Replace by hard links",
    FileAction.symlink: "Replace by symbolic links",
}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Asked = Annotated[DuplicatesQuestion, Query()]


class RunQuestion(DuplicatesQuestion):
    """The address of what a run did."""

    run: Annotated[int, Field(ge=1, le=2**31 - 1)]


class PlanQuestion(DuplicatesQuestion):
    """The address of a plan."""

    plan: Annotated[str, Field(max_length=100)]
    """Its key."""
    again: bool = False
    """Whether another was confirmed that was no longer kept."""


@dataclass(frozen=True)
class Done:
    """What was done, and how it is undone.

    Attributes:
        words: what was done.
        at: when.
        path: of the page that undoes it.
        fields: what that is sent.
        details: the path of the page that shows it; None: there is none.

    """

    words: str
    at: datetime
    path: str
    fields: list[tuple[str, object]]
    details: str | None = None


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
    address = Address(question, collection.name, "/duplicates")
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
        large=LARGE,
        address=address,
        shared=shared_folder(image.path for image in found.images),
        actions=ACTIONS if site.editor else {},
        done=_lately(collection, address) if site.editor else [],
    )


def _lately(collection: "Collection", address: Address) -> list[Done]:
    """Return what was done last and can be undone, the last first."""
    from vecsearch.render.tidying import stands

    done = [
        Done(
            stands(parse(FileAction, run.action), run.done, run.undone),
            run.at,
            "/duplicates/undo",
            [("run", run.run)],
            address.at("/duplicates/run", run=run.run),
        )
        for run in collection.tidy.runs()
        if run.done
    ]
    done += [
        Done(
            _said_apart(apart),
            apart.at,
            "/duplicates/together",
            [("image", apart.image), *(("other", other) for other in apart.others)],
        )
        for apart in collection.recorded_not_duplicates(LATELY)
    ]
    return sorted(done, key=lambda each: each.at, reverse=True)[:LATELY]


def _said_apart(apart: "Apart") -> str:
    around = folder_around([apart.path, *apart.other_paths])
    image, *others = (path.removeprefix(around) for path in (apart.path, *apart.other_paths))
    if len(others) == 1:
        return f"Recorded that {image} and {others[0]} are not duplicates."
    of = others[0] if len(others) > MOST_NAMED else ", ".join(others[:-1])
    rest = f"{len(others) - 1:,} others" if len(others) > MOST_NAMED else others[-1]
    return f"Recorded that {image} is not a duplicate of {of} and {rest}."


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
    collection: Editable,
    question: Asked,
    action: Offered,
    gone: Selected,
    plan: Annotated[str, Form()] = "",
) -> Response:
    """Redirect to what would be done to the selected files or, if that is confirmed, do it.

    Args:
        site: the server.
        collection: the collection to act on.
        question: which duplicates were shown.
        action: what to do.
        gone: the images that go.
        plan: the key of the plan that was shown, to confirm it.

    """
    address = Address(question, collection.name, "/duplicates")
    shown = site.take_plan(collection.name, plan)
    if shown is not None:
        # What changed since it was shown is found file by file.
        done = collection.tidy.apply(shown)
        return RedirectResponse(address.at("/duplicates/run", run=done[0].run), 303)
    options = question.options()
    options["gone"] = set(gone)
    key = site.keep_plan(collection.name, collection.tidy.plan(action, **options))
    again = True if plan else None
    return RedirectResponse(address.at("/duplicates/plan", plan=key, again=again), 303)


@router.get("/duplicates/plan")
def planned(site: Served, request: Request, question: Annotated[PlanQuestion, Query()]) -> Response:
    """Show what would be done.

    Raises:
        HTTPException: this server only reads, or the plan is no longer kept.

    """
    from vecsearch.render.tidying import BECOMES, to_do

    collection = _editable(site, question)
    plan = site.plan(collection.name, question.plan)
    if plan is None:
        raise HTTPException(
            410, "This list was carried out, or has expired. Select the images again."
        )
    groups = [
        (kept, list(files))
        for kept, files in groupby(
            sorted(plan.files, key=lambda file: (file.kept_path, file.path)),
            key=lambda file: (file.kept, file.kept_path),
        )
    ]
    paths = [path for file in plan.files for path in (file.path, file.kept_path)]
    paths += [each.path for each in plan.untouched]
    address = Address(question, collection.name, "/duplicates")
    return render(
        request,
        "plan.html.jinja",
        collection=collection.name,
        plan=plan,
        key=question.plan,
        is_again=question.again,
        groups=groups,
        becomes=BECOMES[plan.action],
        button=to_do(plan) if plan.files else None,
        shared=folder_around(paths),
        address=address,
        back=address(plan=None, again=None),
    )


@router.get("/duplicates/run")
def ran(site: Served, request: Request, question: Annotated[RunQuestion, Query()]) -> Response:
    """Show the files of a run: what was done to each, and whether it was undone."""
    from vecsearch.render.tidying import outcome, stands

    collection = site.choose(question.collection)
    files = collection.tidy.files(question.run)
    counts = Counter(entry.state for entry in files)
    done = sum(counts[state] for state in NOT_UNDONE)
    address = Address(question, collection.name, "/duplicates")
    return render(
        request,
        "acted.html.jinja",
        collection=collection.name,
        sentence=stands(files[0].action, done, counts[FileState.undone]),
        files=files,
        outcome=outcome,
        shared=folder_around(path for entry in files for path in (entry.path, entry.kept_path)),
        run=question.run,
        can_undo=site.editor is not None and done > 0,
        is_partly=counts[FileState.undone] > 0,
        undo=address.at("/duplicates/undo", run=None),
        back=address(run=None),
    )


@router.post("/duplicates/undo")
def undo(
    collection: Editable, question: Asked, run: Annotated[int, Form(ge=1, le=2**31 - 1)]
) -> Response:
    """Bring back the files and rows of a run."""
    collection.tidy.undo(run)
    address = Address(question, collection.name, "/duplicates")
    return RedirectResponse(address.at("/duplicates/run", run=run), 303)


@router.post("/duplicates/apart")
def apart(
    collection: Editable,
    question: Asked,
    image: Annotated[UUID, Form()],
    other: Selected,
) -> Response:
    """Record that an image is not a duplicate of others."""
    collection.not_duplicates(image, *(each for each in other if each != image))
    return RedirectResponse(f"{Address(question, collection.name, '/duplicates')()}#done", 303)


@router.post("/duplicates/together")
def together(
    collection: Editable,
    question: Asked,
    image: Annotated[UUID, Form()],
    other: Selected,
) -> Response:
    """Forget that an image is not a duplicate of others."""
    collection.undo_not_duplicates(image, *(each for each in other if each != image))
    return RedirectResponse(Address(question, collection.name, "/duplicates")(), 303)
