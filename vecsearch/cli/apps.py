"""The tree that commands hang from."""

from typing import Annotated

import typer

from vecsearch import __version__

app = typer.Typer(
    name="vecsearch",
    help="Image search that is Postgres: a folder becomes a table, a search is one SQL statement.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(help="Make an encoder of your own, from your own images.")
index_app = typer.Typer(help="What makes searches fast: built while they go on.")
db_app = typer.Typer(help="The database underneath.")
app.add_typer(train_app, name="train", no_args_is_help=True)
app.add_typer(index_app, name="index", no_args_is_help=True)
app.add_typer(db_app, name="db", no_args_is_help=True)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Image search that is Postgres."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
