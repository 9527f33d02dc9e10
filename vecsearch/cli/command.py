"""How a command is declared: the options commands share, and where errors become exits."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecsearch.config import Settings
from vecsearch.errors import VecsearchError
from vecsearch.render import rows as rendering
from vecsearch.render.rows import Format

if TYPE_CHECKING:
    from vecsearch.library import Library


INTERRUPTED = 130

Collection = Annotated[
    str,
    typer.Option("--collection", "-c", envvar="VECSEARCH_COLLECTION", help="Which collection."),
]
Model = Annotated[
    str | None,
    typer.Option(
        envvar="VECSEARCH_MODEL",
        help="A timm model, also with a layer, such as resnet50.layer3 or vgg16.fc1; "
        "or a file made by `train autoencoder`. "
        "Default: the collection's own; for a new one, resnet50.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        envvar="VECSEARCH_WEIGHTS",
        help="Read the model's weights from this safetensors file or PyTorch state dict. "
        "Default: where the collection's came from; for a new one, the model hub.",
    ),
]


class IndexMethodName(StrEnum):
    """As `vecsearch.search.indexes.build.Method`, which would load what --help does not need."""

    hnsw = "hnsw"
    compact = "compact"
    none = "none"


INDEX_METHODS = (
    "hnsw indexes the embeddings; compact indexes their principal components, which takes a tenth "
    "of the space and of the time to build, and re-ranks what that finds by the embeddings; none "
    "compares every image."
)
# Of commands that make collections.
IndexMethod = Annotated[
    IndexMethodName | None,
    typer.Option(
        "--index",
        help=f"The index of a new collection: {INDEX_METHODS} Default: hnsw.",
    ),
]
OutputFormat = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        envvar="VECSEARCH_FORMAT",
        help="How to print. Default: table on a terminal, ndjson in a pipe.",
    ),
]

_SHARED = {
    "database_url": Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="VECSEARCH_DATABASE_URL",
            help="Your own Postgres >= 16 with pgvector >= 0.8. Default: the embedded one.",
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
_ENCODING = {
    "device": Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_DEVICE", help="Run the encoder on auto, cpu or cuda. Default: auto."
        ),
    ],
    "engine": Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_ENGINE",
            help="Run the encoder by auto, openvino or torch. Default: auto, which is OpenVINO "
            "on a CPU and torch elsewhere.",
        ),
    ],
    "max_pixels": Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="VECSEARCH_MAX_PIXELS",
            help="Refuse pictures with more pixels. Default: 128 million.",
        ),
    ],
}


@contextmanager
def _exits(*, debug: bool) -> Iterator[None]:
    """Turn what a command raises into a sentence and an exit status; the one place for it."""
    try:
        yield
    except KeyboardInterrupt:
        say("Interrupted. An ingest keeps every batch that was finished; run it again to go on.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader, `head` say, has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            raise
        say(f"error: {_sentence(error)}")
        raise typer.Exit(1) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, VecsearchError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}. Check the path and the disk's space."
    return (
        f"Unexpected {type(error).__name__}: {error}. This is a fault in vecsearch; "
        "run it again with --debug for the traceback to report."
    )


def command(
    to: typer.Typer, name: str, *, encodes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first argument is the `Settings` that its shared options make."""
    shared = _SHARED | (_ENCODING if encodes else {})

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**options: Any) -> None:
            debug = options.pop("debug") or False
            given = {key: options.pop(key) for key in shared if key != "debug"}
            with _exits(debug=debug):
                function(Settings.load(**given), **options)
                sys.stdout.flush()

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        added = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if key == "debug" else None,
                annotation=annotation,
            )
            for key, annotation in shared.items()
        ]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # Typer reads it
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
        to.command(name)(run)
        return function

    return register


def say(text: str) -> None:
    """Tell the user something that is not data."""
    typer.echo(text, err=True)


def open_library(
    settings: Settings, *, keep_running: bool = False, session: Mapping[str, str] | None = None
) -> "Library":
    """Open the settings' database, and import what works on it while its server starts."""
    from vecsearch.postgres.embedded import server

    with ExitStack() as resources:
        url = settings.database_url or resources.enter_context(
            server.lease(settings.data_dir, keep_running=keep_running, meanwhile=_import_library)
        )
        from vecsearch.library import Library

        return Library(settings, url, resources.pop_all(), session)


def _import_library() -> None:
    import vecsearch.library  # noqa: F401 - for its time alone


def chosen_format(chosen: Format | None) -> Format:
    """Return the format to print in: table on a terminal, ndjson in a pipe, unless one is named."""
    return chosen or (Format.table if sys.stdout.isatty() else Format.ndjson)


def write_rows(rows: Any, chosen: Format | None, **columns: Any) -> None:
    """Print rows to stdout; see `vecsearch.render.rows.write_rows`."""
    rendering.write_rows(sys.stdout, rows, chosen_format(chosen), **columns)


def write_object(value: dict[str, Any], chosen: Format | None) -> None:
    """Print one object to stdout; see `vecsearch.render.rows.write_object`."""
    rendering.write_object(sys.stdout, value, chosen_format(chosen))
