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
from vecsearch.vocabulary import DEFAULT_COLLECTION, MAX_DIFFERENCE, KeepRule, choices, counted

if TYPE_CHECKING:
    from vecsearch.analysis.duplicates import Duplicates

COLUMNS = (
    "group id path distance difference width height file_size modified_at taken_at could_go".split()
)
TABLE_COLUMNS = "group distance difference width height file_size taken_at could_go path".split()


@command(app, "duplicates", prints_paths=True)
def duplicates(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="Two images can be duplicates up to this cosine distance of their embeddings, "
            "such as 0.05. Default: chosen from the collection's own distances."
        ),
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option(
            help="They are duplicates up to this difference of their thumbnails: 0 is the same "
            f"picture, 1 another one. Default: {MAX_DIFFERENCE}."
        ),
    ] = None,
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Find mirrored copies, too.")
    ] = False,
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
    """Show groups of near-duplicates: resized, cropped, recompressed, brightened. Deletes nothing.

    Embeddings choose pairs, and the stored thumbnails confirm them. Groups are chains of such
    pairs. Distance (of embeddings) and difference (of thumbnails) are to the group's first image.
    """
    if not_ is not None:
        with open_library(settings) as library:
            is_new = library.collection(collection).not_duplicates(*not_)
        say(f"{'Recorded' if is_new else 'Already recorded'}: these two are not duplicates.")
        return
    with open_library(settings) as library:
        found = library.collection(collection).duplicates(
            max_distance=max_distance,
            max_difference=max_difference,
            mirrored=mirrored,
            order=order,
            keep=keep,
            exact=exact,
        )
    say_all(_notes(found, suggested=max_distance is None))
    rows = found.images
    if keep is not None and chosen_format(format_).lists_paths:
        rows = [row for row in rows if row.could_go]
    write_rows(rows, format_, columns=COLUMNS, table_columns=TABLE_COLUMNS)


def _notes(found: "Duplicates", *, suggested: bool) -> Iterator[str]:
    if suggested:
        yield (
            f"Two images count as duplicates below about {found.typical:.2g} (chosen from this "
            "collection: a little more than the distance to an image's tenth neighbour) if their "
            f"thumbnails differ by at most {found.max_difference:g}. Set your own: "
            "--max-distance 0.05 --max-difference 0.05"
        )
    if found.unconfirmed:
        has = "has" if found.unconfirmed == 1 else "have"
        below = f" below about {found.alone:.2g}" if suggested else ""
        yield (
            f"{counted(found.unconfirmed, 'image')} {has} no thumbnail to compare: the embedding "
            f"alone decides{below}. `vecsearch ingest` makes missing thumbnails."
        )
    if not found.images:
        yield "There are no near-duplicates."
    else:
        groups = counted(found.images[-1].group, "group")
        yield f"{counted(len(found.images), 'image')} in {groups}. Nothing is deleted."
    if found.split:
        yield (
            "Some images have hundreds of duplicates, so one group may appear as several. "
            "Try a smaller --max-distance."
        )
