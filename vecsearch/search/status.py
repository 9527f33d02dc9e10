"""Report the state of the database, its collections and their indexes."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vecsearch.postgres import catalog, distributed, schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import repair
from vecsearch.search.indexes import METHODS, ddl, serving
from vecsearch.search.indexes.resources import Resources, choose
from vecsearch.search.lookup import count
from vecsearch.search.repair import Remedy
from vecsearch.vocabulary import EF_CONSTRUCTION, IndexMethod, M, Metric, Ranking, ranked

if TYPE_CHECKING:
    from uuid import UUID

# Values of `index` for an index that is not valid yet, and for no index.
BUILDING, NOTHING = "building", "none"
# Value of `state` for a collection of which nothing is missing.
OK = "ok"


@dataclass(frozen=True)
class CollectionStatus:
    """A collection's size and the state of its index.

    Attributes:
        model: the encoder's model, with its layer unless that is the pooled output.
        images: number of rows.
        errors: number of files that could not be ingested.
        table_bytes: bytes of rows and embeddings, without indexes.
        index: the index method in use, "building" while the index is not valid, "none" if every
            search is exact.
        index_bytes: bytes of the HNSW index.
        scan_bytes: bytes of the embeddings, all of which an exact search reads.
        state: ok, or what is broken; counts and sizes of a broken collection may be 0.

    """

    name: str
    model: str
    dimensions: int
    metric: Metric
    images: int
    errors: int
    table_bytes: int
    index: str
    index_bytes: int
    scan_bytes: int
    weights: str
    created_at: datetime | None
    state: str = OK

    @property
    def is_broken(self) -> bool:
        """Whether something is missing; `vecsearch db repair` mends it."""
        return self.state != OK


@dataclass(frozen=True)
class IngestError:
    """A file that could not be ingested, and why.

    Attributes:
        stored: whether the collection has the image as it was when it could be read.

    """

    path: str
    error: str
    at: datetime
    stored: bool = False


@dataclass(frozen=True)
class Status:
    """The database and everything in it.

    Attributes:
        database: the URL, without its password.
        embedded: whether it is the embedded Postgres.
        postgres: the server's version.
        pgvector: the extension's version; None if it is not installed.
        advice: a warning for an administrator; None if there is none.

    """

    database: str
    embedded: bool
    postgres: str
    pgvector: str | None
    advice: str | None
    collections: list[CollectionStatus]


@dataclass(frozen=True)
class IndexStatus:
    """A collection's index.

    Attributes:
        method: the requested index method.
        index: the index method in use; "building" while it is not ready; "none" if every search is
            exact.
        images: number of rows of the collection.
        indexed: number of rows in the index; rows written without vecsearch lack compact vectors.
        dims: dimensions of the indexed vectors; None if there is no index.
        version, variance_kept, sample, fitted_at: facts about the projection; None if there is
            none.
        m, ef_construction: build options of the index; None if it has none.
        index_bytes: bytes of the HNSW index.
        compact_bytes: bytes of the compact vectors.
        memory, workers: bytes and parallel workers that a build would use now, on this machine.
        needed: bytes that the whole graph needs.
        breadths: by metric, ef_search or the number of candidates that `index tune` found.
        options: build options of the Postgres index, by name.
        ranking: what orders the hits of a search by cosine.
        expansion: number of nearest images that expand such a search's question.
        how: both, as a clause.

    """

    collection: str
    method: IndexMethod
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
    options: dict[str, int]
    ranking: Ranking
    expansion: int
    how: str


def list_status(connection: sa.Connection) -> list[CollectionStatus]:
    """Return every collection with its size and index, by name. Counts every row."""
    found = [collection_status(connection, each) for each in catalog.list_collections(connection)]
    for name, dimensions in repair.strays(connection):
        table = schema.collection_table(name, dimensions)
        found.append(
            CollectionStatus(
                name=name,
                model="not known",
                dimensions=dimensions,
                metric=Metric.cosine,
                images=count(connection, table),
                errors=0,
                table_bytes=0,
                index=NOTHING,
                index_bytes=0,
                scan_bytes=0,
                weights="not known",
                created_at=None,
                state=f"broken: {repair.MISSING_ENTRY}",
            )
        )
    return sorted(found, key=lambda each: each.name)


def collection_status(connection: sa.Connection, collection: StoredCollection) -> CollectionStatus:
    """Return a collection's size and the state of its index. Counts every row."""
    problems = repair.find(connection, collection)
    errors = sa.select(sa.func.count()).where(tables.ingest_errors.c.collection == collection.name)
    failed = connection.scalar(errors) or 0
    images, table_bytes = 0, 0
    index = serving(collection)
    found = None
    if not any(problem.remedy is Remedy.remove for problem in problems):
        rows = sa.select(sa.func.count()).select_from(collection.table)
        images = int(connection.scalar(rows) or 0)
        table_bytes = distributed.table_bytes(connection, schema.sql_name(collection.table))
        found = ddl.find(connection, index.name, index.namespace)
    return CollectionStatus(
        name=collection.name,
        model=collection.identity.name,
        dimensions=collection.dimensions,
        metric=collection.default_metric,
        images=images,
        errors=failed,
        table_bytes=table_bytes,
        index=_serves(index.method, found),
        index_bytes=0 if found is None else found.size,
        scan_bytes=images * schema.embedding_bytes(collection.dimensions),
        weights=_weights(collection),
        created_at=collection.created_at,
        state=f"broken: {'; '.join(each.problem for each in problems)}" if problems else OK,
    )


def index_status(
    connection: sa.Connection, collection: StoredCollection, resources: Resources
) -> IndexStatus:
    """Return the state of a collection's index, and the resources that a rebuild would use."""
    rows = count(connection, collection.table)
    index = serving(collection)
    found = ddl.find(connection, index.name, index.namespace)
    facts = index.facts(connection, rows)
    wanted = METHODS[collection.index_method].wanted_dimensions(collection)
    chosen = choose(rows, wanted, ddl.server_settings(connection), resources)
    options = {} if found is None else _built_with(index.method, found)
    return IndexStatus(
        collection=collection.name,
        method=collection.index_method,
        index=_serves(index.method, found),
        images=rows,
        indexed=0 if found is None else facts.indexed,
        dims=None if found is None else facts.dimensions,
        version=facts.version,
        variance_kept=facts.variance_kept,
        sample=facts.sample,
        fitted_at=facts.fitted_at,
        m=options.get(M.name),
        ef_construction=options.get(EF_CONSTRUCTION.name),
        index_bytes=0 if found is None else found.size,
        compact_bytes=facts.compact_bytes,
        memory=chosen.memory,
        workers=chosen.workers,
        needed=chosen.needed,
        breadths=collection.breadths,
        options=options,
        ranking=collection.ranking,
        expansion=collection.expansion,
        how=ranked(
            collection.ranking,
            None if collection.compact is None else collection.compact.dimensions,
            collection.expansion,
        ),
    )


def list_errors(connection: sa.Connection, collection: str) -> list[IngestError]:
    """Return the files that could not be ingested into `collection`, sorted by path.

    Raises:
        CollectionNotFound: there are neither such files nor such a collection.

    """
    errors = tables.ingest_errors
    images = sa.table(collection, sa.column("id"), schema=tables.SCHEMA)
    own = errors.c.collection == collection
    found = sa.select(errors.c.path, errors.c.error, errors.c.at, errors.c.id)
    rows = connection.execute(found.where(own).order_by(errors.c.path)).all()
    if not rows:
        # If every file of a first run failed, there are errors but no collection.
        catalog.get_collection(connection, collection)
    stored: set[UUID] = set()
    name = f"{tables.SCHEMA}.{schema.sql_name(collection)}"
    if connection.scalar(sa.select(sa.func.to_regclass(name))):
        failed = sa.select(errors.c.id).where(own)
        stored.update(connection.scalars(sa.select(images.c.id).where(images.c.id.in_(failed))))
    return [IngestError(row.path, row.error, row.at, row.id in stored) for row in rows]


def bytes_per_image(connection: sa.Connection, collection: StoredCollection) -> int:
    """Return the bytes per row: its columns, its embedding and its entries in all indexes."""
    name = schema.sql_name(collection.table)
    total = distributed.total_bytes(connection, name)
    total += serving(collection).bytes_beside(connection)
    rows = count(connection, collection.table)
    return int(total // rows) if rows else 0


def _built_with(method: IndexMethod, found: ddl.Index) -> dict[str, int]:
    return {
        option.name: found.options.get(option.name, option.default)
        for option in _served(method).options
        if option.is_of_graph
    }


def _served(method: IndexMethod) -> IndexMethod:
    # An index with that name serves searches even if it was not requested.
    return IndexMethod.hnsw if method is IndexMethod.none else method


def _serves(method: IndexMethod, found: ddl.Index | None) -> str:
    if found is None:
        return NOTHING
    if not found.valid:
        return BUILDING
    return _served(method)


def _weights(collection: StoredCollection) -> str:
    if collection.identity.weights_sha256 is None:
        return "not known"
    return collection.weights.source or "model hub"
