"""The command tags."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    app,
    chosen_format,
    command,
    open_library,
    say,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format
from vecsearch.vocabulary import DEFAULT_COLLECTION, counted, nothing_in

if TYPE_CHECKING:
    from vecsearch.search.tags import Tag


@command(app, "tags", encodes=True, prints_paths=True)
def tags(
    settings: Settings,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGE...]",
            help="Image files, which need not be in the collection. Default: its own images.",
        ),
    ] = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Only rows that meet this condition, e.g. \"label = 'cat'\"."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="At most this many images, or tags with --count. Default: all."),
    ] = None,
    count: Annotated[
        bool,
        typer.Option("--count", help="List the most frequent first tags, with numbers of images."),
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Print what each image shows: its most probable concepts, with their probabilities.

    The encoder's own ImageNet classifier finds them, at most five for an image. Images that another
    program or an older vecsearch stored are tagged now. In SQL, it is the view images_tags, which
    filters searches: --where "id IN (SELECT id FROM images_tags WHERE name = 'tabby')"
    """
    if limit is not None and limit < 1:
        raise typer.BadParameter("--limit is too small. Give a number from 1.")
    if images and (where is not None or limit is not None or count):
        raise typer.BadParameter(
            "--where, --limit and --count are not for IMAGE. Omit them, or IMAGE."
        )
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library:
        searched = library.collection(collection)
        found = searched.tags
        with steps_progress() as progress:
            tagged = found.ensure(on_progress=progress)
        if tagged is None:
            say(
                f"The encoder of collection {collection!r} has no classifier of ImageNet's "
                "classes, so there are no tags."
            )
            return
        if tagged:
            say(f"Tagged {counted(tagged, 'image')} that had no tags.")
        if count:
            frequencies = found.counted(where=where, limit=limit)
            write_rows(frequencies, format_, columns=["name", "images"])
            return
        if images:
            rows = [found.of_picture(image) for image in images]
        else:
            rows = found.listed(where=where, limit=limit)
        if not rows:
            say(nothing_in(collection) if searched.is_empty() else "No image matches.")
        as_text = chosen_format(format_) is Format.table
        write_rows(
            ((row.path, _shown(row.tags, as_text=as_text), row.id) for row in rows),
            format_,
            columns=["path", "tags", "id"],
            table_columns=["path", "tags"],
        )


def _shown(tags: "list[Tag]", *, as_text: bool) -> str | list[dict[str, Any]]:
    from dataclasses import asdict

    if as_text:
        return ", ".join(f"{tag.name} {tag.probability:.2f}" for tag in tags)
    return [asdict(tag) for tag in tags]
