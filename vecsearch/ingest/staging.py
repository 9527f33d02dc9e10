"""Import's and export's rows: staged, checked and merged in one transaction; streamed in one order.

A run stages its rows in a temporary table, so that what is wrong with a file is found before
anything is stored.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest.formats.base import BLOCK_SIZE, COLUMNS, Block
from vecsearch.postgres import schema
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import copy_rows
from vecsearch.search import indexes

_TYPES = {
    "path": "text",
    "sha256": "text",
    "width": "int4",
    "height": "int4",
    "format": "text",
    "file_size": "int8",
    "modified_at": "timestamptz",
    "taken_at": "timestamp",
    "latitude": "float8",
    "longitude": "float8",
    "label": "text",
    "exif": "jsonb",
    "metadata": "jsonb",
    "ingested_at": "timestamptz",
    "embedding": "halfvec",
}
_THUMBNAIL_TYPES = {"thumbnail_width": "int4", "thumbnail_height": "int4", "thumbnail": "bytea"}


@dataclass(frozen=True)
class Imported:
    """A row from a file.

    Attributes:
        number: its line or row in the file.
        id: of its path.
        path: absolute.
        embedding: shape (dimensions,).
        columns: values by name in `vecsearch.ingest.formats.COLUMNS`; what is missing is not known.
        thumbnail: if the picture is at hand.

    """

    number: int
    id: uuid.UUID
    path: str
    embedding: "np.ndarray[Any, np.dtype[np.float32]]"
    columns: dict[str, Any]
    thumbnail: Thumbnail | None = None


def stage(connection: sa.Connection, rows: Iterable[Imported]) -> int:
    """Fill this transaction's `imported` with rows and return how many there are."""
    register_vector(driver_connection(connection))
    types = _TYPES | _THUMBNAIL_TYPES
    columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    connection.execute(
        sa.text(f"CREATE TEMP TABLE imported (number int8, id uuid, {columns}) ON COMMIT DROP")
    )
    json_columns = {"exif", "metadata"}
    copy_rows(
        connection,
        "imported",
        f"int8 uuid {' '.join(types.values())}",
        (
            (
                row.number,
                row.id,
                row.path,
                *(
                    Jsonb(row.columns[name])
                    if name in json_columns and row.columns.get(name) is not None
                    else row.columns.get(name)
                    for name in COLUMNS
                ),
                HalfVector(row.embedding),
                *_thumbnail(row.thumbnail),
            )
            for row in rows
        ),
    )
    connection.execute(sa.text("ANALYZE imported"))
    return connection.scalar(sa.text("SELECT count(*) FROM imported")) or 0


def _thumbnail(thumbnail: Thumbnail | None) -> tuple[Any, ...]:
    if thumbnail is None:
        return (None, None, None)
    return (thumbnail.width, thumbnail.height, thumbnail.image)


def find_duplicate(connection: sa.Connection) -> tuple[str, int, int] | None:
    """Return a path that is staged twice, with the first two of its lines, if there is one."""
    row = connection.execute(
        sa.text(
            "SELECT min(path), (array_agg(number ORDER BY number))[1:2] FROM imported"
            " GROUP BY id HAVING count(*) > 1 ORDER BY min(number) LIMIT 1"
        )
    ).first()
    return None if row is None else (row[0], row[1][0], row[1][1])


def merge(connection: sa.Connection, table: sa.Table) -> int:
    """Insert or replace the collection's rows by the staged ones; return how many were new.

    A row that was there keeps what the file does not tell.
    """
    target = schema.sql_name(table)
    known = connection.scalar(sa.text(f"SELECT count(*) FROM imported JOIN {target} USING (id)"))
    # What the table has a default for, and a file need not tell.
    defaults = {"exif": ", '{}'", "metadata": ", '{}'", "ingested_at": ", now()"}
    values = [
        f"coalesce(imported.{name}, stored.{name}{defaults.get(name, '')})" for name in _TYPES
    ]
    sets = [f"{name} = excluded.{name}" for name in _TYPES]
    merged = connection.execute(
        sa.text(
            f"INSERT INTO {target} AS target (id, {', '.join(_TYPES)})"
            f" SELECT id, {', '.join(values)} FROM imported LEFT JOIN {target} AS stored USING (id)"
            f" ORDER BY number ON CONFLICT (id) DO UPDATE SET {', '.join(sets)}"
        )
    ).rowcount
    indexes.follow(connection, table.name, "imported")
    return merged - (known or 0)


def store_thumbnails(connection: sa.Connection) -> None:
    """Add the staged thumbnails; see `vecsearch.postgres.thumbnails`."""
    connection.execute(
        sa.text(
            "INSERT INTO vecsearch.thumbnails (sha256, width, height, image)"
            f" SELECT sha256, {', '.join(_THUMBNAIL_TYPES)} FROM imported"
            " WHERE thumbnail IS NOT NULL ORDER BY sha256 ON CONFLICT (sha256) DO NOTHING"
        )
    )


def measure(connection: sa.Connection, table: sa.Table) -> tuple[int, int]:
    """Return how many rows there are, and how many characters the longest path has."""
    row = connection.execute(
        sa.select(sa.func.count(), sa.func.max(sa.func.char_length(table.c.path))).select_from(
            table
        )
    ).one()
    return row[0], row[1] or 0


def read_blocks(
    connection: sa.Connection, table: sa.Table, *, embeddings: bool, columns: bool
) -> Iterator[Block]:
    """Yield the collection's rows by path, without holding more than a block of them."""
    driver = driver_connection(connection)
    register_vector(driver)
    names = ["path", *(COLUMNS if columns else []), *(["embedding"] if embeddings else [])]
    statement = (
        f"COPY (SELECT {', '.join(names)} FROM {schema.sql_name(table)} ORDER BY path)"
        " TO STDOUT (FORMAT BINARY)"
    )
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types([_TYPES[name] for name in names])
        rows: list[tuple[Any, ...]] = []
        done = 0
        for row in copy.rows():
            rows.append(row)
            if len(rows) == BLOCK_SIZE:
                yield _block(rows, done, names)
                done += len(rows)
                rows = []
        if rows:
            yield _block(rows, done, names)


def _block(rows: list[tuple[Any, ...]], done: int, names: list[str]) -> Block:
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    paths = columns.pop("path")
    vectors = columns.pop("embedding", [])
    return Block(
        numbers=list(range(done + 1, done + len(rows) + 1)),
        paths=paths,
        embeddings=(
            np.stack([vector.to_numpy() for vector in vectors]).astype(np.float32)
            if vectors
            else np.empty((len(paths), 0), np.float32)
        ),
        columns=columns,
    )
