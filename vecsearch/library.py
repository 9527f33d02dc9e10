"""The Python API: everything the commands do.

from vecsearch.library import Library

with Library.open() as library:
    images = library.collection("images")
    images.ingest(["photos"])
    for hit in images.query("photos/cat.jpg", k=5):
        print(hit.rank, hit.path, hit.distance)
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vecsearch import files
from vecsearch.analysis.sampling import FOLDERS, Labelling
from vecsearch.collection import Collection
from vecsearch.config import Settings
from vecsearch.encoders.autoencoder.pictures import train_autoencoder
from vecsearch.errors import SchemaMissing, SchemaNewer, SchemaOutdated
from vecsearch.postgres import adhoc, catalog, database, dump, migrate
from vecsearch.postgres.embedded import server
from vecsearch.search import collections
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.query import Answer, Query, taking
from vecsearch.search.status import CollectionStatus, Status, list_status
from vecsearch.search.store import Store
from vecsearch.vocabulary import DEFAULT_COLLECTION, DEFAULT_K

if TYPE_CHECKING:
    import sqlalchemy as sa

    from vecsearch.analysis.compare import Comparison
    from vecsearch.search.embedder import Embedders


# What programs import from here, for `Library` gives or takes it.
__all__ = ["Answer", "Collection", "CollectionStatus", "Library", "Query", "Status"]


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
        self._store = Store(settings, url, session)
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

    @property
    def settings(self) -> Settings:
        """What the library was opened with."""
        return self._store.settings

    @property
    def url(self) -> str:
        """The database's URL."""
        return self._store.url

    @property
    def engine(self) -> "sa.Engine":
        """SQLAlchemy's engine on the database."""
        return self._store.engine

    @property
    def embedders(self) -> "Embedders":
        """The encoders of query pictures, each kept once it is loaded."""
        return self._store.embedders

    def collection(self, name: str = DEFAULT_COLLECTION) -> Collection:
        """Return a collection, which need not exist yet; `ingest` and `import_file` make it."""
        return Collection(self._store, name)

    @taking(Query)
    def query(self, query: Query) -> Answer:
        """Ask the default collection; takes what `Query` takes, see `Collection.ask`."""
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
        """Ask two collections the same questions, about the images that both hold.

        Args:
            one: a collection; its labels count.
            other: another.
            k: length of an answer.
            metric: of both; None: each collection's default.
            labelling: what is relevant.
            seed: chooses the queries.
            examples: how many queries to answer for looking at.
            on_progress: called now and then.

        Raises:
            InvalidInput: they share too few images, or cannot be scored.

        """
        from vecsearch.analysis import compare

        with migrate.reading_current(self.engine) as connection:
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
        """Create the tables, or bring them up to date; return notes for a user.

        Raises:
            ExtensionMissing, SchemaNewer: see `vecsearch.errors`.

        """
        return [
            f"Renamed collection {old!r} to {new!r}: vecsearch uses the old name itself now."
            for old, new in migrate.run(self.engine).items()
        ]

    def dump(self, file: str | Path, *, collection: str | None = None) -> None:
        """Write every collection, or one of them, to a file, whole or not at all.

        A dump of everything also holds the user's own views, and columns of collections' tables.

        Args:
            file: an existing one is replaced.
            collection: None: all of them.

        Raises:
            InvalidInput: the file cannot be written.
            DatabaseError: pg_dump fails, or is too old for the server.

        """
        path = Path(file).absolute()
        files.require_writable(path)
        with suppress(SchemaOutdated, SchemaNewer), migrate.reading_current(self.engine):
            pass
        if collection is None:
            dump.dump(self.engine, path)
        else:
            dump.dump_collection(self.engine, collection, path, self.settings.data_dir)

    def restore(
        self, file: str | Path, *, collection: str | None = None, on_progress: OnProgress = quiet
    ) -> list[str]:
        """Restore the collections of a dump, all or none, with their indexes; return their names.

        Args:
            file: what `dump` wrote, with this version of vecsearch or an older one.
            collection: one of the dump's; None: all of them.
            on_progress: called while indexes are built.

        Raises:
            InvalidInput: it is not a dump, or one of its collections exists already.
            SchemaNewer: a newer vecsearch made it.

        """
        names = dump.restore(self.engine, Path(file).absolute(), self.settings.data_dir, collection)
        with database.writing(self.engine) as connection:
            for name in names:
                collections.order_nearest(connection, catalog.get_collection(connection, name))
        for name in names:
            self.collection(name).ensure_index(on_progress=on_progress)
        return names

    def status(self) -> Status:
        """Return versions, sizes and the state of every index."""
        with database.reading(self.engine) as connection:
            pgvector = migrate.pgvector_version(connection)
            info = connection.dialect.server_version_info or ()
        return Status(
            database=database.without_password(self.url),
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
        with suppress(SchemaMissing), migrate.reading_current(self.engine):
            pass

    def collections(self) -> list[CollectionStatus]:
        """Return every collection, by name; none if the database has no tables yet."""
        try:
            with migrate.reading_current(self.engine) as connection:
                return list_status(connection)
        except SchemaMissing:
            return []

    def collection_names(self) -> list[str]:
        """Return the names of the collections; none if the database has no tables yet."""
        try:
            with migrate.reading_current(self.engine) as connection:
                return catalog.list_names(connection)
        except SchemaMissing:
            return []

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
        with adhoc.running(self.engine, statement, write=write) as result:
            yield result
