"""Waits for other sessions: named, bounded, and as long as the other one is at work."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from support import PixelEncoder, clustered, counts, ingest, make_corpus, scalar, write

from vecsearch.errors import DatabaseBusy
from vecsearch.library import Library
from vecsearch.postgres.rows import WRITE_LOCK_KEY
from vecsearch.postgres.sessions import waits
from vecsearch.search.indexes import ddl

LOCK = "SELECT pg_advisory_lock({key}, hashtext('images'))"


@contextmanager
def session(library: Library, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of another program, in a transaction."""
    with psycopg.connect(library.url, application_name="another program") as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL_S", 0.05), ("SAY_AFTER_S", 0.1), ("GIVE_UP_S", 1.0)):
        monkeypatch.setattr(waits, name, seconds)


@pytest.mark.parametrize(
    "held", [LOCK.format(key=WRITE_LOCK_KEY), "LOCK TABLE vecsearch.images IN SHARE MODE"]
)
def test_a_session_that_holds_a_lock_and_does_nothing_is_named_and_given_up(
    library: Library, photos: Path, caplog: pytest.LogCaptureFixture, held: str
) -> None:
    ingest(library.engine, [photos / "cats"], PixelEncoder())
    with session(library, held) as other:
        named = f"another program (server process {other.info.backend_pid})"
        with pytest.raises(DatabaseBusy) as caught:
            ingest(library.engine, [photos], PixelEncoder())
        assert caplog.messages == [f"Waiting for {named}."]
        assert str(caught.value) == (
            f"Gave up waiting for {named}, which holds a lock and has done nothing for 1 seconds. "
            "End it, and retry; what is stored stays."
        )
        assert scalar(library, "SELECT count(*) FROM images") == 6
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 6, "unchanged": 6}


def test_a_session_that_works_is_waited_for(
    library: Library, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(library.engine, [photos / "cats"], PixelEncoder())
    begun = Event()

    def work() -> None:
        with session(library, LOCK.format(key=WRITE_LOCK_KEY)) as other:
            begun.set()
            # Longer than is waited for one that does nothing: a statement, then small ones.
            other.execute("SELECT pg_sleep(1.5)")
            for _ in range(6):
                other.execute("SELECT pg_sleep(0.1)")
                Event().wait(0.2)

    thread = Thread(target=work)
    thread.start()
    assert begun.wait(60)
    assert ingest(library.engine, [photos], PixelEncoder()).added == 6
    thread.join()
    assert len(caplog.messages) == 1


def test_an_index_that_another_session_builds_is_named(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ddl, "CLAIM_TIMEOUT_S", 0.2)
    make_corpus(library, "images", clustered(40, 8, seed=0))
    images = library.collection()
    file = tmp_path / "images.parquet"
    images.export_file(file)
    write(library, "DROP INDEX images_embedding_hnsw")
    with session(library, LOCK.format(key=ddl.BUILD_LOCK_KEY)) as other:
        named = f"another program (server process {other.info.backend_pid})"
        building = f"{named} is building the index of 'images'."
        with pytest.raises(DatabaseBusy) as caught:
            images.create_index("hnsw")
        assert str(caught.value) == f"{building} Retry when that ends."
        (note,) = images.import_file(file).notes
        assert note == f"{building} Until that ends, every search compares all images."
    # A killed command's session ends a moment later.
    monkeypatch.setattr(ddl, "CLAIM_TIMEOUT_S", 60)
    with session(library, LOCK.format(key=ddl.BUILD_LOCK_KEY)) as other:
        thread = Thread(
            target=other.execute, args=[b"SELECT pg_sleep(0.5), pg_advisory_unlock_all()"]
        )
        thread.start()
        assert images.create_index("hnsw") == []
        thread.join()
    assert images.index_status().index == "hnsw"


def test_our_sessions_say_who_they_are(library: Library) -> None:
    assert " (PID " in scalar(library, "SELECT current_setting('application_name')")


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
