"""The Python API, which does everything that the commands do.

from vecsearch.library import Library

with Library.open() as library:
    images = library.collection("images")
    images.ingest(["photos"])
    for hit in images.query("photos/cat.jpg", k=5):
        print(hit.rank, hit.path, hit.distance)
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from vecsearch import files
from vecsearch.analysis.sampling import FOLDERS, Labelling
from vecsearch.collection import Collection
from vecsearch.config import Settings
from vecsearch.encoders.autoencoder.pictures import train_autoencoder
from vecsearch.errors import SchemaMissing, SchemaNewer, SchemaOutdated
from vecsearch.postgres import catalog, database, migrate
from vecsearch.postgres.dumping import dump
from vecsearch.postgres.embedded import access, server
from vecsearch.postgres.embedded.reviving import Revival
from vecsearch.postgres.sessions import adhoc, configuration
from vecsearch.postgres.sessions.configuration import Configuration
from vecsearch.search import functions, repair
from vecsearch.search.indexes import capacity, shards
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.indexes.capacity import Capacity
from vecsearch.search.indexes.shards import Distributed
from vecsearch.search.query import Answer, Query, taking
from vecsearch.search.repair import Repaired
from vecsearch.search.status import CollectionStatus, Status, list_status
from vecsearch.search.store import Store
from vecsearch.vocabulary import DEFAULT_COLLECTION, DEFAULT_K, Confirm, refuse

if TYPE_CHECKING:
    import sqlalchemy as sa

    from vecsearch.analysis.compare import Comparison
    from vecsearch.search.questions.embedder import Embedders


# The types that `Library` takes or returns, for programs to import.
__all__ = ["Answer", "Collection", "CollectionStatus", "Library", "Query", "Restored", "Status"]


@dataclass(frozen=True)
class Restored:
    """The names of the collections that were restored, and notes for the user."""

    names: list[str]
    notes: list[str]


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
        """Wrap a database that is already running; `open` also starts the embedded one.

        Args:
            settings: of the commands and the encoders.
            url: the database's.
            resources: closed with the library; holds the lease of the embedded server, if any.
            session: Postgres settings for every connection.

        """
        is_embedded = settings.database_url is None
        reader_url = access.as_local(url) if is_embedded else settings.reader_url
        self._store = Store(settings, url, session, reader_url)
        if is_embedded:
            revival = Revival(settings.data_dir)
            resources.callback(revival.end)
            for engine in (self.engine, self.reader):
                database.reviving(engine, revival)
        self._resources = resources
        resources.callback(self.engine.dispose)
        resources.callback(self._store.reader.dispose)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        keep_running: bool = False,
        session: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the database of the settings; start the embedded server if they name none.

        Args:
            settings: None reads the environment.
            keep_running: keep the embedded server running after this library is closed.
            session: Postgres settings for every connection.

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
        """Disconnect, and stop the embedded server if nothing else uses it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """The settings of the library."""
        return self._store.settings

    @property
    def url(self) -> str:
        """The database's URL."""
        return self._store.url

    @property
    def engine(self) -> "sa.Engine":
        """The database's SQLAlchemy engine, as the role that may change it."""
        return self._store.engine

    @property
    def reader(self) -> "sa.Engine":
        """The database's SQLAlchemy engine, as a role that can only read, if there is one."""
        return self._store.reader

    @property
    def embedders(self) -> "Embedders":
        """The encoders of query pictures; a loaded encoder is kept."""
        return self._store.embedders

    def collection(self, name: str = DEFAULT_COLLECTION) -> Collection:
        """Return a collection, which need not exist; `ingest` and `import_file` create it."""
        return Collection(self._store, name)

    @taking(Query)
    def query(self, query: Query) -> Answer:
        """Query the default collection; takes the arguments of `Query`, see `Collection.ask`."""
        return self.collection().ask(query)

    def compare(
        self,
        one: str,
        other: str,
        *,
        k: int = DEFAULT_K,
        metric: str | None = None,
        labelling: Labelling = FOLDERS,
        seed: int = 0,
        examples: int = 0,
        on_progress: OnProgress = quiet,
    ) -> "Comparison":
        """Answer the same queries from two collections, and score both.

        Args:
            one: a collection; labels are read from it.
            other: another collection.
            k: number of nearest images per query.
            metric: metric for both; None uses each collection's default.
            labelling: where labels come from; images with the query's label are relevant.
            seed: seed for choosing the queries.
            examples: number of queries whose hits to return for display.
            on_progress: called from time to time.

        Raises:
            InvalidInput: the collections share too few images, or cannot be scored.

        """
        from vecsearch.analysis import compare

        with migrate.reading_current(self.reader) as connection:
            return compare.compare(
                connection,
                [catalog.get_collection(connection, name) for name in (one, other)],
                k=k,
                metric=metric,
                labelling=labelling,
                seed=seed,
                examples=examples,
                on_progress=on_progress,
            )

    def upgrade(self) -> list[str]:
        """Create the tables, or migrate them to this version; return notes for the user.

        Raises:
            ExtensionMissing, SchemaNewer: see `vecsearch.errors`.

        """
        notes: list[str] = []
        renamed = [
            f"Renamed collection {old!r} to {new!r}: vecsearch now reserves the old name."
            for old, new in migrate.run(self.engine, notes).items()
        ]
        return [*renamed, *notes]

    def repair(
        self,
        collection: str | None = None,
        *,
        dry_run: bool = False,
        confirm: Confirm = refuse,
    ) -> list[Repaired]:
        """Make again what is missing of collections; return what was found and done.

        Args:
            collection: its name; None mends all, and deletes thumbnails of no image.
            dry_run: return what would be done, and change nothing.
            confirm: takes a sentence, and returns whether to remove what it says.

        Raises:
            NotConfirmed: everything was mended but what `confirm` returned False for.

        """
        return repair.repair(
            self.engine,
            collection,
            dry_run=dry_run,
            confirm=confirm,
            resources=self._store.resources(),
        )

    def distribute(
        self, collection: str | None = None, **options: Unpack[shards.Options]
    ) -> tuple[list[Distributed], list[str]]:
        """Put a collection, or all, into shards; see `vecsearch.search.indexes.shards`."""
        return shards.distribute(self.engine, collection, self._store.resources(), **options)

    def missing_settings(self) -> Configuration:
        """Return the settings that plain SQL needs and new sessions lack; see `configure`.

        Raises:
            SchemaMissing: the database has no tables yet.

        """
        with database.reading(self.engine) as connection:
            return configuration.read(connection)

    def configure(self, wanted: Configuration) -> Configuration:
        """Store settings for new sessions; return what a new session lacks then.

        That is what the role overrides for itself, if anything.
        """
        with database.writing(self.engine) as connection:
            configuration.apply(connection, wanted)
        self.engine.dispose()
        return self.missing_settings()

    def dump(self, file: str | Path, *, collection: str | None = None) -> None:
        """Write all collections, or one of them, to a file.

        A dump of all collections also has views and columns that the user added to our schema.

        Args:
            file: an existing file is replaced.
            collection: the collection to dump; None dumps all of them.

        Raises:
            InvalidInput: the file cannot be written, and is unchanged.
            DatabaseError: pg_dump fails, or is too old for the server.

        """
        path = Path(file).absolute()
        files.require_writable(path)
        with suppress(SchemaOutdated, SchemaNewer):
            migrate.check(self.engine)
        if collection is None:
            dump.dump(self.engine, path)
        else:
            dump.dump_collection(self.engine, collection, path, self.settings.data_dir)

    def restore(
        self, file: str | Path, *, collection: str | None = None, on_progress: OnProgress = quiet
    ) -> Restored:
        """Restore the collections of a dump, all or none, with their indexes.

        Args:
            file: a file that `dump` wrote, with this version of vecsearch or an older one.
            collection: one of the dump's collections; None restores all of them.
            on_progress: called while indexes are built.

        Raises:
            InvalidInput: the file is not a dump, or one of its collections already exists.
            SchemaNewer: a newer vecsearch made the dump.

        """
        names = dump.restore(self.engine, Path(file).absolute(), self.settings.data_dir, collection)
        with database.writing(self.engine) as connection:
            for name in names:
                functions.replace(connection, catalog.get_collection(connection, name))
        notes = [
            note
            for name in names
            for note in self.collection(name).ensure_index(on_progress=on_progress)
        ]
        return Restored(names, notes)

    def status(self) -> Status:
        """Return versions, sizes and the state of every index."""
        with database.reading(self.reader) as connection:
            pgvector = migrate.pgvector_version(connection)
            info = connection.dialect.server_version_info or ()
            advice = [migrate.pgvector_advice(pgvector), database.superuser_advice(connection)]
        return Status(
            database=database.without_password(self.url),
            embedded=self.settings.database_url is None,
            postgres=".".join(map(str, info)),
            pgvector=pgvector,
            advice=" ".join(item for item in advice if item) or None,
            collections=self.collections(),
        )

    def capacity(self, images: int) -> list[Capacity]:
        """Estimate what each collection would take if it had so many images.

        Raises:
            InvalidInput: a collection has no images to measure.

        """
        with migrate.reading_current(self.reader) as connection:
            return [
                capacity.estimate(connection, stored, images, self._store.resources())
                for stored in catalog.list_collections(connection)
            ]

    def check(self) -> None:
        """Check that the database answers, and that its tables, if any, are of this version.

        Raises:
            DatabaseError: one of these is not the case.

        """
        with suppress(SchemaMissing):
            migrate.check(self.reader)

    def require_least_role(self) -> None:
        """Check that SQL can only read; see `adhoc.require_least`."""
        with database.reading(self.reader) as connection:
            adhoc.require_least(connection)

    def collections(self) -> list[CollectionStatus]:
        """Return all collections, sorted by name; none if the database has no tables yet."""
        try:
            with migrate.reading_current(self.reader) as connection:
                return list_status(connection)
        except SchemaMissing:
            return []

    def collection_names(self) -> list[str]:
        """Return the names of the collections; none if the database has no tables yet."""
        try:
            with migrate.reading_current(self.reader) as connection:
                return catalog.list_names(connection)
        except SchemaMissing:
            return []

    @contextmanager
    def sql(
        self, statement: str, *, write: bool = False, **options: Unpack[adhoc.Options]
    ) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]], str]]:
        """Run one statement and yield column names, rows, and the server's summary.

        Args:
            statement: one SQL statement.
            write: commit the transaction; otherwise it is read-only, and runs as `reader`.
            options: of time and of rows; see `vecsearch.postgres.sessions.adhoc.running`.

        Raises:
            InvalidInput: there is no statement in the text.
            DatabaseError: Postgres refused the statement.

        """
        engine = self.engine if write else self.reader
        with adhoc.running(engine, statement, write=write, **options) as result:
            yield result
