"""The Python API: everything the commands do.

from vecsearch.library import Library

with Library.open() as library:
    library.ingest(["photos"])
    for hit in library.query("photos/cat.jpg", k=5):
        print(hit.rank, hit.path, hit.distance)
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import sqlalchemy as sa

from vecsearch import (
    compare,
    database,
    encoders,
    evaluate,
    exchange,
    images,
    migrate,
    schema,
    search,
    server,
    transfer,
)
from vecsearch.compare import Comparison
from vecsearch.config import Settings
from vecsearch.encoders import DEFAULT_MODEL, Encoder, LazyEncoder
from vecsearch.errors import InvalidInput, SchemaMissing
from vecsearch.evaluate import Evaluation, Labelling, OnProgress
from vecsearch.ingest import Ingest, Options, Progress, Summary
from vecsearch.queries import catalog, nearest
from vecsearch.queries.catalog import CollectionStatus, IngestError
from vecsearch.queries.nearest import Hit

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vecsearch.encoders.training import Training

DEFAULT_COLLECTION = "images"
# Of imported embeddings, when nobody says what made them.
UNKNOWN_MODEL = "unknown"
# Earlier ones have an overflow in parallel index builds and a corruption in vacuum.
RECOMMENDED_PGVECTOR = (0, 8, 4)


@dataclass(frozen=True)
class Status:
    """The database and everything in it.

    Attributes:
        database: its URL, without the password.
        embedded: whether it is the one from the wheel.
        postgres: the server's version.
        pgvector: the extension's version; None if there is none.
        advice: what an administrator should know; None is good.

    """

    database: str
    embedded: bool
    postgres: str
    pgvector: str | None
    advice: str | None
    collections: list[CollectionStatus]


@dataclass(frozen=True)
class Answer:
    """What a query found, and how; iterating it yields the hits.

    Attributes:
        hits: nearest first.
        sql: the statement that ran, with its settings, ready for psql.
        plan: Postgres' plan for it.
        uses_index: whether the HNSW index served it, or every row was compared.
        metric: what the distances are.
        candidates: how many of the nearest by cosine were compared by the metric; None: all rows.

    """

    hits: list[Hit]
    sql: str
    plan: str
    uses_index: bool
    metric: str
    candidates: int | None

    def __iter__(self) -> Iterator[Hit]:
        """Iterate over the hits, nearest first."""
        return iter(self.hits)


class Library:
    """A database of images. Open it with `Library.open()`, as a context manager."""

    def __init__(self, settings: Settings, url: str, resources: ExitStack) -> None:
        self.settings = settings
        self.url = url
        self.engine = database.open_engine(url)
        self._resources = resources
        resources.callback(self.engine.dispose)

    @classmethod
    def open(cls, settings: Settings | None = None, *, keep_running: bool = False) -> Self:
        """Open the database that the settings name, starting the embedded one if it is that.

        Args:
            settings: None reads the environment.
            keep_running: leave the embedded server up after this library is closed.

        Raises:
            DatabaseUnavailable: the embedded server does not start.

        """
        settings = settings or Settings.load()
        with ExitStack() as resources:
            url = settings.database_url or resources.enter_context(
                server.lease(settings.data_dir, keep_running=keep_running)
            )
            return cls(settings, url, resources.pop_all())

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
        metadata: Path | None = None,
        prune: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Summary:
        """Embed the images under `paths` that are new, and note what moved, changed or went.

        Args:
            paths: folders and files.
            collection: made if it does not exist.
            model: a timm model or an autoencoder's file; None is the collection's own, or ResNet50.
            weights: a file; None is where the collection's came from, or the model hub.
            metadata: CSV or JSON lines, keyed by path or file name.
            prune: delete rows under `paths` whose files are gone.
            dry_run: only say what would be done.
            on_progress: called after each batch.

        Raises:
            VecsearchError: what stopped the run; what was committed stays.

        """
        schema.require_collection_name(collection)
        walk = images.Walk([paths] if isinstance(paths, str | Path) else paths)
        if not dry_run:
            self._prepare_schema()
        encoder = self._ingest_encoder(collection, model, weights, remember=not dry_run)
        options = Options(
            prune=prune,
            dry_run=dry_run,
            metadata_file=metadata,
            max_pixels=self.settings.max_pixels,
        )
        with database.session(self.engine) as connection:
            run = Ingest(connection, collection, walk, encoder, options)
            for progress in run:
                on_progress(progress)
            return run.summary

    def import_file(
        self,
        file: str | Path,
        *,
        collection: str = DEFAULT_COLLECTION,
        model: str | None = None,
        weights: str | Path | None = None,
        root: str | Path | None = None,
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
            on_progress: called after each block of rows.

        Raises:
            InvalidInput: the file, or a line of it, cannot be stored.
            EncoderError: the collection's embeddings were made by another encoder.

        """
        schema.require_collection_name(collection)
        path = Path(file).absolute()
        with exchange.open_file(path) as contents:
            self._prepare_schema()
            origin = self._origin(transfer.read_origin(contents, path), collection, model, weights)
            with database.session(self.engine) as connection:
                return transfer.import_file(
                    connection,
                    collection,
                    path,
                    contents,
                    origin,
                    root=path.parent if root is None else Path(root).absolute(),
                    max_pixels=self.settings.max_pixels,
                    on_progress=on_progress,
                )

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
        exchange.require_format(path)
        with self._reading() as connection:
            stored = catalog.get_collection(connection, collection)
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
            options: fields of `vecsearch.search.Query`: id, k, metric, where, …

        Raises:
            VecsearchError: the query cannot be answered.

        """
        query = search.Query(image=Path(image) if isinstance(image, str) else image, **options)
        with self._reading() as connection:
            stored = catalog.get_collection(connection, collection)
            encoder = self._collection_encoder(stored, model, weights)
            planned = search.plan(
                connection, stored, encoder, query, max_pixels=self.settings.max_pixels
            )
            hits, ran = nearest.nearest(connection, planned)
            plan, uses_index = nearest.explain(connection, ran)
            return Answer(hits, nearest.script(ran), plan, uses_index, ran.metric, ran.candidates)

    def evaluate(
        self,
        collection: str = DEFAULT_COLLECTION,
        *,
        k: int = 10,
        metric: str | None = None,
        labelling: Labelling | None = None,
        seed: int = 0,
        on_progress: OnProgress = lambda *_: None,
    ) -> Evaluation:
        """Score a collection's answers against labels, and its index against the exact answer.

        Args:
            collection: which one.
            k: length of an answer.
            metric: None is the collection's default.
            labelling: which images belong together; None is the folder's name.
            seed: of the choice of queries in a large collection.
            on_progress: called with what is being done, how far it is, and of how much.

        Raises:
            VecsearchError: the collection or its labels cannot be scored.

        """
        with self._reading() as connection:
            stored = catalog.get_collection(connection, collection)
            return evaluate.evaluate(
                connection,
                stored,
                k=k,
                metric=search.require_metric(metric or stored.default_metric, stored),
                labelling=labelling or Labelling(),
                seed=seed,
                on_progress=on_progress,
            )

    def compare(
        self,
        one: str,
        other: str,
        *,
        k: int = 10,
        metric: str | None = None,
        labelling: Labelling | None = None,
        seed: int = 0,
        examples: int = 0,
        on_progress: OnProgress = lambda *_: None,
    ) -> Comparison:
        """Ask two collections the same questions, of the images that both hold.

        Args:
            one: a collection; its labels count.
            other: another.
            k: length of an answer.
            metric: of both; None is each collection's default.
            labelling: see `evaluate`.
            seed: see `evaluate`.
            examples: how many queries to answer for looking at.
            on_progress: see `evaluate`.

        Raises:
            VecsearchError: they share too few images, or cannot be scored.

        """
        with self._reading() as connection:
            stored = [catalog.get_collection(connection, name) for name in (one, other)]
            return compare.compare(
                connection,
                stored,
                k=k,
                metrics=[
                    search.require_metric(metric or each.default_metric, each) for each in stored
                ],
                labelling=labelling or Labelling(),
                seed=seed,
                examples=examples,
                on_progress=on_progress,
            )

    def image_path(self, image_id: UUID | str, *, collection: str = DEFAULT_COLLECTION) -> str:
        """Return the path of a stored image."""
        with self._reading() as connection:
            table = catalog.get_collection(connection, collection).table
            target = search.stored_id(connection, table, image_id)
            return catalog.image_path(connection, table, target)

    def status(self) -> Status:
        """Return versions, sizes and the state of every index."""
        url = sa.make_url(self.url)
        with database.reading(self.engine) as connection:
            pgvector = migrate.pgvector_version(connection)
            info = connection.dialect.server_version_info or ()
        advice = None
        if pgvector and tuple(map(int, pgvector.split("."))) < RECOMMENDED_PGVECTOR:
            advice = (
                f"pgvector {pgvector} has faults in index builds and vacuum that "
                f"{'.'.join(map(str, RECOMMENDED_PGVECTOR))} mends; upgrade it."
            )
        return Status(
            database=url.render_as_string(hide_password=True),
            embedded=self.settings.database_url is None,
            postgres=".".join(map(str, info)),
            pgvector=pgvector,
            advice=advice,
            collections=self.collections(),
        )

    def collections(self) -> list[CollectionStatus]:
        """Return every collection, by name; none if the database has no tables yet."""
        try:
            with self._reading() as connection:
                return catalog.list_status(connection)
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

    @staticmethod
    def train_autoencoder(
        paths: Iterable[str | Path],
        output: Path,
        *,
        settings: Settings | None = None,
        on_unreadable: Callable[[images.Unreadable], None] = lambda _: None,
        **options: Any,
    ) -> "Training":
        """Train an encoder on the images under `paths` and write it to `output`.

        Iterate the result to do so; see `vecsearch.encoders.training.Training`.

        Args:
            paths: folders and files.
            output: a `.safetensors` file, usable as `--model`.
            settings: for the device and the cap on pixels; None reads the environment.
            on_unreadable: called with each file that is left out.
            options: fields of `vecsearch.encoders.training.Options`: latent, epochs, resume, …

        Raises:
            InvalidInput: the output cannot be written there, or an option makes no sense.

        """
        settings = settings or Settings.load()
        if output.suffix != ".safetensors":
            raise InvalidInput(f"{output} does not end in .safetensors. Give it that suffix.")
        if not os.access(output.absolute().parent, os.W_OK):
            raise InvalidInput(
                f"The folder {output.absolute().parent} cannot be written to. "
                "Choose another --output."
            )
        walk = images.Walk(paths)
        files = list(walk)
        for item in walk.unreadable:
            on_unreadable(item)

        def pictures() -> "Iterator[Picture]":
            for file in files:
                image = images.load(file.path, max_pixels=settings.max_pixels)
                if isinstance(image, images.Unreadable):
                    on_unreadable(image)
                else:
                    yield image.pixels

        from vecsearch.encoders import training

        sides = (side for file in files if (side := images.longer_side(file.path)) is not None)
        chosen = training.Options(device=settings.device, **options)
        return training.Training(pictures(), sides, output, chosen)

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

    def _ingest_encoder(
        self, name: str, model: str | None, weights: str | Path | None, *, remember: bool
    ) -> Encoder:
        try:
            with self._reading() as connection:
                stored = catalog.find_collection(connection, name)
        except SchemaMissing:
            stored = None
        device = self.settings.device
        if stored is None:
            chosen = model or DEFAULT_MODEL
            return LazyEncoder(lambda: encoders.load(chosen, weights, device=device))
        encoder = self._collection_encoder(stored, model, weights)
        named = model if model and encoders.is_file_name(model) else weights
        if remember and named is not None:
            found = encoders.Weights.of_file(named)
            if found != stored.weights:
                with database.writing(self.engine) as connection:
                    catalog.remember_weights(connection, name, found)
        return encoder

    def _origin(
        self,
        told: transfer.Origin | None,
        name: str,
        model: str | None,
        weights: str | Path | None,
    ) -> transfer.Origin:
        """Return what made a file's embeddings: the file's own word, or the caller's."""
        device = self.settings.device
        if told is not None:
            encoders.for_collection(
                name, told.identity, told.weights, model=model, weights=weights, device=device
            )
            named = model if model and encoders.is_file_name(model) else weights
            return told if named is None else replace(told, weights=encoders.Weights.of_file(named))
        if weights is not None or (model is not None and encoders.is_file_name(model)):
            encoder = encoders.load(model or DEFAULT_MODEL, weights, device=device)
            return transfer.Origin(encoder.identity, encoder.weights, encoder.dimensions)
        unknown = encoders.Identity(model or UNKNOWN_MODEL, encoders.POOLED, None, {})
        return transfer.Origin(unknown, encoders.Weights(None, None))

    def _collection_encoder(
        self, stored: catalog.Collection, model: str | None, weights: str | Path | None
    ) -> Encoder:
        return encoders.for_collection(
            stored.name,
            stored.identity,
            stored.weights,
            model=model,
            weights=weights,
            device=self.settings.device,
        )
