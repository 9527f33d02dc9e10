"""Commands that make searches fast: index create, drop, status, tune."""

import re
from enum import StrEnum
from typing import Annotated

import typer

from vecsearch.cli.apps import index_app
from vecsearch.cli.command import Collection, command, open_library, say
from vecsearch.config import Settings


class Method(StrEnum):
    """As `vecsearch.indexing.Method`, which would load what --help does not need."""

    hnsw = "hnsw"
    compact = "compact"
    none = "none"


METHODS = (
    "hnsw indexes the embeddings; compact indexes their principal components, which takes a tenth "
    "of the space and of the time to build, and re-ranks what that finds by the embeddings; none "
    "compares every image."
)
# Of commands that make collections.
IndexMethod = Annotated[
    Method | None,
    typer.Option(
        "--index",
        help=f"The index of a new collection: {METHODS} Default: hnsw.",
    ),
]


def _bytes(value: str | int) -> int:
    match = re.fullmatch(r"(\d+)\s*(kB|MB|GB|TB)", str(value), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter("Give a size like 512MB or 4GB.")
    power = ("kb", "mb", "gb", "tb").index(match[2].lower()) + 1
    size: int = int(match[1]) * 1024**power
    if not 2**20 <= size < 2**41:
        raise typer.BadParameter("Give a size from 1MB to 2047GB.")
    return size


Memory = Annotated[
    int | None,
    typer.Option(
        parser=_bytes,
        metavar="SIZE",
        help="Memory for the build, e.g. 4GB. Default: what it needs, within a quarter of this "
        "machine's; on your own server, what that allows.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=64, help="Processes beside the first. Default: one for each core."),
]


@command(index_app, "create")
def create(
    settings: Settings,
    method: Annotated[Method, typer.Option(help=METHODS)] = Method.hnsw,
    dims: Annotated[
        int | None, typer.Option(help="Numbers in a compact vector. Default: 128.")
    ] = None,
    m: Annotated[
        int | None, typer.Option("--m", help="Links of each image in the graph. Default: 16.")
    ] = None,
    ef_construction: Annotated[
        int | None,
        typer.Option(help="Images in view while one is linked, at least twice --m. Default: 64."),
    ] = None,
    memory: Memory = None,
    workers: Workers = None,
    collection: Collection = "images",
) -> None:
    """Build the index anew, while searches and ingests go on; then use it, and drop the old one.

    Cut off, it leaves the old one in use. Repeat --method compact when `eval` says that images have
    changed since it was fitted.
    """
    from vecsearch.terminal import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        notes = library.create_index(
            method,
            collection=collection,
            dims=dims,
            m=m,
            ef_construction=ef_construction,
            memory=memory,
            workers=workers,
            on_progress=progress,
        )
    for note in notes:
        say(note)


@command(index_app, "drop")
def drop(settings: Settings, collection: Collection = "images") -> None:
    """Drop the index: every search then compares all images, and is exact."""
    with open_library(settings) as library:
        library.create_index(Method.none, collection=collection)
