"""Measure the feed of changes and the tables that follow it.

    python benchmarks/changes.py --rows 20000

First what the feed's triggers cost writes: transactions as an ingest has them, and one of a program
that inserts thousands of rows, with and without the triggers by turns. Then how long a refresh of
the neighbours takes, of all images and after some changed.
"""

import argparse
import statistics
import tempfile
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np
import sqlalchemy as sa
from common import conditions
from numpy.typing import NDArray
from vectors import DIMENSIONS, Vectors

from vecsearch.config import Settings
from vecsearch.encoders.base import Identity, Weights
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.scan import File
from vecsearch.ingest import writes
from vecsearch.ingest.run import CHUNK_SIZE
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search import collections

ROUNDS = 40
AT_ONCE = 2_000
MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        Library.open(Settings.load(data_dir=Path(temporary) / "data")) as library,
    ):
        print(conditions(), f"{DIMENSIONS:,} dimensions")
        library.upgrade()
        with database.writing(library.engine) as connection:
            identity = Identity("timm", "none", "pooled", "0" * 64, {})
            collections.create(connection, "images", identity, Weights(None, None), DIMENSIONS)
        writing(library)
        following(library, options.rows)


def writing(library: Library) -> None:
    """Print what the triggers cost."""
    vectors = np.concatenate(list(Vectors(CHUNK_SIZE * ROUNDS)))
    with database.reading(library.engine) as connection:
        table = catalog.get_collection(connection, "images").table

    def chunk(number: int) -> None:
        start = number // 2 * CHUNK_SIZE
        rows = [
            writes.Embedded(
                File(f"/{number}/{place}.jpg", f"{place}.jpg", 1, MODIFIED),
                Facts(uuid.uuid4().hex * 2, 1, 1, "JPEG"),
                vector,
            )
            for place, vector in enumerate(vectors[start : start + CHUNK_SIZE])
        ]
        with database.writing(library.engine) as connection:
            writes.write_files(connection, table, rows, [])

    def insert(_: int) -> None:
        run(
            library,
            "INSERT INTO images (id, path, label, embedding) SELECT gen_random_uuid(),"
            f" gen_random_uuid()::text, '', embedding FROM (SELECT embedding FROM images"
            f" LIMIT 1000), generate_series(1, {AT_ONCE // 1000})",
        )

    def delete(_: int) -> None:
        # Those without a hash are those of `insert`.
        chosen = f"SELECT id FROM images WHERE sha256 IS NULL LIMIT {AT_ONCE // 2}"
        run(library, f"DELETE FROM images WHERE id IN ({chosen})")

    def describe(_: int) -> None:
        chosen = f"SELECT id FROM images ORDER BY id LIMIT {AT_ONCE // 2}"
        run(library, f"UPDATE images SET label = label || '.' WHERE id IN ({chosen})")

    compare(library, f"an ingest's transactions of {CHUNK_SIZE} rows", chunk, CHUNK_SIZE, ROUNDS)
    for what, call, rows in (
        (f"INSERT of {AT_ONCE:,} rows", insert, AT_ONCE),
        (f"DELETE of {AT_ONCE // 2:,} rows", delete, AT_ONCE // 2),
        (f"UPDATE of the label of {AT_ONCE // 2:,} rows", describe, AT_ONCE // 2),
    ):
        compare(library, what, call, rows, 6)


def compare(
    library: Library, what: str, call: Callable[[int], None], rows: int, rounds: int
) -> None:
    """Print the microseconds a row with and without triggers, medians of rounds by turns."""
    took: dict[str, list[float]] = {"ENABLE": [], "DISABLE": []}
    for number, state in zip(range(2 * rounds), cycle(took)):
        run(library, f"ALTER TABLE images {state} TRIGGER USER")
        took[state].append(seconds(partial(call, number)))
    run(library, "ALTER TABLE images ENABLE TRIGGER USER")
    with_, without = (1e6 * statistics.median(found) / rows for found in took.values())
    print(f"{what}: {with_:.1f} µs a row, {without:.1f} without, {with_ - without:+.1f}")


def following(library: Library, rows: int) -> None:
    """Print how long refreshes take."""
    run(library, "TRUNCATE images")
    copy(library, np.concatenate(list(Vectors(rows))))
    images = library.collection()
    images.create_index("hnsw")
    refresh = images.refresh
    print(f"neighbours of {rows:,} images: {seconds(partial(refresh, ['neighbours'])):.1f} s")
    for changed in (1, 10, 100, 1_000):
        chosen = f"SELECT id FROM images ORDER BY random() LIMIT {changed}"
        run(library, f"DELETE FROM images WHERE id IN ({chosen})")
        copy(library, Vectors(rows, seed=changed).queries(changed))
        started = perf_counter()
        (done,) = refresh(["neighbours"])
        took = perf_counter() - started
        print(f"{changed:,} deleted, {changed:,} added: {took:.1f} s for {done.images:,} images")
    for name in ("duplicates", "clusters"):
        print(f"{name}: {seconds(partial(refresh, [name])):.1f} s")


def copy(library: Library, vectors: NDArray[np.float32]) -> None:
    """Store vectors as images."""
    with (
        database.writing(library.engine) as connection,
        database.driver_connection(connection).cursor() as cursor,
        cursor.copy("COPY images (id, path, label, embedding) FROM STDIN") as rows,
    ):
        for vector in vectors:
            id_ = uuid.uuid4()
            rows.write_row((id_, str(id_), "", str(vector.tolist())))


def run(library: Library, statement: str) -> None:
    """Run a statement that changes something."""
    with database.writing(library.engine) as connection:
        connection.execute(sa.text(statement))


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


if __name__ == "__main__":
    main()
