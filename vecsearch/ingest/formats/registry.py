"""Files of embeddings, read and written a block of rows at a time; the suffix chooses the format.

Nothing here reads pickles: they can run any program.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, said_if_slow, written_whole
from vecsearch.imaging.processes.channel import Message
from vecsearch.imaging.processes.process import Ended, Process
from vecsearch.ingest.formats.base import SECONDS, Block, Contents, Format, Source
from vecsearch.postgres.columns import CARRIED, TIMES


@contextmanager
def open_file(file: Path) -> Iterator[Contents]:
    """Open a file for reading; it yields only rows that can be stored.

    A worker process reads it, since a small file may unpack to gigabytes, or crash its reader.

    Raises:
        InvalidInput: the file cannot be read, or a row cannot be stored; the error names its line
            or row. Iterating over the blocks raises it, too.

    """
    _name(file)
    worker = Process("vecsearch.ingest.formats.worker")
    try:
        with said_if_slow(file):
            told, _ = _received(file, lambda: worker.ask({"file": str(file)}, seconds=SECONDS))
        yield Contents(told["unit"], told["collection"], told["rows"], _blocks(file, worker))
    finally:
        worker.kill()


def write_file(file: Path, source: Source, on_rows: Callable[[int], None]) -> None:
    """Write a file, whole or not at all; call `on_rows` with the number of rows so far.

    Raises:
        InvalidInput: its suffix is unknown, or it cannot be written.

    """
    writer = format_of(file)
    with written_whole(file) as partial:
        writer.write(partial, source, on_rows)


def require_file(file: Path) -> None:
    """Check in advance that a collection can be written to a file.

    Raises:
        InvalidInput: its suffix is unknown, the format needs an extra that is not installed, or
            the folder cannot be written to.

    """
    format_of(file)
    require_writable(file)


def carries_columns(file: Path) -> bool:
    """Return whether the file's format holds every column, not only paths and embeddings."""
    return format_of(file).CARRIES_COLUMNS


def format_of(file: Path) -> Format:
    """Return the module that reads and writes a file.

    Raises:
        InvalidInput: its suffix is unknown, or the format needs an extra that is not installed.

    """
    match _name(file):
        case "csv":
            from vecsearch.ingest.formats import csv_files

            return csv_files
        case "npz":
            from vecsearch.ingest.formats import npz_files

            return npz_files
        case _:
            from vecsearch.ingest.formats import parquet_files

            return parquet_files


def _name(file: Path) -> str:
    match file.suffix.lower():
        case ".csv" | ".npz" | ".parquet" as suffix:
            return suffix[1:]
        case ".pq":
            return "parquet"
        case ".pkl" | ".pickle" | ".npy" | ".pt" | ".pth" | ".joblib":
            raise InvalidInput(
                f"{file}: opening a pickle can run any program, so it is not read. "
                "Save the embeddings as CSV, NPZ or Parquet."
            )
        case _:
            raise InvalidInput(f"{file}: unknown format. Use .csv, .npz or .parquet.")


def _blocks(file: Path, worker: Process) -> Iterator[Block]:
    times = {column.name for column in CARRIED if column.kind in TIMES}
    while True:
        fields, blobs = _received(file, lambda: worker.receive(seconds=SECONDS))
        if not fields:
            return
        columns = fields["columns"]
        for name in times & columns.keys():
            columns[name] = [value and datetime.fromisoformat(value) for value in columns[name]]
        embeddings = np.frombuffer(blobs[0], np.float32).reshape(-1, fields["dimensions"])
        yield Block(fields["numbers"], fields["paths"], embeddings, columns)


def _received(file: Path, receive: Callable[[], Message]) -> Message:
    try:
        fields, blobs = receive()
    except Ended as ended:
        raise InvalidInput(f"{file} cannot be read: {ended.words}. Save it again.") from ended
    if "invalid" in fields:
        raise InvalidInput(fields["invalid"])
    return fields, blobs
