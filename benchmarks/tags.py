"""Measure tags: whether the first is right, and how fast they are made and filtered by.

    python benchmarks/tags.py ../shared/data/imagenet --more ../shared/data/caltech101

The files of the first folder are named NUMBER_NAME after the one class that they show. For the
speed, copies of the rows fill the collection.
"""

import argparse
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from common import conditions, percentiles

from vecsearch.config import Settings
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.search.query import Query

ROUNDS, REPEATS = 3, 20
FILTER = "SELECT id FROM images_tags WHERE name = '{}' AND probability > 0.3"
FREQUENT = "SELECT name FROM images_tags WHERE probability > 0.3 GROUP BY 1 ORDER BY count(*) DESC"
# What the stored tags spare: the logits of each row, by SQL.
LIVE = """
    SELECT count(*) FROM (SELECT embedding FROM images LIMIT {}) AS i
    CROSS JOIN LATERAL (
        SELECT number, bias - (i.embedding <#> c.embedding) AS logit FROM concepts AS c
        ORDER BY logit DESC LIMIT 5) AS best"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("named", type=Path)
    parser.add_argument("--more", type=Path, help="other images, among which they are")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    folders = [folder for folder in (options.named, options.more) if folder is not None]
    with (
        tempfile.TemporaryDirectory() as temporary,
        Library.open(Settings.load(data_dir=Path(temporary) / "data")) as library,
    ):
        print(conditions())
        images = library.collection()
        images.ingest(folders, model=PACKAGED_MODEL, index="none")
        print(right(library, options.named))
        print(f"live: {1000 * seconds(lambda: run(library, LIVE.format(200))) / 200:.2f} ms a row")
        multiply(library, options.rows)
        took = seconds(lambda: print(f"tagged {images.tags.ensure():,} rows"))
        print(f"in {took:.1f} s; nothing to do: {seconds(images.tags.ensure):.3f} s")
        size = "SELECT pg_size_pretty(pg_total_relation_size('vecsearch_internal.tags')), count(*)"
        size += " FROM vecsearch_internal.tags"
        print("size and rows of the table: {}, {:,}".format(*run(library, size)[0]))
        images.create_index("compact")
        names = run(library, FREQUENT)
        hits = [image.id for image in images.browse(limit=30)]
        report("tags of 30 images", lambda: images.tags.of(hits))
        for name in (names[0][0], names[len(names) // 2][0]):
            tagged = FILTER.format(name)
            found = len(run(library, tagged))
            report(f"{found:,} images of {name!r}", partial(run, library, tagged))
            query = Query(id=hits[0], where=f"id IN ({tagged})")
            report(f"the nearest 10 of {name!r}", partial(images.ask, query))
        report("the nearest 10 of all", lambda: images.ask(Query(id=hits[0])))


def right(library: Library, folder: Path) -> str:
    """Return the share of images whose first tag, or any, names the class of their file."""
    rows = run(
        library,
        "SELECT path, array_agg(name ORDER BY rank) FROM images_tags"
        f" WHERE starts_with(path, '{folder.absolute()}/') GROUP BY path",
    )
    first = sum(plain(names[0]) == named(path) for path, names in rows)
    among = sum(named(path) in map(plain, names) for path, names in rows)
    return f"of {len(rows)} images the first tag is right for {first}, one of five for {among}"


def named(path: str) -> str:
    """Return the class in a file's name, n01443537_goldfish.JPEG."""
    return plain(Path(path).stem.partition("_")[2])


def plain(name: str) -> str:
    """Return a name without what file names cannot have."""
    return re.sub(r"[^a-z]", "", name.lower())


def multiply(library: Library, rows: int) -> None:
    """Fill the collection with rows between two that it has, as another program would."""
    columns = "sha256, width, height, format, file_size, modified_at, label"
    columns_of_one = ", ".join(f"one.{name}" for name in columns.split(", "))
    with database.writing(library.engine) as connection:
        known = connection.scalar(sa.text("SELECT count(*) FROM images")) or 1
        connection.execute(
            sa.text(
                f"WITH known AS (SELECT *, row_number() OVER (ORDER BY path) AS place FROM images)"
                f" INSERT INTO images (id, path, {columns}, embedding) SELECT gen_random_uuid(),"
                f" one.path || copy, {columns_of_one}, (SELECT avg(embedding)"
                " FROM (VALUES (one.embedding), (other.embedding)) AS two (embedding))"
                f" FROM known AS one, generate_series(2, {rows // known}) AS copy, known AS other"
                f" WHERE other.place = (one.place * 31 + copy * 7919) % {known} + 1"
            )
        )
    with library.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE images"))


def run(library: Library, statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with library.sql(statement) as (_, rows, _):
        return list(rows)


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = perf_counter()
    call()
    return perf_counter() - started


def report(what: str, call: Callable[[], object]) -> None:
    """Print the percentiles of a call's seconds."""
    found = percentiles([[seconds(call) for _ in range(REPEATS)] for _ in range(ROUNDS)])
    print(f"{what}: p50 {found['p50_ms']:.2f} ms, p95 {found['p95_ms']:.2f} ms")


if __name__ == "__main__":
    main()
