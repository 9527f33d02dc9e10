"""Commands that ask: query, sql, collections, status, errors."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from vecsearch.cli.apps import app
from vecsearch.cli.command import (
    Collection,
    Model,
    OutputFormat,
    Weights,
    chosen_format,
    command,
    open_library,
    say,
    write_object,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format

if TYPE_CHECKING:
    from vecsearch.search.query import Answer


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
            help="cosine, l2, l1, ip or chi2. Default: the collection's, which is cosine.",
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
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Write the hits, their thumbnails and the SQL to this page, too.",
        ),
    ] = None,
    model: Model = None,
    weights: Weights = None,
    format_: OutputFormat = None,
) -> None:
    """Find the images nearest to a picture.

    An image that is in the collection is found by its content and its stored vector is used, so
    the answer comes at once.
    """
    if (image is None) == (id_ is None):
        raise typer.BadParameter("Give an IMAGE, - for standard input, or --id ID.")
    _require_files(plot, html)
    source: Path | bytes | None = None
    if image is not None:
        source = sys.stdin.buffer.read() if image == "-" else Path(image)
    with open_library(settings) as library:
        asked_of = library.collection(collection)
        answer = asked_of.query(
            source,
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
        shown, stored, query_thumbnail = source, {}, None
        if (plot, html) != (None, None):
            from vecsearch.render.report import MOST_HITS

            ids = [hit.id for hit in answer.hits[:MOST_HITS]]
            stored = asked_of.thumbnails(ids)
            if id_ is not None:
                shown = Path(asked_of.image(id_).path)
                asked = UUID(id_)
                query_thumbnail = asked_of.thumbnails([asked]).get(asked)
    # Before the rows, so that `| head` cannot end it.
    if shown is not None:
        _picture(
            shown,
            answer,
            collection,
            settings.max_pixels,
            stored,
            query_thumbnail,
            plot=plot,
            html=html,
        )
    if show_sql:
        typer.echo(answer.sql)
        return
    if explain:
        typer.echo(answer.plan)
        typer.echo(_how(answer))
        return
    for note in _notes(answer, k, has_cut_off=(min_similarity, max_distance) != (None, None)):
        say(note)
    from vecsearch.search.query import Hit

    write_rows(
        answer.hits,
        format_,
        columns=list(Hit.__dataclass_fields__),
        table_columns=["rank", "distance", "similarity", "label", "path"],
    )


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
    with (
        open_library(settings) as library,
        library.sql(text, write=write) as (columns, rows, summary),
    ):
        if columns:
            write_rows(rows, format_, columns=columns)
        else:
            say(summary)


@command(app, "collections")
def collections(settings: Settings, format_: OutputFormat = None) -> None:
    """List the collections."""
    with open_library(settings) as library:
        rows = library.collections()
    if not rows:
        say("There are no collections yet. Start with: vecsearch ingest FOLDER")
    write_rows(
        rows,
        format_,
        columns=["name", "model", "dimensions", "metric", "images", "weights", "created_at"],
    )


@command(app, "status")
def status(settings: Settings, format_: OutputFormat = None) -> None:
    """Show versions, sizes, and the state of every index."""
    from dataclasses import asdict

    from vecsearch.render.rows import human_bytes

    with open_library(settings) as library:
        report = library.status()
    if chosen_format(format_) is not Format.table:
        write_object(asdict(report), format_)
        return
    kind = "embedded" if report.embedded else "your own"
    typer.echo(f"database    {report.database} ({kind})")
    typer.echo(f"versions    PostgreSQL {report.postgres}, pgvector {report.pgvector or 'missing'}")
    if report.advice:
        typer.echo(f"advice      {report.advice}")
    write_rows(
        [
            (
                row.name,
                row.model,
                row.dimensions,
                row.images,
                row.errors,
                human_bytes(row.table_bytes),
                row.index,
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
    for row in report.collections:
        if row.index == "none":
            typer.echo(
                f"{row.name}: {_no_index(row.dimensions)}, so every search compares all "
                f"{row.images:,} images and reads {human_bytes(row.scan_bytes)}."
            )


@command(app, "errors")
def errors(
    settings: Settings, collection: Collection = "images", format_: OutputFormat = None
) -> None:
    """List the files that could not be ingested, and why."""
    with open_library(settings) as library:
        rows = library.collection(collection).errors()
    if not rows:
        say(f"Every file of collection {collection!r} could be read.")
    write_rows(rows, format_, columns=["path", "error", "at"], table_columns=["path", "error"])


def _no_index(dimensions: int) -> str:
    from vecsearch.vocabulary import MAX_INDEXED_DIMENSIONS

    if dimensions > MAX_INDEXED_DIMENSIONS:
        return (
            f"HNSW indexes {MAX_INDEXED_DIMENSIONS:,} dimensions, and these are {dimensions:,} "
            "(vecsearch index create --method compact serves them)"
        )
    return "its HNSW index is missing"


def _notes(answer: "Answer", k: int | None, *, has_cut_off: bool) -> Iterator[str]:
    if k is not None and len(answer.hits) == k and has_cut_off:
        yield f"Stopped at -k {k}; leave it out for every image within the cut-off."
    if not answer.hits:
        yield "No image matches."
    elif answer.candidates is not None and answer.metric != "cosine":
        yield (
            f"The {answer.candidates:,} nearest by cosine were ranked by {answer.metric}; "
            "--exact compares every image."
        )


def _how(answer: "Answer") -> str:
    by = "by the HNSW index" if answer.uses_index else "by an exact scan: every row is compared"
    if answer.candidates is None or answer.metric == "cosine":
        return f"Answered {by}."
    return (
        f"{answer.candidates:,} candidates by cosine, found {by}; then ranked by {answer.metric}."
    )


def _require_files(plot: Path | None, html: Path | None) -> None:
    from vecsearch.render import saving

    if plot is not None:
        saving.require_picture_file(plot)
    if html is not None:
        saving.require_report_file(html)


def _picture(
    query: Path | bytes,
    answer: "Answer",
    collection: str,
    max_pixels: int,
    stored: dict[UUID, bytes],
    query_thumbnail: bytes | None,
    *,
    plot: Path | None,
    html: Path | None,
) -> None:
    """Draw the answer to the files that were asked for."""
    from vecsearch.render import saving

    if plot is not None:
        from vecsearch.render import sheets

        sheet = sheets.contact_sheet(
            query,
            answer.hits,
            title=f"Nearest in {collection}",
            metric=answer.metric,
            max_pixels=max_pixels,
            stored=stored,
            query_thumbnail=query_thumbnail,
        )
        saving.save_picture(sheet, plot)
        say(f"Drew {plot}")
    if html is not None:
        from vecsearch.render import report

        page = report.html_report(
            query,
            answer,
            collection=collection,
            max_pixels=max_pixels,
            stored=stored,
            query_thumbnail=query_thumbnail,
        )
        report.save_report(page, html)
        say(f"Wrote {html}")
