"""Files of embeddings, CSV, NPZ and Parquet: read and written a block of rows at a time.

Nothing here reads pickles: they can run any program.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole
from vecsearch.imaging import scan
from vecsearch.vocabulary import MAX_DIMENSIONS, MAX_HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_SIZE = 1_000
# What a column of paths may be called.
PATH_COLUMNS = "path paths file filename file_name image id".split()


@dataclass(frozen=True)
class Block:
    """Rows of a file.

    Attributes:
        numbers: each row's line in a CSV, from 1; otherwise its place, from 1.
        paths: as the file has them.
        embeddings: shape (n, dimensions).
        columns: in our own exports, the values of `vecsearch.postgres.columns.CARRIED` by name,
            None where a row has none.

    """

    numbers: list[int]
    paths: list[str]
    embeddings: "NDArray[np.float32]"
    columns: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """An open file.

    Attributes:
        unit: what `Block.numbers` count: "line" or "row".
        collection: what our own exports say of the collection they came from; JSON values.
        rows: how many there are; None with CSV, which does not say.
        blocks: to be read once, while the file is open.

    """

    unit: str
    collection: dict[str, Any] | None
    rows: int | None
    blocks: Iterator[Block]


class Source(Protocol):
    """A collection that is about to be written to a file."""

    collection: dict[str, Any]
    rows: int
    dimensions: int
    longest_path: int

    def blocks(self, *, embeddings: bool, columns: bool) -> Iterator[Block]:
        """Yield every row, in the same order each time; what is not asked for is left empty."""


class Format(Protocol):
    """What each module of this room has."""

    def opened(self, file: Path) -> AbstractContextManager[Contents]:
        """See `open_file`."""

    def write(self, file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
        """See `write_file`; `file` is not there yet."""


def open_file(file: Path) -> AbstractContextManager[Contents]:
    """Open a file for reading; every row that it yields can be stored.

    Raises:
        InvalidInput: it cannot be read, or a row cannot be stored; the line or row is named.
            The same while reading on.

    """
    return _format(file).opened(file)


def write_file(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """Write a file, whole or not at all; `on_rows` is called with the rows done so far.

    Raises:
        InvalidInput: its suffix names no format, or it cannot be written.

    """
    writer = _format(file)
    with written_whole(file) as partial:
        writer.write(partial, source, on_rows)


def require_file(file: Path) -> None:
    """Check that a collection can be written to a file, before the work.

    Raises:
        InvalidInput: its suffix names no format, the format needs an extra that is not installed,
            or its folder cannot be written to.

    """
    _format(file)
    require_writable(file)


def carries_columns(file: Path) -> bool:
    """Tell whether the file's format holds every column, rather than paths and numbers alone."""
    return file.suffix.lower() != ".csv"


def check(file: Path, unit: str, block: Block) -> Block:
    """Return the block if each of its rows can be stored.

    Raises:
        InvalidInput: it cannot; the first such line or row is named.

    """
    width = block.embeddings.shape[1]
    if not 1 <= width <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"{file} has {width:,} numbers a picture; pgvector stores 1 to "
            f"{MAX_DIMENSIONS:,}. Give such embeddings."
        )
    for number, path in zip(block.numbers, block.paths, strict=True):
        if not path or "\0" in path or scan.storable(path) is None:
            raise InvalidInput(
                f"{file}, {unit} {number}: {path!r} is not a path. Begin each row with one."
            )
    faults = (
        (~np.isfinite(block.embeddings), "is not a finite number"),
        (np.abs(block.embeddings) > MAX_HALF, "is too large for half precision"),
    )
    for wrong, words in faults:
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InvalidInput(
                f"{file}, {unit} {block.numbers[row]}: number {column + 1} "
                f"{words} ({block.embeddings[row, column]}). Mend or remove the row."
            )
    zero = ~block.embeddings.astype(np.float16).any(axis=1)
    if zero.any():
        raise InvalidInput(
            f"{file}, {unit} {block.numbers[int(zero.argmax())]}: every number is zero, which has "
            "no direction to compare. Remove the row."
        )
    return block


def block_rows(dimensions: int) -> int:
    """Return how many rows of an embedding to hold at once: some 16 MB."""
    return max(1, min(BLOCK_SIZE, math.ceil(4_000_000 / max(dimensions, 1))))


def ragged(file: Path, unit: str, number: int, width: int, expected: int) -> InvalidInput:
    """Return the error for a row that has not as many numbers as those before it."""
    return InvalidInput(
        f"{file}, {unit} {number}: {width:,} numbers, where those before have {expected:,}. "
        "Give every picture as many."
    )


def _format(file: Path) -> Format:
    match file.suffix.lower():
        case ".csv":
            from vecsearch.ingest.formats import csv_files

            return csv_files
        case ".npz":
            from vecsearch.ingest.formats import npz_files

            return npz_files
        case ".parquet" | ".pq":
            from vecsearch.ingest.formats import parquet_files

            return parquet_files
        case ".pkl" | ".pickle" | ".npy" | ".pt" | ".pth" | ".joblib":
            raise InvalidInput(
                f"{file} is not read: such a file can run any program when it is opened. "
                "Save the embeddings as CSV, NPZ or Parquet."
            )
        case _:
            raise InvalidInput(f"{file} names no format by its suffix. Use .csv, .npz or .parquet.")
