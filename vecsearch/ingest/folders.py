"""From folders to a summary, once or at each change: the encoder, the run, the index."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vecsearch.errors import CollectionNotFound, DatabaseError, DatabaseUnavailable, EncoderError
from vecsearch.imaging import scan
from vecsearch.imaging.sources import watching
from vecsearch.ingest import choose, pending, pruning
from vecsearch.ingest.annotations.labels import Labels
from vecsearch.ingest.resuming import resumed
from vecsearch.ingest.run import Ingest, Options
from vecsearch.ingest.stages import cluster
from vecsearch.ingest.summary import Progress, PruneRefused, Summary
from vecsearch.postgres import catalog, database, migrate, schema
from vecsearch.search import tags
from vecsearch.search.indexes import build
from vecsearch.search.store import Store
from vecsearch.vocabulary import Confirm, IndexMethod, Precision, parse, refuse


@dataclass(frozen=True)
class Ingesting:
    """What to ingest, and how.

    Attributes:
        paths: folders and files.
        model: a model's name or file; None uses the collection's, or ResNet50, or a packaged
            network if ResNet50's weights cannot be had.
        weights: a file; None uses the location of the collection's weights, or the model hub.
        precision: int8 calibrates a new collection's encoder on its own pictures; None uses the
            collection's precision, or fp32.
        metadata: CSV or JSON lines, keyed by path or file name.
        label: the label of all images; None: that of a new or moved image is its folder's name, and
            others keep theirs.
        label_regex: a regular expression that is searched for in each path as it is stored: the
            label is its group `label`, else its first group, else the whole match. An image whose
            path does not match gets its folder's name. Not together with `label`.
        prune: delete rows under `paths` whose files are gone.
        confirm: takes a sentence, and returns whether to go on; see `vecsearch.ingest.pruning`.
        dry_run: report what would be done, and change nothing.
        index: index method of a new collection: hnsw, compact or none; None uses hnsw.
        ray: embed on this cluster: auto, local or HOST:PORT (docs/scale.md); None embeds here.
        on_progress: called after each batch, and while the index of a new collection is built.

    """

    paths: str | Path | Iterable[str | Path]
    model: str | None = None
    weights: str | Path | None = None
    precision: str | None = None
    metadata: Path | None = None
    label: str | None = None
    label_regex: str | None = None
    prune: bool = False
    confirm: Confirm = refuse
    dry_run: bool = False
    index: str | None = None
    ray: str | None = None
    on_progress: Callable[[Progress], None] = lambda _: None

    def named(self) -> list[str | Path]:
        """Return the paths as a list."""
        return [self.paths] if isinstance(self.paths, str | Path) else [*self.paths]


def ingest(store: Store, name: str, wanted: Ingesting) -> Summary:
    """Ingest folders and files; see `vecsearch.collection.Collection.ingest`."""
    schema.require_collection_name(name)
    method = None if wanted.index is None else parse(IndexMethod, wanted.index)
    precision = None if wanted.precision is None else parse(Precision, wanted.precision)
    labels = Labels.parse(wanted.label, wanted.label_regex)
    dry_run, on_progress = wanted.dry_run, wanted.on_progress
    paths = wanted.named()
    pruning.require_no_lost(store.engine, name, paths)
    walk = scan.Walk(paths)
    with cluster.connected(wanted.ray, store, name, walk) as place:
        created = [] if dry_run else migrate.prepare(store.engine)
        encoder, notes = choose.encoder(
            store,
            name,
            walk,
            model=wanted.model,
            weights=wanted.weights,
            precision=precision,
            remember=not dry_run,
        )
        options = Options(
            prune=wanted.prune,
            confirm=wanted.confirm,
            dry_run=dry_run,
            metadata_file=wanted.metadata,
            labels=labels,
            max_pixels=store.settings.max_pixels,
            index_method=method,
        )
        runs: list[Ingest] = []

        def attempt() -> list[str]:
            """Make a run, which finds what earlier ones have stored; return notes of the index."""
            with database.session(store.engine) as connection, pending.dropped_after(connection):
                run = Ingest(connection, name, scan.Walk(walk.named), encoder, options, place())
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

        with _named_if_dropped(store, name, runs):
            built, lost = resumed(store, attempt, lambda: sum(run.summary.changed for run in runs))
        summary = _together([run.summary for run in runs])
        summary = replace(summary, notes=(*summary.notes, *notes, *created, *built, *lost))
        if (question := runs[-1].refused) is not None:
            raise PruneRefused(question, summary)
        return summary


@contextmanager
def _named_if_dropped(store: Store, name: str, runs: Sequence[Ingest]) -> Iterator[None]:
    """Say that a collection was dropped, if that is why a run failed.

    Raises:
        CollectionNotFound: it was there, and is no longer.

    """
    try:
        yield
    except (DatabaseError, CollectionNotFound) as error:
        was_there = any(run.collection is not None for run in runs)
        if isinstance(error, DatabaseUnavailable) or not was_there:
            raise
        with migrate.reading_current(store.engine) as connection:
            if name in catalog.list_names(connection):
                raise
        raise CollectionNotFound(
            f"Collection {name!r} was dropped or renamed during the ingest, which ended there. "
            "To see which there are: vecsearch collections. To ingest into a new one, run the "
            "command again."
        ) from error


def watch(store: Store, name: str, wanted: Ingesting) -> Iterator[Summary]:
    """Ingest folders at once and at each change; see `vecsearch.collection.Collection.watch`."""
    roots = watching.require_folders(wanted.named(), name)
    return _watched(store, name, replace(wanted, paths=roots), roots)


def _watched(store: Store, name: str, wanted: Ingesting, roots: Sequence[str]) -> Iterator[Summary]:
    was_there = False
    for _ in watching.changes(roots, apart=store.settings.data_dir):
        summary, lost = resumed(
            store, lambda: _without_raising(store, name, wanted), was_there=was_there
        )
        was_there = True
        yield replace(summary, notes=(*summary.notes, *lost))


def _without_raising(store: Store, name: str, wanted: Ingesting) -> Summary:
    """Ingest; a prune that was not confirmed is a note, as it ends no watching."""
    try:
        return ingest(store, name, wanted)
    except PruneRefused as error:
        return replace(error.summary, notes=(*error.summary.notes, str(error)))


def _together(summaries: Sequence[Summary]) -> Summary:
    """Return the summary of a run in several attempts.

    What an attempt stored is unchanged in the next one.
    """
    *before, last = summaries
    changed = {
        name: getattr(last, name) + sum(getattr(summary, name) for summary in before)
        for name in ("added", "updated", "moved", "copied", "pruned")
    }
    known = sum(summary.changed for summary in before)
    return replace(last, unchanged=max(0, last.unchanged - known), **changed)
