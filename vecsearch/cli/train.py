"""The commands train: an encoder from the user's own images."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    INTERRUPTED,
    FormatOption,
    PathsArgument,
    command,
    expand_stdin,
    group,
    say,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.encoders.autoencoder import EPOCHS, IMAGE_SIZES, LATENT, PATIENCE, SEED
from vecsearch.render.rows import require_object_format
from vecsearch.vocabulary import counted

if TYPE_CHECKING:
    from vecsearch.encoders.autoencoder.training import Training

# Two rows of eight.
PLOTTED = 12
_SIZES = f"{', '.join(map(str, IMAGE_SIZES[:-1]))} or {IMAGE_SIZES[-1]}"

train_app = group("train", "Train an encoder on your own images.")


@command(train_app, "autoencoder", encodes=True)
def train_autoencoder(
    settings: Settings,
    paths: PathsArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write; pass it as --model.")
    ] = Path("autoencoder.safetensors"),
    latent: Annotated[int, typer.Option(help="Numbers in one embedding.")] = LATENT,
    epochs: Annotated[
        int | None,
        typer.Option(
            help=f"At most this many passes over the images. Default: {EPOCHS}; with --resume, as "
            "before."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help=f"Squash images to this many pixels a side: {_SIZES}. "
            "Default: chosen by the size of most of them."
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            help="Stop after this many epochs without a better validation loss; 0: never."
        ),
    ] = PATIENCE,
    seed: Annotated[int, typer.Option(help="The same seed and images give the same file.")] = SEED,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a training that was interrupted.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw held-out images, their reconstructions and the losses here."),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Train an encoder on your own images: no download, a small file, a few numbers per picture.

    A fifth of the images is held out, and the epoch that reconstructs those best is kept. Interrupt
    it at any time; the same command with --resume continues after the last finished epoch.
    """
    from vecsearch.cli.progress import training_progress
    from vecsearch.library import Library
    from vecsearch.render import saving

    require_object_format(format_)
    if plot is not None:
        saving.require_picture_file(plot)
    with training_progress() as progress:
        training = Library.train_autoencoder(
            expand_stdin(paths),
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
        last = "epoch" if patience == 1 else counted(patience, "epoch")
        say(f"Stopped early: the last {last} did not improve the validation loss.")
    elif training.epochs[-1].best:
        say("The last epoch was the best: more --epochs may improve the validation loss.")
    say(
        f"Kept epoch {kept} in {output}. "
        f"Use it: vecsearch ingest FOLDER --collection NAME --model {shlex.quote(str(output))}"
    )


def _how_to_go_on(training: "Training") -> str:
    if not training.checkpoint.exists():
        return "Interrupted before the first epoch finished, so nothing is kept."
    return (
        f"Interrupted. {training.checkpoint} keeps the finished epochs; "
        "run the same command with --resume to continue."
    )
