"""The commands ingest and forget."""

from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    ModelOption,
    NewIndexOption,
    PathsArgument,
    WeightsOption,
    YesOption,
    app,
    chosen_format,
    command,
    confirming,
    expand_stdin,
    open_library,
    say,
    say_all,
    show,
    write_object,
)
from vecsearch.config import Settings
from vecsearch.ingest.summary import PruneRefused
from vecsearch.render.rows import Format, require_object_format
from vecsearch.vocabulary import DEFAULT_COLLECTION, PRUNED_UNASKED, Precision, counted

# Counts whose names are not clear in a table.
IN_WORDS = {"copied": "identical to stored images"}


@command(
    app,
    "ingest",
    encodes=True,
    interrupted="Every finished batch is kept; run the same command to continue.",
)
def ingest(
    settings: Settings,
    paths: PathsArgument,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = None,
    weights: WeightsOption = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            help=f"For a new collection: {Precision.int8} calibrates the encoder on your own "
            f"images, embeds faster, and prints how its neighbours differ from {Precision.fp32}'s. "
            f"Default: {Precision.fp32}."
        ),
    ] = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="Fill the column metadata from this CSV or JSON lines file. Its column path, or "
            "file, holds an image's path or file name."
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete rows under PATH whose files are gone. Asks before it deletes all rows "
            f"under a PATH, more than a tenth of them and more than {PRUNED_UNASKED}, or more than "
            f"{PRUNED_UNASKED} rows of a folder below it in which no image is left.",
        ),
    ] = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if any file could not be read.")
    ] = False,
    index: NewIndexOption = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="VECSEARCH_RAY",
            help="Read and embed on a Ray cluster: auto for the one that Ray finds, HOST:PORT, "
            "ray://HOST:PORT, or local to start Ray on this machine for this run. Needs "
            "vecsearch[ray].",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Turn folders of images into rows: embed what is new, update what moved or changed.

    Run it again at any time: it continues where it was interrupted, and opens only files whose
    size or time has changed.
    """
    from vecsearch.cli.progress import ingest_progress

    require_object_format(format_)
    refused: PruneRefused | None = None
    with open_library(settings) as library, ingest_progress() as progress:
        try:
            summary = library.collection(collection).ingest(
                expand_stdin(paths),
                model=model,
                weights=weights,
                precision=precision,
                metadata=metadata,
                prune=prune,
                confirm=progress.aside(confirming("Delete these rows?", yes=yes)),
                dry_run=dry_run,
                index=index,
                ray=ray,
                on_progress=progress,
            )
        except PruneRefused as error:
            summary, refused = error.summary, error
    say_all(summary.notes)
    counts = summary.counts()
    if chosen_format(format_) is Format.table:
        parts = [f"{count:,} {IN_WORDS.get(name, name)}" for name, count in counts.items() if count]
        show(f"{'would be ' if dry_run else ''}{', '.join(parts) or 'no images found'}")
    else:
        write_object({**counts, "dry_run": True} if dry_run else counts, format_)
    if summary.failed and not dry_run:
        flag = "" if collection == DEFAULT_COLLECTION else f" --collection {collection}"
        say(f"To see which files failed, and why: vecsearch errors{flag}")
    if refused is not None:
        raise refused
    if summary.failed and strict:
        raise typer.Exit(1)


@command(app, "forget")
def forget(
    settings: Settings,
    paths: PathsArgument,
    collection: CollectionOption = DEFAULT_COLLECTION,
    existing: Annotated[
        bool,
        typer.Option(
            "--existing",
            help="Forget files that are still there, too. The next ingest adds them again.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be deleted.")
    ] = False,
    yes: YesOption = False,
    format_: FormatOption = None,
) -> None:
    """Delete the rows of folders and files that are gone for good. No file is touched.

    Their tags and errors go, too, and thumbnails that no other image uses.
    """
    from dataclasses import asdict

    require_object_format(format_)
    with open_library(settings) as library:
        forgotten = library.collection(collection).forget(
            expand_stdin(paths),
            existing=existing,
            dry_run=dry_run,
            confirm=confirming("Delete these rows?", yes=yes),
        )
    if chosen_format(format_) is Format.table:
        parts = f"{counted(forgotten.rows, 'row')}, {counted(forgotten.errors, 'error')}"
        show(f"{'would delete' if dry_run else 'deleted'} {parts}")
    else:
        done = asdict(forgotten)
        write_object({**done, "dry_run": True} if dry_run else done, format_)
