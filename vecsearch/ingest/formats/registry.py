"""Files of embeddings, read and written a block of rows at a time; the suffix chooses the format.

Nothing here reads pickles: they can run any program.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole
from vecsearch.ingest.formats.base import Contents, Format, Source


def open_file(file: Path) -> AbstractContextManager[Contents]:
    """Open a file for reading; it yields only rows that can be stored.

    Raises:
        InvalidInput: the file cannot be read, or a row cannot be stored; the error names its line
            or row. Iterating over the blocks raises it, too.

    """
    return _format(file).opened(file)


def write_file(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """Write a file, whole or not at all; call `on_rows` with the number of rows so far.

    Raises:
        InvalidInput: its suffix is unknown, or it cannot be written.

    """
    writer = _format(file)
    with written_whole(file) as partial:
        writer.write(partial, source, on_rows)


def require_file(file: Path) -> None:
    """Check in advance that a collection can be written to a file.

    Raises:
        InvalidInput: its suffix is unknown, the format needs an extra that is not installed, or
            the folder cannot be written to.

    """
    _format(file)
    require_writable(file)


def carries_columns(file: Path) -> bool:
    """Return whether the file's format holds every column, not only paths and embeddings."""
    return _format(file).CARRIES_COLUMNS


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
                f"{file}: opening a pickle can run any program, so it is not read. "
                "Save the embeddings as CSV, NPZ or Parquet."
            )
        case _:
            raise InvalidInput(f"{file}: unknown format. Use .csv, .npz or .parquet.")
