"""Commands that turn pictures into vectors: ingest, train, demo."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.apps import app, train_app
from vecsearch.cli.command import (
    Collection,
    Model,
    OutputFormat,
    Weights,
    chosen_format,
    command,
    open_library,
    say,
    write_object,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format


@command(app, "ingest", encodes=True)
def ingest(
    settings: Settings,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Folders, files, or - for a list on stdin."),
    ],
    collection: Collection = "images",
    model: Model = None,
    weights: Weights = None,
    metadata: Annotated[
        Path | None,
        typer.Option(
            help="Fill the column metadata from this CSV or JSON lines file, keyed by a column "
            "path or file: a path or a file name."
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete rows under PATH whose files are gone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if any file could not be read.")
    ] = False,
    format_: OutputFormat = None,
) -> None:
    """Turn folders of images into rows: embed what is new, note what moved or changed.

    Run it again at any time; it carries on where it was interrupted, and opens only files whose
    size or time has changed.
    """
    from vecsearch.render.rows import require_object_format
    from vecsearch.terminal import ingest_progress

    require_object_format(format_)
    with open_library(settings) as library, ingest_progress() as progress:
        summary = library.ingest(
            _expand_stdin(paths),
            collection=collection,
            model=model,
            weights=weights,
            metadata=metadata,
            prune=prune,
            dry_run=dry_run,
            on_progress=progress,
        )
    for note in progress.notes:
        say(note)
    counts = vars(summary)
    if chosen_format(format_) is Format.table:
        parts = [f"{count:,} {name}" for name, count in counts.items() if count]
        typer.echo(f"{'would be ' if dry_run else ''}{', '.join(parts) or 'no images found'}")
    else:
        write_object(counts, format_)
    if summary.failed:
        if not dry_run:
            say(f"To see what failed and why: vecsearch errors{_collection_flag(collection)}")
        if strict:
            raise typer.Exit(1)


def _expand_stdin(paths: list[str]) -> list[str]:
    listed = [line.rstrip("\r\n") for line in sys.stdin] if "-" in paths else []
    named = [path for path in paths if path != "-"]
    return [*named, *(line for line in listed if line)]


def _collection_flag(collection: str) -> str:
    return "" if collection == "images" else f" --collection {collection}"


@command(train_app, "autoencoder", encodes=True)
def train_autoencoder(
    settings: Settings,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Folders, files, or - for a list on stdin."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write; use it as --model.")
    ] = Path("autoencoder.safetensors"),
    latent: Annotated[int, typer.Option(help="Numbers in one embedding.")] = 16,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 30,
    seed: Annotated[int, typer.Option(help="The same seed and images give the same file.")] = 0,
    format_: OutputFormat = None,
) -> None:
    """Train an encoder on your own images: no download, a small file, a few numbers a picture.

    A fifth of the images is held out, and the epoch that draws those best is kept.
    """
    from vecsearch.library import Library
    from vecsearch.terminal import training_progress

    with training_progress() as progress:
        results = [
            progress.epoch(epoch)
            for epoch in Library.train_autoencoder(
                _expand_stdin(paths),
                output,
                settings=settings,
                latent=latent,
                epochs=epochs,
                seed=seed,
                on_unreadable=lambda item: say(f"Left out {item.path}: {item.reason}"),
                on_batch=progress.batch,
            )
        ]
    best = min(results, key=lambda result: result.validation_loss)
    write_rows(
        results,
        format_,
        columns=["epoch", "training_loss", "validation_loss", "best"],
    )
    say(f"Kept epoch {best.epoch} in {output}. Use it: vecsearch ingest FOLDER --model {output}")


@command(app, "demo", encodes=True)
def demo(
    settings: Settings,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to put the pictures and the sheet.")
    ] = Path("vecsearch-demo"),
    weights: Weights = None,
    format_: OutputFormat = None,
) -> None:
    """Draw some pictures, ingest them, query a few, show the result: works with no network."""
    from vecsearch.demo import run
    from vecsearch.terminal import ingest_progress

    with open_library(settings) as library, ingest_progress() as progress:
        result = run(library, output, weights=weights, say=say, on_progress=progress)
    write_rows(
        result.queries,
        format_,
        columns=["query", "family", "same_family", "of"],
    )
    say(
        f"{result.same_family} of the {result.of} nearest are of the query's own family; "
        f"by chance it would be {result.by_chance:.0f}."
    )
    say(f"Contact sheet: {result.sheet}")
    say(f"Look further: vecsearch query {result.example} --collection demo")
