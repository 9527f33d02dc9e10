"""The commands ingest, watch and forget."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    ModelOption,
    NewIndexOption,
    PathsArgument,
    WeightsOption,
    YesOption,
    app,
    chosen_format,
    command,
    confirming,
    expand_stdin,
    open_library,
    say,
    say_all,
    say_error,
    show,
    write_object,
)
from vecsearch.config import Settings
from vecsearch.errors import CollectionNotFound, SchemaMissing, VecsearchError
from vecsearch.ingest.summary import PruneRefused, Summary
from vecsearch.render.rows import Format, require_object_format
from vecsearch.vocabulary import (
    DEFAULT_COLLECTION,
    PRUNED_UNASKED,
    Precision,
    command_line,
    counted,
)

if TYPE_CHECKING:
    from vecsearch.collection import Collection

# Counts whose names are not clear in a table.
IN_WORDS = {"copied": "identical to stored images"}


PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help=f"For a new collection: {Precision.int8} calibrates the encoder on your own "
        f"images, embeds faster, and prints how its neighbours differ from {Precision.fp32}'s. "
        f"Default: {Precision.fp32}."
    ),
]
MetadataOption = Annotated[
    Path | None,
    typer.Option(
        help="Fill the column metadata from this CSV or JSON lines file. Its column path or file "
        "names the image, by path or file name."
    ),
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The label of all these images, stored ones included. Default: an image that is new "
        "or has moved gets its folder's name; others keep theirs.",
    ),
]
LabelRegexOption = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Take the label from the column path instead: the group label of this regular "
        "expression, its first group, or the whole match. No match: the folder's name.",
    ),
]
WITHOUT_FILES = "Delete rows under PATH whose files are gone."
GUARDED = (
    f"every row under a PATH, over a tenth of them (and over {PRUNED_UNASKED}), or over "
    f"{PRUNED_UNASKED} rows of a subfolder that has no image left."
)


@command(app, "ingest", encodes=True)
def ingest(
    settings: Settings,
    paths: PathsArgument,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    label_regex: LabelRegexOption = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help=f"{WITHOUT_FILES} Asks before it deletes {GUARDED}"),
    ] = False,
    yes: YesOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit 1 if any file could not be read. Default: only if none of them could.",
        ),
    ] = False,
    index: NewIndexOption = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="VECSEARCH_RAY",
            help="Read and embed on a Ray cluster: auto for the one that Ray finds, HOST:PORT, "
            "ray://HOST:PORT, or local to start Ray on this machine for this run. Needs "
            "vecsearch[ray].",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Turn folders of images into rows: embed what is new, update what moved or changed.

    Run it again at any time: it continues where it was interrupted, and opens only files whose
    size or time has changed.
    """
    from vecsearch.cli.progress import ingest_progress

    require_object_format(format_)
    refused: PruneRefused | None = None
    with (
        open_library(settings) as library,
        _interruptible(library.collection(collection)) as require_going_on,
        ingest_progress(require_going_on) as progress,
    ):
        try:
            summary = library.collection(collection).ingest(
                expand_stdin(paths),
                model=model,
                weights=weights,
                precision=precision,
                metadata=metadata,
                label=label,
                label_regex=label_regex,
                prune=prune,
                confirm=progress.aside(confirming("Delete these rows?", yes=yes)),
                dry_run=dry_run,
                index=index,
                ray=ray,
                on_progress=progress,
            )
        except PruneRefused as error:
            summary, refused = error.summary, error
    say_all(summary.notes)
    if chosen_format(format_) is Format.table:
        show(f"{'would be ' if dry_run else ''}{_in_words(summary)}")
    else:
        write_object(summary.counts(), format_, dry_run=dry_run)
    if summary.failed and not dry_run:
        _say_where_errors_are(collection)
    if refused is not None:
        raise refused
    if summary.failed and (strict or not (dry_run or summary.stored)):
        raise typer.Exit(1)


@contextmanager
def _interruptible(collection: "Collection") -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end an ingest, and say in the end what is stored; see `_stoppable`."""
    try:
        with _stoppable("Stopping.") as require_going_on:
            yield require_going_on
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(collection)) from None


@contextmanager
def _stoppable(notice: str = "") -> Iterator[Callable[[], None]]:
    """Let Ctrl-C end what runs, even where the interrupt is lost; yield what raises it again.

    Python drops an interrupt that comes in the callback of a weak reference, and what Ray raises
    may be another error. So each step raises it again, and an error that follows is printed, and
    ends what runs as Ctrl-C does.

    Args:
        notice: printed at the first Ctrl-C.

    """
    usual = signal.default_int_handler
    # Not those that a shell that runs it in the background, or nohup, has it ignore.
    interrupts = [each for each in signal.valid_signals() if signal.getsignal(each) is usual]
    is_stopped = False

    def stop(*_: object) -> None:
        nonlocal is_stopped
        was_stopped, is_stopped = is_stopped, True
        if notice and not was_stopped:
            with suppress(RuntimeError):  # it came while something else is being printed
                say(notice)
        raise KeyboardInterrupt

    def require_going_on() -> None:
        if is_stopped:
            raise KeyboardInterrupt

    for each in interrupts:
        signal.signal(each, stop)
    try:
        yield require_going_on
    except Exception as error:
        if not is_stopped:
            raise
        if not isinstance(error, typer.Abort):  # what a question makes of Ctrl-C
            say_error(error)
        raise KeyboardInterrupt from error
    finally:
        for each in interrupts:
            signal.signal(each, usual)


def _kept(collection: "Collection") -> str:
    """Return what an ingest that was interrupted has left."""
    kept = "Every finished batch is kept; run the same command to continue."
    nothing = "Nothing was stored; run the same command to start again."
    try:
        return nothing if collection.is_empty() else kept
    except (CollectionNotFound, SchemaMissing):
        return nothing
    except VecsearchError:  # the database is gone, too
        return kept


@command(app, "watch", encodes=True)
def watch(
    settings: Settings,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Folders.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = None,
    metadata: MetadataOption = None,
    label: LabelOption = None,
    label_regex: LabelRegexOption = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help=f"{WITHOUT_FILES} Without --yes it does not delete {GUARDED}"),
    ] = False,
    yes: YesOption = False,
    index: NewIndexOption = None,
) -> None:
    """Ingest folders, then again whenever files in them change, until Ctrl-C.

    Each time it prints a line of what was added, updated, moved and so on. New files are read once
    nothing has changed for a second; a file that was read too early is read again when it changes.
    """
    from vecsearch.cli.progress import ingest_progress

    said: set[str] = set()
    with (
        open_library(settings) as library,
        suppress(KeyboardInterrupt),
        _stoppable() as require_going_on,
    ):
        with ingest_progress(require_going_on) as progress:
            summaries = library.collection(collection).watch(
                paths,
                model=model,
                weights=weights,
                precision=precision,
                metadata=metadata,
                label=label,
                label_regex=label_regex,
                prune=prune,
                confirm=lambda _: yes,
                index=index,
                on_progress=progress,
            )
            first = next(summaries)
        for summary in chain([first], summaries):
            say_all(note for note in summary.notes if note not in said)
            said.update(summary.notes)
            say(f"{datetime.now():%H:%M:%S}  {_in_words(summary)}")  # noqa: DTZ005 - local time
            require_going_on()
            if summary is first:
                if summary.failed:
                    _say_where_errors_are(collection)
                say(f"Watching {' and '.join(paths)} until Ctrl-C.")
    say("Stopped.")


def _in_words(summary: Summary) -> str:
    """Return the counts that are not zero."""
    parts = [
        f"{count:,} {IN_WORDS.get(name, name)}" for name, count in summary.counts().items() if count
    ]
    return ", ".join(parts) or "no images found"


def _say_where_errors_are(collection: str) -> None:
    say(f"To see which files failed, and why: {command_line('errors', collection=collection)}")


@command(app, "forget")
def forget(
    settings: Settings,
    paths: PathsArgument,
    collection: CollectionOption = DEFAULT_COLLECTION,
    existing: Annotated[
        bool,
        typer.Option(
            "--existing",
            help="Forget files that are still there, too. The next ingest adds them again.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be deleted.")
    ] = False,
    yes: YesOption = False,
    format_: FormatOption = None,
) -> None:
    """Delete the rows of folders and files that are gone for good. No file is touched.

    Their tags and errors go, too, and thumbnails that no other image uses.
    """
    from dataclasses import asdict

    require_object_format(format_)
    with open_library(settings) as library:
        forgotten = library.collection(collection).forget(
            expand_stdin(paths),
            existing=existing,
            dry_run=dry_run,
            confirm=confirming("Delete these rows?", yes=yes),
        )
    if chosen_format(format_) is Format.table:
        parts = f"{counted(forgotten.rows, 'row')}, {counted(forgotten.errors, 'error')}"
        show(f"{'would delete' if dry_run else 'deleted'} {parts}")
    else:
        write_object(asdict(forgotten), format_, dry_run=dry_run)
