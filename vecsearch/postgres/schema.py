"""The tables of a collection, and the names that vecsearch uses itself.

A collection's table is created from `collection_table` together with the collection; later
migrations change it, too. `vecsearch.postgres.tables` has the tables that collections share.
"""

import re
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

from vecsearch.errors import InvalidInput
from vecsearch.postgres.columns import COLUMNS, INDEXED
from vecsearch.postgres.tables import INTERNAL, SCHEMA, metadata
from vecsearch.vocabulary import ACCESS_METHODS, Derived, IndexMethod

VERSION_TABLE = "alembic_version"
# The type of the rows that the search functions return.
HIT = "hit"
_PACKAGE = Path(__file__).parents[1]
# The wheel has the migrations inside the package, a checkout beside it.
MIGRATIONS = next(
    folder / "migrations"
    for folder in (_PACKAGE, _PACKAGE.parent)
    if (folder / "migrations").is_dir()
)
# The newest migration, read from the files' names so that a search need not import alembic.
REVISION = max(file.name.partition("_")[0] for file in MIGRATIONS.glob("versions/[0-9]*.py"))

MINIMUM_POSTGRES = 16
MINIMUM_PGVECTOR = (0, 8)

_PUBLIC = [table for table in metadata.tables.values() if table.schema == SCHEMA]
# They once were public, and statements that still name them should fail, not read a collection.
_ONCE_PUBLIC = {"projections", "quantized_models", "tags", "tags_name", "thumbnails"}
RESERVED_NAMES = frozenset(
    {*(table.name for table in _PUBLIC), *_ONCE_PUBLIC, VERSION_TABLE, HIT}
    | {str(index.name) for table in _PUBLIC for index in table.indexes}
)
# Suffixes of a collection's views and functions; see `vecsearch.postgres.analysts` and
# `vecsearch.search.functions`.
VIEW_SUFFIX, TAGS_SUFFIX = "_view", "_tags"
DISTANCES_SUFFIX, SEARCH_SUFFIX = "_distances", "_search"
EMBEDDING_SUFFIX, SIMILARITY_SUFFIX = "_embedding", "_similarity"
# Earlier versions made one that may still be in use.
NEAREST_SUFFIX = "_nearest"
FUNCTION_SUFFIXES = (
    DISTANCES_SUFFIX,
    SEARCH_SUFFIX,
    EMBEDDING_SUFFIX,
    SIMILARITY_SUFFIX,
    NEAREST_SUFFIX,
)
# Views of what `vecsearch refresh` makes, and of the feed of changes.
DERIVED_SUFFIXES = tuple(f"_{name}" for name in Derived)
CHANGES_SUFFIX = "_changes"
VIEW_SUFFIXES = (VIEW_SUFFIX, TAGS_SUFFIX, *DERIVED_SUFFIXES, CHANGES_SUFFIX)
# Postgres keeps tables, views and indexes in one namespace.
HNSW_SUFFIX = f"_{IndexMethod.hnsw}"
INDEX_SUFFIXES = tuple(f"_{method}" for method in ACCESS_METHODS)
TAKEN_SUFFIXES = ("_pkey", "_sha256", *INDEXED, *INDEX_SUFFIXES, *VIEW_SUFFIXES)
# The longest name of a collection: names made from it fit into the 63 bytes of an identifier.
LONGEST_NAME = 40
# Tables of compact vectors are named NAME_compact_VERSION.
COMPACT = "_compact_"


def is_reserved(name: str) -> bool:
    """Return whether vecsearch uses this name for an object of its own."""
    is_compact = re.search(rf"{COMPACT}\d+$", name) is not None
    return name in RESERVED_NAMES or name.endswith(TAKEN_SUFFIXES) or is_compact


def require_collection_name(name: str) -> str:
    """Return `name` if it can name a collection.

    Raises:
        InvalidInput: it is reserved, or not a plain lower-case SQL identifier.

    """
    if not re.fullmatch(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}", name):
        raise InvalidInput(
            f"{name!r} cannot name a collection. Use a lower-case letter, then up to "
            f"{LONGEST_NAME - 1} lower-case letters, digits and underscores."
        )
    if is_reserved(name):
        raise InvalidInput(
            f"{name!r} cannot name a collection: vecsearch uses that name itself. Do not use "
            f"{', '.join(sorted(RESERVED_NAMES))}, or a name that ends in "
            f"{', '.join(TAKEN_SUFFIXES)} or {COMPACT}NUMBER."
        )
    return name


@lru_cache(maxsize=256)
def collection_table(name: str, dimensions: int) -> sa.Table:
    """Return the table of the collection `name`; `vecsearch.search.indexes` builds its HNSW index.

    Calls share one object, so that SQLAlchemy compiles each statement once.
    """
    table = sa.Table(
        require_collection_name(name),
        sa.MetaData(schema=SCHEMA),
        *(column.built(dimensions) for column in COLUMNS),
        comment="Images of one collection, one row per file",
    )
    sa.Index(f"{name}_sha256", table.c.sha256)
    for suffix, column in INDEXED.items():
        sa.Index(
            f"{name}{suffix}",
            table.c[column.name],
            postgresql_using=column.index,
            postgresql_ops={"metadata": "jsonb_path_ops"},
        )
    return table


@lru_cache(maxsize=256)
def compact_table(name: str, version: int, dimensions: int) -> sa.Table:
    """Return the table of compact vectors that one projection makes for the collection `name`.

    It has no foreign key: dropping one takes a lock that blocks readers of the collection. Queries
    join it with the collection's table, so vectors of deleted rows are ignored.
    """
    return sa.Table(
        f"{require_collection_name(name)}{COMPACT}{version}",
        sa.MetaData(schema=INTERNAL),
        sa.Column("id", sa.Uuid, primary_key=True, comment=f"Id of the image in {name}"),
        sa.Column(
            "compact",
            HALFVEC(dimensions),
            nullable=False,
            comment="The normalised embedding's place along the principal components",
        ),
        comment=f"Compact vectors of {name}, by which searches choose candidates, or rank",
    )


def sql_name(table: sa.Table | str) -> str:
    """Return a table's qualified name, or a bare name; names that are SQL keywords are quoted."""
    preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]  # untyped there
    return preparer.quote(table) if isinstance(table, str) else preparer.format_table(table)


def embedding_bytes(dimensions: int) -> int:
    """Return the bytes of one stored embedding: pgvector's header and two bytes per dimension."""
    return 8 + 2 * dimensions


def hnsw_index(collection: str) -> str:
    """Return the name of the collection's HNSW index."""
    return f"{collection}_embedding{HNSW_SUFFIX}"
