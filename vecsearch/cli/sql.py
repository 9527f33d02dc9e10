"""The command sql."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from vecsearch.cli.command import (
    FormatOption,
    app,
    command,
    open_library,
    read_stdin,
    say,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import READING_S


class _Statement(TyperCommand):
    """Takes a statement that begins with an SQL comment for no option: those have no spaces."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [f"\n{word}" if _is_comment(word) else word for word in args]
        return super().parse_args(ctx, words)


def _is_comment(word: str) -> bool:
    return word.startswith("--") and any(map(str.isspace, word.partition("=")[0]))


@command(app, "sql", prints_paths=True, class_=_Statement)
def sql(
    settings: Settings,
    statement: Annotated[str, typer.Argument(help="One SQL statement, or - to read it on stdin.")],
    write: Annotated[
        bool, typer.Option("--write", help="Allow changes; otherwise it is read-only.")
    ] = False,
    timeout: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help="Stop the statement after this long; 0: never. "
            f"Default: {READING_S}, or 0 with --write.",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Run one SQL statement and print its rows."""
    text = _on_stdin() if statement == "-" else statement
    with (
        open_library(settings) as library,
        library.sql(text, write=write, timeout=timeout) as (columns, rows, summary),
    ):
        if columns:
            write_rows(rows, format_, columns=columns, hides_empty=False)
        else:
            say(summary)


def _on_stdin() -> str:
    try:
        return read_stdin().decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The statement is not UTF-8: {error}. Save it as UTF-8.") from error
