"""Transactions that only add rows: they do not wait for each other, and agree where they meet."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import sqlalchemy as sa
from support import PixelEncoder, clustered, every_server, ingest, scalar, store_concepts, versions

from vecsearch.errors import DatabaseError
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.scan import File
from vecsearch.ingest import writes
from vecsearch.ingest.writes import Embedded
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.rows import image_id, writing

DIMENSIONS = PixelEncoder.dimensions


@pytest.fixture
def tagged(library: Library, photos: Path) -> Library:
    """A library whose collection has tags and compact vectors."""
    axes = np.eye(2, DIMENSIONS, dtype=np.float16)
    store_concepts(library, ["dark", "bright"], axes, [0, 1])
    ingest(library.engine, [photos], PixelEncoder())
    library.collection().create_index("compact", dims=4)
    return library


def new_files(*numbers: int) -> list[Embedded]:
    vectors = clustered(100, DIMENSIONS, seed=1).astype(np.float32)
    modified = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Embedded(
            File(f"/new/{number}.png", f"{number}.png", 1, modified),
            Facts(f"{number:064x}", 64, 48, "PNG"),
            vectors[number],
        )
        for number in numbers
    ]


@contextmanager
def adding(library: Library, *numbers: int) -> Iterator[int]:
    """Add files in a transaction that is open until the context is left; yield how many."""
    with database.session(library.engine) as connection:
        connection.execute(sa.text("SET lock_timeout = '20s'"))
        connection.commit()
        with writing(connection, "images", adding=True):
            table = catalog.get_collection(connection, "images").table
            files = new_files(*numbers)
            added = writes.add_files(connection, table, files)
            assert added <= {image_id(file.file.path) for file in files}
            yield len(added)


def stored(library: Library) -> list[int]:
    """Return how many new files have rows, tags and compact vectors."""
    [compact] = versions(library)
    new = "SELECT id FROM vecsearch.images WHERE path LIKE '/new/%'"
    return [
        scalar(library, f"SELECT count(DISTINCT id) FROM {table} WHERE id IN ({new})")
        for table in ("vecsearch.images", "vecsearch_internal.tags", compact.table.fullname)
    ]


@every_server
def test_who_adds_rows_does_not_wait_for_who_adds_others(tagged: Library) -> None:
    with adding(tagged, 1, 2) as first:
        with adding(tagged, 3, 4) as second:
            assert (first, second) == (2, 2)
        assert stored(tagged) == [2, 2, 2]
    assert stored(tagged) == [4, 4, 4]


def test_who_changes_rows_waits_for_who_adds_some_and_the_other_way_round(tagged: Library) -> None:
    def waits(*, adds: bool) -> bool:
        with database.session(tagged.engine) as connection:
            driver_connection(connection).execute("SET lock_timeout = '100ms'")
            connection.commit()
            try:
                with writing(connection, "images", adding=adds):
                    return False
            except sa.exc.OperationalError:
                connection.rollback()
                return True
            finally:
                driver_connection(connection).execute("RESET lock_timeout")

    with adding(tagged, 1):
        assert waits(adds=False)
        assert not waits(adds=True)
    with database.session(tagged.engine) as connection, writing(connection, "images"):
        assert waits(adds=True)


@every_server
def test_two_that_add_the_same_rows_in_another_order_add_each_once(tagged: Library) -> None:
    entered, leave = Event(), Event()

    def first() -> int:
        with adding(tagged, 5, 1, 4, 2) as added:
            entered.set()
            assert leave.wait(60)
            return added

    def second() -> int:
        with adding(tagged, 2, 3, 4, 1, 5) as added:
            return added

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert entered.wait(60)
        other = pool.submit(second)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not scalar(tagged, waiting) and not other.done():
            pass
        leave.set()
        assert (one.result(60), other.result(60)) == (4, 1)
    assert stored(tagged) == [5, 5, 5]


def test_a_row_that_is_there_stays_as_it_is(tagged: Library) -> None:
    with adding(tagged, 1):
        pass
    before = scalar(tagged, "SELECT xmin FROM images WHERE path = '/new/1.png'")
    with adding(tagged, 1) as again:
        assert again == 0
    assert scalar(tagged, "SELECT xmin FROM images WHERE path = '/new/1.png'") == before


def test_nothing_is_added_where_the_transaction_fails(tagged: Library) -> None:
    with pytest.raises(DatabaseError, match="on purpose"), adding(tagged, 1, 2):
        raise DatabaseError("on purpose")
    assert stored(tagged) == [0, 0, 0]
