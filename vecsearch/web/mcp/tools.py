"""The tools: each reads its arguments, makes one call, and returns what came back."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from vecsearch.library import Collection, CollectionStatus, Library
from vecsearch.render.values import as_json
from vecsearch.web.api import TaggedHit, TaggedImage, tagged, tagged_image
from vecsearch.web.mcp.arguments import Image, Nothing, Search, Statement
from vecsearch.web.site import choose, require_label

# Characters of a value, and of all rows, that a statement's answer has at most.
LONGEST_VALUE, LONGEST_ANSWER = 2_000, 100_000
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Served:
    """What the tools search: a library, and the collection of questions that name none."""

    library: Library
    collection: str

    def choose(self, name: str | None, names: list[str] | None = None) -> Collection:
        """Return the collection of this name or, without one, the server's; see `choose`."""
        return choose(self.library, self.collection, name, names)


@dataclass(frozen=True)
class Reply:
    """A tool's answer, and pictures to show with it: a caption and the bytes of each."""

    answer: Any
    pictures: list[tuple[str, bytes]]


@dataclass(frozen=True)
class Tool(Generic[A]):
    """A tool as assistants see it: `answers` is a dataclass; `call` may raise VecsearchError."""

    name: str
    title: str
    description: str
    arguments: type[A]
    answers: type
    call: Callable[[Served, A], Reply]


@dataclass(frozen=True)
class Found:
    """The hits of a search.

    Attributes:
        collection: the one that was searched.
        metric: of the distances; smaller is nearer.
        meaning: what the words were taken for, as a sentence; null without words.
        hits: nearest first.
        notes: what is missing, as sentences.

    """

    collection: str
    metric: str
    meaning: str | None
    hits: list[TaggedHit]
    notes: list[str]


@dataclass(frozen=True)
class Rows:
    """The rows of a statement, and what an assistant should know about them."""

    columns: list[str]
    rows: list[list[Any]]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Searchable(CollectionStatus):
    """A collection.

    Attributes:
        words: what it can be searched by: any sentence, the names of concepts (listed in the
            table concepts), or no words at all.

    """

    words: Literal["any sentence", "concepts", "none"]


@dataclass(frozen=True)
class Collections:
    """All collections, and the name of the one that is searched unless another is named."""

    default: str
    collections: list[Searchable]


def search(served: Served, asked: Search) -> Reply:
    """Answer a question."""
    collection = served.choose(asked.collection)
    if asked.where is not None:
        served.library.require_least_role()
    answer = collection.ask(asked.asked())
    if not answer.hits:
        require_label(collection, asked.label)
    hits = tagged(collection, answer.hits)
    shown = hits[: asked.thumbnails]
    kept = collection.thumbnails(hit.id for hit in shown) if shown else {}
    pictures = [
        (f"{hit.rank}. {PurePath(hit.path).name}", kept[hit.id]) for hit in shown if hit.id in kept
    ]
    notes = asked.notes(len(hits))
    return Reply(Found(collection.name, answer.metric, answer.meaning, hits, notes), pictures)


def sql(served: Served, asked: Statement) -> Reply:
    """Run a statement."""
    served.library.require_least_role()
    # One row more tells whether there are more.
    with served.library.sql(asked.statement, most=asked.limit + 1) as (columns, found, summary):
        rows, notes = bounded(found, asked.limit)
    return Reply(Rows(columns, rows, notes if columns else [summary]), [])


def collections(served: Served, _: Nothing) -> Reply:
    """List the collections."""
    library = served.library
    found = [
        Searchable(**vars(each), words=_words(library.collection(each.name), each))
        for each in library.collections()
    ]
    default = served.choose(None, [each.name for each in found]).name
    return Reply(Collections(default, found), [])


def image(served: Served, asked: Image) -> Reply:
    """Look at one image."""
    collection = served.choose(asked.collection)
    found = collection.image(asked.image)
    kept = collection.thumbnail(found.id) if asked.thumbnail else None
    answer = tagged_image(collection, found)
    return Reply(answer, [] if kept is None else [(PurePath(found.path).name, kept[1])])


def bounded(found: Iterable[tuple[Any, ...]], limit: int) -> tuple[list[list[Any]], list[str]]:
    """Return rows as JSON has them, as many as an answer may have, and notes on what is missing."""
    rows: list[list[Any]] = []
    notes: list[str] = []
    left, cut = LONGEST_ANSWER, 0
    for row in found:
        if len(rows) == limit:
            notes.append(f"Cut short after {limit} rows; there are more. Use WHERE or count(*).")
            break
        values = [_bounded(json.loads(as_json(value))) for value in row]
        left -= len(as_json([value for value, _ in values]))
        if left < 0:
            notes.append(
                f"Cut short after {len(rows)} rows, because an answer has at most "
                f"{LONGEST_ANSWER:,} characters. Select fewer columns or rows."
            )
            break
        cut += sum(is_cut for _, is_cut in values)
        rows.append([value for value, _ in values])
    if cut:
        notes.append(f"{cut} values were cut after {LONGEST_VALUE:,} characters, where … is.")
    return rows, notes


def _bounded(value: Any) -> tuple[Any, bool]:
    """Return a value, or the beginning of its text if it is long, and whether that is so."""
    text = value if isinstance(value, str) else as_json(value)
    if len(text) <= LONGEST_VALUE:
        return value, False
    return f"{text[:LONGEST_VALUE]}…", True


def _words(
    collection: Collection, status: CollectionStatus
) -> Literal["any sentence", "concepts", "none"]:
    if status.is_broken:
        return "none"
    if collection.reads_text():
        return "any sentence"
    return "concepts" if collection.has_concepts() else "none"


TOOLS: tuple[Tool[Any], ...] = (
    Tool(
        "search_images",
        "Search images",
        "Find the images that look like a picture, a stored image or words, nearest first. Give "
        "one of `text`, `path`, `id` and `image`, or several, which are added up; the parts named "
        "not_… are what hits should be unlike. For more like a hit, search by its `id` with "
        "exclude_self. The nearest images are returned even if none fits, so look at the "
        "similarity and the thumbnails; for words, 0.2 to 0.4 is high. list_collections says what "
        "words a collection takes.",
        Search,
        Found,
        search,
    ),
    Tool(
        "get_image",
        "Look at an image",
        "Everything stored about one image: its file's facts, EXIF, metadata and tags, and "
        "its thumbnail.",
        Image,
        TaggedImage,
        image,
    ),
    Tool(
        "sql",
        "Run SQL",
        "Run one SQL statement on the PostgreSQL database of the images; it can only read. Each "
        "collection NAME has a view NAME_view (id, path, name, label, width, height, format, "
        "file_size, modified_at, taken_at, latitude, longitude, metadata as JSON, ingested_at), "
        "where `label` is the name of the file's folder; a view NAME_tags (id, path, rank, name, "
        "probability); and a function NAME_search(id, k), which lists the images nearest to one, "
        "with their distance. `collections` and `concepts` are tables. Use it to count, group and "
        "join.",
        Statement,
        Rows,
        sql,
    ),
    Tool(
        "list_collections",
        "List collections",
        "The collections of images: their sizes, encoders and indexes, and which words each can "
        "be searched by.",
        Nothing,
        Collections,
        collections,
    ),
)
