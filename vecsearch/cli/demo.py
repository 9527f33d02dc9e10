"""The command demo."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.command import (
    FormatOption,
    app,
    command,
    open_library,
    say,
    write_rows,
)
from vecsearch.config import Settings


@command(app, "demo", encodes=True)
def demo(
    settings: Settings,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Where the pictures and the sheet go."
        ),
    ] = Path("vecsearch-demo"),
    train: Annotated[
        bool,
        typer.Option("--train", help="Train an autoencoder on the pictures, and use that."),
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Draw some pictures, ingest them, query a few, show the result: works with no network."""
    from vecsearch.cli.progress import ingest_progress
    from vecsearch.demo.script import run

    say(f"This takes {'a few minutes' if train else 'about half a minute the first time'}.")
    with open_library(settings) as library, ingest_progress() as progress:
        result = run(library, output, train=train, say=say, on_progress=progress)
    write_rows(
        result.queries,
        format_,
        columns=["query", "family", "same_family", "of"],
    )
    say(
        f"{result.same_family} of the {result.of} nearest are of the query's own family; "
        f"random answers would give {result.by_chance:.0f}."
    )
    for item in result.words:
        found = f"{item.same_family} of the {item.of} nearest are in {item.family}/"
        say(f'--text "{item.query}": {found}')
    for group in result.duplicates:
        say(f"Near-duplicates: {' and '.join(group)}")
    say(f"Contact sheet: {result.sheet}")
    say(f"Try next: vecsearch query {shlex.quote(str(result.example))} -c {result.collection}")
    say(f"On a page: vecsearch serve --collection {result.collection} --open")
