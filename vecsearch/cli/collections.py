"""The commands collections, status, errors, refresh and drop."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    YesOption,
    app,
    chosen_format,
    command,
    confirming,
    open_library,
    say,
    say_all,
    show,
    write_object,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.errors import InvalidInput, NotConfirmed
from vecsearch.render.figures import human_bytes, human_time
from vecsearch.render.rows import Format
from vecsearch.vocabulary import (
    DEFAULT_COLLECTION,
    DEFAULT_NEIGHBOURS,
    MAX_INDEXED_DIMENSIONS,
    Derived,
    IndexMethod,
    Layout,
    command_line,
    counted,
)

# Of an estimate: more are a slip of the keyboard.
MOST_IMAGES = 10**12

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vecsearch.search.indexes.capacity import Capacity
    from vecsearch.search.status import CollectionStatus


def _images(value: str | int) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMB]?)", str(value), re.IGNORECASE)
    images = 0
    if match is not None:
        images = round(float(match[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}[match[2].lower()])
    if not 1 <= images <= MOST_IMAGES:
        raise typer.BadParameter("Give a number of images like 500k, 100M or 1B.")
    return images


@command(app, "collections")
def collections(settings: Settings, format_: FormatOption = None) -> None:
    """List the collections."""
    with open_library(settings) as library:
        rows = library.collections()
    if not rows:
        say("There are no collections yet. Start with: vecsearch ingest FOLDER")
    shown = ["name", "model", "dimensions", "metric", "images", "weights", "created_at"]
    brief = ["name", "model", "dimensions", "metric", "images"]
    write_rows(rows, format_, columns=[*shown, "state"], table_columns=brief)
    say_all(_broken(rows))


@command(app, "status")
def status(
    settings: Settings,
    estimate: Annotated[
        int | None,
        typer.Option(
            parser=_images,
            metavar="IMAGES",
            help="Estimate disk, memory and build time of each collection with this many images, "
            "such as 100M, judged by those it has.",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Show versions, sizes, and the state of every index."""
    from dataclasses import asdict

    with open_library(settings) as library:
        if estimate is not None:
            _show_estimates(library.capacity(estimate), format_)
            return
        report = library.status()
    if chosen_format(format_) is not Format.table:
        write_object(asdict(report), format_)
        return
    kind = "embedded" if report.embedded else "your own"
    show(f"database    {report.database} ({kind})")
    show(f"versions    PostgreSQL {report.postgres}, pgvector {report.pgvector or 'missing'}")
    if report.advice:
        show(f"advice      {report.advice}")
    write_rows(
        [
            (
                row.name,
                row.model,
                row.dimensions,
                row.images,
                row.errors,
                human_bytes(row.table_bytes),
                row.index,
                human_bytes(row.index_bytes),
            )
            for row in report.collections
        ],
        Format.table,
        columns=[
            "collection",
            "model",
            "dimensions",
            "images",
            "errors",
            "table",
            "index",
            "index_size",
        ],
    )
    for line in _broken(report.collections):
        show(line)
    for row in report.collections:
        if row.index == IndexMethod.none and not row.is_broken:
            show(
                f"{row.name}: {_no_index(row.name, row.dimensions)}, so every search compares all "
                f"{counted(row.images, 'image')} and reads {human_bytes(row.scan_bytes)}."
            )


@command(app, "errors", prints_paths=True)
def errors(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """List the files that could not be ingested, and why.

    A file marked as stored could be read before: its row stays, with the former content.
    """
    with open_library(settings) as library:
        rows = library.collection(collection).errors()
    if not rows:
        say(f"Every file of collection {collection!r} could be read.")
    shown = ["path", "error", "stored"]
    write_rows(rows, format_, columns=[*shown, "at"], table_columns=shown)


@command(app, "refresh", interrupted="Tables that were not finished are as they were.")
def refresh(
    settings: Settings,
    tables: Annotated[
        list[Derived] | None,
        typer.Argument(
            metavar="[TABLE...]",
            help="neighbours, duplicates, clusters and map. Default: neighbours and duplicates.",
        ),
    ] = None,
    neighbours: Annotated[
        int | None,
        typer.Option(
            help="Neighbours of each image. Default: as many as last time, or "
            f"{DEFAULT_NEIGHBOURS}."
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(
            help="Number of clusters. Default: as last time, or the square root of half the "
            "number of images."
        ),
    ] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="The layout of the map: pca, or umap, which separates groups better but is slower "
            "and needs the extra umap. Default: as last time, or pca."
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Search for the neighbours of unchanged images, too."),
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every image with every other; slow.")
    ] = False,
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """Bring tables for SQL up to date: neighbours, groups of duplicates, clusters, a map.

    In SQL, these are the views images_neighbours, images_duplicates, images_clusters and
    images_map. The first refresh compares all images. Later ones search only for neighbours that
    changes concern; the other tables are rebuilt. Images that are added later have no cluster,
    and no place on the map, until the next refresh. Clusters need the extra clusters. The page
    shows the map.
    """
    from vecsearch.analysis.derived import USUAL
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        done = library.collection(collection).refresh(
            tables or USUAL,
            neighbours=neighbours,
            clusters=clusters,
            layout=layout,
            whole=whole,
            exact=exact,
            on_progress=progress,
        )
    write_rows(done, format_, columns=["view", "rows", "images"])


@command(app, "drop")
def drop(
    settings: Settings,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION")],
    yes: YesOption = False,
    cascade: Annotated[
        bool,
        typer.Option(
            "--cascade",
            help="Also drop views, functions and constraints of yours that depend on it; lists "
            "them first. Default: refuse.",
        ),
    ] = False,
) -> None:
    """Remove a collection: its rows, embeddings and index. The image files stay."""
    with open_library(settings) as library:
        chosen = library.collection(collection)
        what = _contents(chosen.status())
        sentence = f"This removes {what}. The image files stay."
        if cascade and (dependents := chosen.dependents()):
            sentence += f" This also drops {', '.join(dependents)}."
        if (lost := chosen.tidy.lost_by_drop()) is not None:
            back = command_line("undo", collection=collection)
            sentence += f" {lost} To bring them back first: {back}"
        if not confirming(f"Drop collection {collection!r}?", yes=yes)(sentence):
            raise NotConfirmed(f"{sentence} Dropping it needs a yes: add --yes.")
        notes = chosen.drop(cascade=cascade)
    say_all(notes)
    say(f"Dropped {what}. The image files stay.")


@command(app, "rename", interrupted="The collection has its old name.")
def rename(
    settings: Settings,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION")],
    new: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
) -> None:
    """Rename a collection: its table, views and functions. Your own views of it follow."""
    with open_library(settings) as library:
        notes = library.collection(collection).rename(new)
    say_all(notes)
    step = f" Use --collection {new} from now on." if collection == DEFAULT_COLLECTION else ""
    say(f"Collection {collection!r} is now {new!r}.{step}")


def _show_estimates(estimates: "list[Capacity]", format_: Format | None) -> None:
    from dataclasses import asdict

    if not estimates:
        raise InvalidInput("There are no collections to measure. First: vecsearch ingest FOLDER")
    if chosen_format(format_) is not Format.table:
        write_object({"collections": [asdict(each) for each in estimates]}, format_)
        return
    for each in estimates:
        now = counted(each.measured_images, "image")
        show(f"{each.collection}: estimated for {each.images:,} images, by the sizes of {now}")
        write_rows(
            [
                (
                    part.part,
                    human_bytes(round(part.bytes_per_image)),
                    human_bytes(part.bytes),
                    "measured" if part.measured else "computed",
                )
                for part in each.parts
            ],
            Format.table,
            columns=["part", "an image", "all images", "how"],
        )
        write_rows(
            [
                (
                    need.index,
                    human_bytes(need.disk_bytes),
                    human_bytes(need.memory_bytes),
                    human_bytes(need.build_memory_bytes),
                    human_time(need.build_s),
                    need.machines,
                )
                for need in each.needs
            ],
            Format.table,
            columns=["index", "disk", "memory", "to build", "in about", "64 GB machines"],
        )
    show("Searches are fast while the index fits in memory; see docs/scale.md for the next step.")


def _broken(rows: "Iterable[CollectionStatus]") -> "Iterator[str]":
    for row in rows:
        if row.is_broken:
            yield f"{row.name} is {row.state}. To repair it: vecsearch db repair {row.name}"


def _contents(status: "CollectionStatus") -> str:
    rows = f"{counted(status.images, 'row')} ({human_bytes(status.table_bytes)})"
    index = f"its {status.index} index ({human_bytes(status.index_bytes)})"
    what = f"collection {status.name!r} with {rows}"
    return what if status.index == IndexMethod.none else f"{what} and {index}"


def _no_index(collection: str, dimensions: int) -> str:
    if dimensions > MAX_INDEXED_DIMENSIONS:
        return (
            f"HNSW indexes at most {MAX_INDEXED_DIMENSIONS:,} dimensions, these are {dimensions:,} "
            f"(use: vecsearch index create --method {IndexMethod.compact} "
            f"--collection {collection})"
        )
    return "its HNSW index is missing"
