"""What every route is given: the library, and how this server serves it."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from starlette.types import Scope

from vecsearch.errors import CollectionNotFound, Unclear, VecsearchError
from vecsearch.search.query import Answer
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import DEFAULT_COLLECTION, MAX_UPLOAD_MB, Axes, Derived, command_line
from vecsearch.web.access.guard import Access
from vecsearch.web.metrics import Metrics
from vecsearch.web.parameters import DuplicatesRule, Question
from vecsearch.web.uploads import Uploads

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates.groups import Duplicates
    from vecsearch.analysis.tidy.plan import Plan
    from vecsearch.library import Collection, Library

# Of every connection: the server only reads, and cancels statements that take longer.
SESSION = {"default_transaction_read_only": "on", "statement_timeout": "60s"}
# Answers about near-duplicates, and plans for them, to keep: each took seconds or minutes.
KEPT = 8
# Callers without access learn at most once in so many seconds whether the database answers.
PULSE_S = 1.0
# Of a map; a browser draws so many without delay.
POINTS = 50_000


@dataclass(frozen=True)
class Options:
    """How a server serves.

    Attributes:
        collection: the one that is searched unless another is named.
        token: the secret that callers must send; None serves this machine alone.
        max_bytes: of the body of a request.
        key: makes the cookies of browsers that sent the token.
        is_known: tells, without a token, whether a connection may ask; None: every one may.

    """

    collection: str
    token: str | None = None
    max_bytes: int = MAX_UPLOAD_MB * 2**20
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    is_known: Callable[[Scope], bool] | None = None


class Pulse:
    """Whether the database answers; callers together ask it once a second, one at a time."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._asking = threading.Lock()
        self._is_well, self._until = True, 0.0

    def is_well(self) -> bool:
        """Return whether the database answers, or answered when it was last asked."""
        if time.monotonic() >= self._until and self._asking.acquire(blocking=False):
            try:
                self._check()
                self._is_well = True
            except VecsearchError:
                self._is_well = False
            finally:
                self._until = time.monotonic() + PULSE_S
                self._asking.release()
        return self._is_well


@dataclass(frozen=True)
class Site:
    """The parts of a server.

    Attributes:
        editor: the same library, for what the page may change; None: the server only reads.
        found: the last answers of `duplicates`, with the states of their collections.
        plans: the last plans that somebody was shown, with the names of their collections, by key.

    """

    library: "Library"
    options: Options
    access: Access
    uploads: Uploads
    metrics: Metrics
    pulse: Pulse
    editor: "Library | None" = None
    found: "dict[tuple[object, ...], tuple[tuple[int, ...], Duplicates]]" = field(
        default_factory=dict
    )
    plans: "dict[str, tuple[str, Plan]]" = field(default_factory=dict)

    def choose(self, name: str | None, names: list[str] | None = None) -> "Collection":
        """Return the collection of this name or, without one, the server's; see `choose`."""
        return choose(self.library, self.options.collection, name, names)

    def duplicates(self, collection: "Collection", rule: DuplicatesRule) -> "Duplicates":
        """Return near-duplicates, those of the last time if nothing has changed since."""
        options = rule.options()
        key = (collection.name, *options.values())
        # Read first: what changes meanwhile makes the answer look old, never new.
        state = collection.duplicates_state()
        known = self.found.pop(key, None)
        if known is None or known[0] != state:
            known = (state, collection.duplicates(**options))
        self.found[key] = known
        _forget_oldest(self.found)
        return known[1]

    def keep_plan(self, collection: str, plan: "Plan") -> str:
        """Keep a plan until it is confirmed; return its key."""
        key = secrets.token_urlsafe(16)
        self.plans[key] = (collection, plan)
        _forget_oldest(self.plans)
        return key

    def plan(self, collection: str, key: str) -> "Plan | None":
        """Return a plan; None if it is no longer kept, or of another collection."""
        name, plan = self.plans.get(key, (None, None))
        return plan if name == collection else None

    def take_plan(self, collection: str, key: str) -> "Plan | None":
        """Return a plan, once; see `plan`."""
        name, plan = self.plans.pop(key, (None, None))
        return plan if name == collection else None

    def ask(self, parts: Sequence[Term], question: Question) -> tuple["Collection", Answer]:
        """Search the collection that a question names, or the server's; return both.

        Raises:
            Unclear: no image has the label that is asked for.

        """
        # Names are listed only if the server's own collection is missing.
        collection = self.library.collection(question.collection or self.options.collection)
        try:
            return collection, self.ask_of(collection, parts, question)
        except CollectionNotFound:
            other = self.choose(question.collection)
            if other.name == collection.name:
                raise
            return other, self.ask_of(other, parts, question)

    def ask_of(self, collection: "Collection", parts: Sequence[Term], question: Question) -> Answer:
        """Search one collection; see `ask`."""
        answer = collection.ask(question.query(parts))
        self.metrics.search_seconds.observe(answer.seconds)
        if not answer.hits:
            require_label(collection, question.label)
        return answer


def choose(
    library: "Library", served: str, name: str | None, names: list[str] | None = None
) -> "Collection":
    """Return the collection of this name or, without one, the served or the first one.

    Args:
        library: all collections.
        served: the one that the server was started with.
        name: what the caller named; whether it exists is found out when it is read.
        names: of all collections, if they are known.

    """
    if name is None:
        name = served
        names = library.collection_names() if names is None else names
        if names and name not in names:
            name = names[0]
    return library.collection(name)


def require_served(library: "Library", served: str) -> None:
    """Check the collection that a server is started with; the default one may be missing.

    Raises:
        CollectionNotFound: there are others, but not this one.

    """
    if served != DEFAULT_COLLECTION and library.collection_names():
        library.collection(served).reads_text()  # says which there are


def _forget_oldest(kept: dict[Any, Any]) -> None:
    for oldest in list(kept)[:-KEPT]:
        kept.pop(oldest, None)


def require_label(collection: "Collection", label: str | None) -> None:
    """Refuse a label that no image has.

    Raises:
        Unclear: the label is probably misspelt.

    """
    if label is not None and not collection.has_label(label):
        same, near = collection.near_labels(label)
        raise Unclear(
            f"Collection {collection.name!r} has no image with the label {label!r}.",
            near={"labels": [*same, *near]},
        )


def unplaced(collection: str, axes: Axes) -> str:
    """Return why no image of a collection is on its map, and what to do."""
    if axes is Axes.place:
        return (
            f"No image of {collection!r} has a latitude and a longitude. Ingest photos whose EXIF "
            "data have them."
        )
    return f"Collection {collection!r} has no map. Run: {refreshing(collection, Derived.map)}"


def refreshing(collection: str, derived: Derived) -> str:
    """Return the command that makes a derived table."""
    return command_line("refresh", derived, collection=collection)


async def _served(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


Served = Annotated[Site, Depends(_served)]
