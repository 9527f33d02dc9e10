"""NPZ: the arrays `paths` and `embeddings`, one row a picture.

Our own exports have two members more, which numpy leaves alone: `collection.json`, and
`rows.ndjson` with a line of every other column for each row.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from vecsearch.errors import InvalidInput, first_line
from vecsearch.ingest.formats.base import (
    MOST_LINE,
    MOST_PATH,
    Block,
    Contents,
    Source,
    block_rows,
    check,
    too_long,
    too_wide,
)
from vecsearch.postgres.columns import CARRIED, TIMES, names
from vecsearch.vocabulary import MAX_DIMENSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARRIES_COLUMNS = True
COLLECTION = "collection.json"
ROWS = "rows.ndjson"
_ADVICE = "Give what numpy.savez(FILE, paths=…, embeddings=…) writes."
ROWS_OF_NUMBERS = 2
# numpy keeps each character in four bytes.
MOST_BYTES_OF_PATH = 4 * MOST_PATH


@contextmanager
def opened(file: Path) -> Iterator[Contents]:
    """See `vecsearch.ingest.formats.open_file`."""
    with ExitStack() as resources:
        with _translated(file):
            archive = resources.enter_context(zipfile.ZipFile(file))
            names = set(archive.namelist())
            paths, embeddings = (
                _Rows(file, name, resources.enter_context(archive.open(f"{name}.npy")))
                for name in ("paths", "embeddings")
            )
            if paths.dtype.kind not in "US" or len(paths.shape) != 1:
                raise InvalidInput(f"{file}: 'paths' is not a list of texts. {_ADVICE}")
            if embeddings.dtype.kind not in "fiu" or len(embeddings.shape) != ROWS_OF_NUMBERS:
                raise InvalidInput(f"{file}: 'embeddings' is not rows of numbers. {_ADVICE}")
            if paths.dtype.itemsize > MOST_BYTES_OF_PATH:
                raise too_long(file, "longest path", MOST_PATH, "'paths'")
            if embeddings.shape[1] > MAX_DIMENSIONS:
                raise too_wide(file, embeddings.shape[1])
            if len(paths) != len(embeddings):
                raise InvalidInput(
                    f"{file} has {len(paths):,} paths and {len(embeddings):,} embeddings. "
                    "Give as many of one as of the other."
                )
            collection = None
            if COLLECTION in names:
                with archive.open(COLLECTION) as member:
                    collection = json.loads(_line(file, COLLECTION, member.read(MOST_LINE)))
            others = resources.enter_context(archive.open(ROWS)) if ROWS in names else None
        blocks = _blocks(file, paths, embeddings, others)
        yield Contents("row", collection, len(paths), blocks)


def write(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """See `vecsearch.ingest.formats.write_file`; one pass over the rows for each member."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(COLLECTION, json.dumps(source.collection))
        with archive.open("paths.npy", "w", force_zip64=True) as out:
            dtype = np.dtype(f"<U{max(source.longest_path, 1)}")
            _write_header(out, dtype, (source.rows,))
            for block in source.blocks(embeddings=False, columns=False):
                out.write(np.array(block.paths, dtype=dtype).tobytes())
        with archive.open("embeddings.npy", "w", force_zip64=True) as out:
            _write_header(out, np.dtype("<f2"), (source.rows, source.dimensions))
            done = 0
            for block in source.blocks(embeddings=True, columns=False):
                out.write(block.embeddings.astype("<f2").tobytes())
                done += len(block.paths)
                on_rows(done)
        with archive.open(ROWS, "w", force_zip64=True) as out:
            for block in source.blocks(embeddings=False, columns=True):
                for row in zip(*(block.columns[name] for name in names(CARRIED)), strict=True):
                    text = json.dumps(dict(zip(names(CARRIED), row, strict=True)), default=str)
                    out.write(text.encode() + b"\n")


def _write_header(out: IO[bytes], dtype: "np.dtype[Any]", shape: tuple[int, ...]) -> None:
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(out, header)


class _Rows:
    """An array of an open archive, read a few rows at a time."""

    def __init__(self, file: Path, name: str, member: IO[bytes]) -> None:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        self.shape, is_fortran, self.dtype = read(member)
        if self.dtype.hasobject:
            raise InvalidInput(
                f"{file}: {name!r} holds pickled objects, which can run any program when they "
                f"are read. Save plain texts and numbers, dtype 'U' and float32."
            )
        if is_fortran and len(self.shape) > 1:
            raise InvalidInput(
                f"{file}: {name!r} is stored by column. Save numpy.ascontiguousarray of it."
            )
        self._member = member

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def read(self, rows: int) -> "NDArray[Any]":
        """Return the next rows.

        Raises:
            ValueError: the file ends before they do.

        """
        shape = (rows, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        content = self._member.read(size)
        if len(content) < size:
            raise ValueError("it ends in the middle of an array")
        return np.frombuffer(content, self.dtype).reshape(shape)


def _blocks(
    file: Path, paths: _Rows, embeddings: _Rows, others: IO[bytes] | None
) -> Iterator[Block]:
    size = block_rows(embeddings.shape[1])
    with _translated(file):
        for start in range(0, len(paths), size):
            rows = min(size, len(paths) - start)
            names = paths.read(rows)
            if names.dtype.kind == "S":
                names = np.char.decode(names, "utf-8")
            with np.errstate(over="ignore"):
                vectors = embeddings.read(rows).astype(np.float32)
            numbers = list(range(start + 1, start + rows + 1))
            columns = {} if others is None else _columns(file, others, rows)
            yield check(file, "row", Block(numbers, names.tolist(), vectors, columns))


def _line(file: Path, member: str, line: bytes) -> bytes:
    if len(line) == MOST_LINE:
        raise too_long(file, "line", MOST_LINE, member)
    return line


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise InvalidInput(f"{file}: {error.args[0]}. {_ADVICE}") from error
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(
            f"{file} cannot be read as NPZ: {first_line(error)}. {_ADVICE}"
        ) from error


def _columns(file: Path, lines: IO[bytes], rows: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in names(CARRIED)}
    for _ in range(rows):
        row = json.loads(_line(file, ROWS, lines.readline(MOST_LINE)))
        for column in CARRIED:
            # An older version's export lacks the columns that came later.
            value = row[column.name] if column.required else row.get(column.name)
            if column.kind in TIMES and value is not None:
                value = datetime.fromisoformat(value)
            columns[column.name].append(value)
    return columns
