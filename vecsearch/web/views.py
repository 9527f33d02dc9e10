"""Values to HTML: the templates, and the formats of numbers and addresses in them."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from http import HTTPStatus
from itertools import takewhile
from pathlib import PurePath
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markupsafe import Markup
from pydantic import BaseModel

from vecsearch.errors import LEADS, VecsearchError
from vecsearch.imaging import formats
from vecsearch.render import templates
from vecsearch.render.figures import human_numbers
from vecsearch.render.visible import visible
from vecsearch.search.filters import Filters
from vecsearch.search.questions.terms import weighted
from vecsearch.search.tags import Tag
from vecsearch.vocabulary import (
    DEFAULT_COLLECTION,
    Axes,
    Colouring,
    Derived,
    FileAction,
    KeepRule,
    Ranking,
)

# Steps of a slider, about.
STEPS = 100
# Under a hit are at most so many tags, of at least this probability.
MOST_TAGS, LEAST_PROBABILITY = 3, 0.1
# What belongs to one question: its cut-off, and the page of the images to start from.
NEW = dict.fromkeys(("after", "before", "max_distance", "min_similarity"))
DUPLICATES = "/duplicates"
PAGES = ("/", DUPLICATES)
# What the pages below that of near-duplicates take besides its question.
OF_ACTS = ("run", "plan", "again")
PARTS = ("image", "id", "text", "not_image", "not_id", "not_text")


@dataclass(frozen=True)
class CutOff:
    """A slider of distances: from the nearest hit to the farthest of the first k."""

    low: float
    high: float
    step: float
    value: float
    decimals: int

    @property
    def marks(self) -> list[str]:
        """Its scale: its ends, and what is halfway."""
        middle = (self.low + self.high) / 2
        return human_numbers([self.low, middle, self.high], self.decimals)


class Address:
    """Makes the address of a question with some values changed; None leaves a value out.

    The parts of a question are lists, one a field; see `PageQuestion`.
    """

    def __init__(self, question: BaseModel, collection: str, path: str = "/") -> None:
        self._values = {"collection": collection} | question.model_dump(
            mode="json", exclude_defaults=True, exclude_none=True
        )
        self._path = path

    def __call__(self, **changes: Any) -> str:
        """Return an address."""
        values = {**self._values, **changes}
        given = [
            (name, str(each).lower() if isinstance(each, bool) else str(each))
            for name, value in values.items()
            for each in (value if isinstance(value, list) else [value])
            if each is not None
        ]
        return f"{self._path}?{urlencode(given)}"

    def at(self, path: str, **changes: Any) -> str:
        """Return the address of the question, with some values changed, at another path."""
        return path + self(**changes).removeprefix(self._path)

    def only(self, field: str, value: Any) -> str:
        """Return the address of a question that has one part."""
        return self(**NEW | dict.fromkeys([*PARTS, "crop"]) | {field: value})

    def plus(self, field: str, value: Any) -> str:
        """Return the address with a part added; it is no longer among the excluded ones."""
        return self._with(field, f"not_{field}", str(value))

    def minus(self, field: str, value: Any) -> str:
        """Return the address with a part that the hits should be unlike."""
        return self._with(f"not_{field}", field, str(value))

    def without(self, field: str, value: str) -> str:
        """Return the address without a part."""
        return self._changed({field: [each for each in self._values[field] if each != value]})

    def _with(self, field: str, opposite: str, value: str) -> str:
        given, others = (
            [each for each in self._values.get(name, []) if weighted(each)[1] != weighted(value)[1]]
            for name in (field, opposite)
        )
        return self._changed({field: [*given, value], opposite: others})

    def _changed(self, parts: dict[str, list[str]]) -> str:
        # The crop is of the first picture; the metric, of one picture alone.
        first = self._first(self._values) == self._first(self._values | parts)
        crop = {} if first else {"crop": None}
        return self(**NEW | {"metric": None} | crop | parts)

    @staticmethod
    def _first(values: Mapping[str, Any]) -> str | None:
        return next(iter([*values.get("image", []), *values.get("id", [])]), None)


def for_visitors(error: VecsearchError) -> str:
    """Return what an error says to people who have no terminal: no commands, no options."""
    return re.sub(r" \(--[\w-]+\)", "", error.sentence)


def error_page(
    request: Request,
    status: int,
    sentence: str,
    headers: Mapping[str, str],
    address: str | None = None,
    faulty: Collection[str] = (),
) -> Response:
    """Return a page with an error, and with a form for the token if that is missing.

    Args:
        request: what failed.
        status: of HTTP.
        sentence: what went wrong, and what to do next.
        headers: of the response.
        address: on this server, where the form redirects to after the token; None: the request's.
        faulty: names of the parameters that were wrong; the way back has the others.

    """
    query = f"?{request.url.query}" if request.url.query else ""
    own = f"{request.url.path}{query}" if request.method == "GET" else "/"
    return render(
        request,
        "error.html.jinja",
        code=status,
        headers=headers,
        status=status,
        collection=None,
        title=HTTPStatus(status).phrase,
        sentence=sentence,
        needs_token=status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS},
        address=own if address is None else address,
        back=_way_back(request, faulty),
    )


def slider(nearest: float, farthest: float, chosen: float | None) -> CutOff:
    """Return a slider of distances with a round step."""
    ends = [nearest, farthest, *([] if chosen is None else [chosen])]
    low, high = min(ends), max(ends)
    exponent = math.floor(math.log10(max(high - low, 1e-6) / STEPS))
    step = 10.0**exponent
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    high = max(high, low + step)
    decimals = max(0, -exponent)
    value = high if chosen is None else max(low, chosen)
    return CutOff(round(low, decimals), round(high, decimals), step, value, decimals)


def shared_folder(paths: Iterable[str]) -> str:
    """Return the longest folder that all these paths are in, with a slash at its end, or ""."""
    columns = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    shared = takewhile(lambda folders: len(set(folders)) == 1, columns)
    return "".join(f"{folders[0]}/" for folders in shared)


def folder_around(paths: Iterable[str]) -> str:
    """Return the longest folder within which each of these paths still names a folder, or ""."""
    given = list(paths)
    shared = shared_folder(given)
    if all("/" in path.removeprefix(shared) for path in given):
        return shared
    return shared[: shared.rstrip("/").rfind("/") + 1]


def _way_back(request: Request, faulty: Collection[str]) -> tuple[str, str]:
    """Return words and an address: the question without what was wrong, or the first page."""
    asked = request.query_params.multi_items()
    sound = [(name, value) for name, value in asked if name not in {*faulty, *OF_ACTS, "token"}]
    if request.url.path.startswith(DUPLICATES) and (request.method, request.url.path) != (
        "GET",
        DUPLICATES,
    ):
        query = f"?{urlencode(sound)}" if sound else ""
        return "Back to the near-duplicates", f"{DUPLICATES}{query}"
    is_question = request.url.path in PAGES and any(name != "collection" for name, _ in sound)
    if is_question and (request.method == "POST" or len(sound) < len(asked)):
        return "Search without it", f"{request.url.path}?{urlencode(sound)}"
    kept = [(name, value) for name, value in sound if name == "collection"]
    is_other = len(asked) > len(kept) or request.method != "GET"
    return "Back to the images", f"/?{urlencode(kept)}" if kept and is_other else "/"


def _likely(tags: Iterable[Tag]) -> list[Tag]:
    """Return the tags to show under a hit, where there is little room."""
    return [tag for tag in tags if tag.probability >= LEAST_PROBABILITY][:MOST_TAGS]


def _example(tags: Mapping[Any, Sequence[Tag]]) -> str:
    """Return what one of the images shows, to be searched for; empty if nobody knows."""
    return next((found[0].name for found in tags.values() if found), "")


def unbroken(sentence: object) -> Markup:
    """Keep each option such as --token on one line: it breaks after its first hyphen elsewhere."""
    option = Markup('<span class="option">{}</span>')
    parts = re.split(r"(--[\w-]+)", str(sentence))
    return Markup("").join(
        option.format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def render(
    request: Request,
    template: str,
    *,
    code: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Return a page: a template filled with values."""
    content = _TEMPLATES.get_template(template).render(path=request.url.path, **values)
    # The next ingest may change what it shows.
    return HTMLResponse(content, code, {"Cache-Control": "no-cache", **(headers or {})})


def _environment() -> Environment:
    environment = templates.environment("vecsearch.web", "templates")
    environment.filters |= {
        "likely": _likely,
        "example": _example,
        "fault": lambda error: getattr(error, "fault", for_visitors(error)),
        "milliseconds": _milliseconds,
        "unbroken": unbroken,
        "name": lambda path: visible(PurePath(path).name, keep=""),
        "folder": lambda path: "".join(path.rpartition("/")[:2]),
        "within": lambda path, folder: path.removeprefix(folder),
    }
    environment.globals |= {
        "DEFAULT_COLLECTION": DEFAULT_COLLECTION,
        "FILTERS": [field.name for field in fields(Filters)],
        "Axes": Axes,
        "Colouring": Colouring,
        "Derived": Derived,
        "FIELDS": {"labels": "label", "concepts": "text", "paths": "id"},
        "FileAction": FileAction,
        "KeepRule": KeepRule,
        "LEADS": LEADS,
        "NEW": NEW,
        "PARTS": PARTS,
        "Ranking": Ranking,
        "PICTURES": ",".join(["image/*", *sorted(formats.SUFFIXES)]),
    }
    return environment


_TEMPLATES = _environment()
