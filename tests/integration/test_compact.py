"""Compact vectors: what they find, beside what exact search finds."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from support import (
    Corpus,
    as_pasted,
    citus,
    clustered,
    every_server,
    index_scans,
    make_corpus,
    once,
    one_server,
    scalar,
    versions,
    write,
)

from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search import execute
from vecsearch.search.indexes import projection
from vecsearch.search.plan import Search, plan
from vecsearch.search.query import Query
from vecsearch.vocabulary import Metric

pytestmark = citus


@every_server
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("k", [10, 1_000])
def test_every_metric_is_served_by_candidates(compact_corpus: Corpus, metric: str, k: int) -> None:
    library = compact_corpus.library
    found = exact = 0
    for position in range(0, 100, 10):
        answer = library.query(id=compact_corpus.ids[position], k=k, metric=metric)
        # Where candidates are a good part of all rows, the planner may compare them all.
        assert answer.uses_index or metric != "cosine" or k > 10
        assert len(answer.hits) == k
        distances = np.sort(compact_corpus.distances(compact_corpus.vectors[position], metric))[:k]
        limit = distances[-1] + 1e-5 * abs(distances[-1])
        found += sum(hit.distance <= limit for hit in answer.hits)
        exact += k
        keys = [hit.distance for hit in answer.hits]
        assert keys == sorted(keys)
    assert answer.candidates == (
        max(100, 4 * k) if metric == "cosine" else None if k > 500 else 1_000
    )
    assert found / exact >= (0.98 if metric == "cosine" else 0.9)


def test_a_new_vector_is_asked_with_by_its_projection(compact_corpus: Corpus) -> None:
    with catalog.reading(compact_corpus.library.engine, "images") as (connection, collection):
        query = clustered(3_100, 64, seed=1)[3_050].astype(np.float32)
        search = plan(connection, collection, query, Query(id=""))
        hits, ran = execute.nearest(connection, search)
        shown = ran.script()
        assert execute.explain(connection, ran)[1]
    distances = np.sort(compact_corpus.distances(query.astype(np.float64)))[:10]
    assert np.allclose([hit.distance for hit in hits], distances, atol=1e-5)
    # What is shown runs in any client, and finds the same.
    assert as_pasted(compact_corpus.library, shown) == [hit.id for hit in hits]


@one_server
@every_server
def test_the_functions_serve_any_condition_and_are_never_short(compact_corpus: Corpus) -> None:
    library, ids = compact_corpus.library, compact_corpus.ids
    exact = library.query(id=ids[17], k=10, exact=True).hits
    with library.engine.connect() as connection:
        # In so small a collection, a search would compare all rows.
        larger = "UPDATE pg_class SET reltuples = 100000 WHERE oid = 'images'::regclass"
        connection.execute(sa.text(larger))

        def rows(source: str, image: object = ids[17]) -> list[Any]:
            statement = f"SELECT * FROM images_{source.replace('IMAGE', repr(str(image)))}"
            return list(connection.execute(sa.text(statement)))

        (made,) = versions(library)
        before = index_scans(connection, made)
        ten = rows("search(IMAGE)")
        # Its candidates are the index's; all rows are compared only if those are too few.
        assert index_scans(connection, made) == before + 1
        for found in (ten, rows("distances(IMAGE) ORDER BY distance LIMIT 10")):
            assert [row.id for row in found] == [hit.id for hit in exact]
            assert [row.distance for row in found] == [hit.distance for hit in exact]
            assert found[0].similarity == 1 - found[0].distance
        by_path = rows("search(IMAGE, 10)", exact[0].path)
        assert [row.id for row in by_path] == [row.id for row in ten]
        for source in ("search(IMAGE, 5000)", "distances(IMAGE)"):
            everything = rows(source)
            assert {row.id for row in everything} == set(ids)
            assert len(everything) == len(ids)
        keys = [row.distance for row in rows("search(IMAGE, 5000)")]
        assert keys == sorted(keys)
        for source in (
            "search(IMAGE, 140, 'label = ''c7''')",
            "distances(IMAGE) WHERE label = 'c7' ORDER BY distance LIMIT 140",
        ):
            assert len(rows(source)) == 140
        assert len(rows("search(IMAGE, 10, 'width IN (5, 2999)')")) == 2
        assert len(rows("distances(IMAGE) WHERE width IN (5, 2999)")) == 2


def test_duplicates_are_found_by_either_index(corpus: Corpus, compact_corpus: Corpus) -> None:
    def groups(of: Corpus) -> list[set[str]]:
        found: dict[int, set[str]] = {}
        for image in of.library.collection().duplicates(max_distance=0.02).images:
            found.setdefault(image.group, set()).add(image.path)
        return list(found.values())

    assert groups(compact_corpus) == groups(corpus) != []


@one_server
@once
def test_embeddings_beyond_hnsw_are_served(library: Library) -> None:
    corpus = make_corpus(library, "wide", clustered(1_200, 4_096, seed=3))
    with pytest.raises(InvalidInput, match="--method compact"):
        library.collection("wide").create_index("hnsw")
    library.collection("wide").create_index("compact")
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("SET enable_seqscan = off"))
    with catalog.reading(library.engine, "wide") as (connection, collection):
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        search = Search(collection, corpus.ids[5], Query())
        hits, seconds = execute.timed(connection, search)
        assert execute.explain(connection, search)[1]
    assert seconds > 0
    distances = np.sort(corpus.distances(corpus.vectors[5]))[:10]
    assert np.allclose([hit.distance for hit in hits], distances, atol=1e-5)
    (status,) = library.collections()
    assert status.index == "compact"


@once
def test_tuning_takes_the_least_breadth_that_finds_enough(library: Library) -> None:
    make_corpus(library, "images", clustered(1_500, 64, seed=2))
    library.collection().create_index("compact", dims=4)
    tuned = library.collection().tune_index(recall=0.9)
    assert tuned.choice is not None
    assert tuned.choice == tuned.scores[-1]
    assert all(score.recall < 0.9 <= tuned.choice.recall for score in tuned.scores[:-1])
    image = scalar(library, "SELECT id FROM images LIMIT 1")
    assert library.query(id=image).candidates == tuned.choice.breadth
    assert library.query(id=image, k=20).candidates == 100  # what was tuned for 10 is too few
    assert library.collection().index_status().breadths["cosine"]["breadth"] == tuned.choice.breadth
    library.collection().create_index("compact", dims=1)
    assert library.collection().index_status().breadths == {}
    with pytest.raises(InvalidInput, match="--recall"):
        library.collection().tune_index(recall=1.5)
    library.collection().create_index("hnsw")
    assert library.collection().tune_index().breadth_name == "ef_search"
    with pytest.raises(InvalidInput, match="serves l2"):
        library.collection().tune_index(metric="l2")


@once
def test_fewer_than_two_images_are_no_tuning(library: Library) -> None:
    make_corpus(library, "one", clustered(1, 8, seed=0))
    with pytest.raises(InvalidInput, match="has 1 image; tuning needs at least 2"):
        library.collection("one").tune_index()
    write(library, "DELETE FROM one")
    with pytest.raises(InvalidInput, match="has 0 images; tuning needs at least 2"):
        library.collection("one").tune_index()


@once
def test_images_of_another_kind_are_told_as_drift(library: Library) -> None:
    vectors = clustered(600, 64, seed=2)
    random = np.random.default_rng(0)
    vectors[:, 32:] = 0.001
    make_corpus(library, "images", vectors)
    library.collection().create_index("compact", dims=32)
    fresh = library.collection().evaluate().drift
    assert fresh is not None
    assert not fresh.is_stale
    assert fresh.since is None
    with database.writing(library.engine) as connection:
        other = np.abs(random.normal(0, 1, (100, 64)))
        for number, vector in enumerate(other):
            connection.execute(
                sa.text(
                    "INSERT INTO images (id, path, label, embedding, ingested_at)"
                    " VALUES (gen_random_uuid(), :path, 'new', :vector, clock_timestamp())"
                ),
                {"path": f"/n/{number}", "vector": str(vector.tolist())},
            )
    drifted = library.collection().evaluate().drift
    assert drifted is not None
    assert drifted.is_stale
    assert drifted.since is not None
    assert drifted.since < drifted.now < drifted.fitted
    library.collection().create_index("compact", dims=32)
    again = library.collection().evaluate().drift
    assert again is not None
    assert not again.is_stale


@once
def test_an_image_that_was_written_past_us_is_found_all_the_same(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(400, 16, seed=0))
    library.collection().create_index("compact", dims=4)
    with database.writing(library.engine) as connection:
        connection.execute(
            sa.text(f"DELETE FROM {versions(library)[0].table} WHERE id = :id"),
            {"id": corpus.ids[9]},
        )
    for exclude_self in (False, True):
        answer = library.query(id=corpus.ids[9], exclude_self=exclude_self)
        exact = library.query(id=corpus.ids[9], exclude_self=exclude_self, exact=True)
        assert [hit.id for hit in answer] == [hit.id for hit in exact]
    assert library.collection().index_status().indexed == 399


def test_a_projection_keeps_what_varies() -> None:
    random = np.random.default_rng(0)
    low = random.normal(size=(500, 6)) @ random.normal(size=(6, 40)) + 10
    fitted = projection.fit(low.astype(np.float32), 6)
    assert fitted.variance_kept > 0.99
    compacted = fitted.project(low.astype(np.float32))
    full = low / np.linalg.norm(low, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.linalg.norm(compacted[0] - compacted, axis=1),
        np.linalg.norm(full[0] - full, axis=1),
        atol=2e-2,
    )
    again = projection.fit(low.astype(np.float32), 6)
    np.testing.assert_array_equal(fitted.components, again.components)
    assert projection.fit(low.astype(np.float32), 100).components.shape == (40, 40)
    assert projection.fit(low[:3].astype(np.float32), 100).components.shape == (2, 40)
    same = projection.fit(np.ones((4, 5), np.float32), 3)
    assert np.isfinite(same.project(np.ones((2, 5), np.float32))).all()
