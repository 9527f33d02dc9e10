"""Commands that turn pictures into vectors: ingest, train, demo."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.apps import app, train_app
from vecsearch.cli.command import (
    INTERRUPTED,
    Collection,
    IndexMethod,
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
from vecsearch.vocabulary import Precision

if TYPE_CHECKING:
    from vecsearch.encoders.autoencoder.training import Training


# Two rows of eight.
PLOTTED = 12


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
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="For a new collection: int8 calibrates the encoder on your own images, embeds "
            "faster, and says how its neighbours differ from fp32's. Default: fp32."
        ),
    ] = None,
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
    index: IndexMethod = None,
    format_: OutputFormat = None,
) -> None:
    """Turn folders of images into rows: embed what is new, note what moved or changed.

    Run it again at any time; it carries on where it was interrupted, and opens only files whose
    size or time has changed.
    """
    from vecsearch.cli.progress import ingest_progress
    from vecsearch.render.rows import require_object_format

    require_object_format(format_)
    with open_library(settings) as library, ingest_progress() as progress:
        summary = library.ingest(
            _expand_stdin(paths),
            collection=collection,
            model=model,
            weights=weights,
            precision=precision,
            metadata=metadata,
            prune=prune,
            dry_run=dry_run,
            index=index,
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
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the images, at most. Default: 30; with --resume, as many as before."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Squash images to this many pixels a side: 32, 64, 128 or 256. "
            "Default: by the size of most of them."
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(help="Stop after so many epochs without a better validation loss; 0: never."),
    ] = 5,
    seed: Annotated[int, typer.Option(help="The same seed and images give the same file.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw held-out images, their reconstructions and the losses here."),
    ] = None,
    format_: OutputFormat = None,
) -> None:
    """Train an encoder on your own images: no download, a small file, a few numbers a picture.

    A fifth of the images is held out, and the epoch that draws those best is kept. Interrupt it
    at any time; the same command with --resume goes on after the last epoch that was finished.
    """
    from vecsearch.cli.progress import training_progress
    from vecsearch.library import Library
    from vecsearch.render import saving
    from vecsearch.render.rows import require_object_format

    require_object_format(format_)
    if plot is not None:
        saving.require_picture_file(plot)
    with training_progress() as progress:
        training = Library.train_autoencoder(
            _expand_stdin(paths),
            output,
            settings=settings,
            latent=latent,
            epochs=epochs,
            image_size=image_size,
            patience=patience,
            seed=seed,
            resume=resume,
            on_unreadable=lambda item: say(f"Left out {item.path}: {item.reason}"),
            on_batch=progress.batch,
        )
        try:
            for epoch in training:
                progress.epoch(epoch)
        except KeyboardInterrupt:
            say(_how_to_go_on(training))
            raise typer.Exit(INTERRUPTED) from None
    kept = [epoch.epoch for epoch in training.epochs if epoch.best][-1]
    if plot is not None:
        originals, drawn = training.reconstructions(PLOTTED)
        title = f"{output.name}: held-out pictures and their reconstructions"
        from vecsearch.render import sheets

        sheet = sheets.training_sheet(training.epochs, originals, drawn, title=title)
        saving.save_picture(sheet, plot)
    write_rows(
        training.epochs,
        format_,
        columns=["epoch", "training_loss", "validation_loss", "best"],
    )
    if len(training.epochs) < training.planned:
        last = "epoch" if patience == 1 else f"{patience} epochs"
        say(f"Stopped early: the last {last} drew the held-out images no better.")
    elif training.epochs[-1].best:
        say("The last epoch was the best: more --epochs may draw the held-out images better.")
    say(
        f"Kept epoch {kept} in {output}. "
        f"Use it: vecsearch ingest FOLDER --collection NAME --model {output}"
    )


def _how_to_go_on(training: "Training") -> str:
    if not training.checkpoint.exists():
        return "Interrupted before an epoch was finished, so nothing is kept."
    return (
        f"Interrupted. {training.checkpoint} keeps the epochs that were finished; "
        "run the same command with --resume to go on."
    )


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
    from vecsearch.cli.progress import ingest_progress
    from vecsearch.demo import run

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
    say("Or in a browser: vecsearch serve --collection demo --open")
