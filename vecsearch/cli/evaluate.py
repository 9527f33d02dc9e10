"""The commands eval and compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecsearch.cli.command import (
    FormatOption,
    KOption,
    MetricOption,
    app,
    chosen_format,
    command,
    open_library,
    say,
    say_all,
    show,
    write_object,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.rows import Format, require_object_format
from vecsearch.vocabulary import DEFAULT_K, IndexMethod, counted

if TYPE_CHECKING:
    from uuid import UUID

    from vecsearch.analysis.compare import Comparison
    from vecsearch.analysis.evaluate import Evaluation
    from vecsearch.analysis.improve import Improvement
    from vecsearch.analysis.sampling import Labelling
    from vecsearch.analysis.trials import Setting

# Queries that --plot shows.
EXAMPLES = 6

LABEL = (
    "What makes images relevant to each other: the same label, which is the folder's name unless "
    "ingest set another, or the same value in their metadata."
)
LabelOption = Annotated[str, typer.Option(metavar="folder|metadata:KEY", help=LABEL)]
LabelRegexOption = Annotated[
    str | None,
    typer.Option(
        metavar="RE",
        help="Take the label from the file name instead: the first group of this regular "
        "expression, ignoring case: '^([a-z]+)'.",
    ),
]
SeedOption = Annotated[
    int, typer.Option(help="Seed of the sample of query images in a large collection.")
]


@command(app, "eval")
def eval_(
    settings: Settings,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION")],
    k: KOption = DEFAULT_K,
    metric: MetricOption = None,
    label: Annotated[
        str,
        typer.Option(
            metavar="folder|metadata:KEY|none", help=f"{LABEL} None works only with --improve."
        ),
    ] = "folder",
    label_regex: LabelRegexOption = None,
    seed: SeedOption = 0,
    improve: Annotated[
        bool,
        typer.Option(
            "--improve",
            help="Instead, try other rankings: by compact vectors of several dimensions, and with "
            "expanded queries. Half of the labelled images choose the best, the others report its "
            "score. If all labels are the same, or with --label none, altered copies of images "
            "must find their originals.",
        ),
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Keep the ranking that --improve finds best.")
    ] = False,
    format_: FormatOption = None,
) -> None:
    """Score a collection: precision and mAP from labels, recall and time of its index.

    Each image is a query for its nearest others; a large collection is sampled. Precision is the
    share of the k nearest with the query's own label. The index is compared with the exact answer.
    """
    from vecsearch.cli.progress import steps_progress

    require_object_format(format_)
    if apply and not improve:
        raise typer.BadParameter("--apply needs --improve.")
    if improve:
        none = label == "none" and label_regex is None
        _improve(
            settings,
            collection,
            format_,
            k=k,
            metric=metric,
            labelling=None if none else _labelling(label, label_regex),
            seed=seed,
            apply=apply,
        )
        return
    with open_library(settings) as library, steps_progress() as progress:
        result = library.collection(collection).evaluate(
            k=k,
            metric=metric,
            labelling=_labelling(label, label_regex),
            seed=seed,
            on_progress=progress,
        )
    match chosen_format(format_):
        case Format.table:
            _print_evaluation(result)
        case Format.csv:
            scores = result.as_dict()["classes"]
            write_rows([tuple(row.values()) for row in scores], format_, columns=list(scores[0]))
        case _:
            write_object(result.as_dict(), format_)
    say_all(_notes(result.queries, result.images, result.unlabelled, len(result.classes)))
    if result.drift is not None and result.drift.is_stale:
        say(
            f"The index is stale: compact vectors keep {result.drift.now:.0%} of the images' "
            f"variance, down from {result.drift.fitted:.0%}. Rebuild it: "
            f"vecsearch index create --method {IndexMethod.compact} --collection {collection}"
        )


def _improve(
    settings: Settings,
    collection: str,
    format_: Format | None,
    *,
    apply: bool,
    **judging: Any,
) -> None:
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        asked = library.collection(collection)
        result = asked.improve(**judging, on_progress=progress)
        kept, notes = apply and result.best != result.now, []
        if kept:
            best = result.best
            notes = asked.set_ranking(
                best.ranking, dims=best.dims, expansion=best.expansion, on_progress=progress
            )
    match chosen_format(format_):
        case Format.table:
            _print_trials(result)
        case Format.csv:
            rows = result.rows()
            write_rows([tuple(row.values()) for row in rows], format_, columns=list(rows[0]))
        case _:
            write_object(result.as_dict(), format_)
    say_all([*_judged(result), _verdict(result, kept=kept), *notes])


def _print_trials(result: "Improvement") -> None:
    show(f"{result.collection}: {result.model}, judged by {result.judged_by}")
    rows = [
        (
            each.setting.ranking,
            each.setting.dims,
            each.setting.expansion,
            each.choosing.map,
            each.reporting.precision,
            each.reporting.map,
            each.overall.map,
            result.choice(each),
        )
        for each in result.trials
    ]
    figures = ["chosen_map", f"precision@{result.k}", "map", "all_map"]
    write_rows(rows, Format.table, columns=["ranking", "dims", "expand", *figures, "note"])


def _judged(result: "Improvement") -> list[str]:
    """Return how settings were judged, in sentences."""
    from vecsearch.analysis.improve import JudgedBy

    copies = result.judged_by is JudgedBy.variants
    queries = "altered copies" if copies else f"of {result.images - result.unlabelled:,} images"
    notes = [
        f"{result.choosing:,} {queries} chose the best; {result.reporting:,} others report scores, "
        "and all_map covers both."
        + (" A copy's right answer is its original, so map is 1 / its rank." * copies)
    ]
    if result.unlabelled:
        notes.append(f"Left out {counted(result.unlabelled, 'image')} without such a label.")
    if result.left_out:
        total = result.images + result.left_out
        notes.append(f"Searched a random {result.images:,} of {total:,} images, to save time.")
    return notes


def _verdict(result: "Improvement", *, kept: bool) -> str:
    before, after = (result.trial(each) for each in (result.now, result.best))
    if before is after:
        return f"Nothing is clearly better than {_named(result.now)}, which is in use. No change."
    gain = (
        f"Best: {_named(result.best)}. On the reporting ones, precision@{result.k} goes from "
        f"{before.reporting.precision:.3f} to {after.reporting.precision:.3f}, and mAP from "
        f"{before.reporting.map:.3f} to {after.reporting.map:.3f}."
    )
    if kept:
        return (
            f"{gain} Searches of {result.collection} by cosine, except by words, now use it. "
            f"To undo it: vecsearch index ranking full --expand 0 --collection {result.collection}"
        )
    return f"{gain} Nothing was changed. To keep it, run this again with --apply."


def _named(setting: "Setting") -> str:
    size = "" if setting.dims is None else f" with {setting.dims} dimensions"
    expansion = f", expanded by {setting.expansion}" if setting.expansion else ""
    return f"ranking {setting.ranking}{size}{expansion}"


@command(app, "compare")
def compare(
    settings: Settings,
    one: Annotated[
        str, typer.Argument(metavar="COLLECTION", help="The collection whose labels count.")
    ],
    other: Annotated[str, typer.Argument(metavar="COLLECTION")],
    k: KOption = DEFAULT_K,
    metric: MetricOption = None,
    label: LabelOption = "folder",
    label_regex: LabelRegexOption = None,
    seed: SeedOption = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw both answers to a few queries to this file."),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """Compare two collections of the same images, for example by two encoders.

    Both answer the same queries, over the images that both hold. The result is precision and
    mAP from labels, how many neighbours they share, the time of a query and the size of a row.
    """
    from vecsearch.cli.progress import steps_progress
    from vecsearch.render import saving

    require_object_format(format_)
    if plot is not None:
        saving.require_picture_file(plot)
    with open_library(settings) as library, steps_progress() as progress:
        result = library.compare(
            one,
            other,
            k=k,
            metric=metric,
            labelling=_labelling(label, label_regex),
            seed=seed,
            examples=EXAMPLES if plot is not None else 0,
            on_progress=progress,
        )
        stored = {
            name: library.collection(name).thumbnails(_shown(result, name))
            for name in (one, other)
            if plot is not None
        }
    if plot is not None:
        from vecsearch.render import sheets

        title = f"{one} and {other}: the {k} nearest"
        sheet = sheets.comparison_sheet(
            result.examples, title=title, max_pixels=settings.max_pixels, stored=stored
        )
        saving.save_picture(sheet, plot)
        say(f"Drew {plot}")
    table = result.as_dict()
    rows = [tuple(side.values()) for side in table["collections"]]
    match chosen_format(format_):
        case Format.table | Format.csv:
            write_rows(rows, format_, columns=list(table["collections"][0]))
        case _:
            write_object(table, format_)
    say_all(_notes(result.queries, result.images, 0, result.labels))
    say(f"The two share {result.overlap:.0%} of the {k} nearest.")


def _shown(result: "Comparison", collection: str) -> list["UUID"]:
    """Return the ids on a sheet: the examples, and one collection's answers to them."""
    from vecsearch.render.sheets import MOST_ANSWERS

    hits = (hit.id for item in result.examples for hit in item.answers[collection][:MOST_ANSWERS])
    return [*(item.id for item in result.examples), *hits]


def _labelling(label: str, label_regex: str | None) -> "Labelling":
    from vecsearch.analysis.sampling import Labelling

    if label_regex is not None and label != "folder":
        raise typer.BadParameter("Give --label or --label-regex, not both.")
    return Labelling(label, label_regex)


def _print_evaluation(result: "Evaluation") -> None:
    scores: dict[str, Any] = result.as_dict()
    precision = f"precision@{result.k}"
    show(f"{result.collection}: {result.model}, {result.metric}")
    everything = ("all", result.images, result.queries, result.precision, result.map)
    # Without another image of its label, no query has anything to find.
    if len(result.classes) < result.images:
        write_rows(
            [everything, *(tuple(row.values()) for row in scores["classes"])],
            Format.table,
            columns=["label", "images", "queries", precision, "map"],
        )
    # Where a search compares all images, settings of the index change nothing.
    if result.index and result.index_used:
        write_rows(
            [tuple(row.values()) for row in scores["index"]],
            Format.table,
            columns=list(scores["index"][0]),
        )
        show(_choice(result))
    if result.drift is not None:
        drift = result.drift
        since = f", {drift.since:.1%} for images ingested since" if drift.since is not None else ""
        show(
            f"Compact vectors keep {drift.now:.1%} of the variance; {drift.fitted:.1%} when fitted"
            f"{since}."
        )
    if not result.index_used:
        which = "No index serves this: every search"
        if result.index:
            which = f"At this size a search for the {result.k} nearest"
        show(f"{which} compares all images, and is exact.")


def _choice(result: "Evaluation") -> str:
    from vecsearch.analysis.evaluate import GOOD_RECALL

    (chosen,) = (score for score in result.index if score.breadth == result.choice)
    found = f"{chosen.recall:.2%} of the exact {result.k} nearest in {chosen.p50_ms:.1f} ms"
    name = f"{result.breadth_name} {chosen.breadth:,}"
    if chosen.recall >= GOOD_RECALL:
        return f"Choose {name}: {found}."
    return f"At best the index finds {found}, with {name}; query --exact finds all."


def _notes(queries: int, images: int, unlabelled: int, classes: int) -> list[str]:
    notes = []
    if queries < images:
        notes.append(f"Used {queries:,} of {images:,} images as queries, chosen by --seed.")
    if unlabelled:
        notes.append(f"Left out {counted(unlabelled, 'image')} without such a label.")
    alike = {1: "the same label", images: "a label of its own"}.get(classes)
    if alike is not None:
        notes.append(
            f"Every image has {alike}, so precision is meaningless. "
            "Choose another with --label or --label-regex."
        )
    return notes
