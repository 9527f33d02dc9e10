"""The register of collections, what they hold, what could not be read, and ad hoc SQL."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import CollectionNotFound, DatabaseError, InvalidInput
from vecsearch.postgres import analysts, schema
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.search.indexes.compact import Compact
from vecsearch.search.indexes.compact import drop as drop_compact
from vecsearch.search.indexes.compact import versions as compact_versions
from vecsearch.vocabulary import MAX_DIMENSIONS

# Any fixed number: two commands that make one collection exclude each other by it.
CREATE_LOCK_KEY = 0x766564


@dataclass(frozen=True)
class Collection:
    """A collection as the register has it.

    Attributes:
        index_method: the index that is wanted: hnsw, compact or none.
        index_options: what it is built with: m, ef_construction, dims; missing: the default.
        compact: the compact vectors that searches choose candidates by; None: they do not.
        breadths: by metric, what `index tune` found: breadth, k, recall.

    """

    name: str
    identity: Identity
    weights: Weights
    dimensions: int
    default_metric: str
    created_at: datetime
    index_method: str = "hnsw"
    index_options: dict[str, int] = field(default_factory=dict)
    compact: Compact | None = None
    breadths: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has_encoder_of(self, other: "Collection") -> bool:
        """Tell whether both are one collection, so that one encoder serves them."""
        return (self.identity, self.weights, self.created_at) == (
            other.identity,
            other.weights,
            other.created_at,
        )

    @property
    def table(self) -> sa.Table:
        """The collection's own table."""
        return schema.collection_table(self.name, self.dimensions)


@dataclass(frozen=True)
class CollectionStatus:
    """A collection's size and the state of its index.

    Attributes:
        model: the encoder's model, and its layer if that is not the pooled one.
        images: rows.
        errors: files that could not be ingested.
        table_bytes: rows and embeddings, without indexes.
        index: "hnsw" or "compact", "building" while it is not valid, "none" if every search is
            exact.
        index_bytes: the HNSW index alone.
        scan_bytes: the embeddings, which a search without the index reads from first to last.

    """

    name: str
    model: str
    dimensions: int
    metric: str
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
class IngestError:
    """A file that could not be ingested, and why."""

    path: str
    error: str
    at: datetime


def find_collection(connection: sa.Connection, name: str) -> Collection | None:
    """Return the collection called `name`, or None."""
    register, projections = schema.collections, schema.projections
    in_use = (projections.c.collection == register.c.name) & (
        projections.c.version == register.c.projection
    )
    row = connection.execute(
        sa.select(register, projections.c.dimensions.label("compact"), projections.c.fitted_at)
        .select_from(register.outerjoin(projections, in_use))
        .where(register.c.name == name)
    ).first()
    if row is None:
        return None
    compact = None
    if row.compact is not None:
        compact = Compact(row.name, row.projection, row.compact, row.fitted_at)
    return Collection(
        name=row.name,
        identity=Identity(
            row.backend,
            row.model,
            row.layer,
            row.weights_sha256,
            row.preprocessing,
            row.precision,
        ),
        weights=Weights(row.weights_source, row.weights_file_sha256),
        dimensions=row.dimensions,
        default_metric=row.default_metric,
        created_at=row.created_at,
        index_method=row.index_method,
        index_options=row.index_options,
        compact=compact,
        breadths=row.breadths,
    )


def get_collection(connection: sa.Connection, name: str) -> Collection:
    """Return the collection called `name`.

    Raises:
        CollectionNotFound: there is none.

    """
    collection = find_collection(connection, name)
    if collection is None:
        names = list_names(connection)
        others = f"There are: {', '.join(names)}." if names else "There are none yet."
        schema.require_collection_name(name)
        raise CollectionNotFound(
            f"There is no collection {name!r}. {others} "
            f"Make it with: vecsearch ingest FOLDER --collection {name}"
        )
    return collection


def create_collection(
    connection: sa.Connection,
    name: str,
    identity: Identity,
    weights: Weights,
    dimensions: int,
    *,
    default_metric: str = "cosine",
    indexed: bool = True,
    index_method: str = "hnsw",
) -> Collection:
    """Register a collection and make its table and all beside it, unless another has just now.

    Args:
        connection: in a transaction.
        name: of the collection and its table.
        identity: of its encoder.
        weights: where those are.
        dimensions: numbers in one embedding.
        default_metric: of a query that names none.
        indexed: False leaves the HNSW index to `vecsearch.search.indexes.build.ensure`.
        index_method: the index that is wanted: hnsw, compact or none.

    Raises:
        InvalidInput: `name` cannot name a table, or `dimensions` are more than pgvector stores.

    """
    schema.require_collection_name(name)
    if dimensions > MAX_DIMENSIONS:
        raise InvalidInput(
            f"{identity.name} makes {dimensions:,} numbers a picture, and pgvector stores "
            f"{MAX_DIMENSIONS:,} at most. Use another --model."
        )
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATE_LOCK_KEY)))
    existing = find_collection(connection, name)
    if existing is not None:
        return existing
    # Of one that was removed by hand, with its table alone.
    for left in compact_versions(connection, name):
        drop_compact(connection, left)
    # Not ON CONFLICT: a table of this name that is not in the register is somebody else's.
    indexed = indexed and index_method == "hnsw"
    table = schema.collection_table(name, dimensions, indexed=indexed)
    table.create(connection)
    analysts.create(connection, table)
    connection.execute(
        sa.insert(schema.collections).values(
            name=name,
            backend=identity.backend,
            model=identity.model,
            layer=identity.layer,
            weights_sha256=identity.weights_sha256,
            preprocessing=identity.preprocessing,
            precision=identity.precision,
            weights_source=weights.source,
            weights_file_sha256=weights.file_sha256,
            dimensions=dimensions,
            default_metric=default_metric,
            index_method=index_method,
        )
    )
    return get_collection(connection, name)


def require_index_method(collection: Collection, method: str | None) -> None:
    """Refuse to be told of another index than the one that a collection has been given.

    Raises:
        InvalidInput: it has another.

    """
    if method is not None and method != collection.index_method:
        raise InvalidInput(
            f"Collection {collection.name!r} is there, and its index is {collection.index_method}. "
            f"To change it: vecsearch index create --method {method} --collection "
            f"{collection.name}"
        )


def count(connection: sa.Connection, table: sa.Table) -> int:
    """Return how many rows there are."""
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def sample_ids(connection: sa.Connection, table: sa.Table, limit: int) -> list[UUID]:
    """Return so many ids in their order: they are hashes, so it is a fair sample."""
    return list(connection.scalars(sa.select(table.c.id).order_by(table.c.id).limit(limit)))


def has_rows(connection: sa.Connection, table: sa.Table, rows: int) -> bool:
    """Tell whether there are so many rows, without counting them all."""
    found = sa.select(sa.literal(1)).select_from(table).offset(rows - 1).limit(1)
    return connection.scalar(found) is not None


def remember_weights(connection: sa.Connection, name: str, weights: Weights) -> None:
    """Note where the collection's weights are to be found from now on."""
    connection.execute(
        sa.update(schema.collections)
        .where(schema.collections.c.name == name)
        .values(weights_source=weights.source, weights_file_sha256=weights.file_sha256)
    )


def list_names(connection: sa.Connection) -> list[str]:
    """Return the names of the collections, in order."""
    return list(connection.scalars(sa.select(schema.collections.c.name).order_by("name")))


def list_status(connection: sa.Connection) -> list[CollectionStatus]:
    """Return every collection with its size and index, by name. Counts every row."""
    names = list_names(connection)
    return [status(connection, get_collection(connection, name)) for name in names]


def status(connection: sa.Connection, collection: Collection) -> CollectionStatus:
    """Return a collection's size and the state of its index. Counts every row."""
    table = collection.table
    compact = collection.compact
    name = schema.hnsw_index(collection.name) if compact is None else compact.index
    index = f"{schema.SCHEMA}.{name}"
    row = connection.execute(
        sa.select(
            sa.select(sa.func.count()).select_from(table).scalar_subquery().label("images"),
            sa.select(sa.func.count())
            .select_from(schema.ingest_errors)
            .where(schema.ingest_errors.c.collection == collection.name)
            .scalar_subquery()
            .label("errors"),
            sa.func.pg_table_size(schema.sql_name(table)).label("table_bytes"),
            sa.func.pg_relation_size(sa.func.to_regclass(index)).label("index_bytes"),
            sa.select(sa.column("indisvalid"))
            .select_from(sa.table("pg_index"))
            .where(sa.column("indexrelid") == sa.func.to_regclass(index))
            .scalar_subquery()
            .label("valid"),
        )
    ).one()
    return CollectionStatus(
        name=collection.name,
        model=collection.identity.name,
        dimensions=collection.dimensions,
        metric=collection.default_metric,
        images=row.images,
        errors=row.errors,
        table_bytes=row.table_bytes,
        index={
            None: "none",
            True: "hnsw" if compact is None else "compact",
            False: "building",
        }[row.valid],
        index_bytes=row.index_bytes or 0,
        scan_bytes=row.images * schema.embedding_bytes(collection.dimensions),
        weights=_weights(collection),
        created_at=collection.created_at,
    )


def _weights(collection: Collection) -> str:
    if collection.identity.weights_sha256 is None:
        return "not known"
    return collection.weights.source or "model hub"


def bytes_per_image(connection: sa.Connection, collection: Collection) -> int:
    """Return what a row takes up: its columns, its embedding and its place in every index."""
    table = schema.sql_name(collection.table)
    compact = None if collection.compact is None else schema.sql_name(collection.compact.table)
    size: int | None = connection.scalar(
        sa.text(
            "SELECT (pg_total_relation_size(:table) + coalesce(pg_total_relation_size(:compact),"
            f" 0)) / nullif(count(*), 0) FROM {table}"
        ),
        {"table": table, "compact": compact},
    )
    return size or 0


def list_errors(connection: sa.Connection, collection: str) -> list[IngestError]:
    """Return the files that could not be ingested into `collection`, by path.

    Raises:
        CollectionNotFound: there are none, and no such collection.

    """
    errors = schema.ingest_errors
    rows = connection.execute(
        sa.select(errors.c.path, errors.c.error, errors.c.at)
        .where(errors.c.collection == collection)
        .order_by(errors.c.path)
    ).all()
    if not rows:
        # A first run whose every file failed has made errors and no collection.
        get_collection(connection, collection)
    return [IngestError(row.path, row.error, row.at) for row in rows]


def image_by_sha256(
    connection: sa.Connection, table: sa.Table, sha256: str, path: str | None = None
) -> UUID | None:
    """Return the id of a row with this content, at `path` if there is one there."""
    found: UUID | None = connection.scalar(
        sa.select(table.c.id)
        .where(table.c.sha256 == sha256)
        .order_by((table.c.path == (path or "")).desc(), table.c.path)
        .limit(1)
    )
    return found


def has_image(connection: sa.Connection, table: sa.Table, image_id: UUID) -> bool:
    """Tell whether there is a row with this id."""
    return connection.scalar(sa.select(sa.literal(1)).where(table.c.id == image_id)) is not None


def image_path(connection: sa.Connection, table: sa.Table, image_id: UUID) -> str:
    """Return the path of the row with this id, which exists."""
    path: str = connection.execute(
        sa.select(table.c.path).where(table.c.id == image_id)
    ).scalar_one()
    return path


def run_sql(
    connection: sa.Connection, statement: str
) -> tuple[list[str], Iterator[tuple[Any, ...]], str]:
    """Run one statement as it stands; return column names, rows, and the server's own summary.

    Raises:
        DatabaseError: Postgres refused it; the message points at the place.

    """
    if statement.lstrip().lower().startswith("copy"):
        raise DatabaseError("COPY needs a client that speaks it. Use: vecsearch db shell")
    driver = driver_connection(connection)
    # A prepared statement holds one command, so a second one behind a semicolon is refused.
    with translated(statement):
        cursor = driver.execute(statement.encode(), prepare=True)
    columns = [column.name for column in cursor.description or ()]
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DatabaseError(f"Two columns are called {' and '.join(twice)}. Rename one with AS.")
    return columns, iter(cursor if columns else ()), cursor.statusmessage or ""


def sql_text(statement: sa.Select[Any]) -> str:
    """Return the statement with its values written out, ready to be pasted into any client."""
    # The named style is the one in which SQLAlchemy leaves percent signs alone.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # untyped there
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
