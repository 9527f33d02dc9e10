"""One collection, with a typed method for everything that can be done with it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack
from uuid import UUID

from vecsearch.analysis import derived, evaluate, improve, tuning
from vecsearch.analysis.derived import Refresh, Refreshed
from vecsearch.analysis.duplicates import apart, groups
from vecsearch.analysis.duplicates.apart import Apart
from vecsearch.analysis.duplicates.groups import Duplicates
from vecsearch.analysis.evaluate import Evaluation
from vecsearch.analysis.improve import Improvement, Judging
from vecsearch.analysis.sampling import FOLDERS, Labelling
from vecsearch.analysis.tidy.acting import Tidy
from vecsearch.ingest import folders, formats, pruning, transfer
from vecsearch.ingest.folders import Ingesting
from vecsearch.ingest.pruning import Forgotten
from vecsearch.ingest.resuming import resumed
from vecsearch.ingest.summary import Summary
from vecsearch.postgres import catalog, database, drop, migrate
from vecsearch.render.notebook import Drawn
from vecsearch.search import collections, execute
from vecsearch.search.images import Images
from vecsearch.search.indexes import build, ddl
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.query import Answer, Query, taking
from vecsearch.search.questions import concepts
from vecsearch.search.questions.concepts import Word
from vecsearch.search.store import Store
from vecsearch.search.tags import Tags
from vecsearch.vocabulary import DEFAULT_K, RECALL, Confirm, IndexMethod, Ranking, parse, refuse

if TYPE_CHECKING:
    import sqlalchemy as sa


class Collection(Images):
    """A collection of a library; creating this object does not access the database.

    Every method raises `CollectionNotFound` if there is no such collection, and `SchemaError` if
    the tables are of another version of vecsearch; see `vecsearch.errors`.
    """

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store, name)
        self.tags = Tags(store, name)
        self.tidy = Tidy(store, name)

    @taking(Ingesting)
    def ingest(self, wanted: Ingesting) -> Summary:
        """Embed the new and changed images under `paths`, and update the rows of moved ones.

        Takes the arguments of `Ingesting`. The collection is created if it does not exist.

        Raises:
            NotConfirmed: everything was done but the prune, because `confirm` returned False.
            VecsearchError: the error that stopped the run; committed rows are kept.

        """
        return folders.ingest(self._store, self.name, wanted)

    @taking(Ingesting)
    def watch(self, wanted: Ingesting) -> Iterator[Summary]:
        """Ingest at once, and again whenever files under `paths` have changed; never ends.

        Takes the arguments of `Ingesting`, and yields the summary of each ingest. A prune that is
        not confirmed is one of its notes.

        Raises:
            InvalidInput: a path is not a folder of this machine, or cannot be watched.
            VecsearchError: the error that stopped an ingest; a database that has gone away is
                waited for, about a minute.

        """
        return folders.watch(self._store, self.name, wanted)

    def forget(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        existing: bool = False,
        dry_run: bool = False,
        confirm: Confirm = refuse,
    ) -> Forgotten:
        """Delete the rows, tags, thumbnails and errors of what is under `paths`; touch no file.

        Args:
            paths: folders and files that are gone for good.
            existing: forget files that are still there, too; the next ingest adds them again.
            dry_run: return what would be deleted, and delete nothing.
            confirm: takes a sentence, and returns whether to go on.

        Raises:
            InvalidInput: nothing under `paths` is stored, or some files are still there.
            NotConfirmed: `confirm` returned False.

        """
        return pruning.forget(
            self._store.engine,
            self.name,
            [paths] if isinstance(paths, str | Path) else paths,
            existing=existing,
            dry_run=dry_run,
            confirm=confirm,
        )

    def import_file(
        self,
        file: str | Path,
        *,
        model: str | None = None,
        weights: str | Path | None = None,
        root: str | Path | None = None,
        index: str | None = None,
        on_progress: OnProgress = quiet,
    ) -> transfer.Imports:
        """Store all embeddings of a CSV, NPZ or Parquet file, or none if one fails.

        The collection is created if it does not exist.

        Args:
            file: paths with embeddings, or an export of vecsearch.
            model: name of the model that made the embeddings, known or not, if the file has none.
            weights: the model's file; without it, only the collection's pictures can be asked by.
            root: folder of the file's relative paths; None uses the file's own folder.
            index: index method of a new collection: hnsw, compact or none; None uses hnsw.
            on_progress: called after each block of rows.

        Raises:
            InvalidInput: the file, or one of its lines, is invalid.
            EncoderError: the collection's embeddings were made by another encoder.

        """
        done, lost = resumed(
            self._store,
            lambda: transfer.store_file(
                self._store,
                self.name,
                Path(file).absolute(),
                model=model,
                weights=weights,
                root=None if root is None else Path(root).absolute(),
                index=index,
                on_progress=on_progress,
            ),
        )
        return replace(done, notes=(*done.notes, *lost))

    def export_file(self, file: str | Path, *, on_progress: OnProgress = quiet) -> int:
        """Write the collection to a file, and return the number of rows.

        Args:
            file: an existing file is replaced. The suffix sets the format: `.npz` and `.parquet`
                have every column and the encoder's identity, `.csv` only paths and embeddings.
            on_progress: called after each block of rows.

        Raises:
            InvalidInput: the file cannot be written and is unchanged, or its suffix is unknown.

        """
        path = Path(file).absolute()
        formats.require_file(path)
        with self._reading() as (connection, stored):
            return transfer.export_file(connection, stored, path, on_progress=on_progress)

    def ask(self, query: Query) -> Answer:
        """Return the images nearest to the image or id of a query; a notebook draws the answer.

        Raises:
            VecsearchError: the query cannot be answered.

        """
        answer = execute.ask(self._store.reader, self.name, query, self._store.embedders)
        return Drawn(**vars(answer), thumbnails=self.thumbnails)

    @taking(Query)
    def query(self, query: Query) -> Answer:
        """Return the images nearest to a picture; takes the arguments of `Query`, see `ask`."""
        return self.ask(query)

    def create_index(
        self,
        method: str,
        *,
        memory: int | None = None,
        workers: int | None = None,
        on_progress: OnProgress = quiet,
        **options: int | None,
    ) -> list[str]:
        """Build an index while searches go on, and return notes for the user.

        Args:
            method: hnsw, compact or none.
            memory: bytes that the build may use; None uses what it needs, within bounds.
            workers: parallel workers in addition to the main process; None depends on the cores.
            on_progress: called from time to time.
            options: see `vecsearch.vocabulary.build_options`; None uses the default.

        Raises:
            VecsearchError: the index cannot be built; the old one stays in use.

        """
        return build.create(
            self._store.engine,
            self.name,
            parse(IndexMethod, method),
            {name: value for name, value in options.items() if value is not None},
            resources=self._store.resources(memory, workers),
            on_progress=on_progress,
        )

    def set_ranking(
        self,
        ranking: str,
        *,
        expansion: int | None = None,
        dims: int | None = None,
        on_progress: OnProgress = quiet,
    ) -> list[str]:
        """Set what orders the hits of searches by cosine; return notes for the user.

        Args:
            ranking: full or compact; see `vecsearch.vocabulary.Ranking`.
            expansion: number of nearest images that expand a question; None keeps it.
            dims: dimensions of compact vectors; None keeps those there are, or uses the default.
            on_progress: called from time to time.

        Raises:
            VecsearchError: an option is invalid, or compact vectors cannot be made.

        """
        return build.rank(
            self._store.engine,
            self.name,
            parse(Ranking, ranking),
            expansion=expansion,
            dims=dims,
            resources=self._store.resources(),
            on_progress=on_progress,
        )

    def ensure_index(self, *, on_progress: OnProgress = quiet) -> list[str]:
        """Build the collection's index if it is missing; return notes for the user."""
        engine, resources = self._store.engine, self._store.resources()
        return build.ensure(engine, self.name, resources=resources, on_progress=on_progress)

    def tune_index(
        self,
        *,
        recall: float = RECALL,
        k: int = DEFAULT_K,
        metric: str | None = None,
        on_progress: OnProgress = quiet,
    ) -> tuning.Tuning:
        """Find the fastest setting of the index that reaches a recall, and save it.

        Args:
            recall: the mean share of the exact k nearest images to reach.
            k: number of nearest images per query.
            metric: metric that ranks the answers; None uses the collection's default.
            on_progress: called from time to time.

        Raises:
            InvalidInput: an option has an invalid value, or no index serves the metric.

        """
        with self._reading() as (connection, stored):
            tuned = tuning.tune(
                connection, stored, recall=recall, k=k, metric=metric, on_progress=on_progress
            )
        if (found := tuned.found) is not None:
            with database.writing(self._store.engine) as connection:
                ddl.set_breadth(connection, stored, tuned.metric, found)
        return tuned

    def evaluate(
        self,
        *,
        k: int = DEFAULT_K,
        metric: str | None = None,
        labelling: Labelling = FOLDERS,
        seed: int = 0,
        on_progress: OnProgress = quiet,
    ) -> Evaluation:
        """Score answers against labels, and the index against exact search.

        Args:
            k: number of nearest images per query.
            metric: metric that ranks the answers; None uses the collection's default.
            labelling: where labels come from; images with the query's label are relevant.
            seed: seed for choosing the queries, if there are more images than can be used.
            on_progress: called from time to time.

        Raises:
            InvalidInput: the collection or its labels cannot be scored.

        """
        with self._reading() as (connection, stored):
            return evaluate.evaluate(
                connection,
                stored,
                k=k,
                metric=metric,
                labelling=labelling,
                seed=seed,
                on_progress=on_progress,
            )

    @taking(Judging)
    def improve(self, judging: Judging) -> Improvement:
        """Score several rankings, and say which to use; takes the arguments of `Judging`."""
        with self._reading() as (connection, stored):
            embedder = self._store.embedders.of(stored)
            return improve.improve(connection, stored, embedder.embed_pixels, judging)

    def duplicates(self, **options: Unpack[groups.Options]) -> Duplicates:
        """Group near-duplicates; see `vecsearch.analysis.duplicates.groups.find`."""
        with self._reading() as (connection, stored):
            return groups.find(connection, stored, **options)

    def duplicates_state(self) -> tuple[int, ...]:
        """Return numbers that change when the answer of `duplicates` may."""
        with self._reading() as (connection, stored):
            return groups.state(connection, stored)

    def not_duplicates(self, one: UUID | str, *others: UUID | str) -> bool:
        """Record that an image is not a near-duplicate of others; return whether a pair is new."""
        with self._recording() as (connection, stored):
            return apart.remember(connection, stored.table, one, others)

    def undo_not_duplicates(self, one: UUID | str, *others: UUID | str) -> int:
        """Forget what `not_duplicates` recorded; return the number of pairs that were recorded."""
        with self._recording() as (connection, stored):
            return apart.forget(connection, stored.table, one, others)

    def recorded_not_duplicates(self, limit: int) -> list[Apart]:
        """Return what `not_duplicates` recorded the last few times, the last first."""
        with self._reading() as (connection, stored):
            return apart.latest(connection, stored.table, limit)

    @taking(Refresh)
    def refresh(self, wanted: Refresh) -> list[Refreshed]:
        """Refresh tables for analysts; takes the arguments of `Refresh`."""
        return derived.refresh(self._store.engine, self.name, wanted)

    def concepts(self) -> list[Word]:
        """Return the words that `query(text=…)` takes; none if the encoder has no classifier.

        An older collection's are read from its encoder's weights, and stored, and so are its tags.
        """
        self.tags.ensure()
        with self._reading() as (connection, stored):
            return concepts.listed(connection, stored)

    def drop(self, *, cascade: bool = False) -> list[str]:
        """Drop the collection with its rows, embeddings and index; return notes for the user.

        Image files are not touched.

        Args:
            cascade: drop what `dependents` describes, too.

        Raises:
            InvalidInput: views or other objects that the user created depend on its table.
            DatabaseBusy: other programs are using its table.

        """
        with database.writing(self._store.engine) as connection:
            migrate.require_current(connection)
            return drop.drop(connection, self.name, cascade=cascade)

    def rename(self, new: str) -> list[str]:
        """Rename the collection; return notes for the user. This object keeps the old name.

        Raises:
            InvalidInput: `new` cannot name a table, or something else has that name.
            DatabaseBusy: other programs are using its table.

        """
        with database.writing(self._store.engine) as connection:
            migrate.require_current(connection)
            return collections.rename(connection, self.name, new)

    @contextmanager
    def _recording(self) -> "Iterator[tuple[sa.Connection, catalog.StoredCollection]]":
        with database.writing(self._store.engine) as connection:
            migrate.require_current(connection)
            yield connection, catalog.get_collection(connection, self.name)
