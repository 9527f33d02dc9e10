"""The command duplicates."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    app,
    chosen_format,
    command,
    open_library,
    say,
    say_all,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format
from vecsearch.vocabulary import DEFAULT_COLLECTION, KeepRule, choices

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates import Duplicates

COLUMNS = ("group id path distance width height file_size modified_at taken_at could_go").split()


@command(app, "duplicates")
def duplicates(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="Two images count as duplicates up to this cosine distance, such as 0.05. "
            "Default: chosen from the collection's own distances."
        ),
    ] = None,
    order: Annotated[
        KeepRule | None,
        typer.Option(
            help=f"Which image of a group comes first: {choices(KeepRule)}. "
            f"Default: as --keep, or {KeepRule.oldest}.",
        ),
    ] = None,
    keep: Annotated[
        KeepRule | None,
        typer.Option(
            help=f"Keep this image of each group, and mark the others: {choices(KeepRule)}. "
            "With --format paths, print only the others.",
        ),
    ] = None,
    not_: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--not",
            metavar="IMAGE IMAGE",
            help="Record that these two images, named by path or id, are not duplicates, and exit.",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every image with every other; slow.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Show groups of near-duplicates: resized, recompressed, brightened, copied. Deletes nothing.

    Groups are chains of similar pairs. The distance is the one to the group's first image.
    """
    if not_ is not None:
        with open_library(settings) as library:
            is_new = library.collection(collection).not_duplicates(*not_)
        say(f"{'Recorded' if is_new else 'Already recorded'}: these two are not duplicates.")
        return
    with open_library(settings) as library:
        found = library.collection(collection).duplicates(
            max_distance=max_distance, order=order, keep=keep, exact=exact
        )
    say_all(_notes(found, suggested=max_distance is None))
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
        yield (
            f"Two images count as duplicates below about {found.typical:.2g} (chosen from this "
            "collection). Set your own: --max-distance 0.05"
        )
    if not found.images:
        yield "There are no near-duplicates."
    else:
        groups = found.images[-1].group
        yield f"{len(found.images):,} images in {groups:,} groups. Nothing is deleted."
    if found.split:
        yield (
            "Some images have hundreds of duplicates, so one group may appear as several. "
            "Try a smaller --max-distance."
        )
