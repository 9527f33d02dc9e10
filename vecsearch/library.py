"""The Python API: everything the commands do.

from vecsearch.library import Library

with Library.open() as library:
    library.ingest(["photos"])
    for hit in library.query("photos/cat.jpg", k=5):
        print(hit.rank, hit.path, hit.distance)
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import sqlalchemy as sa

from vecsearch.analysis import duplicates, tuning
from vecsearch.analysis.duplicates import Duplicates
from vecsearch.config import Settings
from vecsearch.encoders import base, registry
from vecsearch.encoders.autoencoder.pictures import train_autoencoder
from vecsearch.encoders.base import DEFAULT_MODEL, Encoder, LazyEncoder
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.errors import EncoderMismatch, SchemaMissing
from vecsearch.imaging import scan
from vecsearch.ingest import formats, transfer
from vecsearch.ingest.run import Ingest, Options, Progress, Summary
from vecsearch.postgres import catalog, database, migrate, quantized, schema, thumbnails
from vecsearch.postgres.catalog import CollectionStatus, IngestError, Status
from vecsearch.postgres.embedded import server
from vecsearch.search import query as searching
from vecsearch.search.embedder import Embedders, Picture, collection_encoder
from vecsearch.search.indexes import build, ddl
from vecsearch.search.query import Answer
from vecsearch.vocabulary import Precision

if TYPE_CHECKING:
    from vecsearch.analysis.compare import Comparison
    from vecsearch.analysis.evaluate import Evaluation

DEFAULT_COLLECTION = "images"


class Library:
    """A database of images. Open it with `Library.open()`, as a context manager."""

    train_autoencoder = staticmethod(train_autoencoder)

    def __init__(
        self,
        settings: Settings,
        url: str,
        resources: ExitStack,
        session: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.url = url
        self.engine = database.open_engine(url, session)
        self.embedders = Embedders(settings.runtime, settings.max_pixels, self._find_quantized)
        self._resources = resources
        resources.callback(self.engine.dispose)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        keep_running: bool = False,
        session: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the database that the settings name, starting the embedded one if it is that.

        Args:
            settings: None reads the environment.
            keep_running: leave the embedded server up after this library is closed.
            session: settings of Postgres for every connection.

        Raises:
            DatabaseUnavailable: the embedded server does not start.

        """
        settings = settings or Settings.load()
        with ExitStack() as resources:
            url = settings.database_url or resources.enter_context(
                server.lease(settings.data_dir, keep_running=keep_running)
            )
            return cls(settings, url, resources.pop_all(), session)

    def close(self) -> None:
        """Disconnect, and let the embedded server stop if nothing else uses it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upgrade(self) -> None:
        """Make the tables, or bring them up to date.

        Raises:
            ExtensionMissing, SchemaNewer: see `vecsearch.errors`.

        """
        with database.writing(self.engine) as connection:
            migrate.upgrade(connection)
        # Connections that were open before pgvector was installed do not have it on their path.
        self.engine.dispose()

    def ingest(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        weights: str | Path | None = None,
        precision: str | None = None,
        metadata: Path | None = None,
        prune: bool = False,
        dry_run: bool = False,
        index: str | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Summary:
        """Embed the images under `paths` that are new, and note what moved, changed or went.

        Args:
            paths: folders and files.
            collection: made if it does not exist.
            model: a timm model or an autoencoder's file; None is the collection's own, or ResNet50.
            weights: a file; None is where the collection's came from, or the model hub.
            precision: "fp32", or "int8" to calibrate a new collection's encoder on its pictures,
                which is faster and differs a little; None is the collection's own, or fp32.
            metadata: CSV or JSON lines, keyed by path or file name.
            prune: delete rows under `paths` whose files are gone.
            dry_run: only say what would be done.
            index: of a new collection: hnsw, compact or none; None is hnsw.
            on_progress: called after each batch, and while the index of a new collection is built.

        Raises:
            VecsearchError: what stopped the run; what was committed stays.

        """
        schema.require_collection_name(collection)
        registry.require_precision(precision)
        walk = scan.Walk([paths] if isinstance(paths, str | Path) else paths)
        if not dry_run:
            self._prepare_schema()
        notes: list[str] = []
        encoder = self._ingest_encoder(
            collection, model, weights, precision, walk, notes, remember=not dry_run
        )
        options = Options(
            prune=prune,
            dry_run=dry_run,
            metadata_file=metadata,
            max_pixels=self.settings.max_pixels,
            index_method=index,
        )
        with database.session(self.engine) as connection:
            run = Ingest(connection, collection, walk, encoder, options)
            for last in run:
                # What there is to tell is told at the very end, once.
                on_progress(replace(last, notes=()))
        notes = [*last.notes, *notes]
        if run.collection is not None and not dry_run:

            def indexing_progress(step: str, done: int, total: int | None) -> None:
                on_progress(replace(last, step=step, done=done, total=total or done, notes=()))

            notes += self.ensure_index(collection, on_progress=indexing_progress)
        if notes:
            on_progress(replace(last, notes=tuple(notes)))
        return run.summary

    def import_file(
        self,
        file: str | Path,
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        weights: str | Path | None = None,
        root: str | Path | None = None,
        index: str | None = None,
        on_progress: transfer.OnProgress = lambda *_: None,
    ) -> transfer.Imports:
        """Store embeddings from a CSV, NPZ or Parquet file: all of them, or none.

        Args:
            file: paths with their numbers, or an export of ours.
            collection: made if it does not exist.
            model: what made the numbers, if the file does not say; any name will do.
            weights: the model's file, which makes the collection one that new pictures can be
                searched in; without it only pictures that it holds can be.
            root: where the file's relative paths begin; None is the file's own folder.
            index: of a new collection: hnsw, compact or none; None is hnsw.
            on_progress: called after each block of rows.

        Raises:
            InvalidInput: the file, or a line of it, cannot be stored.
            EncoderError: the collection's embeddings were made by another encoder.

        """
        schema.require_collection_name(collection)
        path = Path(file).absolute()
        with formats.open_file(path) as contents:
            self._prepare_schema()
            origin = transfer.find_origin(
                path, contents, collection, model, weights, runtime=self.settings.runtime
            )
            with database.session(self.engine) as connection:
                done = transfer.import_file(
                    connection,
                    collection,
                    path,
                    contents,
                    origin,
                    root=path.parent if root is None else Path(root).absolute(),
                    max_pixels=self.settings.max_pixels,
                    index_method=index,
                    on_progress=on_progress,
                )
            self.ensure_index(collection, on_progress=on_progress)
            return done

    def export_file(
        self,
        file: str | Path,
        *,
        collection: str = DEFAULT_COLLECTION,
        on_progress: transfer.OnProgress = lambda *_: None,
    ) -> int:
        """Write a collection to a file, whole or not at all, and return the number of rows.

        Args:
            file: its suffix is the format: `.npz` and `.parquet` hold every column and the
                encoder's identity, `.csv` paths and numbers alone. One that is there is replaced.
            collection: which one.
            on_progress: called after each block of rows.

        Raises:
            InvalidInput: the file cannot be written, or its suffix names no format.

        """
        path = Path(file).absolute()
        formats.require_file(path)
        with self.reading(collection) as (connection, stored):
            return transfer.export_file(connection, stored, path, on_progress=on_progress)

    def query(
        self,
        image: str | Path | bytes | None = None,
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        weights: str | Path | None = None,
        **options: Any,
    ) -> Answer:
        """Return the images nearest to a file, a file's bytes, or `id=` a stored image.

        Args:
            image: its stored vector is used if its content is in the collection.
            collection: where to search.
            model: see `ingest`.
            weights: see `ingest`.
            options: fields of `vecsearch.search.query.Query`: id, k, metric, where, …

        Raises:
            VecsearchError: the query cannot be answered.

        """
        query = searching.Query(image=Path(image) if isinstance(image, str) else image, **options)
        picture = None if query.image is None else Picture.read(query.image)
        with self.reading(collection) as (connection, stored):
            searching.check(connection, stored, query)
            embedder = self.embedders.of(stored, model, weights)
            target = searching.find_target(connection, stored.table, query, picture)
            if target is not None:
                return searching.answer(connection, stored, target, query)
        assert picture is not None  # noqa: S101 - an id that nothing has is refused
        # No connection waits for an encoder.
        embedding = embedder.embed(picture)
        with self.reading(collection) as (connection, stored):
            return searching.answer(connection, stored, embedding, query)

    def create_index(
        self,
        method: str,
        *,
        collection: str = DEFAULT_COLLECTION,
        memory: int | None = None,
        workers: int | None = None,
        **options: Any,
    ) -> list[str]:
        """Build an index while searches go on, and return notes for a user.

        Args:
            method: hnsw, compact or none.
            collection: whose.
            memory: bytes that the build may take; None: what it needs, within bounds.
            workers: processes beside the first; None: as many as there are cores for.
            options: of `vecsearch.search.indexes.build.create`: dims, m, ef_construction, …

        Raises:
            VecsearchError: it cannot be built; what served before goes on.

        """
        with self._reading():
            pass
        return build.create(
            self.engine,
            collection,
            build.Method(method),
            resources=self._resources_for(memory, workers),
            **options,
        )

    def ensure_index(
        self,
        collection: str = DEFAULT_COLLECTION,
        *,
        on_progress: build.OnProgress = build.quiet,
    ) -> list[str]:
        """Build the index that a collection wants, if it is missing; return notes for a user."""
        return build.ensure(
            self.engine,
            collection,
            resources=self._resources_for(None, None),
            on_progress=on_progress,
        )

    def index_status(self, collection: str = DEFAULT_COLLECTION) -> build.IndexStatus:
        """Return what there is of a collection's index, and what building it would take."""
        with self.reading(collection) as (connection, stored):
            return build.status(connection, stored, self._resources_for(None, None))

    def tune_index(self, collection: str = DEFAULT_COLLECTION, **options: Any) -> tuning.Tuning:
        """Find the least breadth at which the index finds enough, and search so from now on.

        Args:
            collection: which one.
            options: of `vecsearch.analysis.tuning.tune`: recall, k, metric, on_progress.

        Raises:
            InvalidInput: an option makes no sense, or no index serves the metric.

        """
        with self.reading(collection) as (connection, stored):
            tuned = tuning.tune(connection, stored, **options)
        choice = tuned.choice
        if choice is not None:
            found = {"breadth": choice.breadth, "k": tuned.k, "recall": choice.recall}
            with database.writing(self.engine) as connection:
                ddl.set_breadth(connection, stored, tuned.metric, found)
        return tuned

    def _resources_for(self, memory: int | None, workers: int | None) -> build.Resources:
        return build.Resources(memory, workers, embedded=self.settings.database_url is None)

    def evaluate(self, collection: str = DEFAULT_COLLECTION, **options: Any) -> "Evaluation":
        """Score a collection's answers against labels, and its index against the exact answer.

        Args:
            collection: which one.
            options: of `vecsearch.analysis.evaluate.evaluate`: k, metric, labelling, …

        Raises:
            VecsearchError: the collection or its labels cannot be scored.

        """
        from vecsearch.analysis import evaluate

        with self.reading(collection) as (connection, stored):
            return evaluate.evaluate(connection, stored, **options)

    def compare(self, one: str, other: str, **options: Any) -> "Comparison":
        """Ask two collections the same questions, of the images that both hold.

        Args:
            one: a collection; its labels count.
            other: another.
            options: of `vecsearch.analysis.compare.compare`: k, metric, labelling, …

        Raises:
            VecsearchError: they share too few images, or cannot be scored.

        """
        from vecsearch.analysis import compare

        with self._reading() as connection:
            stored = [catalog.get_collection(connection, name) for name in (one, other)]
            return compare.compare(connection, stored, **options)

    def duplicates(self, collection: str = DEFAULT_COLLECTION, **options: Any) -> Duplicates:
        """Group near-duplicates; options: of `vecsearch.analysis.duplicates.find`."""
        with self.reading(collection) as (connection, stored):
            return duplicates.find(connection, stored, **options)

    def not_duplicates(
        self, one: UUID | str, other: UUID | str, *, collection: str = DEFAULT_COLLECTION
    ) -> bool:
        """Remember that two images are no near-duplicates; tell whether that is new."""
        with database.writing(self.engine) as connection:
            migrate.require_current(connection)
            stored = catalog.get_collection(connection, collection)
            return duplicates.remember_not(connection, stored, one, other)

    def image_path(self, image_id: UUID | str, *, collection: str = DEFAULT_COLLECTION) -> str:
        """Return the path of a stored image."""
        with self.reading(collection) as (connection, stored):
            target = searching.stored_id(connection, stored.table, image_id)
            return catalog.image_path(connection, stored.table, target)

    def thumbnails(
        self, ids: Iterable[UUID], *, collection: str = DEFAULT_COLLECTION
    ) -> dict[UUID, bytes]:
        """Return the thumbnails of stored images, as WebP; those that have none are left out."""
        with self._reading() as connection:
            table = catalog.get_collection(connection, collection).table
            return thumbnails.find(connection, table, ids)

    def status(self) -> Status:
        """Return versions, sizes and the state of every index."""
        url = sa.make_url(self.url)
        with database.reading(self.engine) as connection:
            pgvector = migrate.pgvector_version(connection)
            info = connection.dialect.server_version_info or ()
        return Status(
            database=url.render_as_string(hide_password=True),
            embedded=self.settings.database_url is None,
            postgres=".".join(map(str, info)),
            pgvector=pgvector,
            advice=migrate.pgvector_advice(pgvector),
            collections=self.collections(),
        )

    def check(self) -> None:
        """Check that the database answers, and that its tables, if there are any, fit.

        Raises:
            DatabaseError: it does not, or they do not.

        """
        with suppress(SchemaMissing), self._reading():
            pass

    def collections(self) -> list[CollectionStatus]:
        """Return every collection, by name; none if the database has no tables yet."""
        try:
            with self._reading() as connection:
                return catalog.list_status(connection)
        except SchemaMissing:
            return []

    def collection_names(self) -> list[str]:
        """Return the names of the collections; none if the database has no tables yet."""
        try:
            with self._reading() as connection:
                return catalog.list_names(connection)
        except SchemaMissing:
            return []

    def errors(self, *, collection: str = DEFAULT_COLLECTION) -> list[IngestError]:
        """Return the files that could not be ingested, and why."""
        with self._reading() as connection:
            return catalog.list_errors(connection, collection)

    @contextmanager
    def sql(
        self, statement: str, *, write: bool = False
    ) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]], str]]:
        """Run one statement and yield column names, rows, and the server's summary.

        Args:
            statement: one SQL statement.
            write: otherwise the transaction is read-only.

        Raises:
            DatabaseError: Postgres refused it.

        """
        opened = database.writing if write else database.reading
        with opened(self.engine) as connection:
            yield catalog.run_sql(connection, statement)

    @contextmanager
    def reading(
        self, collection: str = DEFAULT_COLLECTION
    ) -> Iterator[tuple[sa.Connection, catalog.Collection]]:
        """Yield a connection in a read-only transaction, for `vecsearch.queries`, and a collection.

        Raises:
            CollectionNotFound: there is none of this name.
            SchemaError: the tables are of another version.

        """
        with self._reading() as connection:
            yield connection, catalog.get_collection(connection, collection)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with database.reading(self.engine) as connection:
            migrate.require_current(connection)
            yield connection

    def _prepare_schema(self) -> None:
        """Set up a database that has no tables; refuse one whose tables are of another version."""
        try:
            with database.reading(self.engine) as connection:
                migrate.require_current(connection)
        except SchemaMissing:
            self.upgrade()

    def _find_quantized(self, precision: str) -> Exported | None:
        with self._reading() as connection:
            return quantized.find(connection, precision)

    def _ingest_encoder(
        self,
        name: str,
        model: str | None,
        weights: str | Path | None,
        precision: str | None,
        walk: scan.Walk,
        notes: list[str],
        *,
        remember: bool,
    ) -> Encoder:
        try:
            with self._reading() as connection:
                stored = catalog.find_collection(connection, name)
        except SchemaMissing:
            stored = None
        runtime = self.settings.runtime
        if stored is None:
            chosen = model or DEFAULT_MODEL
            exact = LazyEncoder(lambda: registry.quickest(chosen, weights, runtime))
            if precision != Precision.int8 or not remember:
                return exact
            from vecsearch.encoders.openvino import calibration

            made = calibration.calibrate(
                exact, scan.Walk(walk.roots), runtime, max_pixels=self.settings.max_pixels
            )
            with database.writing(self.engine) as connection:
                quantized.store(connection, made.encoder.identity.precision, made.exported)
            notes.append(made.note)
            return made.encoder
        if precision is not None and precision != stored.identity.precision.partition("-")[0]:
            raise EncoderMismatch(
                f"Collection {name!r} was made in {stored.identity.precision}, which --precision "
                f"{precision} does not compare with. Leave --precision out, or use a collection "
                "of its own: --collection NAME"
            )
        encoder = collection_encoder(stored, model, weights, runtime, self._find_quantized)
        named = registry.weights_file(model, weights)
        if remember and named is not None and stored.identity.weights_sha256 is not None:
            found = base.Weights.of_file(named)
            if found != stored.weights:
                with database.writing(self.engine) as connection:
                    catalog.remember_weights(connection, name, found)
        return encoder
