"""Measure a second ingest of unchanged files, which is a walk and one comparison.

    python benchmarks/unchanged.py --files 60000

Makes small, unique files, stores a row and a thumbnail for each as an ingest would, and runs
`vecsearch ingest` again. Every round times the whole command, from start to exit, and, within one
process, a whole run and the walk alone.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from common import conditions

from vecsearch.config import Settings
from vecsearch.encoders.base import Encoder, Identity, LazyEncoder, Weights
from vecsearch.imaging import decode, reading, scan
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import writes
from vecsearch.ingest.run import Ingest, Options
from vecsearch.library import Library
from vecsearch.postgres import database, thumbnails
from vecsearch.postgres.rows import analyze
from vecsearch.search import collections

COLLECTION = "images"
A_FOLDER = 1000
A_TRANSACTION = 1000
THUMBNAIL_BYTES = 12_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dimensions", type=int, default=2048)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, data_dir = Path(temporary) / "pictures", Path(temporary) / "data"
        make_files(folder, arguments.files)
        with Library.open(Settings.load(data_dir=data_dir)) as library:
            library.upgrade()
            store(library, folder, arguments.dimensions)
            print(f"{arguments.files} unchanged files, {conditions()}")
            columns = zip(
                *(_round(library, folder, data_dir, arguments) for _ in range(arguments.rounds)),
                strict=True,
            )
        whole, run, walk = (statistics.median(column) for column in columns)
        print(
            f"medians: the whole command {whole:,.0f} files/s, walk and comparison {run:,.0f},"
            f" walk alone {walk:,.0f}; {conditions()}"
        )


def _round(
    library: Library, folder: Path, data_dir: Path, arguments: argparse.Namespace
) -> tuple[float, float, float]:
    command = [sys.executable, "-m", "vecsearch", "ingest", str(folder), "--data-dir"]
    started = perf_counter()
    answer = subprocess.run([*command, str(data_dir)], check=True, capture_output=True, text=True)
    whole = perf_counter() - started
    if f'"unchanged": {arguments.files}' not in answer.stdout:
        raise SystemExit(f"Not every file was unchanged: {answer.stdout}")
    started = perf_counter()
    with database.session(library.engine) as connection:
        for _ in Ingest(
            connection, COLLECTION, scan.Walk([folder]), LazyEncoder(_unneeded), Options()
        ):
            pass
    run = perf_counter() - started
    started = perf_counter()
    for _ in scan.Walk([folder]):
        pass
    walk = perf_counter() - started
    print(f"command {whole:.2f} s; walk and comparison {run:.2f} s, of which walk {walk:.2f} s")
    return arguments.files / whole, arguments.files / run, arguments.files / walk


def _unneeded() -> Encoder:
    raise SystemExit("A file was new.")


def make_files(folder: Path, count: int) -> None:
    """Fill folders with files that have an image suffix and a few unique bytes."""
    for number in range(count):
        file = folder / f"{number // A_FOLDER:04}" / f"IMG_{number:07}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number)


def store(library: Library, folder: Path, dimensions: int) -> None:
    """Store rows and thumbnails of the files, with meaningless embeddings."""
    random = np.random.default_rng(0)
    files = iter(scan.Walk([folder]))
    identity = Identity("timm", "benchmark", "pooled", "0" * 64, {})
    with database.session(library.engine) as connection:
        with connection.begin():
            collection = collections.create(
                connection,
                COLLECTION,
                identity,
                Weights(None, None),
                dimensions,
                index_method="none",
            )
        while some := list(islice(files, A_TRANSACTION)):
            rows = [
                writes.Embedded(
                    file,
                    decode.Facts(reading.bytes_sha256(file.path.encode()), 500, 375, "JPEG"),
                    random.random(dimensions, np.float32),
                )
                for file in some
            ]
            drawn = [
                Thumbnail(row.facts.sha256, 320, 240, random.bytes(THUMBNAIL_BYTES)) for row in rows
            ]
            with connection.begin():
                writes.write_files(connection, collection.table, rows, [])
                thumbnails.store(connection, drawn)
        with connection.begin():
            analyze(connection, collection.table)


if __name__ == "__main__":
    main()
