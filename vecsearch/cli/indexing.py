"""Commands that make searches fast: index create, drop, status, tune."""

import re
from typing import Annotated

import typer

from vecsearch.cli.apps import index_app
from vecsearch.cli.command import (
    INDEX_METHODS,
    Collection,
    IndexMethodName,
    OutputFormat,
    chosen_format,
    command,
    open_library,
    say,
    write_object,
    write_rows,
)
from vecsearch.cli.evaluating import K, Metric
from vecsearch.config import Settings
from vecsearch.render.rows import Format, human_bytes, require_object_format


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
    method: Annotated[IndexMethodName, typer.Option(help=INDEX_METHODS)] = IndexMethodName.hnsw,
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
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        notes = library.collection(collection).create_index(
            method,
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
        library.collection(collection).create_index(IndexMethodName.none)


@command(index_app, "status")
def status(
    settings: Settings, collection: Collection = "images", format_: OutputFormat = None
) -> None:
    """Show what the index is, how large, and what building it anew would take here."""
    from dataclasses import asdict

    require_object_format(format_)
    with open_library(settings) as library:
        found = library.collection(collection).index_status()
    if chosen_format(format_) is not Format.table:
        write_object(asdict(found), format_)
        return
    lines = {
        "method": found.method
        if found.method == found.index
        else f"{found.method}, in use: {found.index}",
        "images": f"{found.indexed:,} of {found.images:,} in the index",
    }
    if found.dims is not None:
        lines["dims"] = f"{found.dims:,}"
        lines["built with"] = f"m {found.m}, ef_construction {found.ef_construction}"
        lines["size"] = human_bytes(found.index_bytes)
    if found.fitted_at is not None:
        lines["size"] += f", and {human_bytes(found.compact_bytes)} of compact vectors"
        lines["projection"] = (
            f"version {found.version}, fitted to {found.sample:,} images on "
            f"{found.fitted_at:%Y-%m-%d %H:%M}, keeps {found.variance_kept:.1%} of the variance"
        )
    for metric, tuned in found.breadths.items():
        lines[f"tuned, {metric}"] = (
            f"breadth {tuned['breadth']:,}: {tuned['recall']:.2%} of the exact {tuned['k']} nearest"
        )
    lines["a build"] = (
        f"{human_bytes(found.memory)} of memory for a graph of {human_bytes(found.needed)}, "
        f"{found.workers} workers beside the first"
    )
    for name, line in lines.items():
        typer.echo(f"{name:<14} {line}")
    if found.indexed < found.images and found.index == "compact":
        say(
            "Images that were not written by vecsearch have no compact vectors, and are not found. "
            f"To add them: vecsearch index create --method compact --collection {collection}"
        )


@command(index_app, "tune")
def tune(
    settings: Settings,
    recall: Annotated[
        float, typer.Option(help="The share of the exact answer that is to be found.")
    ] = 0.99,
    k: K = 10,
    metric: Metric = None,
    collection: Collection = "images",
    format_: OutputFormat = None,
) -> None:
    """Find the least breadth at which the index finds enough, and search so from now on.

    Stored images are asked with, exactly and through the index, ever more broadly.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        tuned = library.collection(collection).tune_index(
            recall=recall, k=k, metric=metric, on_progress=progress
        )
    write_rows(
        [(score.breadth, score.recall, score.p50_ms, score.p95_ms) for score in tuned.scores],
        format_,
        columns=[tuned.breadth_name, f"recall@{k}", "p50_ms", "p95_ms"],
    )
    if tuned.choice is not None:
        say(
            f"Searches by {tuned.metric} for up to {k} images now take {tuned.breadth_name} "
            f"{tuned.choice.breadth:,}: {tuned.choice.recall:.2%} of the exact answers of "
            f"{tuned.queries} images."
        )
    else:
        say(
            f"None of these reaches {recall:.2%}, and nothing was changed; query --exact finds all."
        )
    if not tuned.index_used:
        say("At this size every search compares all images all the same, and is exact.")
