"""A real Postgres; one template, built by the real migrations and cloned for each test."""

import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from server_support import is_running
from servers import (
    CITUS,
    create_database,
    drop_database,
    freeze,
    join_nodes,
    kinds,
    running,
    with_database,
)
from starlette.testclient import TestClient
from support import Corpus, PixelEncoder, clustered, ingest, make_corpus, picture
from tidy_support import use_trash_of
from web_support import Known, client

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.embedded import access, server

# Of this process: several use one cluster.
_OWN = uuid.uuid4().hex[:8]
TEMPLATE, BARE = f"vecsearch_template_{_OWN}", f"vecsearch_bare_{_OWN}"
_numbers = itertools.count()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_url" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        chosen = kinds(metafunc.config.getoption("servers"), marks)
        metafunc.parametrize("server_url", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a server's maintenance database; its template is migrated."""
    kind = request.param
    with running(kind, tmp_path_factory.mktemp(kind)) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            # A test's database need not survive a power cut, and dropping one waits for the disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        create_database(url, TEMPLATE)
        if kind == CITUS:
            create_database(url, BARE)
            join_nodes(url, BARE)
            freeze(url, BARE)
            join_nodes(url, TEMPLATE)
        with Library.open(Settings.load(database_url=with_database(url, TEMPLATE))) as library:
            library.upgrade()
        if kind == CITUS:
            freeze(url, TEMPLATE)
        yield url
        if kind == CITUS:
            drop_database(url, TEMPLATE)
            drop_database(url, BARE)


@pytest.fixture(scope="session")
def template() -> str:
    """The name of a migrated database without collections, to clone."""
    return TEMPLATE


def settings_of(url: str, data_dir: Path) -> Settings:
    """Return settings for a test's database; the embedded server's is read as users read it."""
    is_embedded = sa.make_url(url).host is None
    reader_url = access.as_local(url) if is_embedded else None
    return Settings.load(database_url=url, reader_url=reader_url, data_dir=data_dir)


def _database(server_url: str, template: str) -> Iterator[str]:
    name = f"test_{_OWN}_{next(_numbers)}"
    create_database(server_url, name, template)
    yield with_database(server_url, name)
    drop_database(server_url, name)


@contextmanager
def _corpus(server_url: str, data_dir: Path) -> Iterator[Corpus]:
    with contextmanager(_database)(server_url, TEMPLATE) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET enable_seqscan = off".encode())
        with Library.open(settings_of(url, data_dir)) as library:
            vectors = clustered(3_100, 64, seed=1)[:3_000]
            vectors[-12:] = vectors[-1]
            yield make_corpus(library, "images", vectors)


@pytest.fixture(scope="session")
def corpus(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """3,000 vectors, the last twelve of them equal, in a database that prefers its index."""
    with _corpus(server_url, tmp_path_factory.mktemp("unused")) as made:
        yield made


@pytest.fixture(scope="session")
def compact_corpus(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """The corpus, with compact vectors of half its dimensions."""
    with _corpus(server_url, tmp_path_factory.mktemp("unused")) as made:
        made.library.collection().create_index("compact", dims=32)
        yield made


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """The URL of a fresh, migrated database."""
    yield from _database(server_url, TEMPLATE)


@pytest.fixture
def empty_database_url(server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh database that vecsearch has never seen."""
    is_citus = request.node.callspec.params["server_url"] == CITUS
    yield from _database(server_url, BARE if is_citus else "template1")


@pytest.fixture
def library(database_url: str, tmp_path: Path) -> Iterator[Library]:
    """An open library on a fresh, migrated database."""
    with Library.open(settings_of(database_url, tmp_path / "unused")) as opened:
        yield opened


@pytest.fixture
def own_trash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trash of the test's own, in a folder that is as well the user's data."""
    use_trash_of(tmp_path / "data", monkeypatch)
    return tmp_path / "data" / "Trash"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an ingest take three files at a time, so that a few files fill several chunks."""
    monkeypatch.setattr("vecsearch.ingest.run.CHUNK_SIZE", 3)


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Library]:
    """A library on a database that has never been upgraded."""
    with Library.open(Settings.load(database_url=empty_database_url)) as opened:
        yield opened


@pytest.fixture
def known(library: Library, tmp_path: Path) -> list[Known]:
    """Twenty pictures of three labels, and sizes and days of their own."""
    found = []
    for seed in range(20):
        path = tmp_path / "photos" / f"label {seed % 3}" / f"{seed:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = 40 + 7 * seed, 90 - 3 * seed
        picture(seed, (width, height)).save(path)
        modified = datetime(2024, 1, 1 + seed, 23, 30, tzinfo=UTC)
        os.utime(path, (modified.timestamp(), modified.timestamp()))
        found.append(Known(path, width, height, modified.date(), PixelEncoder().expected(path)))
    ingest(library.engine, [tmp_path / "photos"], PixelEncoder())
    return found


@pytest.fixture
def api(library: Library, known: list[Known]) -> TestClient:
    return client(library)


@pytest.fixture(params=["corpus", "compact_corpus"], ids=["hnsw", "compact"])
def indexed(request: pytest.FixtureRequest, server_url: str) -> Corpus:
    found: Corpus = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder whose server is stopped in the end, whatever a test leaves behind."""
    folder = tmp_path / "data"
    yield folder
    server.stop(folder)
    assert not is_running(folder)
