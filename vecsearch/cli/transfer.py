"""Embeddings in and out of files: the commands import and export."""

from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    NewIndexOption,
    WeightsOption,
    app,
    chosen_format,
    command,
    open_library,
    say,
    say_all,
    show,
    write_object,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format, require_object_format
from vecsearch.vocabulary import DEFAULT_COLLECTION, command_line, counted


@command(app, "import", encodes=True)
def import_(
    settings: Settings,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .npz or .parquet file.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_MODEL",
            help="Name of the model that computed the embeddings. Exports of vecsearch include it.",
        ),
    ] = None,
    weights: WeightsOption = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where relative paths start. Default: FILE's folder."),
    ] = None,
    index: NewIndexOption = None,
    format_: FormatOption = None,
) -> None:
    """Store embeddings from another program or database: all of a file, or nothing.

    Each CSV line holds a path and the numbers, or a vector as Postgres writes it, "[0.1,0,0.3]",
    below a header or not; NPZ holds the arrays paths and embeddings; Parquet holds a column path
    and a column of lists. Images that exist are read, so that a query by one of them finds its row.
    With --model and --weights, queries by new images work, too.
    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.ingest.transfer import UNKNOWN_MODEL

    require_object_format(format_)
    with open_library(settings) as library, steps_progress() as progress:
        done = library.collection(collection).import_file(
            file,
            model=model,
            weights=weights,
            root=root,
            index=index,
            on_progress=progress,
        )
    if chosen_format(format_) is Format.table:
        show(f"{done.added:,} added, {done.updated:,} updated")
    else:
        write_object(done.counts(), format_)
    say_all(done.notes)
    if done.model == UNKNOWN_MODEL:
        say(
            "The file does not name its model, so a new picture cannot be searched for. "
            f"To name it: {command_line('drop', collection)}, and import it again with --model NAME"
        )
    without = done.added + done.updated - done.with_file
    if without:
        say(
            f"The images of {counted(without, 'row')} were not found: query them with --id, not by "
            "picture. If relative paths start in another folder, import into a new --collection "
            "with --root FOLDER."
        )


@command(app, "export")
def export(
    settings: Settings,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv, .npz or .parquet file; replaced.")
    ],
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """Write a collection's embeddings to a file.

    NPZ and Parquet hold every column and the encoder's identity; CSV holds only paths and numbers.
    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.ingest.formats import carries_columns

    require_object_format(format_)
    with open_library(settings) as library, steps_progress() as progress:
        rows = library.collection(collection).export_file(file, on_progress=progress)
    if chosen_format(format_) is Format.table:
        show(f"{rows:,} exported")
    else:
        write_object({"exported": rows}, format_)
    if not carries_columns(file):
        say("CSV holds paths and numbers; NPZ and Parquet also hold the columns and the encoder.")
