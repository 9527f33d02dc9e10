"""The command line: parse, one API call, print. The only opener, printer and exit.

Data goes to stdout, everything else to stderr. Exit 0: done; 1: it failed; 2: wrong usage.
"""

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vecsearch import __version__
from vecsearch.config import Settings
from vecsearch.errors import InvalidInput, VecsearchError
from vecsearch.render import Format

if TYPE_CHECKING:
    from vecsearch.library import Library

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
db_app = typer.Typer(help="The database underneath.")
app.add_typer(train_app, name="train", no_args_is_help=True)
app.add_typer(db_app, name="db", no_args_is_help=True)

INTERRUPTED = 130

Collection = Annotated[
    str,
    typer.Option("--collection", "-c", envvar="VECSEARCH_COLLECTION", help="Which collection."),
]
Model = Annotated[
    str | None,
    typer.Option(
        envvar="VECSEARCH_MODEL",
        help="A timm model, or a file made by `train autoencoder`. "
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
    "max_pixels": Annotated[
        int | None,
        typer.Option(
            min=1,
            envvar="VECSEARCH_MAX_PIXELS",
            help="Refuse pictures with more pixels. Default: 128 million.",
        ),
    ],
}


def command(
    to: typer.Typer, name: str, *, encodes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first argument is the `Settings` that its shared options make.

    The wrapper is where errors become sentences and exits.
    """
    shared = _SHARED | (_ENCODING if encodes else {})

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def run(**options: Any) -> None:
            debug = options.pop("debug") or False
            given = {key: options.pop(key) for key in shared if key != "debug"}
            try:
                function(Settings.load(**given), **options)
                sys.stdout.flush()
            except VecsearchError as error:
                if debug:
                    raise
                _fail(str(error))
            except KeyboardInterrupt:
                say("Interrupted. What was done so far is kept; the same command carries on.")
                raise typer.Exit(INTERRUPTED) from None
            except BrokenPipeError:
                # The reader, `head` say, has seen enough. Python would complain once more at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                if debug:
                    raise
                _fail(
                    f"Unexpected {type(error).__name__}: {error}. This is a fault in vecsearch; "
                    "run it again with --debug for the traceback to report."
                )

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


def _fail(text: str) -> NoReturn:
    say(f"error: {text}")
    raise typer.Exit(1)


def _open(settings: Settings, *, keep_running: bool = False) -> "Library":
    from vecsearch.library import Library

    return Library.open(settings, keep_running=keep_running)


def _format(chosen: Format | None) -> Format:
    return chosen or (Format.table if sys.stdout.isatty() else Format.ndjson)


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
    from vecsearch.terminal import ingest_progress

    with _open(settings) as library, ingest_progress() as progress:
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
    if _format(format_) is Format.table:
        parts = [f"{count:,} {name}" for name, count in counts.items() if count]
        typer.echo(f"{'would be ' if dry_run else ''}{', '.join(parts) or 'no images found'}")
    else:
        _write_object(counts, format_)
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


@command(app, "query", encodes=True)
def query(
    settings: Settings,
    image: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE|-]", help="An image file, or - for its bytes on stdin."),
    ] = None,
    collection: Collection = "images",
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            envvar="VECSEARCH_K",
            help="How many images at most. Default: 10; with a cut-off, all within it.",
        ),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Search by a stored image instead of a file.")
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Leave out what is less similar (cosine only), e.g. 0.65.")
    ] = None,
    max_distance: Annotated[float | None, typer.Option(help="Leave out what is farther.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_METRIC",
            help="cosine, l2, l1 or ip. Default: the collection's, which is cosine.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Search only rows that meet this condition, e.g. \"label = 'cat'\"."
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every row, without the index.")
    ] = False,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the query image's own row.")
    ] = False,
    show_sql: Annotated[
        bool, typer.Option("--show-sql", help="Print the SQL instead of the hits, ready for psql.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print Postgres' plan instead of the hits: index or exact."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the query and the hits to this file, too."),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    format_: OutputFormat = None,
) -> None:
    """Find the images nearest to a picture.

    An image that is in the collection is found by its content and its stored vector is used, so
    the answer comes at once.
    """
    source: Path | bytes | None = None
    if image is not None:
        source = sys.stdin.buffer.read() if image == "-" else Path(image)
    with _open(settings) as library:
        answer = library.query(
            source,
            collection=collection,
            model=model,
            weights=weights,
            k=k,
            id=id_,
            min_similarity=min_similarity,
            max_distance=max_distance,
            metric=metric,
            where=where,
            exact=exact,
            exclude_self=exclude_self,
        )
        drawn_query = source
        if plot is not None and id_ is not None:
            drawn_query = Path(library.image_path(id_, collection=collection))
    if show_sql:
        typer.echo(answer.sql)
        return
    if explain:
        typer.echo(answer.plan)
        typer.echo(
            "Answered by the HNSW index."
            if answer.uses_index
            else "Answered by an exact scan: every row is compared."
        )
        return
    if k is not None and len(answer.hits) == k and (min_similarity, max_distance) != (None, None):
        say(f"Stopped at -k {k}; leave it out for every image within the cut-off.")
    if not answer.hits:
        say("No image matches.")
    _write_rows(
        answer.hits,
        format_,
        columns=_field_names("Hit"),
        table_columns=["rank", "distance", "similarity", "label", "path"],
    )
    if plot is not None and drawn_query is not None:
        from vecsearch import render

        sheet = render.contact_sheet(
            drawn_query,
            answer.hits,
            title=f"Nearest in {collection}",
            max_pixels=settings.max_pixels,
        )
        render.save_picture(sheet, plot)
        say(f"Drew {plot}")


@command(app, "collections")
def collections(settings: Settings, format_: OutputFormat = None) -> None:
    """List the collections."""
    with _open(settings) as library:
        rows = library.collections()
    if not rows:
        say("There are no collections yet. Start with: vecsearch ingest FOLDER")
    _write_rows(
        rows,
        format_,
        columns=["name", "model", "dimensions", "metric", "images", "weights", "created_at"],
    )


@command(app, "status")
def status(settings: Settings, format_: OutputFormat = None) -> None:
    """Show versions, sizes, and the state of every index."""
    from dataclasses import asdict

    from vecsearch.render import human_bytes

    with _open(settings) as library:
        report = library.status()
    if _format(format_) is not Format.table:
        _write_object(asdict(report), format_)
        return
    kind = "embedded" if report.embedded else "your own"
    typer.echo(f"database    {report.database} ({kind})")
    typer.echo(f"versions    PostgreSQL {report.postgres}, pgvector {report.pgvector or 'missing'}")
    if report.advice:
        typer.echo(f"advice      {report.advice}")
    _write_rows(
        [
            (
                row.name,
                row.model,
                row.dimensions,
                row.images,
                row.errors,
                human_bytes(row.table_bytes),
                "none: every search is exact" if row.index == "none" else row.index,
                human_bytes(row.index_bytes),
            )
            for row in report.collections
        ],
        Format.table,
        columns=[
            "collection",
            "model",
            "dimensions",
            "images",
            "errors",
            "table",
            "index",
            "index_size",
        ],
    )


@command(app, "errors")
def errors(
    settings: Settings, collection: Collection = "images", format_: OutputFormat = None
) -> None:
    """List the files that could not be ingested, and why."""
    with _open(settings) as library:
        rows = library.errors(collection=collection)
    if not rows:
        say(f"Every file of collection {collection!r} could be read.")
    _write_rows(rows, format_, columns=["path", "error", "at"], table_columns=["path", "error"])


@command(app, "sql")
def sql(
    settings: Settings,
    statement: Annotated[str, typer.Argument(help="One SQL statement, or - to read it on stdin.")],
    write: Annotated[
        bool, typer.Option("--write", help="Allow changes; otherwise it is read-only.")
    ] = False,
    format_: OutputFormat = None,
) -> None:
    """Run one SQL statement and print its rows."""
    text = sys.stdin.read() if statement == "-" else statement
    with _open(settings) as library, library.sql(text, write=write) as (columns, rows, summary):
        if columns:
            _write_rows(rows, format_, columns=columns)
        else:
            say(summary)


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
    _write_rows(
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

    with _open(settings) as library, ingest_progress() as progress:
        result = run(library, output, weights=weights, say=say, on_progress=progress)
    _write_rows(
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


@command(db_app, "url")
def db_url(settings: Settings) -> None:
    """Print the database's URL, for psql and every other client.

    The embedded server is started, and stays up until `vecsearch db stop`.
    """
    with _open(settings, keep_running=True) as library:
        typer.echo(library.url)
    if settings.database_url is None and sys.stderr.isatty():
        say("The embedded Postgres stays up until: vecsearch db stop")


@command(db_app, "start")
def db_start(settings: Settings) -> None:
    """Start the embedded Postgres and leave it running for other programs."""
    _require_embedded(settings)
    with _open(settings, keep_running=True) as library:
        say(f"Running at {library.url} until: vecsearch db stop")


@command(db_app, "stop")
def db_stop(settings: Settings) -> None:
    """Stop the embedded Postgres."""
    _require_embedded(settings)
    from vecsearch import server

    if server.stop(settings.data_dir):
        say("Stopped.")
    else:
        say("Another vecsearch command is using it; it stops when that one ends.")


@command(db_app, "shell")
def db_shell(
    settings: Settings,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PSQL OPTIONS]", help="Handed to psql.")
    ] = None,
) -> None:
    """Open psql on the database."""
    from vecsearch import server

    # The embedded server's own psql knows its version; another server's client is on the PATH.
    own = None if settings.database_url is None else shutil.which("psql")
    with _open(settings) as library:
        psql = own or str(server.program("psql"))
        finished = subprocess.run([psql, library.url, *(arguments or [])], check=False)  # noqa: S603 - the user's own shell
    raise typer.Exit(finished.returncode)


@command(db_app, "upgrade")
def db_upgrade(settings: Settings) -> None:
    """Create the tables, or bring them up to date with this version."""
    from vecsearch import schema

    with _open(settings) as library:
        library.upgrade()
    say(f"The tables are at revision {schema.REVISION}.")


def _require_embedded(settings: Settings) -> None:
    if settings.database_url is not None:
        raise InvalidInput(
            "This starts and stops the embedded Postgres, and a database URL is set. "
            "Unset VECSEARCH_DATABASE_URL, or manage your own server with its own tools."
        )


def _field_names(name: str) -> list[str]:
    from vecsearch import library

    return list(getattr(library, name).__dataclass_fields__)


def _write_rows(rows: Any, chosen: Format | None, **columns: Any) -> None:
    from vecsearch import render

    render.write_rows(sys.stdout, rows, _format(chosen), **columns)


def _write_object(value: dict[str, Any], chosen: Format | None) -> None:
    from vecsearch import render

    render.write_object(sys.stdout, value, _format(chosen))


def main() -> None:
    """Run the command line."""
    app()
