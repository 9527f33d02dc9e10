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
from pgvector.psycopg import register_vector

from vecsearch.imaging import scan
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest.formats.base import Block, block_rows
from vecsearch.postgres import schema, thumbnails
from vecsearch.postgres.columns import BY_NAME, CARRIED, OF_LABEL, copy_types, names
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import copy_rows
from vecsearch.search import indexes, tags

# As they are staged, beside each row's number and id.
_STAGED = (BY_NAME["path"], *CARRIED, BY_NAME["embedding"])
_THUMBNAIL_TYPES = {"thumbnail_width": "int4", "thumbnail_height": "int4", "thumbnail": "bytea"}


@dataclass(frozen=True)
class Imported:
    """A row from a file.

    Attributes:
        number: its line or row in the file.
        id: of its path.
        path: absolute.
        embedding: shape (dimensions,).
        columns: values of `vecsearch.postgres.columns.CARRIED` by name; a missing one is unknown.
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
    types = {column.name: str(column.kind) for column in _STAGED} | _THUMBNAIL_TYPES
    columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    connection.execute(
        sa.text(
            f"CREATE TEMP TABLE imported (number int8, id uuid, folder text, {columns})"
            " ON COMMIT DROP"
        )
    )
    copy_rows(
        connection,
        "imported",
        f"int8 uuid text {' '.join(types.values())}",
        (
            (
                row.number,
                row.id,
                scan.label(row.path),
                row.path,
                *(column.kind.copied(row.columns.get(column.name)) for column in CARRIED),
                BY_NAME["embedding"].kind.copied(row.embedding),
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
    values = [
        f"coalesce(imported.{column.name}, stored.{column.name}, {default})"
        for column in _STAGED
        for default in ["imported.folder" if column in OF_LABEL else column.default or "NULL"]
    ]
    columns = ", ".join(names(_STAGED))
    sets = [f"{name} = excluded.{name}" for name in names(_STAGED)]
    merged = connection.execute(
        sa.text(
            f"INSERT INTO {target} AS target (id, {columns})"
            f" SELECT id, {', '.join(values)} FROM imported LEFT JOIN (SELECT * FROM {target}"
            " WHERE id IN (SELECT id FROM imported)) AS stored USING (id)"
            f" ORDER BY number ON CONFLICT (id) DO UPDATE SET {', '.join(sets)}"
        )
    ).rowcount
    indexes.follow(connection, table.name, "imported")
    tags.follow(connection, table.name, "imported")
    return merged - (known or 0)


def store_thumbnails(connection: sa.Connection) -> None:
    """Add the staged thumbnails; see `vecsearch.postgres.thumbnails`."""
    thumbnails.store_from(
        connection,
        f"SELECT sha256, {', '.join(_THUMBNAIL_TYPES)} FROM imported WHERE thumbnail IS NOT NULL",
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
    read = (
        BY_NAME["path"],
        *(CARRIED if columns else ()),
        *([BY_NAME["embedding"]] if embeddings else []),
    )
    statement = (
        f"COPY (SELECT {', '.join(names(read))} FROM {schema.sql_name(table)} ORDER BY path)"
        " TO STDOUT (FORMAT BINARY)"
    )
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(copy_types(read).split())
        size = block_rows(getattr(table.c.embedding.type, "dim", 0))
        rows: list[tuple[Any, ...]] = []
        done = 0
        for row in copy.rows():
            rows.append(row)
            if len(rows) == size:
                yield _block(rows, done, names(read))
                done += len(rows)
                rows = []
        if rows:
            yield _block(rows, done, names(read))


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
