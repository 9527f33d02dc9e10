"""Parquet: a column of paths and a column of lists of numbers; of our exports every other, too."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vecsearch.errors import InvalidInput, first_line
from vecsearch.ingest.formats.base import (
    PATH_COLUMNS,
    Block,
    Contents,
    Source,
    block_rows,
    check,
    ragged,
)
from vecsearch.postgres.columns import CARRIED, Column, Kind

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise InvalidInput(
        "Parquet needs the extra 'parquet', which is not installed. "
        "Run: pip install 'vecsearch[parquet]'"
    ) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARRIES_COLUMNS = True
METADATA_KEY = b"vecsearch"
READ_BYTES = 2**20
# Types of the columns that exports carry; JSON travels as text.
ARROW_TYPES = {
    Kind.text: pa.string(),
    Kind.int4: pa.int32(),
    Kind.int8: pa.int64(),
    Kind.float8: pa.float64(),
    Kind.timestamp: pa.timestamp("us"),
    Kind.timestamptz: pa.timestamp("us", tz="UTC"),
    Kind.jsonb: pa.string(),
}
_ADVICE = "Give a column path of texts and a column embedding of lists of numbers."


@contextmanager
def opened(file: Path) -> Iterator[Contents]:
    """See `vecsearch.ingest.formats.open_file`."""
    with ExitStack() as resources:
        with _translated(file):
            # Otherwise what was read ahead, a whole row group at least, stays in memory.
            parquet = resources.enter_context(
                pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False)
            )
            schema = parquet.schema_arrow
            texts = {column.name for column in schema if _is_text(column.type)}
            path = next((name for name in PATH_COLUMNS if name in texts), None)
            lists = [column.name for column in schema if _is_list(column.type)]
            if path is None or len(lists) != 1:
                raise InvalidInput(f"{file} has the columns {', '.join(schema.names)}. {_ADVICE}")
            text = (schema.metadata or {}).get(METADATA_KEY)
            collection = None if text is None else json.loads(text)
        carried = CARRIED if collection is not None else ()
        blocks = _blocks(file, parquet, path, lists[0], carried)
        yield Contents("row", collection, parquet.metadata.num_rows, blocks)


def write(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """See `vecsearch.ingest.formats.write_file`; embeddings as float32, which all readers know."""
    types = {column.name: ARROW_TYPES[column.kind] for column in CARRIED}
    arrow_schema = pa.schema(
        [("path", pa.string()), *types.items(), ("embedding", pa.list_(pa.float32()))],
        metadata={METADATA_KEY: json.dumps(source.collection)},
    )
    done = 0
    with pq.ParquetWriter(file, arrow_schema, compression="zstd") as writer:
        for block in source.blocks(embeddings=True, columns=True):
            numbers = pa.array(block.embeddings.astype(np.float32).reshape(-1))
            offsets = np.arange(len(block.paths) + 1, dtype=np.int32) * source.dimensions
            embedding = pa.ListArray.from_arrays(pa.array(offsets), numbers)
            columns = [
                pa.array(_written(column, block.columns[column.name]), types[column.name])
                for column in CARRIED
            ]
            rows = [pa.array(block.paths, pa.string()), *columns, embedding]
            writer.write_batch(pa.record_batch(rows, schema=arrow_schema))
            done += len(block.paths)
            on_rows(done)


def _written(column: Column, values: list[Any]) -> list[Any]:
    return [json.dumps(value) for value in values] if column.kind is Kind.jsonb else values


def _is_text(type_: "pa.DataType") -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _is_list(type_: "pa.DataType") -> bool:
    is_list = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    is_number = pa.types.is_floating, pa.types.is_integer
    return any(holds(type_) for holds in is_list) and any(
        holds(type_.value_type) for holds in is_number
    )


def _blocks(
    file: Path,
    parquet: "pq.ParquetFile",
    path: str,
    embedding: str,
    carried: tuple[Column, ...],
) -> Iterator[Block]:
    done = 0
    dimensions: int | None = None
    with _translated(file):
        names = [column.name for column in carried]
        # The columns' types need not tell the dimensions.
        first = next(parquet.iter_batches(1, columns=[embedding]), None)
        size = block_rows(0 if first is None else int(_widths(first.column(embedding))[0]))
        for batch in parquet.iter_batches(size, columns=[path, embedding, *names]):
            numbers = list(range(done + 1, done + batch.num_rows + 1))
            vectors = _vectors(file, batch.column(embedding), numbers, dimensions)
            dimensions = vectors.shape[1]
            columns = {column.name: _read(column, batch) for column in carried}
            paths = [text or "" for text in batch.column(path).to_pylist()]
            yield check(file, "row", Block(numbers, paths, vectors, columns))
            done += batch.num_rows


def _read(column: Column, batch: "pa.RecordBatch") -> list[Any]:
    """Return a column's values; an older version's export lacks the columns that came later."""
    if column.name not in batch.schema.names and not column.required:
        return [None] * batch.num_rows
    values: list[Any] = batch.column(column.name).to_pylist()
    if column.kind is Kind.jsonb:
        return [json.loads(text) for text in values]
    return values


def _vectors(
    file: Path, column: "pa.Array", numbers: list[int], dimensions: int | None
) -> "NDArray[np.float32]":
    """Return lists of numbers as an array of shape (n, dimensions)."""
    widths = _widths(column)
    expected = dimensions or int(widths[0])
    if (widths != expected).any():
        row = int((widths != expected).argmax())
        raise ragged(file, "row", numbers[row], int(widths[row]), expected)
    flat = column.flatten()
    # A missing number becomes NaN, which is refused like one.
    values = flat.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return np.asarray(values.reshape(len(widths), expected), dtype=np.float32)


def _widths(column: "pa.Array") -> "NDArray[Any]":
    return np.asarray(pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False))


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(
            f"{file} cannot be read as Parquet: {first_line(error)}. {_ADVICE}"
        ) from error
