"""What there is: the database, its collections, their indexes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vecsearch.postgres import catalog, schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes import METHODS, ddl, serving
from vecsearch.search.indexes.resources import Resources, choose
from vecsearch.search.lookup import count
from vecsearch.vocabulary import EF_CONSTRUCTION, IndexMethod, M, Metric

# Of an index that is not valid, and where there is none.
BUILDING, NOTHING = "building", "none"


@dataclass(frozen=True)
class CollectionStatus:
    """A collection's size and the state of its index.

    Attributes:
        model: the encoder's model, and its layer if that is not the pooled one.
        images: rows.
        errors: files that could not be ingested.
        table_bytes: rows and embeddings, without indexes.
        index: the method that serves, "building" while it is not valid, "none" if every search
            is exact.
        index_bytes: the HNSW index alone.
        scan_bytes: the embeddings, which a search without the index reads from first to last.

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
    created_at: datetime


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
class IndexStatus:
    """A collection's index.

    Attributes:
        method: what is wanted.
        index: the method that serves; "building" while it is not ready; "none" if every search is
            exact.
        images: rows of the collection.
        indexed: those that the index has; rows written past vecsearch lack compact vectors.
        dims: dimensions of what is indexed; None: nothing is.
        version, variance_kept, sample, fitted_at: of the projection; None: there is none.
        m, ef_construction: what it was built with; None: there is none.
        index_bytes: the HNSW index alone.
        compact_bytes: the compact vectors beside it.
        memory, workers: bytes and parallel workers that a build would take now, on this machine.
        needed: bytes of the whole graph.
        breadths: by metric, what `index tune` found.

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


def list_status(connection: sa.Connection) -> list[CollectionStatus]:
    """Return every collection with its size and index, by name. Counts every row."""
    names = catalog.list_names(connection)
    return [
        collection_status(connection, catalog.get_collection(connection, name)) for name in names
    ]


def collection_status(connection: sa.Connection, collection: StoredCollection) -> CollectionStatus:
    """Return a collection's size and the state of its index. Counts every row."""
    table = collection.table
    errors = sa.select(sa.func.count()).where(schema.ingest_errors.c.collection == collection.name)
    index = serving(collection)
    found = ddl.find(connection, index.name)
    images = count(connection, table)
    size = connection.scalar(sa.select(sa.func.pg_table_size(schema.sql_name(table))))
    return CollectionStatus(
        name=collection.name,
        model=collection.identity.name,
        dimensions=collection.dimensions,
        metric=collection.default_metric,
        images=images,
        errors=connection.scalar(errors) or 0,
        table_bytes=size or 0,
        index=_serves(index.method, found),
        index_bytes=0 if found is None else found.size,
        scan_bytes=images * schema.embedding_bytes(collection.dimensions),
        weights=_weights(collection),
        created_at=collection.created_at,
    )


def index_status(
    connection: sa.Connection, collection: StoredCollection, resources: Resources
) -> IndexStatus:
    """Return the state of a collection's index, and what building it anew would take."""
    rows = count(connection, collection.table)
    index = serving(collection)
    found = ddl.find(connection, index.name)
    facts = index.facts(connection)
    wanted = METHODS[collection.index_method].wanted_dimensions(collection)
    chosen = choose(rows, wanted, ddl.server_settings(connection), resources)
    options = {} if found is None else found.options
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
        m=None if found is None else options.get(M.name, M.default),
        ef_construction=(
            None if found is None else options.get(EF_CONSTRUCTION.name, EF_CONSTRUCTION.default)
        ),
        index_bytes=0 if found is None else found.size,
        compact_bytes=facts.compact_bytes,
        memory=chosen.memory,
        workers=chosen.workers,
        needed=chosen.needed,
        breadths=collection.breadths,
    )


def bytes_per_image(connection: sa.Connection, collection: StoredCollection) -> int:
    """Return what a row takes up: its columns, its embedding and its place in every index."""
    name = schema.sql_name(collection.table)
    total = connection.scalar(sa.select(sa.func.pg_total_relation_size(name))) or 0
    total += serving(collection).bytes_beside(connection)
    rows = count(connection, collection.table)
    return int(total // rows) if rows else 0


def _serves(method: IndexMethod, found: ddl.Index | None) -> str:
    if found is None:
        return NOTHING
    if not found.valid:
        return BUILDING
    # One of that name that nobody asked for serves all the same.
    return IndexMethod.hnsw if method is IndexMethod.none else method


def _weights(collection: StoredCollection) -> str:
    if collection.identity.weights_sha256 is None:
        return "not known"
    return collection.weights.source or "model hub"
