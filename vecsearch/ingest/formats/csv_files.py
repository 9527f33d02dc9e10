"""CSV: a line a picture, its path and then its numbers; a header or none.

The numbers can be one field in brackets, as Postgres writes a vector: `a.png,"[0.1,0,0.3]"`.
"""

import csv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from vecsearch.errors import InvalidInput, first_line
from vecsearch.ingest.formats.base import (
    MOST_LINE,
    PATH_COLUMNS,
    Block,
    Contents,
    Source,
    block_rows,
    check,
    ragged,
    too_long,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARRIES_COLUMNS = False


@contextmanager
def opened(file: Path) -> Iterator[Contents]:
    """See `vecsearch.ingest.formats.open_file`."""
    with ExitStack() as resources:
        with _translated(file):
            # utf-8-sig: spreadsheets begin a CSV with a byte order mark.
            lines = resources.enter_context(file.open(encoding="utf-8-sig", newline=""))
        yield Contents("line", None, None, _blocks(file, lines))


def write(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """See `vecsearch.ingest.formats.write_file`; what is not path or number stays behind."""
    done = 0
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["path", *(f"e{number}" for number in range(source.dimensions))])
        for block in source.blocks(embeddings=True, columns=False):
            for path, embedding in zip(block.paths, block.embeddings, strict=True):
                # The fewest digits that give the same number in half precision, as it is stored;
                # row by row, since numpy's texts take a hundred bytes each.
                writer.writerow([path, *embedding.astype(np.float16).astype("U").tolist()])
            done += len(block.paths)
            on_rows(done)


def _blocks(file: Path, lines: TextIO) -> Iterator[Block]:
    numbers: list[int] = []
    paths: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    size = 0
    for number, path, vector in _rows(file, lines):
        if not size:
            size = block_rows(len(vector))
        elif len(paths) == size:
            yield check(file, "line", Block(numbers, paths, np.stack(vectors)))
            numbers, paths, vectors = [], [], []
        numbers.append(number)
        paths.append(path)
        vectors.append(vector)
    if paths:
        yield check(file, "line", Block(numbers, paths, np.stack(vectors)))


def _rows(file: Path, lines: TextIO) -> "Iterator[tuple[int, str, NDArray[np.float32]]]":
    """Yield each row's line, path and numbers, all of one width."""
    dimensions: int | None = None
    is_first = True
    with _translated(file), _fields_up_to(MOST_LINE):
        reader = csv.reader(_lines(file, lines), strict=True)
        for row in reader:
            if not row:
                continue
            is_header = is_first and _is_header(row)
            is_first = False
            if is_header:
                continue
            fields = _fields(row)
            vector = _vector(file, reader.line_num, fields)
            if not fields:
                raise InvalidInput(
                    f"{file}, line {reader.line_num}: nothing follows the path. "
                    "Separate the path and the numbers with commas."
                )
            if dimensions is None:
                dimensions = len(vector)
            if len(vector) != dimensions:
                raise ragged(file, "line", reader.line_num, len(vector), dimensions)
            yield reader.line_num, row[0], vector


def _lines(file: Path, lines: TextIO) -> Iterator[str]:
    for number in count(1):
        line = lines.readline(MOST_LINE)
        if len(line) == MOST_LINE:
            raise too_long(file, "line", MOST_LINE, f"line {number}")
        if not line:
            return
        yield line


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"{file} cannot be read: {first_line(error)}. "
            "Give a CSV in UTF-8: a path, then numbers."
        ) from error


@contextmanager
def _fields_up_to(most: int) -> Iterator[None]:
    """Let a field have so many characters, as a whole vector can be one; the default is 128 KiB."""
    before = csv.field_size_limit(most)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _fields(row: list[str]) -> list[str]:
    """Return the numbers of a row, each as it is written."""
    _, *fields = row
    match [field.strip() for field in fields]:
        case [vector] if vector.startswith("[") and vector.endswith("]"):
            inner = vector[1:-1]
            return inner.split(",") if inner.strip() else []
    return fields


def _is_header(row: list[str]) -> bool:
    """Tell names from numbers; pandas calls columns that have no name 0, 1, 2 and so on.

    A line with some numbers is one of the rows, broken, and not to be passed over.
    """
    name, *fields = row
    if any(field.lstrip().startswith("[") for field in fields):
        return False
    if not any(map(_is_number, fields)):
        return bool(fields)
    counts = [[str(number + first) for number in range(len(fields))] for first in (0, 1)]
    return name.lower() in {"", *PATH_COLUMNS} and fields in counts


def _vector(file: Path, number: int, fields: list[str]) -> "NDArray[np.float32]":
    try:
        # Half precision holds less than this can tell from infinity.
        with np.errstate(over="ignore"):
            return np.array(list(map(float, fields)), dtype=np.float32)
    except ValueError:
        wrong = next(text for text in fields if not _is_number(text))
        raise InvalidInput(
            f"{file}, line {number}: {wrong[:40]!r} is not a number. "
            "Give a path, then numbers; quote a path that holds commas."
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
