"""A collection that grows: it is searched more widely, and what it will take is estimated."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg import errors
from sql_support import connect, rows
from support import Corpus, clustered, make_corpus, run_command, write

from vecsearch import vocabulary
from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.postgres.sessions.settings import EF_SEARCH
from vecsearch.search.indexes import serving
from vecsearch.search.plan import plan
from vecsearch.search.query import Query
from vecsearch.vocabulary import least_ef_construction, least_ef_search

MILLION = 1_000_000
# What Postgres is told that it counted, and how wide a search is then.
ROWS, WIDE = 4 * MILLION, 632


def test_a_larger_graph_is_searched_more_widely_within_pgvectors_bounds() -> None:
    assert [least_ef_search(rows) for rows in (0, 100, 100_000)] == [100, 100, 100]
    assert least_ef_search(MILLION) == 316
    assert least_ef_search(10**7) == least_ef_search(10**9) == 1_000


def test_a_larger_graph_is_linked_with_more_care_unless_somebody_says_how(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [least_ef_construction(rows) for rows in (0, MILLION)] == [64, 64]
    assert least_ef_construction(4 * MILLION) == 128
    assert least_ef_construction(10**9) == 1_000
    images = make_corpus(library, "images", clustered(400, 16, seed=5)).library.collection()
    images.create_index("hnsw")
    assert images.index_status().ef_construction == 64
    monkeypatch.setattr(vocabulary, "EF_CONSTRUCTION_IMAGES", 100)
    with catalog.reading(library.engine, "images") as (_, stored):
        is_in_shards = stored.is_distributed
    for method in ("hnsw", "compact"):
        images.create_index(method)
        assert images.index_status().ef_construction == (64 if is_in_shards else 128)
        images.create_index(method, ef_construction=70)
        assert images.index_status().ef_construction == 70


@pytest.fixture
def grown(library: Library) -> Corpus:
    """A collection of 1,200 images that Postgres takes for four million."""
    corpus = make_corpus(library, "images", clustered(1_200, 16, seed=5))
    return _grown(corpus)


def _grown(corpus: Corpus) -> Corpus:
    write(
        corpus.library,
        "UPDATE pg_class SET reltuples = :rows WHERE oid = 'vecsearch.images'::regclass",
        rows=ROWS,
    )
    return corpus


def _settings(corpus: Corpus, query: Query) -> dict[str, str]:
    with catalog.reading(corpus.library.engine, "images") as (connection, stored):
        return plan(connection, stored, corpus.ids[0], query).settings()


@pytest.mark.parametrize("method", ["hnsw", "compact"])
def test_every_search_of_a_grown_collection_is_wider(grown: Corpus, method: str) -> None:
    if method == "compact":
        grown.library.collection().create_index(method, dims=8)
        _grown(grown)
    assert int(_settings(grown, Query(k=10))[EF_SEARCH]) == WIDE
    with catalog.reading(grown.library.engine, "images") as (_, stored):
        assert serving(stored).neighbours_settings(10)[EF_SEARCH] == str(WIDE)


def test_the_function_searches_a_grown_collection_as_widely(grown: Corpus) -> None:
    # A condition that fails in a search that is as wide, and in no other.
    fails = f"1 / (CAST(current_setting('hnsw.ef_search') AS int) - {WIDE}) < 2"
    with connect(grown.library) as connection, pytest.raises(errors.DivisionByZero):
        rows(connection, "SELECT id FROM images_search(%s, 10, %s)", grown.ids[0], fails)


def test_a_graph_that_grew_after_its_tuning_is_searched_more_widely(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(1_200, 16, seed=5))
    tuned = library.collection().tune_index(recall=0.9, k=10).choice
    assert tuned is not None
    assert _settings(corpus, Query(k=10))[EF_SEARCH] == str(tuned.breadth)
    grown = str(round(tuned.breadth * WIDE / 100))
    assert _settings(_grown(corpus), Query(k=10))[EF_SEARCH] == grown


def test_the_settings_for_plain_sql_follow_the_largest_collection(grown: Corpus) -> None:
    assert grown.library.missing_settings().missing[EF_SEARCH] == str(WIDE)


def _estimate(library: Library, images: int) -> dict[str, Any]:
    status, out, err = run_command(library, "status", "--estimate", images, "--format", "json")
    assert (status, err) == (0, "")
    (found,) = json.loads(out)["collections"]
    assert found["images"] == images
    return dict(found)


def test_an_estimate_for_the_images_there_are_is_what_they_take(corpus: Corpus) -> None:
    found = _estimate(corpus.library, len(corpus))
    parts = {part["part"]: part for part in found["parts"]}
    sizes = "pg_table_size('vecsearch.images'), pg_indexes_size('vecsearch.images')"
    with database.reading(corpus.library.engine) as connection:
        table, indexes = connection.execute(sa.text(f"SELECT {sizes}")).one()
    assert parts["rows and embeddings"]["bytes"] == table
    assert parts["keys"]["bytes"] + parts["hnsw index"]["bytes"] == indexes
    measured = {name for name, part in parts.items() if part["measured"]}
    assert measured == {"rows and embeddings", "keys", "hnsw index"}
    needs = {need["index"]: need for need in found["needs"]}
    assert set(needs) == {"hnsw", "compact"}
    assert needs["hnsw"]["memory_bytes"] == parts["hnsw index"]["bytes"]
    assert needs["hnsw"]["disk_bytes"] == table + indexes


def test_an_estimate_grows_with_the_images(corpus: Corpus) -> None:
    thousand, million = (_estimate(corpus.library, images) for images in (1_000, MILLION))
    for small, large in zip(thousand["parts"], million["parts"], strict=True):
        assert large["bytes"] == pytest.approx(1_000 * small["bytes"], rel=1e-3)
    for small, large in zip(thousand["needs"], million["needs"], strict=True):
        assert large["build_s"] >= 1_000 * small["build_s"]


@pytest.mark.parametrize(("method", "dims"), [("compact", 32), ("compact", 64), ("hnsw", 64)])
def test_computed_sizes_are_near_those_of_pgvector(
    library: Library, method: str, dims: int
) -> None:
    make_corpus(library, "images", clustered(3_000, 64, seed=6))
    if method == "compact":
        library.collection().create_index("compact", dims=dims)
    with catalog.reading(library.engine, "images") as (_, stored):
        computed = type(serving(stored)).computed_bytes(stored)
    (found,) = library.capacity(3_000)
    parts = {part.part: part.bytes_per_image for part in found.parts if part.measured}
    assert computed is not None
    assert parts[f"{method} index"] == pytest.approx(computed[0], rel=0.15)
    if method == "compact":
        # Of so few rows, many pages are not full.
        assert computed[1] < parts["compact vectors"] < 1.4 * computed[1]


def test_without_images_there_is_nothing_to_estimate_by(library: Library) -> None:
    status, out, err = run_command(library, "status", "--estimate", "1M")
    assert (status, out) == (1, "")
    assert "vecsearch ingest FOLDER" in err
    make_corpus(library, "images", clustered(50, 16, seed=5))
    write(library, "DELETE FROM vecsearch.images")
    with pytest.raises(InvalidInput, match="no images to measure"):
        library.capacity(MILLION)


@pytest.mark.parametrize(
    ("text", "images"), [("500k", 500_000), ("1.5M", 1_500_000), ("2b", 2 * 10**9), ("7", 7)]
)
def test_a_number_of_images_may_have_a_suffix(corpus: Corpus, text: str, images: int) -> None:
    status, out, _ = run_command(corpus.library, "status", "--estimate", text, "--format", "json")
    assert (status, json.loads(out)["collections"][0]["images"]) == (0, images)


@pytest.mark.parametrize("text", ["0", "-5", "many", "1T", "9999999B", ""])
def test_other_numbers_of_images_are_refused(corpus: Corpus, text: str) -> None:
    status, _, err = run_command(corpus.library, "status", "--estimate", text)
    assert status == 2
    assert "500k, 100M or 1B" in err


def test_the_table_names_memory_and_time(corpus: Corpus) -> None:
    status, out, _ = run_command(corpus.library, "status", "--estimate", "1B", "--format", "table")
    assert status == 0
    assert "estimated for 1,000,000,000 images, by the sizes of 3,000 images" in out
    assert all(word in out for word in ("hnsw index", "compact vectors", "64 GB machines", "TB"))
