"""`db distribute`: what it changes, refuses and says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from refusals import STUBS
from servers import SHARDS
from support import clustered, make_corpus

from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable, ExtensionMissing, InvalidInput, NotConfirmed
from vecsearch.library import Library
from vecsearch.postgres import analysts, database

# Where its `library` begins with collections in shards.
on_citus = pytest.mark.citus_alone


@pytest.fixture
def gathered(database_url: str, tmp_path: Path) -> Iterator[Library]:
    """A library whose new collections stay on one server."""
    settings = Settings.load(database_url=database_url, data_dir=tmp_path)
    with Library.open(settings, session={"vecsearch.shards": ""}) as library:
        yield library


def test_without_citus_it_says_what_to_install(library: Library) -> None:
    with pytest.raises(ExtensionMissing, match=r"lacks the extension Citus\. Install it"):
        library.distribute()


@on_citus
def test_a_collection_answers_as_before(gathered: Library) -> None:
    corpus = make_corpus(gathered, "images", clustered(1_500, 16, seed=2))
    gathered.collection().create_index("compact", dims=8)
    queries: list[dict[str, Any]] = [{}, {"metric": "chi2"}, {"k": 1_000}, {"where": "width < 700"}]
    before = [gathered.query(id=corpus.ids[5], exact=True, **query).hits for query in queries]
    duplicates = gathered.collection().duplicates(max_distance=0.05, exact=True).images
    with pytest.raises(NotConfirmed, match=r"images has 1,500 images: one server compares .*--yes"):
        gathered.distribute()
    (done,), notes = gathered.distribute("images", shards=SHARDS, confirm=lambda _: True)
    assert (done.images, done.shards, done.servers, done.changed) == (1_500, SHARDS, 2, True)
    assert "vecsearch.shards = 4" in notes[-1]
    after = [gathered.query(id=corpus.ids[5], exact=True, **query).hits for query in queries]
    assert after == before
    assert gathered.query(id=corpus.ids[5]).hits[0].id == corpus.ids[5]
    assert gathered.collection().duplicates(max_distance=0.05, exact=True).images == duplicates
    assert gathered.collection().index_status().index == "compact"
    assert gathered.repair() == []
    ((again,), _) = gathered.distribute()
    assert not again.changed


@on_citus
def test_a_new_collection_is_in_shards_where_the_database_says_so(library: Library) -> None:
    make_corpus(library, "images", clustered(50, 8, seed=3))
    ((found,), notes) = library.distribute()
    assert (found.shards, found.changed, notes) == (SHARDS, False, [])


@pytest.fixture
def pretended(database_url: str, tmp_path: Path) -> Iterator[Library]:
    """A library that takes its collections for distributed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(STUBS.encode())
    settings = Settings.load(database_url=database_url, data_dir=tmp_path)
    with Library.open(settings, session={"vecsearch.shards": "4"}) as library:
        make_corpus(library, "images", clustered(30, 8, seed=3))
        yield library


def test_a_dump_of_shards_is_refused(pretended: Library, tmp_path: Path) -> None:
    file = tmp_path / "all.dump"
    with pytest.raises(InvalidInput, match="Collection 'images' is in shards"):
        pretended.dump(file)
    assert not file.exists()
    pretended.dump(file, collection="images")
    assert file.exists()


def test_shards_have_no_feed_and_lack_nothing(pretended: Library) -> None:
    assert pretended.repair() == []
    with pretended.sql(
        "SELECT count(*) FROM pg_trigger WHERE tgname = ANY(string_to_array("
        f"'{' '.join(analysts.TRIGGERS)}', ' '))"
    ) as (_, rows, _):
        assert next(rows) == (0,)
    first, second = (pretended.collection().refresh(tables=["neighbours"])[0] for _ in range(2))
    assert first.images == second.images == 30


def test_a_shard_that_is_down_is_named(library: Library) -> None:
    with database.writing(library.engine) as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION vecsearch.asked() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'connection to the remote node u@10.0.0.7:5432 failed with the"
            " following error: Connection refused' USING ERRCODE = '08006'; END $$"
        )
    with (
        pytest.raises(DatabaseUnavailable, match=r"^A server that has shards .*: 10\.0\.0\.7:5432"),
        library.sql("SELECT vecsearch.asked()"),
    ):
        pass
