"""The database ends under a command: what comes back by itself, and what is said."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from server_support import kill
from servers import free_port
from web_support import client

from vecsearch.config import Settings
from vecsearch.errors import DatabaseLost, DatabaseUnavailable
from vecsearch.ingest import resuming
from vecsearch.ingest.summary import Progress
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.postgres.embedded import reviving, server


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits between two attempts short."""
    monkeypatch.setattr(resuming, "WAITS_S", (0.1,) * 6)


@pytest.fixture
def embedded(data_dir: Path) -> Library:
    return Library.open(Settings.load(data_dir=data_dir))


def end_sessions(library: Library) -> None:
    """End every session of the library's database, as the end of its server would."""
    with psycopg.connect(library.url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def sleep(library: Library, meanwhile: Callable[[], None]) -> None:
    with database.session(library.engine) as connection:
        connection.exec_driver_sql("SELECT 1")
        meanwhile()
        connection.exec_driver_sql("SELECT pg_sleep(60)")


def test_an_ended_server_is_started_again_by_who_misses_it(
    embedded: Library, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy this machine is.
    monkeypatch.setattr(reviving, "PATIENCE_S", 60.0)
    with embedded as library:
        library.upgrade()
        page = client(library)
        assert page.get("/api/health").status_code == 200
        for number in (signal.SIGKILL, signal.SIGQUIT):
            with pytest.raises(DatabaseLost, match=r"lost: .*Run the command again"):
                sleep(library, partial(kill, data_dir, number))
            library.reader.dispose()  # of a session that has not noticed yet
            with ThreadPoolExecutor(4) as pool:
                assert [*pool.map(lambda _: library.collections(), range(4))] == [[]] * 4
        kill(data_dir)
        # The first answer may be that of a session that has not noticed.
        assert page.get("/api/health").status_code in {200, 503}
        while page.get("/api/health").status_code != 200:
            pass
        assert page.get("/api/collections").json() == []
        # Nobody waits for long.
        monkeypatch.setattr(reviving, "PATIENCE_S", 0.0)
        kill(data_dir)
        library.reader.dispose()
        with pytest.raises(DatabaseUnavailable, match=r"is starting again\. Retry"):
            library.collections()
        monkeypatch.setattr(reviving, "PATIENCE_S", 60.0)
        assert library.collections() == []


def test_an_ingest_goes_on_after_its_server_was_killed(
    embedded: Library,
    data_dir: Path,
    photos: Path,
    small_model: str,
    weights: Path,
    small_chunks: None,
    soon: None,
) -> None:
    killed: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.summary.added and not killed:
            kill(data_dir)
            killed.append(progress.summary.added)

    with embedded as library:
        images = library.collection()
        done = images.ingest(photos, model=small_model, weights=weights, on_progress=on_progress)
        assert killed[0] < done.added == len(list(photos.rglob("*.png")))
        assert done.added + done.copied == sum(done.counts().values())
        assert "The database was lost once during the run, which then went on." in done.notes
        assert library.collections()[0].images == done.added
        assert library.collections()[0].index == "hnsw"


def test_an_ingest_and_an_import_go_on_after_their_sessions_ended(
    library: Library,
    photos: Path,
    tmp_path: Path,
    small_model: str,
    weights: Path,
    small_chunks: None,
    soon: None,
) -> None:
    ends = iter([True, True])

    def on_progress(progress: Progress) -> None:
        if progress.summary.added and next(ends, False):
            end_sessions(library)

    images = library.collection()
    done = images.ingest(photos, model=small_model, weights=weights, on_progress=on_progress)
    assert done.added == len(list(photos.rglob("*.png")))
    assert "The database was lost 2 times during the run, which then went on." in done.notes
    images.export_file(tmp_path / "images.npz")
    ends = iter([True])

    def on_block(*_: object) -> None:
        if next(ends, False):
            end_sessions(library)

    copy = library.collection("copy")
    imported = copy.import_file(tmp_path / "images.npz", on_progress=on_block)
    assert (imported.added, imported.updated) == (done.added, 0)
    assert "The database was lost once during the run, which then went on." in imported.notes


def test_what_does_not_come_back_ends_the_run(library: Library, soon: None) -> None:
    said = []

    def lose() -> None:
        said.append(1)
        raise DatabaseLost("It was lost. Retry.")

    with pytest.raises(DatabaseLost):
        resuming.resumed(library._store, lose)  # noqa: SLF001 - what a collection gives it
    assert len(said) == 7

    nowhere = Settings.load(database_url=f"postgresql://x@127.0.0.1:{free_port()}/x")
    with Library.open(nowhere) as other, pytest.raises(DatabaseUnavailable, match="refused"):
        resuming.resumed(other._store, lose)  # noqa: SLF001 - likewise
    assert len(said) == 7


def test_a_start_that_fails_is_tried_again(
    embedded: Library, monkeypatch: pytest.MonkeyPatch, soon: None
) -> None:
    outcomes = iter([DatabaseLost("It ended."), None])
    starts = iter([DatabaseUnavailable("It ended while it started."), None])

    def take(results: Iterator[Exception | None]) -> None:
        error = next(results)
        if error is not None:
            raise error

    with embedded as library:
        monkeypatch.setattr(server, "revive", lambda _: take(starts))
        _, notes = resuming.resumed(library._store, lambda: take(outcomes))  # noqa: SLF001 - as above
    assert notes == ["The database was lost once during the run, which then went on."]
