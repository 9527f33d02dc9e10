"""What formats of embeddings share: blocks of rows, and the checks that each row passes."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vecsearch.errors import InvalidInput
from vecsearch.imaging import scan
from vecsearch.ingest.annotations.metadata import KEY_COLUMNS
from vecsearch.vocabulary import MAX_DIMENSIONS, MAX_HALF

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_SIZE = 1_000
# In which a block must have been read.
SECONDS = 120
# Characters of a path, and of a line of a text file, with more than any picture or row needs.
MOST_PATH, MOST_LINE = 1 << 15, 1 << 22
# Accepted names for the column of paths.
PATH_COLUMNS = (*KEY_COLUMNS, "paths", "id")


@dataclass(frozen=True)
class Block:
    """Rows of a file.

    Attributes:
        numbers: each row's line in a CSV, otherwise its position; both from 1.
        paths: as written in the file.
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
        collection: in our own exports, the collection that they came from, as JSON values.
        rows: how many there are; None with CSV.
        blocks: read them once, while the file is open.

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
        """Yield every row, in the same order each time, without what is not asked for."""


class Format(Protocol):
    """What the module of each format has.

    Attributes:
        CARRIES_COLUMNS: whether its files hold every column, not only paths and embeddings.

    """

    CARRIES_COLUMNS: bool

    def opened(self, file: Path) -> AbstractContextManager[Contents]:
        """See `vecsearch.ingest.formats.open_file`."""

    def write(self, file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
        """See `vecsearch.ingest.formats.write_file`; `file` is not there yet."""


def check(file: Path, unit: str, block: Block) -> Block:
    """Return the block if all of its rows can be stored.

    Raises:
        InvalidInput: one cannot; the error names its line or row.

    """
    width = block.embeddings.shape[1]
    if not 1 <= width <= MAX_DIMENSIONS:
        raise too_wide(file, width)
    for number, path in zip(block.numbers, block.paths, strict=True):
        if not path or "\0" in path or scan.storable(path) is None:
            raise InvalidInput(
                f"{file}, {unit} {number}: {path[:80]!r} is not a path. Start each row with one."
            )
        if len(path) > MOST_PATH:
            raise too_long(file, "path", MOST_PATH, f"{unit} {number}")
    faults = (
        (~np.isfinite(block.embeddings), "is not a finite number"),
        (np.abs(block.embeddings) > MAX_HALF, "is too large for half precision"),
    )
    for wrong, words in faults:
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InvalidInput(
                f"{file}, {unit} {block.numbers[row]}: number {column + 1} {words} "
                f"({block.embeddings[row, column]}, for {block.paths[row]}). Fix or remove the row."
            )
    zero = ~block.embeddings.astype(np.float16).any(axis=1)
    if zero.any():
        row = int(zero.argmax())
        raise InvalidInput(
            f"{file}, {unit} {block.numbers[row]}: the embedding is all zeros "
            f"(for {block.paths[row]}), which has no direction to compare. Remove the row."
        )
    return block


def too_wide(file: Path, width: int) -> InvalidInput:
    """Return the error for embeddings of so many dimensions that they cannot be stored."""
    return InvalidInput(
        f"{file} has {width:,} dimensions; pgvector stores 1 to {MAX_DIMENSIONS:,}. "
        "Use other embeddings."
    )


def too_long(file: Path, what: str, most: int, where: str) -> InvalidInput:
    """Return the error for a text with more characters than its limit."""
    return InvalidInput(
        f"{file}, {where}: the {what} has more than {most:,} characters. Shorten or remove it."
    )


def block_rows(dimensions: int) -> int:
    """Return how many rows to hold at once: about 16 MB of embeddings."""
    return max(1, min(BLOCK_SIZE, math.ceil(4_000_000 / max(dimensions, 1))))


def ragged(file: Path, unit: str, number: int, width: int, expected: int) -> InvalidInput:
    """Return the error for a row whose number of dimensions differs from the first row's."""
    return InvalidInput(
        f"{file}, {unit} {number}: expected {expected:,} dimensions, found {width:,}. "
        "Fix or remove the row."
    )
