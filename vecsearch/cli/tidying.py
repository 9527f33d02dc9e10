"""Commands that help to tidy up: duplicates."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.apps import app
from vecsearch.cli.command import (
    Collection,
    OutputFormat,
    chosen_format,
    command,
    open_library,
    say,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates import Duplicates

COLUMNS = ("group id path distance width height file_size modified_at taken_at could_go").split()
RULES = "oldest, newest, largest or path"


@command(app, "duplicates")
def duplicates(
    settings: Settings,
    collection: Collection = "images",
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="The largest cosine distance of a pair, e.g. 0.05. "
            "Default: suggested by how far apart the images are."
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help=f"Which of a group comes first: {RULES}. Default: what --keep says, or oldest.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help=f"Say which of a group could go, if this one stays: {RULES}. "
            "With --format paths, print only those.",
        ),
    ] = None,
    not_: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--not",
            metavar="IMAGE IMAGE",
            help="Remember that these two, named by path or id, are no duplicates, and stop.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every image with every other, slowly.")
    ] = False,
    format_: OutputFormat = None,
) -> None:
    """Show groups of near-duplicates: resized, recompressed, brightened, copied. Deletes nothing.

    A pair is near if its distance is at most the cut-off; images that near pairs join are a group.
    """
    if not_ is not None:
        with open_library(settings) as library:
            is_new = library.collection(collection).not_duplicates(*not_)
        say(f"{'Remembered' if is_new else 'Known already'}: these two are no duplicates.")
        return
    with open_library(settings) as library:
        found = library.collection(collection).duplicates(
            max_distance=max_distance, order=order, keep=keep, exact=exact
        )
    for note in _notes(found, suggested=max_distance is None):
        say(note)
    rows = found.images
    if keep is not None and chosen_format(format_) is Format.paths:
        rows = [row for row in rows if row.could_go]
    write_rows(
        rows,
        format_,
        columns=COLUMNS,
        table_columns="group distance width height file_size taken_at could_go path".split(),
    )


def _notes(found: "Duplicates", *, suggested: bool) -> Iterator[str]:
    if suggested:
        cut_off = found.cut_off
        yield (
            f"Cut-off: {cut_off.ratio:.2g} of the distance to an image's neighbour number "
            f"{cut_off.rank}, so about {found.typical:.2g} for most. "
            "For one of your own, the same for all: --max-distance"
        )
    if not found.images:
        yield "There are no near-duplicates."
    else:
        groups = found.images[-1].group
        yield f"{len(found.images):,} images in {groups:,} groups. Nothing is deleted."
    if found.split:
        yield (
            "Some images have hundreds of neighbours within the cut-off, so one group may show "
            "as several. Try a smaller --max-distance."
        )
