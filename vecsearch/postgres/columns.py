"""The columns that every collection has, each declared once.

The table, the analysts' view, the type of hits, COPY, imports and exports are derived from
`COLUMNS`. A new column needs an entry here, an attribute of the class that its origin names, an
attribute of `vecsearch.search.gallery.ImageFacts` (of `StoredImage` if hits do not show it), and a
migration; tests compare them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlalchemy as sa

_WITHOUT_FILE = "NULL: imported without its file"


class Kind(StrEnum):
    """The type of a column; the value is its name in COPY and CREATE TABLE."""

    uuid = "uuid"
    text = "text"
    int4 = "int4"
    int8 = "int8"
    float8 = "float8"
    timestamp = "timestamp"
    timestamptz = "timestamptz"
    jsonb = "jsonb"
    halfvec = "halfvec"

    def sql_type(self, dimensions: int) -> "sa.types.TypeEngine[Any]":
        """Return SQLAlchemy's type; only halfvec uses `dimensions`."""
        from pgvector.sqlalchemy import HALFVEC

        return HALFVEC(dimensions) if self is Kind.halfvec else _sql_types()[self]

    def copied(self, value: Any) -> Any:
        """Return a value in the form that COPY takes."""
        wrap = _wrapped().get(self)
        return value if value is None or wrap is None else wrap(value)


@cache
def _sql_types() -> dict[Kind, "sa.types.TypeEngine[Any]"]:
    # The workers that read files of embeddings know the columns without SQLAlchemy.
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import JSONB

    return {
        Kind.uuid: sa.Uuid(),
        Kind.text: sa.Text(),
        Kind.int4: sa.Integer(),
        Kind.int8: sa.BigInteger(),
        Kind.float8: sa.Double(),
        Kind.timestamp: sa.DateTime(),
        Kind.timestamptz: sa.DateTime(timezone=True),
        Kind.jsonb: JSONB(),
    }


@cache
def _wrapped() -> dict[Kind, Callable[[Any], Any]]:
    from pgvector import HalfVector
    from psycopg.types.json import Jsonb

    return {Kind.jsonb: Jsonb, Kind.halfvec: HalfVector}


TIMES: Final = frozenset({Kind.timestamp, Kind.timestamptz})


class Origin(Enum):
    """Where the value of a column comes from."""

    PATH = "the file's path"
    FILE = "an attribute of vecsearch.imaging.scan.File"
    LABEL = "the file's folder, or what an ingest is told; other ingests keep it"
    CONTENT = "an attribute of vecsearch.imaging.decode.Facts, or the embedding"
    USER = "the user; ingests keep it"
    ROW = "the write itself"


@dataclass(frozen=True)
class Column:
    """A column of every collection.

    Attributes:
        comment: text of COMMENT ON, for analysts.
        nullable: whether the value may be NULL.
        default: an SQL expression for rows written without a value.
        view: position in NAME_view, from 1; None if it is not in the view. A new column is the
            last, so that CREATE OR REPLACE VIEW keeps what depends on the view.
        hit: position in the type `hit`, from 1; None if it is not part of it. A new one is the
            last.
        index: the access method of an index on it, for conditions; None: it has none.

    """

    name: str
    kind: Kind
    origin: Origin
    comment: str
    nullable: bool = True
    default: str | None = None
    view: int | None = None
    hit: int | None = None
    index: str | None = None

    @property
    def required(self) -> bool:
        """Whether every written row must give a value."""
        return not self.nullable and self.default is None

    def built(self, dimensions: int) -> "sa.Column[Any]":
        """Return a new SQLAlchemy column."""
        import sqlalchemy as sa

        return sa.Column(
            self.name,
            self.kind.sql_type(dimensions),
            primary_key=self.name == "id",
            nullable=self.nullable,
            server_default=None if self.default is None else sa.text(self.default),
            comment=self.comment,
        )


# In the order of the table's columns.
COLUMNS: Final = (
    Column(
        "id",
        Kind.uuid,
        Origin.PATH,
        "UUIDv5 of the file's path",
        nullable=False,
        view=12,
        hit=1,
    ),
    Column(
        "path",
        Kind.text,
        Origin.PATH,
        "Absolute path of the file",
        nullable=False,
        view=11,
        hit=2,
        # A path may be longer than a B-tree's entries.
        index="hash",
    ),
    Column(
        "sha256",
        Kind.text,
        Origin.CONTENT,
        f"SHA-256 of the file, in hex; {_WITHOUT_FILE}",
        view=14,
    ),
    Column(
        "width",
        Kind.int4,
        Origin.CONTENT,
        f"Pixels, after EXIF orientation; {_WITHOUT_FILE}",
        view=2,
        hit=4,
    ),
    Column(
        "height",
        Kind.int4,
        Origin.CONTENT,
        f"Pixels, after EXIF orientation; {_WITHOUT_FILE}",
        view=3,
        hit=5,
    ),
    Column("format", Kind.text, Origin.CONTENT, f"JPEG, PNG, WEBP, …; {_WITHOUT_FILE}", view=4),
    Column("file_size", Kind.int8, Origin.FILE, f"Bytes; {_WITHOUT_FILE}", view=5),
    Column(
        "modified_at",
        Kind.timestamptz,
        Origin.FILE,
        f"When the file was last modified; {_WITHOUT_FILE}",
        view=7,
    ),
    Column(
        "taken_at",
        Kind.timestamp,
        Origin.CONTENT,
        "Camera's local time, from EXIF",
        view=6,
        hit=6,
    ),
    Column("latitude", Kind.float8, Origin.CONTENT, "Degrees north, from EXIF", view=8, hit=7),
    Column("longitude", Kind.float8, Origin.CONTENT, "Degrees east, from EXIF", view=9, hit=8),
    Column(
        "label",
        Kind.text,
        Origin.LABEL,
        "Name of the folder the file is in, or what ingest --label set",
        nullable=False,
        view=1,
        hit=3,
        index="btree",
    ),
    Column("exif", Kind.jsonb, Origin.CONTENT, "EXIF tags by name", nullable=False, default="'{}'"),
    Column(
        "metadata",
        Kind.jsonb,
        Origin.USER,
        "The user's own data",
        nullable=False,
        default="'{}'",
        view=10,
        hit=9,
        index="gin",
    ),
    Column(
        "ingested_at",
        Kind.timestamptz,
        Origin.ROW,
        "When this row was last written by an ingest",
        nullable=False,
        default="now()",
        view=13,
    ),
    Column(
        "embedding",
        Kind.halfvec,
        Origin.CONTENT,
        "The encoder's raw output, not normalised",
        nullable=False,
    ),
)

BY_NAME: Final = {column.name: column for column in COLUMNS}
OF_PATH: Final = tuple(column for column in COLUMNS if column.origin is Origin.PATH)
OF_FILE: Final = tuple(column for column in COLUMNS if column.origin is Origin.FILE)
OF_LABEL: Final = tuple(column for column in COLUMNS if column.origin is Origin.LABEL)
# Files with equal content have equal values of these.
OF_CONTENT: Final = tuple(column for column in COLUMNS if column.origin is Origin.CONTENT)
# Columns of an export besides path and embedding; the id is derived from the path.
CARRIED: Final = tuple(
    column for column in COLUMNS if column.name not in {"id", "path", "embedding"}
)
VIEW: Final = tuple(
    sorted((column for column in COLUMNS if column.view), key=lambda column: column.view or 0)
)
HIT: Final = tuple(
    sorted((column for column in COLUMNS if column.hit), key=lambda column: column.hit or 0)
)
INDEXED: Final = {f"_{column.name}_{column.index}": column for column in COLUMNS if column.index}


def names(columns: tuple[Column, ...]) -> list[str]:
    """Return the names of the columns, in order."""
    return [column.name for column in columns]


def copy_types(columns: tuple[Column, ...]) -> str:
    """Return the columns' types in the form that `vecsearch.postgres.rows.copy_rows` takes."""
    return " ".join(column.kind for column in columns)
