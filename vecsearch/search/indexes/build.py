"""Build an index while readers and writers go on, and switch to it in one short transaction.

An interrupted build leaves the old index in use, and the next build starts over.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic

import sqlalchemy as sa

from vecsearch.errors import DatabaseBusy, InvalidInput, VecsearchError
from vecsearch.postgres import catalog, distributed, migrate
from vecsearch.postgres.catalog import Compact, StoredCollection
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.postgres.rows import lock_collection
from vecsearch.postgres.sessions import waits
from vecsearch.search import functions
from vecsearch.search.indexes import METHODS, ddl
from vecsearch.search.indexes.resources import ANY, Resources, choose, gigabytes
from vecsearch.search.lookup import count
from vecsearch.vocabulary import (
    DIMS,
    EF_CONSTRUCTION,
    IndexMethod,
    M,
    Metric,
    Ranking,
    build_options,
    choices,
    least_ef_construction,
    require_expansion,
)

# How long to wait for readers of the old index. A transaction that has run for longer has planned
# its statements.
READERS_TIMEOUT_S, POLL_S = 10.0, 0.2
DROP_TIMEOUT_S = 5

# Called with the current step, the number of units done, and their total, if known.
OnProgress = Callable[[str, int, int | None], None]


def quiet(_step: str, _done: int, _total: int | None) -> None:
    """Show no progress."""


def create(
    engine: sa.Engine,
    name: str,
    method: IndexMethod,
    options: Mapping[str, int],
    *,
    resources: Resources = ANY,
    on_progress: OnProgress = quiet,
) -> list[str]:
    """Build an index, switch to it, and drop the old one; return notes for the user.

    A collection that ranks by compact vectors keeps ranking by as many of them; see `rank`.

    Args:
        engine: the database's engine.
        name: the collection.
        method: the index method.
        options: values by `BuildOption.name`; a missing one has its default.
        resources: memory and workers for the build.
        on_progress: called from time to time.

    Raises:
        InvalidInput: an option is out of range, or the method cannot index the collection.
        DatabaseBusy: another command is building the collection's index.

    """
    options = _checked(method, options)
    with _builder(engine, name) as (connection, collection):
        if isinstance(collection, str):
            raise _busy(name, collection)
        if collection.ranking is Ranking.compact and method is not IndexMethod.compact:
            raise InvalidInput(
                f"Collection {name!r} ranks by compact vectors, which --method {method} does not "
                f"keep. First: vecsearch index ranking full --collection {name}"
            )
        if collection.ranking is Ranking.compact and DIMS.name in collection.index_options:
            options.setdefault(DIMS.name, collection.index_options[DIMS.name])
        build = Build(connection, collection, resources, on_progress)
        build.run(method, options)
        return build.notes


def rank(
    engine: sa.Engine,
    name: str,
    ranking: Ranking,
    *,
    expansion: int | None = None,
    dims: int | None = None,
    resources: Resources = ANY,
    on_progress: OnProgress = quiet,
) -> list[str]:
    """Set what orders the hits of a collection; return notes for the user.

    Compact vectors are made if there are none, or none of so many dimensions and of this ranking's
    index.

    Args:
        engine: the database's engine.
        name: the collection.
        ranking: the ranking.
        expansion: see `vecsearch.search.query.Query.expand`; None keeps the collection's.
        dims: dimensions of compact vectors; None keeps those there are, or uses the default.
        resources: memory and workers for a build.
        on_progress: called from time to time.

    Raises:
        InvalidInput: an option is out of range.
        DatabaseBusy: another command is building the collection's index.

    """
    if expansion is not None:
        require_expansion(expansion)
    if dims is not None and ranking is not Ranking.compact:
        raise InvalidInput(f"--dims is for the ranking {Ranking.compact}. Omit it.")
    options = {} if dims is None else _checked(IndexMethod.compact, {DIMS.name: dims})
    with _builder(engine, name) as (connection, collection):
        if isinstance(collection, str):
            raise _busy(name, collection)
        build = Build(connection, collection, resources, on_progress)
        build.ranking = ranking
        build.expansion = collection.expansion if expansion is None else expansion
        compact = collection.compact
        compact_dims = collection.index_options.get(DIMS.name, DIMS.default)
        if ranking is Ranking.compact and (
            compact is None
            or compact.metric is not Metric.cosine
            or (dims or compact_dims) != compact_dims
            or METHODS[IndexMethod.compact].is_missing(connection, collection)
        ):
            if collection.index_method is IndexMethod.compact:
                options = {**collection.index_options, **options}
            else:
                build.notes.append(
                    f"The index is now {IndexMethod.compact}; it was {collection.index_method}."
                )
            build.run(IndexMethod.compact, options)
        else:
            with waits.bounded(connection, build.notes):
                build.switch(collection.index_method, collection.index_options, compact)
        return build.notes


def ensure(
    engine: sa.Engine,
    name: str,
    *,
    resources: Resources = ANY,
    on_progress: OnProgress = quiet,
) -> list[str]:
    """Build the collection's index if it is missing; return notes for the user."""
    with catalog.reading(engine, name) as (connection, collection):
        wanted = METHODS[collection.index_method]
        if not wanted.is_missing(connection, collection):
            waiting = wanted.waiting(collection)
            return [] if waiting is None else [waiting]
    with _builder(engine, name) as (connection, claimed):
        if isinstance(claimed, str):
            note = f"{claimed} is building the index of {name!r}."
            return [f"{note} Until that ends, every search compares all images."]
        if not METHODS[claimed.index_method].is_missing(connection, claimed):
            return []
        build = Build(connection, claimed, resources, on_progress)
        build.run(claimed.index_method, claimed.index_options)
        return build.notes


def _busy(name: str, builder: str) -> DatabaseBusy:
    return DatabaseBusy(f"{builder} is building the index of {name!r}. Retry when that ends.")


def _checked(method: IndexMethod, given: Mapping[str, int]) -> dict[str, int]:
    """Return the options, with defaults that depend on them.

    Raises:
        InvalidInput: an option is unknown or out of range, or the method does not have it.

    """
    known = {option.name: option for option in build_options()}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise InvalidInput(
            f"Unknown index option {', '.join(map(repr, unknown))}. Use {choices(known)}."
        )
    options = dict(given)
    for name, value in options.items():
        option = known[name]
        if not option.least <= value <= option.most:
            raise InvalidInput(
                f"{option.flag} is {value}. Give a number from {option.least} to {option.most:,}."
            )
    m = options.get(M.name, M.default)
    if options.get(EF_CONSTRUCTION.name, max(EF_CONSTRUCTION.default, 2 * m)) < 2 * m:
        raise InvalidInput(
            f"{EF_CONSTRUCTION.flag} is less than twice {M.flag}. Give at least {2 * m}."
        )
    for name in options.keys() - {option.name for option in method.options}:
        raise InvalidInput(f"--method {method} has no option {known[name].flag}. Omit it.")
    # pgvector's default is too small for this m.
    if 2 * m > EF_CONSTRUCTION.default:
        options.setdefault(EF_CONSTRUCTION.name, 2 * m)
    return options


@contextmanager
def _builder(
    engine: sa.Engine, name: str
) -> Iterator[tuple[sa.Connection, StoredCollection | str]]:
    """Yield a connection that commits each statement, and the collection.

    If another session is building its index, yield that session's name instead.
    """
    with translated(), engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        is_claimed = False
        try:
            migrate.require_current(connection)
            collection = catalog.get_collection(connection, name)
            builder = ddl.claim(connection, collection.name)
            is_claimed = builder is None
            # Read it again, because another command may have built the index meanwhile.
            yield connection, builder or catalog.get_collection(connection, name)
        finally:
            if is_claimed:
                # Now, not when the server notices that the session has ended.
                with suppress(sa.exc.SQLAlchemyError):
                    ddl.release(connection, name)
            # Close the connection instead of pooling it, to drop its settings.
            connection.invalidate()


class Build:
    """One build of an index.

    Attributes:
        connection: a connection that commits each statement unless a transaction is begun.
        collection: the collection as it was when the build began.
        on_progress: called from time to time.
        notes: notes for the user.
        ranking, expansion: the collection's from the switch on.

    """

    def __init__(
        self,
        connection: sa.Connection,
        collection: StoredCollection,
        resources: Resources,
        on_progress: OnProgress,
    ) -> None:
        self.connection = connection
        self.collection = collection
        self.on_progress = on_progress
        self.notes: list[str] = []
        self.ranking = collection.ranking
        self.expansion = collection.expansion
        self._resources = resources

    def run(self, method: IndexMethod, options: Mapping[str, int]) -> None:
        """Build an index, switch to it, and drop the old one."""
        with waits.bounded(self.connection, self.notes, give_up=waits.BUILD_GIVE_UP_S):
            self._run(method, options)

    def _run(self, method: IndexMethod, options: Mapping[str, int]) -> None:
        collection, index = self.collection, METHODS[method]
        index.require(collection)
        self._drop_versions(but=collection.compact)
        rows = count(self.connection, collection.table)
        made = index.build(self, rows, options)
        self.switch(method, options, made)
        if collection.compact is not None:
            self._wait_for_readers()
        self._drop_versions(but=made)
        for other in METHODS.values():
            if other is not index:
                for name in other.names(collection.name):
                    ddl.drop(self.connection, name)

    @property
    def metric(self) -> Metric:
        """The metric by which compact vectors are indexed.

        They rank by cosine; as candidates for the embeddings, their L2 distance is nearer.
        """
        return Metric.cosine if self.ranking is Ranking.compact else Metric.l2

    def switch(
        self, method: IndexMethod, options: Mapping[str, int], compact: Compact | None
    ) -> None:
        """Switch searches to an index and a ranking, in one transaction."""
        with self.writing():
            distributed.one_by_one(self.connection)
            ddl.use(
                self.connection,
                self.collection,
                method,
                dict(options),
                compact,
                ranking=self.ranking,
                expansion=self.expansion,
            )
            used = catalog.get_collection(self.connection, self.collection.name)
            functions.replace(self.connection, used)

    def graph(
        self,
        name: str,
        table: sa.Table,
        column: str,
        operators: str,
        options: Mapping[str, int],
        rows: int,
        dimensions: int,
    ) -> None:
        """Build an HNSW index; see `vecsearch.search.indexes.ddl.build`."""
        server = ddl.server_settings(self.connection)
        chosen = choose(rows, dimensions, server, self._resources)
        if chosen.memory < chosen.needed:
            self.notes.append(
                f"The graph needs {gigabytes(chosen.needed)} and the build had "
                f"{gigabytes(chosen.memory)}, so the build was slower than necessary. "
                f"If the server has more memory, use: --memory {gigabytes(chosen.needed)}"
            )
        ddl.apply(self.connection, chosen.memory, chosen.workers)
        of_graph = {option.name for option in build_options() if option.is_of_graph}
        graph = {key: value for key, value in options.items() if key in of_graph}
        grown = least_ef_construction(rows)
        # Each shard has a graph of its own, of fewer rows.
        if grown > EF_CONSTRUCTION.default and not self.collection.is_distributed:
            graph.setdefault(EF_CONSTRUCTION.name, grown)
        with self.watched():
            ddl.build(self.connection, name, table, column, operators, graph)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Begin a transaction that holds the collection's write lock."""
        driver = driver_connection(self.connection)
        with driver.transaction():
            lock_collection(self.connection, self.collection.name)
            yield

    def _drop_versions(self, *, but: Compact | None) -> None:
        for version in catalog.compact_versions(self.connection, self.collection.name):
            if version == but:
                continue
            try:
                with self.writing():
                    ddl.wait_for_locks(self.connection, DROP_TIMEOUT_S)
                    catalog.drop_compact(self.connection, version)
            except sa.exc.OperationalError as error:
                if not ddl.is_lock_timeout(error):
                    raise
                # Give up soon: writers wait for this transaction, which waits for the reader.
                self.notes.append(
                    "The old compact vectors are still being read; the next build drops them."
                )

    def _wait_for_readers(self) -> None:
        """Wait for transactions that may still read the old compact vectors."""
        waiting = ddl.readers(self.connection)
        until = monotonic() + READERS_TIMEOUT_S
        pause = threading.Event()
        while waiting and monotonic() < until:
            pause.wait(POLL_S)
            waiting &= ddl.readers(self.connection)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Report the build's progress, from a second connection."""
        pid = driver_connection(self.connection).info.backend_pid
        ended = threading.Event()

        def watch() -> None:
            # A failure to report progress must not stop the build.
            with (
                suppress(VecsearchError, sa.exc.SQLAlchemyError),
                self.connection.engine.connect() as second,
            ):
                while not ended.wait(POLL_S):
                    found = ddl.progress(second, pid)
                    second.rollback()
                    if found is not None:
                        self.on_progress("Indexing", *found)

        self.on_progress("Indexing", 0, None)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
