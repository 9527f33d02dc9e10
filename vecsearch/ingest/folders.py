"""From folders to a summary: the encoder is chosen, the run made, the index built."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from vecsearch.imaging import scan
from vecsearch.ingest import choose, pending, pruning
from vecsearch.ingest.pruning import Confirm
from vecsearch.ingest.run import Ingest, Options
from vecsearch.ingest.summary import Progress, PruneRefused, Summary
from vecsearch.postgres import database, migrate, schema
from vecsearch.search import tags
from vecsearch.search.indexes import build
from vecsearch.search.store import Store
from vecsearch.vocabulary import IndexMethod, Precision, parse


def ingest(
    store: Store,
    name: str,
    paths: Iterable[str | Path],
    *,
    model: str | None,
    weights: str | Path | None,
    precision: str | None,
    metadata: Path | None,
    prune: bool,
    confirm: Confirm,
    dry_run: bool,
    index: str | None,
    on_progress: Callable[[Progress], None],
) -> Summary:
    """Ingest folders and files; see `vecsearch.collection.Collection.ingest`."""
    schema.require_collection_name(name)
    method = None if index is None else parse(IndexMethod, index)
    wanted = None if precision is None else parse(Precision, precision)
    paths = list(paths)
    pruning.require_no_lost(store.engine, name, paths)
    walk = scan.Walk(paths)
    created = [] if dry_run else migrate.prepare(store.engine)
    encoder, notes = choose.encoder(
        store,
        name,
        walk,
        model=model,
        weights=weights,
        precision=wanted,
        remember=not dry_run,
    )
    options = Options(
        prune=prune,
        confirm=confirm,
        dry_run=dry_run,
        metadata_file=metadata,
        max_pixels=store.settings.max_pixels,
        index_method=method,
    )
    with database.session(store.engine) as connection, pending.dropped_after(connection):
        run = Ingest(connection, name, walk, encoder, options)
        for last in run:
            on_progress(last)
    notes = [*run.summary.notes, *notes, *created]
    if run.collection is not None and not dry_run:

        def on_build(step: str, done: int, total: int | None) -> None:
            on_progress(replace(last, step=step, done=done, total=total or done))

        if run.has_created:
            tags.ensure(store.engine, name, on_progress=on_build)
        notes += build.ensure(store.engine, name, resources=store.resources(), on_progress=on_build)
    summary = replace(run.summary, notes=tuple(notes))
    if run.refused is not None:
        raise PruneRefused(run.refused, summary)
    return summary
