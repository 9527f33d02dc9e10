"""From folders to a summary: the encoder is chosen, the run made, the index built."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from vecsearch.errors import EncoderError
from vecsearch.imaging import scan
from vecsearch.ingest import choose, pending, pruning
from vecsearch.ingest.resuming import resumed
from vecsearch.ingest.run import Ingest, Options
from vecsearch.ingest.stages import cluster
from vecsearch.ingest.summary import Progress, PruneRefused, Summary
from vecsearch.postgres import database, migrate, schema
from vecsearch.search import tags
from vecsearch.search.indexes import build
from vecsearch.search.store import Store
from vecsearch.vocabulary import Confirm, IndexMethod, Precision, parse


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
    ray: str | None,
    on_progress: Callable[[Progress], None],
) -> Summary:
    """Ingest folders and files; see `vecsearch.collection.Collection.ingest`."""
    schema.require_collection_name(name)
    method = None if index is None else parse(IndexMethod, index)
    wanted = None if precision is None else parse(Precision, precision)
    paths = list(paths)
    pruning.require_no_lost(store.engine, name, paths)
    walk = scan.Walk(paths)
    with cluster.connected(ray, store, name, walk) as place:
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
        runs: list[Ingest] = []

        def attempt() -> list[str]:
            """Make a run, which finds what earlier ones have stored; return notes of the index."""
            with database.session(store.engine) as connection, pending.dropped_after(connection):
                run = Ingest(connection, name, scan.Walk(walk.roots), encoder, options, place())
                runs.append(run)
                for last in run:
                    on_progress(last)
            if run.collection is None or dry_run:
                return []

            def on_build(step: str, done: int, total: int | None) -> None:
                on_progress(replace(last, step=step, done=done, total=total or done))

            # A run that was killed may have left rows without tags.
            try:
                tags.ensure(store.engine, name, on_progress=on_build)
            except EncoderError as error:
                if any(run.has_created for run in runs):
                    raise
                untagged = [f"Images without tags were left so. {error}"]
            else:
                untagged = []
            resources = store.resources()
            return untagged + build.ensure(
                store.engine, name, resources=resources, on_progress=on_build
            )

        built, lost = resumed(store, attempt, lambda: sum(_stored(run.summary) for run in runs))
        summary = _together([run.summary for run in runs])
        summary = replace(summary, notes=(*summary.notes, *notes, *created, *built, *lost))
        if (question := runs[-1].refused) is not None:
            raise PruneRefused(question, summary)
        return summary


def _stored(summary: Summary) -> int:
    return summary.added + summary.updated + summary.moved + summary.copied


def _together(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of a run in several attempts.

    What an attempt stored is unchanged in the next one.
    """
    *before, last = summaries
    changed = {
        name: getattr(last, name) + sum(getattr(summary, name) for summary in before)
        for name in ("added", "updated", "moved", "copied", "pruned")
    }
    known = sum(_stored(summary) for summary in before)
    return replace(last, unchanged=max(0, last.unchanged - known), **changed)
