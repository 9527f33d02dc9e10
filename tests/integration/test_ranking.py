"""What orders the hits: the embeddings or compact vectors, with or without expansion."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from support import (
    Corpus,
    as_pasted,
    citus,
    clustered,
    every_server,
    index_scans,
    make_corpus,
    once,
    scalar,
    versions,
    write,
)

from vecsearch.analysis import ranking
from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search.indexes import vectors
from vecsearch.search.query import Query
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import Metric, Ranking

pytestmark = citus

DIMS = 12
Floats = NDArray[np.float64]


@pytest.fixture
def corpus(library: Library) -> Corpus:
    """A thousand images, ranked by compact vectors."""
    made = make_corpus(library, "images", clustered(1_000, 64, seed=3))
    library.collection().set_ranking("compact", dims=DIMS)
    return made


def compact(corpus: Corpus) -> Floats:
    """Return the compact vectors, in order of `corpus.ids`."""
    with catalog.reading(corpus.library.engine, "images") as (connection, stored):
        assert stored.compact is not None
        assert (stored.ranking, stored.compact.metric) == (Ranking.compact, Metric.cosine)
        fitted = vectors.read_projection(connection, stored.compact)
    return fitted.project(corpus.vectors.astype(np.float32)).astype(np.float64)


def ids(answer: Any) -> list[Any]:
    return [hit.id for hit in answer.hits]


@every_server
@pytest.mark.parametrize("expansion", [0, 10])
def test_every_door_ranks_as_the_collection_says(corpus: Corpus, expansion: int) -> None:
    library, rows = corpus.library, compact(corpus)
    library.collection().set_ranking("compact", expansion=expansion)
    for row in (5, 400):
        place = np.array([row])
        [question] = ranking.expanded(rows[place], rows, expansion, place)
        expected = ranking.distances(question[None], rows, Metric.cosine)[0]
        nearest = np.argsort(expected)[:20]
        exact = library.query(id=corpus.ids[row], k=20, exact=True)
        distances = [hit.distance for hit in exact]
        np.testing.assert_allclose(distances, expected[nearest], atol=2e-3)
        assert len({*ids(exact)} & {corpus.ids[place] for place in nearest}) >= 19
        # By the index, in plain SQL, and as it is shown.
        answer = library.query(id=corpus.ids[row], k=20)
        assert len({*ids(answer)} & {*ids(exact)}) >= 19
        assert as_pasted(library, exact.sql) == ids(exact)
        statement = f"SELECT id, distance FROM images_search('{corpus.ids[row]}', 20)"
        with library.sql(statement) as (_, listed, _):
            found = list(listed)
        assert len({one[0] for one in found} & {*ids(exact)}) >= 19
        np.testing.assert_allclose([one[1] for one in found], distances, atol=2e-3)
        # A question for once, without changing the collection.
        full = library.query(id=corpus.ids[row], k=20, ranking="full", expand=0, exact=True)
        by_embedding = np.sort(corpus.distances(corpus.vectors[row]))[:20]
        np.testing.assert_allclose([hit.distance for hit in full], by_embedding, atol=1e-4)


@once
def test_the_index_serves_compact_ranking_and_its_expansion(corpus: Corpus) -> None:
    library = corpus.library
    with library.engine.begin() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET enable_seqscan = off")
    library.engine.dispose()
    for expansion in (0, 5):
        answer = library.query(id=corpus.ids[1], k=10, expand=expansion)
        assert answer.uses_index
        assert answer.plan.count("images_compact") >= 1 + bool(expansion)
        assert answer.candidates is None
    library.collection().set_ranking("compact", expansion=5)
    # In so small a collection, a search would compare all rows.
    write(library, "UPDATE pg_class SET reltuples = 100000 WHERE oid = 'images'::regclass")
    with database.reading(library.engine) as connection:
        (made,) = versions(library)
        before = index_scans(connection, made)
        search = f"SELECT id FROM images_search('{corpus.ids[1]}', 10)"
        assert len(connection.execute(sa.text(search)).all()) == 10
        assert index_scans(connection, made) >= before + 2


@once
def test_new_vectors_sums_and_other_metrics_find_their_way(corpus: Corpus) -> None:
    library, rows = corpus.library, compact(corpus)
    terms = [Term(id=corpus.ids[7]), Term(id=corpus.ids[90], weight=-0.5)]
    unit = corpus.vectors / np.linalg.norm(corpus.vectors, axis=1, keepdims=True)
    with catalog.reading(library.engine, "images") as (connection, stored):
        assert stored.compact is not None
        fitted = vectors.read_projection(connection, stored.compact)
    question = fitted.project((unit[7] - 0.5 * unit[90])[None].astype(np.float32))
    expected = np.sort(ranking.distances(question, rows, Metric.cosine)[0])[:10]
    answer = library.query(terms=terms, k=10, exact=True)
    np.testing.assert_allclose([hit.distance for hit in answer], expected, atol=2e-3)
    # Other metrics compare embeddings, among candidates that compact vectors choose.
    by_l2 = library.query(id=corpus.ids[7], k=10, metric="l2")
    nearest = np.sort(corpus.distances(corpus.vectors[7], "l2"))[:10]
    np.testing.assert_allclose([hit.distance for hit in by_l2], nearest, rtol=1e-3)


@once
def test_rankings_are_set_and_kept_with_the_index_they_need(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(300, 32, seed=4))
    images = library.collection()
    with pytest.raises(InvalidInput, match="no compact vectors that rank"):
        library.query(id=corpus.ids[0], ranking="compact")
    images.set_ranking("full", expansion=3)
    assert (images.index_status().method, images.index_status().expansion) == ("hnsw", 3)
    comment = "SELECT obj_description('images_search(text, bigint, text)'::regprocedure)"
    assert "its 3 nearest" in str(scalar(library, comment))
    assert library.query(id=corpus.ids[0], k=5) != library.query(id=corpus.ids[0], k=5, expand=0)
    images.set_ranking("compact", dims=8)
    status = images.index_status()
    assert (status.ranking, status.expansion, status.dims) == ("compact", 3, 8)
    assert "8 principal components" in str(scalar(library, comment))
    assert (
        status.how == "ranked by 8 principal components, for the question and its 3 nearest images"
    )
    with pytest.raises(InvalidInput, match="First: vecsearch index ranking full"):
        images.create_index("hnsw")
    version = status.version
    images.set_ranking("compact", expansion=0)
    assert images.index_status().version == version
    # A refit keeps the ranking, and the dimensions.
    images.create_index("compact")
    status = images.index_status()
    assert (status.ranking, status.dims) == ("compact", 8)
    assert status.version != version
    images.set_ranking("full")
    images.create_index("hnsw")
    plain = library.query(id=corpus.ids[0], k=300)
    expected = np.sort(corpus.distances(corpus.vectors[0]))
    np.testing.assert_allclose([hit.distance for hit in plain], expected, atol=1e-4)
    with pytest.raises(InvalidInput, match="--dims is for the ranking compact"):
        images.set_ranking("full", dims=4)
    for expansion in (-1, 101):
        with pytest.raises(InvalidInput, match=f"by {expansion} images"):
            images.set_ranking("full", expansion=expansion)
    assert "principal" not in str(scalar(library, comment))


@once
@pytest.mark.parametrize("options", [("full", 0), ("full", 10), ("compact", 0), ("compact", 10)])
def test_eval_scores_the_ranking_that_searches_use(
    corpus: Corpus, options: tuple[str, int]
) -> None:
    library = corpus.library
    chosen, expansion = options
    library.collection().set_ranking(chosen, expansion=expansion)
    found = library.collection().evaluate(k=5)
    right = []
    labels = {image: f"c{row % 20}" for row, image in enumerate(corpus.ids)}
    for row in range(0, 1_000, 20):
        hits = library.query(id=corpus.ids[row], k=5, exact=True, exclude_self=True)
        right.append(np.mean([hit.label == labels[corpus.ids[row]] for hit in hits]))
    [score] = [each for each in found.classes if each.label == "c0"]
    assert score.precision == pytest.approx(np.mean(right), abs=0.021)
    assert all(each.recall > 0.95 for each in found.index[1:])


@once
@pytest.mark.parametrize("name", ["near", "vectors"])
def test_conditions_and_collections_may_have_any_name(library: Library, name: str) -> None:
    corpus = make_corpus(library, name, clustered(60, 16, seed=5))
    images = library.collection(name)
    images.set_ranking("compact", dims=4, expansion=3)
    wanted = sorted(str(image) for image in corpus.ids[:5])
    listed = ", ".join(f"'{image}'" for image in wanted)
    for ranked_by in ("compact", "full"):
        found = images.query(id=corpus.ids[0], where=f"id IN ({listed})", ranking=ranked_by)
        assert sorted(str(hit.id) for hit in found) == wanted


@once
def test_an_image_without_a_compact_vector_is_named(corpus: Corpus) -> None:
    library = corpus.library
    new = "00000000-0000-4000-8000-000000000001"
    write(
        library,
        f"INSERT INTO images (id, path, label, embedding) SELECT '{new}', '/new', '', embedding"
        f" FROM images WHERE id = '{corpus.ids[3]}'",
    )
    for asked in (Query(id=new), Query(id=new, max_distance=0.5), Query(id=new, expand=3)):
        with pytest.raises(InvalidInput, match="it has no compact vector yet"):
            library.collection().ask(asked)
    assert library.query(id=new, k=1, ranking="full", expand=0).hits
    library.collection().create_index("compact")
    assert len(library.query(id=new, k=1_001).hits) == 1_001


@once
def test_equal_and_zero_vectors_neither_rank_nor_expand(library: Library) -> None:
    equal = np.repeat(clustered(1, 16, seed=6), 4, axis=0)
    corpus = make_corpus(library, "images", equal)
    with pytest.raises(InvalidInput, match="equal embeddings, so there are no principal"):
        library.collection().set_ranking("compact")
    write(library, f"UPDATE images SET embedding = '{[0] * 16}' WHERE id = '{corpus.ids[1]}'")
    hits = library.query(id=corpus.ids[0], expand=3, k=3, exact=True).hits
    assert [hit.distance for hit in hits] == pytest.approx([0, 0, 0], abs=1e-3)


@once
def test_tuned_settings_outlive_a_change_of_expansion_alone(corpus: Corpus) -> None:
    images = corpus.library.collection()
    images.tune_index(recall=0.5, metric="l2")
    images.set_ranking("compact", expansion=4)
    assert "l2" in images.index_status().breadths
    images.set_ranking("full")
    assert images.index_status().breadths == {}
