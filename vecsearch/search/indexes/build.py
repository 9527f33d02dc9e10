"""Indexes: chosen, built beside readers and writers, and put to use in one short transaction.

A build that is cut off leaves what was in use before, and the next one starts over.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vecsearch.errors import DatabaseBusy, InvalidInput, VecsearchError
from vecsearch.postgres import catalog, schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.postgres.rows import analyze, lock_collection
from vecsearch.search.indexes import compact, ddl, projection
from vecsearch.search.indexes.compact import Compact
from vecsearch.vocabulary import MAX_INDEXED_DIMENSIONS

if TYPE_CHECKING:
    from uuid import UUID

DEFAULT_DIMENSIONS = 128
SAMPLE = 10_000
# Below, comparing every image is as fast, and principal components are a matter of chance.
LEAST_COMPACT = 1_000
WAITS = (
    f"The compact index is built from {LEAST_COMPACT:,} images on; until then every search "
    "compares all images. To build it now: vecsearch index create --method compact"
)
# pgvector's own.
DEFAULT_M, DEFAULT_EF_CONSTRUCTION = 16, 64
LIMITS = {"m": (2, 100), "ef_construction": (4, 1_000), "dims": (1, MAX_INDEXED_DIMENSIONS)}
# What a graph takes beside its vectors, a row, and what to spare.
GRAPH_BYTES, SPARE = 700, 1.2
# Of the machine's memory, where the server is ours; and what Postgres wants for each process.
MEMORY_SHARE, LEAST_MEMORY = 4, 2**26
PROCESS_MEMORY = 2**25
# A reader that has been at it for longer has planned its statements.
READERS_TIMEOUT_S, POLL_S = 30.0, 0.2
DROP_TIMEOUT_S = 5

# What is being done, how far it is, and of how much, if that is known.
OnProgress = Callable[[str, int, int | None], None]


def quiet(_step: str, _done: int, _total: int | None) -> None:
    """Show no progress."""


class Method(StrEnum):
    """What serves searches.

    hnsw: an index of the embeddings. compact: one of their principal components, whose nearest are
    re-ranked by the embeddings. none: every search compares all images.
    """

    hnsw = "hnsw"
    compact = "compact"
    none = "none"


@dataclass(frozen=True)
class Resources:
    """What a build may take.

    Attributes:
        memory: bytes for the graph; None: what it needs, within bounds.
        workers: processes beside the first; None: the machine's cores.
        embedded: whether the server is on this machine, and ours.

    """

    memory: int | None = None
    workers: int | None = None
    embedded: bool = False


@dataclass(frozen=True)
class Chosen:
    """What a build takes.

    Attributes:
        memory: bytes.
        workers: processes beside the first.
        needed: bytes that the whole graph takes; with less memory a build is much slower.

    """

    memory: int
    workers: int
    needed: int


def create(
    engine: sa.Engine,
    name: str,
    method: Method,
    *,
    dims: int | None = None,
    m: int | None = None,
    ef_construction: int | None = None,
    resources: Resources = Resources(),
    on_progress: OnProgress = quiet,
) -> list[str]:
    """Build an index, put it to use, and drop what served before; return notes for the user.

    Args:
        engine: of the database.
        name: the collection.
        method: which.
        dims: numbers in a compact vector; None: 128.
        m: links of a node; None: 16.
        ef_construction: nodes in view while one is linked; None: 64.
        resources: what the build may take.
        on_progress: called now and then.

    Raises:
        InvalidInput: an option is out of bounds, or the method cannot serve the collection.
        DatabaseBusy: another command is building the collection's index.

    """
    given = {"dims": dims, "m": m, "ef_construction": ef_construction}
    options = {key: value for key, value in given.items() if value is not None}
    _check_options(method, options)
    with _builder(engine, name) as (connection, collection):
        if collection is None:
            raise DatabaseBusy(
                f"Another command is building the index of {name!r}. Run this again when it ends."
            )
        build = _Build(connection, collection, resources, on_progress)
        build.run(method, options)
        return build.notes


def ensure(
    engine: sa.Engine,
    name: str,
    *,
    resources: Resources = Resources(),
    on_progress: OnProgress = quiet,
) -> list[str]:
    """Build the index that the collection wants, if it is missing; return notes for the user.

    A compact one waits until there are a thousand images.
    """
    with engine.connect() as connection, translated():
        collection = catalog.get_collection(connection, name)
        if not _is_missing(connection, collection):
            waits = collection.index_method == Method.compact and collection.compact is None
            return [WAITS] if waits else []
    with _builder(engine, name) as (connection, claimed):
        if claimed is None or not _is_missing(connection, claimed):
            return []
        build = _Build(connection, claimed, resources, on_progress)
        build.run(Method(claimed.index_method), claimed.index_options)
        return build.notes


@dataclass(frozen=True)
class IndexStatus:
    """A collection's index.

    Attributes:
        method: what is wanted: hnsw, compact or none.
        index: what serves: hnsw or compact; "building" while it is not ready; "none" if every
            search is exact.
        images: rows of the collection.
        indexed: those that the index has; what was written past vecsearch lacks compact vectors.
        dims: numbers in what is indexed; None: nothing is.
        version, variance_kept, sample, fitted_at: of the projection; None: there is none.
        m, ef_construction: what it was built with; None: there is none.
        index_bytes: the HNSW index alone.
        compact_bytes: the compact vectors beside it.
        memory, workers: bytes and processes that a build would take now, on this machine.
        needed: bytes of the whole graph.
        breadths: by metric, what `index tune` found.

    """

    collection: str
    method: str
    index: str
    images: int
    indexed: int
    dims: int | None
    version: int | None
    variance_kept: float | None
    sample: int | None
    fitted_at: datetime | None
    m: int | None
    ef_construction: int | None
    index_bytes: int
    compact_bytes: int
    memory: int
    workers: int
    needed: int
    breadths: dict[str, dict[str, Any]]


def status(
    connection: sa.Connection, collection: StoredCollection, resources: Resources
) -> IndexStatus:
    """Return what there is of a collection's index, and what building it anew would take."""
    made = collection.compact
    rows = catalog.count(connection, collection.table)
    found = ddl.find(connection, schema.hnsw_index(collection.name) if made is None else made.index)
    fitted = None if made is None else compact.read_projection(connection, made)
    serves = "none"
    if found is not None:
        serves = ("hnsw" if made is None else "compact") if found.valid else "building"
    dims = collection.dimensions if made is None else made.dimensions
    wanted = dims
    if made is None and collection.index_method == Method.compact:
        wanted = min(collection.index_options.get("dims", DEFAULT_DIMENSIONS), dims)
    chosen = choose(rows, wanted, ddl.server_settings(connection), resources)
    options = {} if found is None else found.options
    return IndexStatus(
        collection=collection.name,
        method=collection.index_method,
        index=serves,
        images=rows,
        indexed=0
        if found is None
        else rows
        if made is None
        else catalog.count(connection, made.table),
        dims=None if found is None else dims,
        version=None if made is None else made.version,
        variance_kept=None if fitted is None else fitted.variance_kept,
        sample=None if fitted is None else fitted.sample,
        fitted_at=None if made is None else made.fitted_at,
        m=None if found is None else options.get("m", DEFAULT_M),
        ef_construction=(
            None if found is None else options.get("ef_construction", DEFAULT_EF_CONSTRUCTION)
        ),
        index_bytes=0 if found is None else found.size,
        compact_bytes=0 if made is None else ddl.table_bytes(connection, made.table),
        memory=chosen.memory,
        workers=chosen.workers,
        needed=chosen.needed,
        breadths=collection.breadths,
    )


def choose(rows: int, dimensions: int, server: tuple[int, int], resources: Resources) -> Chosen:
    """Return what a build takes.

    Args:
        rows: of the table.
        dimensions: of the vectors that are indexed.
        server: its maintenance_work_mem in bytes, and its parallel maintenance workers.
        resources: what the user says.

    """
    needed = int(rows * (2 * dimensions + GRAPH_BYTES) * SPARE)
    memory, workers = server
    if resources.embedded:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = machine // MEMORY_SHARE
        workers = (os.cpu_count() or 1) - 1
    if resources.workers is not None:
        workers = resources.workers
    # Postgres gives each process its part, and takes fewer where there is not enough for all.
    least = max(LEAST_MEMORY, PROCESS_MEMORY * (workers + 1))
    memory = max(min(needed, memory), min(least, memory))
    if resources.memory is not None:
        memory = resources.memory
    if resources.embedded and resources.workers is None and not _can_share(memory):
        workers = 0
    return Chosen(memory, workers, needed)


def _can_share(memory: int) -> bool:
    """Tell whether processes can share so much: containers are often given 64 MB."""
    with suppress(OSError):
        shared = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size alone
        return shared.f_bavail * shared.f_frsize > memory
    return True


def _check_options(method: Method, options: dict[str, int]) -> None:
    for key, value in options.items():
        least, most = LIMITS[key]
        if not least <= value <= most:
            raise InvalidInput(
                f"--{key.replace('_', '-')} is {value}. Give a number from {least} to {most:,}."
            )
    m = options.get("m", DEFAULT_M)
    if options.get("ef_construction", max(DEFAULT_EF_CONSTRUCTION, 2 * m)) < 2 * m:
        raise InvalidInput(f"--ef-construction is less than twice --m. Give at least {2 * m}.")
    serves = {Method.hnsw: {"m", "ef_construction"}, Method.compact: set(LIMITS)}
    for key in options.keys() - serves.get(method, set()):
        raise InvalidInput(
            f"--{key.replace('_', '-')} means nothing to --method {method}. Leave it out."
        )
    # pgvector's default is too little for many links.
    if 2 * m > DEFAULT_EF_CONSTRUCTION:
        options.setdefault("ef_construction", 2 * m)


def _is_missing(connection: sa.Connection, collection: StoredCollection) -> bool:
    match Method(collection.index_method):
        case Method.none:
            return False
        case Method.compact:
            if collection.compact is None:
                return catalog.has_rows(connection, collection.table, LEAST_COMPACT)
            found = ddl.find(connection, collection.compact.index)
            return found is None or not found.valid
        case Method.hnsw:
            if collection.dimensions > MAX_INDEXED_DIMENSIONS:
                return False
            found = ddl.find(connection, schema.hnsw_index(collection.name))
            return found is None or not found.valid


@contextmanager
def _builder(
    engine: sa.Engine, name: str
) -> Iterator[tuple[sa.Connection, StoredCollection | None]]:
    """Yield a connection that commits each statement, and the collection if it alone builds it."""
    with translated(), engine.connect() as pooled:
        connection = pooled.execution_options(isolation_level="AUTOCOMMIT")
        try:
            collection = catalog.get_collection(connection, name)
            is_claimed = ddl.claim(connection, collection.name)
            # Anew, because somebody else may have built it until now.
            yield connection, catalog.get_collection(connection, name) if is_claimed else None
        finally:
            # Not to be used again: with it go its settings and its claim.
            connection.invalidate()


class _Build:
    """One build, on a connection that commits each statement unless a transaction is begun."""

    def __init__(
        self,
        connection: sa.Connection,
        collection: StoredCollection,
        resources: Resources,
        on_progress: OnProgress,
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._resources = resources
        self._on_progress = on_progress
        self._direct = schema.hnsw_index(collection.name)
        # Takes the other's name when it is built.
        self._following = f"{collection.name}_next_hnsw"
        self.notes: list[str] = []

    def run(self, method: Method, options: dict[str, int]) -> None:
        collection = self._collection
        if method is Method.hnsw and collection.dimensions > MAX_INDEXED_DIMENSIONS:
            raise InvalidInput(
                f"Embeddings of {collection.dimensions:,} numbers are beyond HNSW, which takes "
                f"{MAX_INDEXED_DIMENSIONS:,}. Use --method compact, which serves them all."
            )
        self._drop_versions(but=collection.compact)
        rows = catalog.count(self._connection, collection.table)
        made = None
        if method is Method.compact:
            made = self._build_compact(rows, options)
        elif method is Method.hnsw:
            self._build_direct(rows, options)
        with self._writing():
            ddl.use(self._connection, collection, method, options, made)
        if collection.compact is not None:
            self._wait_for_readers()
        self._drop_versions(but=made)
        if method is not Method.hnsw:
            ddl.drop(self._connection, self._direct)
            ddl.drop(self._connection, self._following)

    def _build_compact(self, rows: int, options: dict[str, int]) -> Compact:
        connection, collection = self._connection, self._collection
        if rows < 2:  # noqa: PLR2004 - one image has no components
            raise InvalidInput(
                f"Collection {collection.name!r} has {rows} images, and it takes two to find what "
                "they differ in. Ingest some first."
            )
        self._on_progress("Fitting", 0, None)
        sample = compact.sample(connection, collection.table, SAMPLE)
        asked = options.get("dims", DEFAULT_DIMENSIONS)
        fitted = projection.fit(sample, asked)
        del sample
        made_of = len(fitted.components)
        if made_of < min(asked, collection.dimensions):
            self.notes.append(
                f"{rows:,} images have {made_of} principal components at most. "
                "Build it again when there are more."
            )
        with self._writing():
            made = compact.register(connection, collection.name, fitted)
        # Twice: a copy that was written while the first pass ran may have had no source.
        done = 0
        for _ in range(2):
            after: UUID | None = None
            while True:
                with self._writing():
                    added, after = compact.fill(
                        connection, schema.sql_name(collection.table), made, after
                    )
                done += added
                self._on_progress("Projecting", done, rows)
                if after is None:
                    break
        with self._writing():
            compact.delete_orphans(connection, collection.table, made)
        analyze(connection, made.table)
        graph = {key: value for key, value in options.items() if key != "dims"}
        self._build_index(
            made.index, made.table, "compact", ddl.COMPACT_OPERATORS, graph, rows, made_of
        )
        return made

    def _build_direct(self, rows: int, options: dict[str, int]) -> None:
        collection = self._collection
        self._build_index(
            self._following,
            collection.table,
            "embedding",
            ddl.DIRECT_OPERATORS,
            options,
            rows,
            collection.dimensions,
        )
        ddl.drop(self._connection, self._direct)
        ddl.rename(self._connection, self._following, self._direct)

    def _build_index(
        self,
        name: str,
        table: sa.Table,
        column: str,
        operators: str,
        options: dict[str, int],
        rows: int,
        dimensions: int,
    ) -> None:
        connection = self._connection
        server = ddl.server_settings(connection)
        chosen = choose(rows, dimensions, server, self._resources)
        if chosen.memory < chosen.needed:
            self.notes.append(
                f"The graph takes {gigabytes(chosen.needed)} and the build had "
                f"{gigabytes(chosen.memory)}, so it was slower than it could be. "
                f"If the server has more, give it: --memory {gigabytes(chosen.needed)}"
            )
        ddl.apply(connection, chosen.memory, chosen.workers)
        with self._watched():
            ddl.build(connection, name, table, column, operators, options)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Begin a transaction while nobody else writes to the collection."""
        driver = driver_connection(self._connection)
        with driver.transaction():
            lock_collection(self._connection, self._collection.name)
            yield

    def _drop_versions(self, *, but: Compact | None) -> None:
        for version in compact.versions(self._connection, self._collection.name):
            if version == but:
                continue
            try:
                with self._writing():
                    ddl.wait_for_locks(self._connection, DROP_TIMEOUT_S)
                    compact.drop(self._connection, version)
            except sa.exc.OperationalError as error:
                if not ddl.is_lock_timeout(error):
                    raise
                # Writers wait for this transaction, and so would for that reader.
                self.notes.append(
                    "Somebody is still reading what was replaced; the next build drops it."
                )

    def _wait_for_readers(self) -> None:
        """Wait for those that may yet look for what is to be dropped."""
        waiting = ddl.readers(self._connection)
        until = monotonic() + READERS_TIMEOUT_S
        pause = threading.Event()
        while waiting and monotonic() < until:
            pause.wait(POLL_S)
            waiting &= ddl.readers(self._connection)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell how far the build is, from a second connection."""
        pid = driver_connection(self._connection).info.backend_pid
        ended = threading.Event()

        def watch() -> None:
            # What it tells is a courtesy.
            with (
                suppress(VecsearchError, sa.exc.SQLAlchemyError),
                self._connection.engine.connect() as second,
            ):
                while not ended.wait(POLL_S):
                    found = ddl.progress(second, pid)
                    second.rollback()
                    if found is not None:
                        self._on_progress("Indexing", *found)

        self._on_progress("Indexing", 0, None)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def gigabytes(size: int) -> str:
    """Return a size as Postgres and `--memory` take it, rounded up."""
    if size < 2**30:
        return f"{-(-size // 2**20)}MB"
    return f"{-(-size // 2**30)}GB"
