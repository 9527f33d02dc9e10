"""How a command is declared: the options commands share, and where errors become exits."""

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vecsearch import __version__
from vecsearch.config import DEFAULT_MAX_PIXELS, Settings
from vecsearch.encoders.base import DEFAULT_MODEL, PACKAGED_MODEL
from vecsearch.encoders.registry import FAMILIES
from vecsearch.errors import InvalidInput, VecsearchError
from vecsearch.imaging.reading import MOST_BYTES
from vecsearch.render import rows as rendering
from vecsearch.render.rows import Format
from vecsearch.render.visible import shown
from vecsearch.vocabulary import (
    DEFAULT_K,
    BuildOption,
    Engine,
    IndexMethod,
    Metric,
    build_options,
    choices,
)

if TYPE_CHECKING:
    from vecsearch.library import Library

INTERRUPTED = 130

app = typer.Typer(
    name="vecsearch",
    help="Image search that is Postgres: a folder becomes a table, a search is one SQL statement.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CollectionOption = Annotated[
    str,
    typer.Option("--collection", "-c", envvar="VECSEARCH_COLLECTION", help="Which collection."),
]
MODELS = "; or ".join(family.help for family in reversed(FAMILIES))
ModelOption = Annotated[
    str | None,
    typer.Option(
        envvar="VECSEARCH_MODEL",
        help=f"{MODELS[0].upper()}{MODELS[1:]}. "
        f"Default: the collection's own; for a new one, {DEFAULT_MODEL}, "
        f"or {PACKAGED_MODEL} if its weights cannot be downloaded.",
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        envvar="VECSEARCH_WEIGHTS",
        help="Read the model's weights from this safetensors file or PyTorch state dict. "
        "Default: where the collection's came from; for a new one, the model hub.",
    ),
]
MetricOption = Annotated[
    Metric | None,
    typer.Option(
        envvar="VECSEARCH_METRIC",
        help=f"How to measure distance: {choices(Metric)}. "
        f"Default: the collection's, which is {Metric.cosine}.",
    ),
]
KOption = Annotated[
    int,
    typer.Option(
        "-k", envvar="VECSEARCH_K", help=f"Neighbours per query image. Default: {DEFAULT_K}."
    ),
]
INDEX_METHODS = "; ".join(f"{method} {method.help}" for method in IndexMethod)
# For commands that create collections.
NewIndexOption = Annotated[
    IndexMethod | None,
    typer.Option(
        "--index",
        help=f"The index of a new collection: {INDEX_METHODS}. Default: {IndexMethod.hnsw}.",
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        envvar="VECSEARCH_FORMAT",
        help="How to print. Default: table on a terminal, ndjson in a pipe.",
    ),
]
NullOption = Annotated[
    bool,
    typer.Option("--null", "-0", help="End paths with NUL, for xargs -0: --format paths0."),
]
PathsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="Folders, files, zip archives, videos, URLs such as s3://bucket/photos, or - for a "
        "list on stdin.",
    ),
]

SHARED = {
    "database_url": Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="VECSEARCH_DATABASE_URL",
            help="Your own Postgres >= 16 with pgvector >= 0.8, or a primary and standbys "
            "(docs/scale.md). Default: the embedded one.",
        ),
    ],
    "reader_url": Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="VECSEARCH_READER_URL",
            help="The same database as a role that can only read; searches and `vecsearch sql` "
            "use it. Default: the role of --database-url.",
        ),
    ],
    "data_dir": Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="VECSEARCH_DATA_DIR",
            help="Where the embedded database lives. Default: your user data folder.",
        ),
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", envvar="VECSEARCH_DEBUG", help="Show tracebacks.")
    ],
}
ENCODING = {
    "device": Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_DEVICE",
            help="Where the encoder runs: auto, cpu or cuda. Default: auto.",
        ),
    ],
    "engine": Annotated[
        Engine | None,
        typer.Option(
            envvar="VECSEARCH_ENGINE",
            help=f"What runs the encoder: {choices(Engine)}. Default: auto, which is OpenVINO "
            "on a CPU and torch elsewhere.",
        ),
    ],
    "max_pixels": Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="VECSEARCH_MAX_PIXELS",
            help=f"Refuse pictures with more pixels. Default: {DEFAULT_MAX_PIXELS:,}.",
        ),
    ],
}


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


def group(name: str, help_: str) -> typer.Typer:
    """Declare a command that has commands of its own."""
    made = typer.Typer(help=help_)
    app.add_typer(made, name=name, no_args_is_help=True)
    return made


@contextmanager
def _exits(*, debug: bool, interrupted: str) -> Iterator[None]:
    """Turn what a command raises into a sentence and an exit status; the one place for it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        say(f"Interrupted. {stopped or interrupted}".rstrip())
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            raise
        say_error(error)
        raise typer.Exit(1) from None


def say_error(error: Exception) -> None:
    """Print what went wrong, in a sentence."""
    say(f"error: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    if isinstance(error, VecsearchError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}. Check the path and the disk's space."
    return (
        f"Unexpected {type(error).__name__}: {error}. This is a bug in vecsearch; "
        "run the command again with --debug for a traceback to report."
    )


def _build_option(option: BuildOption) -> Any:
    text = f"{option.help}. Default: {option.default}."
    return Annotated[int | None, typer.Option(option.flag, help=text)]


def command(
    to: typer.Typer,
    name: str,
    *,
    encodes: bool = False,
    builds: bool = False,
    prints_paths: bool = False,
    interrupted: str = "",
    class_: type[TyperCommand] = TyperCommand,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first argument is the `Settings` made from the shared options.

    Args:
        to: `app`, or a `group`.
        name: what users type.
        encodes: whether it takes the options of encoders.
        builds: whether it takes what indexes can be built with, as `**options`.
        prints_paths: whether its rows, in the format of its argument `format_`, have paths.
        interrupted: what to print after Ctrl-C, beside that the command was interrupted; a
            KeyboardInterrupt with a sentence of its own says that.
        class_: parses the words of the command line.

    """
    shared = SHARED | (ENCODING if encodes else {})
    declared = {option.name: _build_option(option) for option in build_options() if builds}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**options: Any) -> None:
            debug = options.pop("debug") or False
            given = {key: options.pop(key) for key in shared if key != "debug"}
            with _exits(debug=debug, interrupted=interrupted):
                if options.pop("null", False):
                    options["format_"] = _ended_by_nul(options["format_"])
                function(Settings.load(**given), **options)
                sys.stdout.flush()

        signature = inspect.signature(function, eval_str=True)
        own = [
            parameter
            for parameter in list(signature.parameters.values())[1:]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        printing = {"null": NullOption} if prints_paths else {}
        added = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if key in {"debug", "null"} else None,
                annotation=annotation,
            )
            for key, annotation in (printing | declared | shared).items()
        ]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # Typer reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        to.command(name, cls=class_)(run)
        return function

    return register


def say(text: str) -> None:
    """Print something that is not data."""
    typer.echo(shown(sys.stderr, text), err=True)


def show(text: str) -> None:
    """Print a line of text for people to stdout."""
    typer.echo(shown(sys.stdout, text))


def say_all(notes: Iterable[str]) -> None:
    """Print a result's notes."""
    for note in notes:
        say(note)


YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirming(question: str, *, yes: bool) -> Callable[[str], bool]:
    """Return what says a sentence and asks a question on a terminal; without one, it refuses.

    Args:
        question: asked after the sentence.
        yes: do neither, and confirm.

    """

    def confirm(sentence: str) -> bool:
        if yes:
            return True
        if not is_terminal():
            return False
        say(sentence)
        return typer.confirm(question, err=True)

    return confirm


def is_terminal() -> bool:
    """Return whether somebody can answer."""
    return sys.stdin.isatty()


def open_library(
    settings: Settings, *, keep_running: bool = False, session: Mapping[str, str] | None = None
) -> "Library":
    """Open the settings' database; the embedded server starts while Python imports the library."""
    from vecsearch.postgres.embedded import server

    with ExitStack() as resources:
        url = settings.database_url or resources.enter_context(
            server.lease(settings.data_dir, keep_running=keep_running, meanwhile=_import_library)
        )
        from vecsearch.library import Library

        return Library(settings, url, resources.pop_all(), session)


def _import_library() -> None:
    import vecsearch.library  # noqa: F401 - only to spend the time here


def _ended_by_nul(chosen: Format | None) -> Format:
    if chosen is not None and not chosen.lists_paths:
        raise InvalidInput(f"-0 prints paths, not {chosen}. Leave out -0 or --format.")
    return Format.paths0


def chosen_format(chosen: Format | None) -> Format:
    """Return the format to print in: table on a terminal, ndjson in a pipe, unless one is named."""
    return chosen or (Format.table if sys.stdout.isatty() else Format.ndjson)


def write_rows(rows: Any, chosen: Format | None, **options: Any) -> None:
    """Print rows to stdout; see `vecsearch.render.rows.write_rows`."""
    rendering.write_rows(sys.stdout, rows, chosen_format(chosen), **options)


def write_object(value: dict[str, Any], chosen: Format | None, *, dry_run: bool = False) -> None:
    """Print one object to stdout; see `vecsearch.render.rows.write_object`."""
    rendering.write_object(sys.stdout, value, chosen_format(chosen), dry_run=dry_run)


def read_stdin() -> bytes:
    """Return what is on standard input.

    Raises:
        InvalidInput: it is more than the largest file that is read.

    """
    content = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InvalidInput(
            f"Standard input has more than {MOST_BYTES // 10**6} MB, the limit. Send less."
        )
    return content


def expand_stdin(paths: list[str]) -> list[str]:
    """Replace - among the paths by those on standard input, which end with newlines or NULs."""
    text = os.fsdecode(read_stdin()) if "-" in paths else ""
    listed = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    named = [path for path in paths if path != "-"]
    return [*named, *(line for line in listed if line)]
