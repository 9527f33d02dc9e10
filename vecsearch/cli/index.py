"""The commands index create, drop, status, ranking and tune."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vecsearch.cli.command import (
    INDEX_METHODS,
    CollectionOption,
    FormatOption,
    KOption,
    MetricOption,
    chosen_format,
    command,
    group,
    open_library,
    say,
    say_all,
    show,
    write_object,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.render.figures import human_bytes
from vecsearch.render.rows import Format, require_object_format
from vecsearch.vocabulary import (
    DEFAULT_COLLECTION,
    DEFAULT_K,
    DIMS,
    RECALL,
    IndexMethod,
    Ranking,
)

if TYPE_CHECKING:
    from vecsearch.search.status import IndexStatus

index_app = group("index", "Make searches fast. Indexes are built while searches go on.")


def _bytes(value: str | int) -> int:
    match = re.fullmatch(r"(\d+)\s*(kB|MB|GB|TB)", str(value), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter("Give a size like 512MB or 4GB.")
    power = ("kb", "mb", "gb", "tb").index(match[2].lower()) + 1
    size: int = int(match[1]) * 1024**power
    if not 2**20 <= size < 2**41:
        raise typer.BadParameter("Give a size from 1MB to 2047GB.")
    return size


Memory = Annotated[
    int | None,
    typer.Option(
        parser=_bytes,
        metavar="SIZE",
        help="Memory for the build, such as 4GB. Default: what it needs, up to a quarter of this "
        "machine's; on your own server, what the server allows.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, max=64, help="Parallel workers of the build. Default: one per core."),
]


@command(index_app, "create", builds=True, interrupted="The old index, if any, stays in use.")
def create(
    settings: Settings,
    method: Annotated[IndexMethod, typer.Option(help=f"{INDEX_METHODS}.")] = IndexMethod.hnsw,
    memory: Memory = None,
    workers: Workers = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    **options: int | None,
) -> None:
    """Build the index while searches and ingests go on; then use it, and drop the old one.

    If the build is interrupted, the old index stays in use. If `eval` warns that a compact index is
    stale, build it again.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        notes = library.collection(collection).create_index(
            method, memory=memory, workers=workers, on_progress=progress, **options
        )
        found = library.collection(collection).index_status()
    say_all([*notes, _done(found)])


@command(index_app, "drop")
def drop(settings: Settings, collection: CollectionOption = DEFAULT_COLLECTION) -> None:
    """Drop the index: every search then compares all images, and is exact."""
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        notes = library.collection(collection).create_index(IndexMethod.none, on_progress=progress)
        found = library.collection(collection).index_status()
    say_all([*notes, _done(found)])


def _done(found: "IndexStatus") -> str:
    """Return what a collection has after `create` or `drop`."""
    if found.index == IndexMethod.none:
        return f"Every search of {found.collection} now compares all {found.images:,} images."
    size = human_bytes(found.index_bytes + found.compact_bytes)
    return f"Built the index {found.index} of {found.collection}: {found.indexed:,} images, {size}."


@command(index_app, "status")
def status(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """Show the index, its size, and what a rebuild would take here."""
    from dataclasses import asdict

    require_object_format(format_)
    with open_library(settings) as library:
        found = library.collection(collection).index_status()
    if chosen_format(format_) is not Format.table:
        write_object(asdict(found), format_)
        return
    lines = {
        "method": found.method
        if found.method == found.index
        else f"{found.method}, in use: {found.index}",
        "images": f"{found.indexed:,} of {found.images:,} in the index",
    }
    if found.dims is not None:
        lines["dims"] = f"{found.dims:,}"
        lines["built with"] = ", ".join(f"{name} {value}" for name, value in found.options.items())
        lines["size"] = human_bytes(found.index_bytes)
    if found.fitted_at is not None:
        lines["size"] += f", and {human_bytes(found.compact_bytes)} of compact vectors"
        lines["projection"] = (
            f"version {found.version}, fitted to {found.sample:,} images on "
            f"{found.fitted_at:%Y-%m-%d %H:%M}, keeps {found.variance_kept:.1%} of the variance"
        )
    lines["ranking"] = found.how
    for metric, tuned in found.breadths.items():
        lines[f"tuned, {metric}"] = (
            f"{tuned['breadth']:,} candidates: {tuned['recall']:.2%} of the exact {tuned['k']} "
            "nearest"
        )
    lines["rebuild"] = (
        f"{human_bytes(found.memory)} of memory for a graph of {human_bytes(found.needed)}, "
        f"{found.workers + 1} process{'es' if found.workers else ''}"
    )
    for name, line in lines.items():
        show(f"{name:<14} {line}")
    if found.indexed < found.images and found.index == IndexMethod.compact:
        say(
            "Rows that vecsearch did not write have no compact vectors, so searches miss them. Add "
            f"them: vecsearch index create --method {IndexMethod.compact} --collection {collection}"
        )


@command(index_app, "ranking", interrupted="The ranking is as it was.")
def ranking(
    settings: Settings,
    ranking_: Annotated[
        Ranking | None,
        typer.Argument(
            metavar="[full|compact]",
            help=f"{Ranking.full} orders hits by the embeddings; {Ranking.compact} by their "
            "principal components, a few numbers in which the images differ most. "
            "Default: no change; prints the current one.",
        ),
    ] = None,
    dims: Annotated[
        int | None,
        typer.Option(
            min=DIMS.least,
            max=DIMS.most,
            help=f"Principal components to rank by. Default: those there are, or {DIMS.default}.",
        ),
    ] = None,
    expand: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Add the N nearest images to every question, and search again; 0 for none. "
            "Default: no change.",
        ),
    ] = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
) -> None:
    """Set what orders the hits of searches by cosine; those by words always use embeddings.

    `eval --improve` finds out which ranking is best for your images.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        asked = library.collection(collection)
        now = asked.index_status().ranking
        is_set = (ranking_, dims, expand) != (None, None, None)
        if is_set:
            chosen = ranking_ or now
            say_all(asked.set_ranking(chosen, dims=dims, expansion=expand, on_progress=progress))
        how = asked.index_status().how
        say(f"Searches of {collection!r} by cosine are {'now ' if is_set else ''}{how}.")


@command(index_app, "tune")
def tune(
    settings: Settings,
    recall: Annotated[
        float, typer.Option(help="The share of the exact answer that the index must find.")
    ] = RECALL,
    k: KOption = DEFAULT_K,
    metric: MetricOption = None,
    collection: CollectionOption = DEFAULT_COLLECTION,
    format_: FormatOption = None,
) -> None:
    """Find the fastest setting that reaches --recall, and save it.

    Stored images are queried exactly and through the index, with more and more candidates.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        tuned = library.collection(collection).tune_index(
            recall=recall, k=k, metric=metric, on_progress=progress
        )
    write_rows(
        [(score.breadth, score.recall, score.p50_ms, score.p95_ms) for score in tuned.scores],
        format_,
        columns=[tuned.breadth_name, f"recall@{k}", "p50_ms", "p95_ms"],
    )
    if tuned.choice is not None:
        say(
            f"Searches by {tuned.metric} for up to {k} images now examine "
            f"{tuned.choice.breadth:,} candidates and find {tuned.choice.recall:.2%} of the exact "
            f"answers, measured with {tuned.queries} queries."
        )
    else:
        say(f"No setting reaches {recall:.2%}, so nothing was changed; query --exact finds all.")
    if not tuned.index_used:
        say(f"At this size a search for the {k} nearest compares all images, and is exact.")
