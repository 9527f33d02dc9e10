"""Commands that move embeddings in and out of files: import, export."""

from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.apps import app
from vecsearch.cli.command import (
    Collection,
    IndexMethod,
    OutputFormat,
    Weights,
    chosen_format,
    command,
    open_library,
    say,
    write_object,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format, require_object_format


@command(app, "import", encodes=True)
def import_(
    settings: Settings,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .npz or .parquet file.")],
    collection: Collection = "images",
    model: Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_MODEL",
            help="What made the embeddings, in any words. Our own exports say it.",
        ),
    ] = None,
    weights: Weights = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where relative paths begin. Default: the folder that FILE is in."),
    ] = None,
    index: IndexMethod = None,
    format_: OutputFormat = None,
) -> None:
    """Store embeddings that were made elsewhere: all of a file, or nothing.

    CSV has a path and then numbers on each line, with a header or without; NPZ has the arrays
    paths and embeddings; Parquet has a column path and a column of lists. Pictures that are at
    hand are read, so that a query by one of them finds its row. With --model and --weights, new
    pictures can be searched for, too.
    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.ingest.transfer import UNKNOWN_MODEL

    require_object_format(format_)
    with open_library(settings) as library, steps_progress() as progress:
        done = library.import_file(
            file,
            collection=collection,
            model=model,
            weights=weights,
            root=root,
            index=index,
            on_progress=progress,
        )
    if chosen_format(format_) is Format.table:
        typer.echo(f"{done.added:,} added, {done.updated:,} updated")
    else:
        write_object(done.counts(), format_)
    for note in done.notes:
        say(note)
    if done.model == UNKNOWN_MODEL:
        say("The file does not say what made its embeddings; --model NAME would record it.")
    without = done.added + done.updated - done.with_file
    if without:
        say(
            f"The pictures of {without:,} rows are not at hand, so a query by such a picture does "
            "not find its row; --id does. If relative paths begin elsewhere, import into a new "
            "--collection with --root FOLDER: other paths are other rows."
        )


@command(app, "export")
def export(
    settings: Settings,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv, .npz or .parquet file, replaced.")
    ],
    collection: Collection = "images",
    format_: OutputFormat = None,
) -> None:
    """Write a collection's embeddings to a file.

    NPZ and Parquet hold every column and what the encoder was; CSV holds paths and numbers alone.
    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.ingest.formats.base import carries_columns

    require_object_format(format_)
    with open_library(settings) as library, steps_progress() as progress:
        rows = library.export_file(file, collection=collection, on_progress=progress)
    if chosen_format(format_) is Format.table:
        typer.echo(f"{rows:,} exported")
    else:
        write_object({"exported": rows}, format_)
    if not carries_columns(file):
        say("CSV holds paths and numbers; NPZ and Parquet take every column and the encoder along.")
