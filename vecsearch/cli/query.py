"""The command query."""

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
    read_stdin,
    say,
    say_all,
    show,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.vocabulary import DEFAULT_COLLECTION, DEFAULT_K, Ranking, nothing_in

if TYPE_CHECKING:
    from vecsearch.collection import Collection
    from vecsearch.search.query import Answer
    from vecsearch.search.questions.terms import Term


@command(app, "query", encodes=True, prints_paths=True)
def query(
    settings: Settings,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE|-]...",
            help="Image files, or - for one on stdin. Several images, ids and words make one "
            "question: their vectors are added. 2:a.jpg counts twice.",
        ),
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
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            metavar="ID|PATH",
            help="Search by a stored image: its id, its path, or the end of its path, e.g. "
            "cats/1.jpg.",
        ),
    ] = None,
    texts: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="WORDS",
            help='Search by words instead of a file, e.g. "golden retriever". `vecsearch concepts` '
            "lists the known ones. Other phrases need the extra phrases; a model of open_clip "
            "takes any sentence.",
        ),
    ] = None,
    not_images: Annotated[
        list[str] | None,
        typer.Option("--not", metavar="IMAGE", help="Search for what is unlike this image."),
    ] = None,
    not_ids: Annotated[
        list[str] | None,
        typer.Option(
            "--not-id", metavar="ID|PATH", help="Search for what is unlike this stored image."
        ),
    ] = None,
    not_texts: Annotated[
        list[str] | None,
        typer.Option("--not-text", metavar="WORDS", help="Search for what is unlike this concept."),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Search by this part of the first image, in pixels from its upper left corner.",
        ),
    ] = None,
    expand: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Add the N nearest images to the question, and search again; 0 for none. "
            "Default: the collection's.",
        ),
    ] = None,
    ranking: Annotated[
        Ranking | None,
        typer.Option(help="What orders the hits: full or compact. Default: the collection's."),
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
    """Find the images nearest to a picture, to words, or to a sum of several.

    An image of the collection is recognised by its content and its stored vector is used, so no
    model is loaded.
    """
    if not any((images, ids, texts)):
        like = "an IMAGE, - for standard input, --id ID or --text WORDS"
        if any((not_images, not_ids, not_texts)):
            raise typer.BadParameter(
                f"--not says what hits should be unlike. Add what they should be like: {like}."
            )
        raise typer.BadParameter(f"Give {like}.")
    _require_files(plot, html)
    with open_library(settings) as library:
        from vecsearch.search.query import Hit, Query
        from vecsearch.search.questions.pictures import Crop
        from vecsearch.search.questions.terms import terms

        named = [
            *terms(_read_stdin(images), ids or (), texts or ()),
            *terms(not_images or (), not_ids or (), not_texts or (), sign=-1),
        ]
        query_ = Query(
            terms=named,
            crop=None if crop is None else Crop.parse(crop),
            expand=expand,
            ranking=ranking,
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
            _draw(query_.parts, answer, asked, settings.max_pixels, plot=plot, html=html)
        if show_sql:
            show(answer.sql)
            return
        if explain:
            show(answer.plan)
            show(answer.how)
            return
        if not answer.hits and asked.is_empty():
            say(nothing_in(collection))
        else:
            has_cut_off = (min_similarity, max_distance) != (None, None)
            say_all(_notes(answer, collection, k, has_cut_off=has_cut_off))
        write_rows(
            answer.hits,
            format_,
            columns=list(Hit.__dataclass_fields__),
            table_columns=["rank", "distance", "similarity", "label", "path"],
        )


def _notes(answer: "Answer", collection: str, k: int | None, *, has_cut_off: bool) -> Iterator[str]:
    from vecsearch.search.questions import labels

    if answer.meaning is not None:
        yield answer.meaning
    yield from labels.notes(collection, answer.labelled)
    if k is not None and len(answer.hits) == k and has_cut_off:
        yield f"There may be more than {k} within the cut-off; omit -k to print all."
    if not answer.hits:
        yield "No image matches."
    elif answer.is_reranked:
        yield (
            f"Ranked by {answer.metric}, but only the {answer.candidates:,} nearest by cosine; "
            "--exact compares every image."
        )


def _read_stdin(images: list[str] | None) -> list[str | bytes]:
    """Return the images, with standard input's bytes in the place of `-`."""
    named = images or []
    if named.count("-") > 1:
        raise typer.BadParameter("- can be given once: standard input has one image.")
    return [read_stdin() if image == "-" else image for image in named]


def _require_files(plot: Path | None, html: Path | None) -> None:
    from vecsearch.render import saving

    if plot is not None:
        saving.require_picture_file(plot)
    if html is not None:
        saving.require_report_file(html)


def _draw(
    named: "list[Term]",
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

    from vecsearch.render.cards import question_card
    from vecsearch.search.questions.terms import summed

    parts = summed(named)
    stored_terms = {term.name: collection.image(term.name) for term in named if term.id is not None}
    ids = [image.id for image in stored_terms.values()]
    stored = collection.thumbnails([*ids, *(hit.id for hit in answer.hits[:MOST_HITS])])
    [first, *others] = named
    thumbnail = None
    query: Path | bytes
    if others or first.text is not None or first.crop is not None:
        query = question_card(named, stored_terms, stored, max_pixels=max_pixels)
    elif first.id is not None:
        thumbnail = stored.get(ids[0])
        query = Path(stored_terms[first.name].path)
    else:
        query = first.image if isinstance(first.image, bytes) else Path(str(first.image))
    if plot is not None:
        from vecsearch.render import saving, sheets

        sheet = sheets.contact_sheet(
            query,
            answer.hits,
            title=f"Nearest in {collection.name}{': ' * bool(parts)}{parts}",
            metric=answer.metric,
            max_pixels=max_pixels,
            notes=[answer.ranked, answer.limits],
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
            parts=parts,
            max_pixels=max_pixels,
            stored=stored,
            query_thumbnail=thumbnail,
        )
        report.save_report(page, html)
        say(f"Wrote {html}")
