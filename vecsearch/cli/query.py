"""The command query."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    CollectionOption,
    FormatOption,
    MetricOption,
    ModelOption,
    WeightsOption,
    app,
    command,
    open_library,
    say,
    say_all,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.vocabulary import DEFAULT_COLLECTION, DEFAULT_K

if TYPE_CHECKING:
    from vecsearch.collection import Collection
    from vecsearch.search.gallery import StoredImage
    from vecsearch.search.query import Answer


@command(app, "query", encodes=True)
def query(
    settings: Settings,
    image: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGE|-]", help="An image file, or - for its bytes on stdin."),
    ] = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            envvar="VECSEARCH_K",
            help=f"At most this many images. Default: {DEFAULT_K}; with a cut-off, no limit.",
        ),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Search by a stored image instead of a file.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help='Search by words instead of a file, e.g. "golden retriever"; vecsearch concepts '
            "lists those that every collection takes, the extra phrases adds any others.",
        ),
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Leave out images that are less similar; cosine only.")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option(help="Leave out images that are farther away.")
    ] = None,
    metric: MetricOption = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Search only rows that meet this condition, e.g. \"label = 'cat'\"."
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare every row; use no index.")
    ] = False,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out the query image's own row.")
    ] = False,
    show_sql: Annotated[
        bool, typer.Option("--show-sql", help="Print the SQL instead of the hits, ready for psql.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print the plan of Postgres instead of the hits."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also draw the query and the hits to this file."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Also write a page with the hits, their thumbnails and the SQL.",
        ),
    ] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    format_: FormatOption = None,
) -> None:
    """Find the images nearest to a picture, or to words.

    An image of the collection is recognised by its content and its stored vector is used, so no
    model is loaded.
    """
    if sum(target is not None for target in (image, id_, text)) != 1:
        raise typer.BadParameter(
            "Give one of IMAGE, - for standard input, --id ID and --text WORDS."
        )
    _require_files(plot, html)
    source: Path | bytes | None = None
    if image is not None:
        source = sys.stdin.buffer.read() if image == "-" else Path(image)
    with open_library(settings) as library:
        from vecsearch.search.query import Hit, Query

        query_ = Query(
            source,
            id=id_,
            text=text,
            k=k,
            metric=metric,
            where=where,
            min_similarity=min_similarity,
            max_distance=max_distance,
            exact=exact,
            exclude_self=exclude_self,
            model=model,
            weights=weights,
        )
        asked = library.collection(collection)
        answer = asked.ask(query_)
        # Before the rows are printed, because `| head` may end the command there.
        if (plot, html) != (None, None):
            shown: Path | bytes | StoredImage
            if text is not None:
                from vecsearch.render.cards import card_of

                shown = card_of(text)
            else:
                shown = asked.image(id_ or "") if source is None else source
            _draw(shown, answer, asked, settings.max_pixels, plot=plot, html=html)
        if show_sql:
            typer.echo(answer.sql)
            return
        if explain:
            typer.echo(answer.plan)
            typer.echo(answer.how)
            return
        say_all(_notes(answer, k, has_cut_off=(min_similarity, max_distance) != (None, None)))
        write_rows(
            answer.hits,
            format_,
            columns=list(Hit.__dataclass_fields__),
            table_columns=["rank", "distance", "similarity", "label", "path"],
        )


def _notes(answer: "Answer", k: int | None, *, has_cut_off: bool) -> Iterator[str]:
    if answer.meaning is not None:
        yield answer.meaning
    if k is not None and len(answer.hits) == k and has_cut_off:
        yield f"There may be more than {k}; without -k, every image within the cut-off is printed."
    if not answer.hits:
        yield "No image matches."
    elif answer.is_reranked:
        yield (
            f"Ranked the {answer.candidates:,} nearest by cosine by {answer.metric}; "
            "--exact compares every image."
        )


def _require_files(plot: Path | None, html: Path | None) -> None:
    from vecsearch.render import saving

    if plot is not None:
        saving.require_picture_file(plot)
    if html is not None:
        saving.require_report_file(html)


def _draw(
    query: "Path | bytes | StoredImage",
    answer: "Answer",
    collection: "Collection",
    max_pixels: int,
    *,
    plot: Path | None,
    html: Path | None,
) -> None:
    """Draw the answer to the files that --plot and --html name."""
    if html is not None:
        from vecsearch.render.report import MOST_HITS
    else:
        from vecsearch.render.sheets import MOST_HITS

    ids = [hit.id for hit in answer.hits[:MOST_HITS]]
    thumbnail = None
    if isinstance(query, Path | bytes):
        stored = collection.thumbnails(ids)
    else:
        stored = collection.thumbnails([query.id, *ids])
        thumbnail = stored.get(query.id)
        query = Path(query.path)
    if plot is not None:
        from vecsearch.render import saving, sheets

        sheet = sheets.contact_sheet(
            query,
            answer.hits,
            title=f"Nearest in {collection.name}",
            metric=answer.metric,
            max_pixels=max_pixels,
            stored=stored,
            query_thumbnail=thumbnail,
        )
        saving.save_picture(sheet, plot)
        say(f"Drew {plot}")
    if html is not None:
        from vecsearch.render import report

        page = report.html_report(
            query,
            answer,
            collection=collection.name,
            max_pixels=max_pixels,
            stored=stored,
            query_thumbnail=thumbnail,
        )
        report.save_report(page, html)
        say(f"Wrote {html}")
