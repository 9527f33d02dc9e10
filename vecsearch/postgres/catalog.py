"""The register, the table `collections`: each collection with its encoder and its index."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg import RawCursor, sql
from psycopg.rows import namedtuple_row
from sqlalchemy.dialects import postgresql

from vecsearch.encoders.base import Identity, Weights
from vecsearch.errors import CollectionNotFound, InvalidInput
from vecsearch.postgres import distributed, migrate, schema, tables
from vecsearch.postgres.database import BEGIN, driver_connection
from vecsearch.vocabulary import (
    MAX_DIMENSIONS,
    IndexMethod,
    Metric,
    Ranking,
    command_line,
    did_you_mean,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Any fixed number: the key of the lock that lets one command at a time create a collection.
CREATE_LOCK_KEY = 0x766564
# Collections that an error names.
MOST_LISTED = 20


@dataclass(frozen=True)
class Compact:
    """One projection of a collection, which has its own table of compact vectors.

    Attributes:
        dimensions: dimensions of a compact vector.
        metric: the metric of its HNSW index: l2, or cosine if compact vectors rank.

    """

    collection: str
    version: int
    dimensions: int
    fitted_at: datetime
    metric: Metric

    @property
    def table(self) -> sa.Table:
        """The table of compact vectors, with columns id and compact."""
        return schema.compact_table(self.collection, self.version, self.dimensions)

    @property
    def index(self) -> str:
        """The name of its HNSW index."""
        return f"{self.table.name}{schema.HNSW_SUFFIX}"


@dataclass(frozen=True)
class StoredCollection:
    """A collection as its row in the register describes it.

    Attributes:
        index_method: the requested index method.
        index_options: build options m, ef_construction, dims; a missing one has its default.
        compact: the compact vectors in use; see `vecsearch.search.indexes.serving`.
        breadths: by metric, what `index tune` found: "breadth" is ef_search or, for re-ranked
            metrics, the number of candidates; "k", "recall" and "rows" are those of the tuning.
        ranking: what orders the hits of a search by cosine.
        expansion: number of nearest images by which such a search expands its question.
        rows: about as many as the table has; 0 if Postgres has not counted them yet.
        is_distributed: whether its table is in shards; see `vecsearch.postgres.distributed`.

    """

    name: str
    identity: Identity
    weights: Weights
    dimensions: int
    default_metric: Metric
    created_at: datetime
    index_method: IndexMethod = IndexMethod.hnsw
    index_options: dict[str, int] = field(default_factory=dict)
    compact: Compact | None = None
    breadths: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranking: Ranking = Ranking.full
    expansion: int = 0
    rows: float = field(default=0.0, compare=False)
    is_distributed: bool = False

    def has_encoder_of(self, other: "StoredCollection") -> bool:
        """Return whether both are the same collection, so that one loaded encoder serves both."""
        return (self.identity, self.weights, self.created_at) == (
            other.identity,
            other.weights,
            other.created_at,
        )

    @property
    def has_ranking_compact(self) -> bool:
        """Whether it has compact vectors that can rank the hits of a search by cosine."""
        return self.compact is not None and self.compact.metric is Metric.cosine

    @property
    def table(self) -> sa.Table:
        """The collection's table."""
        return schema.collection_table(self.name, self.dimensions)


@contextmanager
def reading(engine: sa.Engine, name: str) -> "Iterator[tuple[sa.Connection, StoredCollection]]":
    """Yield a connection in a read-only transaction, and the collection as its snapshot shows it.

    Raises:
        CollectionNotFound: there is no collection of this name.
        SchemaError: the tables are of another version of vecsearch.

    """
    with migrate.reading_current(engine) as connection:
        yield connection, get_collection(connection, name)


def selected() -> sa.Select[Any]:
    """Return the statement whose rows `from_row` reads, without a WHERE."""
    register, projections = tables.collections, tables.projections
    in_use = (projections.c.collection == register.c.name) & (
        projections.c.version == register.c.projection
    )
    return sa.select(
        register,
        projections.c.dimensions.label("compact"),
        projections.c.fitted_at,
        projections.c.metric.label("compact_metric"),
        _ROWS.label("rows"),
        sa.literal_column(distributed.OF_REGISTER).label("is_distributed"),
    ).select_from(register.outerjoin(projections, in_use))


# What Postgres counted last; of a table that it has not, -1.
_ROWS: sa.ColumnElement[float] = sa.literal_column(
    "(SELECT greatest(0, reltuples) FROM pg_class WHERE relname = collections.name"
    f" AND relnamespace = to_regnamespace('{tables.SCHEMA}'))",
    sa.Float,
)


def from_row(row: Any) -> StoredCollection:
    """Return the collection that a row of `selected` describes."""
    compact = None
    if row.compact is not None:
        metric = parse(Metric, row.compact_metric)
        compact = Compact(row.name, row.projection, row.compact, row.fitted_at, metric)
    return StoredCollection(
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
        default_metric=parse(Metric, row.default_metric),
        created_at=row.created_at,
        index_method=parse(IndexMethod, row.index_method),
        index_options=row.index_options,
        compact=compact,
        breadths=row.breadths,
        ranking=parse(Ranking, row.ranking),
        expansion=row.expansion,
        rows=row.rows or 0.0,
        is_distributed=row.is_distributed,
    )


def open_collection(
    connection: sa.Connection, name: str, content: tuple[str, str | None] | None = None
) -> tuple[StoredCollection, UUID | None]:
    """Return a collection, and the id of its image with this content, in one round trip.

    Args:
        connection: from `vecsearch.postgres.database.pipelining`; this begins the transaction.
        name: the collection.
        content: SHA-256 in hex, and the preferred path or None; None looks up no image.

    Raises:
        CollectionNotFound: there is no collection of this name.
        SchemaError: the tables are of another version of vecsearch.

    """
    driver = driver_connection(connection)
    image = None
    try:
        with RawCursor(driver, row_factory=namedtuple_row) as entry, RawCursor(driver) as found:
            with driver.pipeline():
                driver.execute(BEGIN)
                entry.execute(_entry(), [name], prepare=True)
                if content is not None:
                    table = sql.Identifier(tables.SCHEMA, name).as_bytes(driver)
                    found.execute(_BY_CONTENT % table, content, prepare=True)
            row: Any = entry.fetchone()
            if content is not None:
                image = found.fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        # There are no tables, or older ones, or no such collection; the code below finds out which.
        driver.rollback()
        row = None
    if row is None or row.revision != schema.REVISION or not migrate.is_usable(row.pgvector):
        migrate.require_current(connection)
        return get_collection(connection, name), None
    migrate.require_server(connection)
    return from_row(row), None if image is None else image[0]


_BY_CONTENT = (
    b"SELECT id FROM %b WHERE sha256 = $1 ORDER BY (path = coalesce($2, '')) DESC, path LIMIT 1"
)


@cache
def _entry() -> bytes:
    """Return SQL that reads a collection's row, the schema's revision and pgvector's version."""
    statement = selected().add_columns(
        sa.literal_column(migrate.REVISION).label("revision"),
        sa.literal_column(migrate.PGVECTOR).label("pgvector"),
    )
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped there
    named = statement.where(tables.collections.c.name == sa.literal_column("$1"))
    return str(named.compile(dialect=dialect)).encode()


def find_collection(connection: sa.Connection, name: str) -> StoredCollection | None:
    """Return the collection called `name`, or None."""
    row = connection.execute(selected().where(tables.collections.c.name == name)).first()
    return None if row is None else from_row(row)


def get_collection(connection: sa.Connection, name: str) -> StoredCollection:
    """Return the collection called `name`.

    Raises:
        CollectionNotFound: there is none.

    """
    collection = find_collection(connection, name)
    if collection is None:
        schema.require_collection_name(name)
        raise _not_found(name, list_names(connection))
    return collection


def _not_found(name: str, names: "Sequence[str]") -> CollectionNotFound:
    """Return the error that says so, and which collections there are."""
    if not names:
        return CollectionNotFound(
            f"There is no collection {name!r}, nor any other. Create it: "
            f"{command_line('ingest', 'FOLDER', collection=name)}"
        )
    listed = ", ".join(names[:MOST_LISTED])
    if len(names) > MOST_LISTED:
        listed += f" and {len(names) - MOST_LISTED:,} more"
    said = [f"There is no collection {name!r}.", did_you_mean(name, names)]
    return CollectionNotFound(" ".join(filter(None, [*said, f"Collections: {listed}."])))


def register(
    connection: sa.Connection,
    name: str,
    identity: Identity,
    weights: Weights,
    dimensions: int,
    *,
    default_metric: Metric,
    index_method: IndexMethod,
) -> StoredCollection:
    """Add a collection to the register; the caller creates its table.

    Raises:
        InvalidInput: `name` cannot name a table, or pgvector cannot store so many `dimensions`.

    """
    schema.require_collection_name(name)
    if dimensions > MAX_DIMENSIONS:
        raise InvalidInput(
            f"{identity.name} gives {dimensions:,} dimensions; pgvector stores at most "
            f"{MAX_DIMENSIONS:,}. Use another --model."
        )
    connection.execute(
        sa.insert(tables.collections).values(
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


def lock_creation(connection: sa.Connection) -> None:
    """Take the lock that lets one transaction at a time create a collection."""
    lock = sa.func.pg_advisory_xact_lock(CREATE_LOCK_KEY)
    connection.execute(sa.select(lock, sa.literal_column(distributed.ONE_BY_ONE)))


def compact_versions(connection: sa.Connection, collection: str) -> list[Compact]:
    """Return the collection's projections, oldest first."""
    projections = tables.projections
    rows = connection.execute(
        sa.select(
            projections.c.version,
            projections.c.dimensions,
            projections.c.fitted_at,
            projections.c.metric,
        )
        .where(projections.c.collection == collection)
        .order_by(projections.c.version)
    )
    return [compact_of(collection, row) for row in rows]


def compact_of(collection: str, row: Any) -> Compact:
    """Return the projection that a row of version, dimensions, fitted_at and metric describes."""
    return Compact(
        collection, row.version, row.dimensions, row.fitted_at, parse(Metric, row.metric)
    )


def create_compact(connection: sa.Connection, compact: Compact) -> None:
    """Create a projection's empty table, for all roles that can read the register or collection."""
    compact.table.create(connection)
    distributed.follow(connection, compact.collection, compact.table)
    grantees = connection.scalars(
        sa.text(
            "SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'"
            " ELSE quote_ident(pg_get_userbyid(grantee)) END"
            " FROM pg_class, aclexplode(relacl) AS held"
            " WHERE oid IN (CAST(:register AS regclass), CAST(:collection AS regclass))"
            " AND privilege_type = 'SELECT' AND grantee <> relowner"
        ),
        {
            "register": tables.collections.fullname,
            "collection": f'{tables.SCHEMA}."{compact.collection}"',
        },
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {tables.INTERNAL} TO {grantee}")
        connection.exec_driver_sql(f"GRANT SELECT ON {schema.sql_name(compact.table)} TO {grantee}")


def drop_compact(connection: sa.Connection, compact: Compact) -> None:
    """Drop a projection and its table, under `vecsearch.postgres.rows.lock_collection`."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {schema.sql_name(compact.table)}")
    projections = tables.projections
    connection.execute(
        sa.delete(projections).where(
            projections.c.collection == compact.collection,
            projections.c.version == compact.version,
        )
    )


def remember_weights(connection: sa.Connection, name: str, weights: Weights) -> None:
    """Store the new location of the collection's weights."""
    connection.execute(
        sa.update(tables.collections)
        .where(tables.collections.c.name == name)
        .values(weights_source=weights.source, weights_file_sha256=weights.file_sha256)
    )


def list_collections(connection: sa.Connection) -> list[StoredCollection]:
    """Return the collections, sorted by name."""
    rows = connection.execute(selected().order_by(tables.collections.c.name))
    return [from_row(row) for row in rows]


def list_names(connection: sa.Connection) -> list[str]:
    """Return the names of the collections, sorted."""
    return list(connection.scalars(sa.select(tables.collections.c.name).order_by("name")))
