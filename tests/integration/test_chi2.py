"""Chi-squared: in SQL as in numpy, and by re-ranking what the cosine index finds."""

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import Corpus, chi2, citus, clustered, every_server, make_corpus, once, one_server

from vecsearch.errors import DatabaseError
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = citus


@one_server
@every_server
def test_the_function_is_what_numpy_says_of_the_same_half_precision_numbers(
    library: Library,
) -> None:
    vectors = clustered(200, 2_048, seed=5)
    vectors[vectors < 0.3] = 0  # as after a ReLU
    corpus = make_corpus(library, "images", vectors)
    pairs = list(zip(corpus.ids[:100], corpus.ids[100:], strict=True))
    values = ", ".join(f"('{one}'::uuid, '{other}'::uuid)" for one, other in pairs)
    with library.sql(
        "SELECT chi2_distance(a.embedding, b.embedding) AS there,"
        " chi2_distance(b.embedding, a.embedding) AS back"
        f" FROM (VALUES {values}) AS pairs (one, other)"
        " JOIN images AS a ON a.id = one JOIN images AS b ON b.id = other"
    ) as (_, rows, _):
        found = np.array(list(rows), dtype=np.float64)
    expected = np.sort(chi2(vectors[:100], vectors[100:]))
    assert expected.min() > 1
    np.testing.assert_allclose(np.sort(found[:, 0]), expected, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


@every_server
def test_the_function_works_for_a_session_that_has_no_search_path(library: Library) -> None:
    with library.sql(
        "SELECT set_config('search_path', '', true),"
        " vecsearch.chi2_distance('[1,0]'::public.halfvec, '[0,3]'::public.halfvec)"
    ) as (_, rows, _):
        assert next(rows)[1] == pytest.approx(2.0)


@every_server
@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("[1,-1]", "[1,1]", "not defined for embeddings with negative numbers"),
        ("[0,0]", "[0,-0.5]", "not defined for embeddings with negative numbers"),
        ("[1,1,1]", "[1,1]", "different vector dimensions 3 and 2"),
    ],
)
def test_what_has_no_distance_is_an_error(
    library: Library, one: str, other: str, message: str
) -> None:
    with (
        pytest.raises(DatabaseError, match=message),
        library.sql(f"SELECT chi2_distance('{one}', '{other}')"),
    ):
        pass


def test_equal_vectors_are_at_no_distance_and_zeros_are_no_division(library: Library) -> None:
    with library.sql("SELECT chi2_distance('[0,0,5]', '[0,0,5]')") as (_, rows, _):
        assert next(rows) == (0.0,)


@one_server
@every_server
def test_the_index_s_candidates_hold_the_exact_top_ten(corpus: Corpus) -> None:
    found = wanted = 0
    for position in range(0, 3_000, 100):
        reranked = corpus.library.query(id=corpus.ids[position], metric="chi2")
        assert reranked.candidates == 1_000
        assert reranked.uses_index
        exact = corpus.library.query(id=corpus.ids[position], metric="chi2", exact=True)
        assert exact.candidates is None
        limit = exact.hits[-1].distance
        found += sum(hit.distance <= limit for hit in reranked.hits)
        wanted += len(exact.hits)
    assert found >= 0.99 * wanted


@once
def test_without_an_index_every_row_is_compared(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(1_500, 8, seed=5))
    library.collection().create_index("none")
    answer = library.query(id=corpus.ids[0], metric="chi2")
    assert answer.candidates is None
    assert not library.collection().evaluate(metric="chi2").index


def test_of_fewer_rows_than_candidates_every_one_is_compared(corpus: Corpus) -> None:
    few = "images.width % 10 = 0 AND 'a:b' LIKE 'a%'  -- of 3,000, 300"
    answer = corpus.library.query(id=corpus.ids[20], metric="chi2", where=few)
    assert answer.candidates is None
    many = corpus.library.query(id=corpus.ids[20], metric="chi2", where="width % 2 = 0")
    assert many.candidates == 1_000


@one_server
@once
def test_candidates_are_as_many_as_were_asked_for_in_little_memory(library: Library) -> None:
    random = np.random.default_rng(4)
    alike = np.linspace(1, 2, 8) * random.uniform(0.95, 1.05, (8_000, 8))
    alike[:6_000] *= 10  # nearer by cosine than what follows, and farther by chi-squared
    alike[6_001:] *= random.uniform(0.7, 1.3, (1_999, 8))
    corpus = make_corpus(library, "images", alike)
    name = library.engine.url.database
    with database.writing(library.engine) as connection:
        for setting, value in [
            ("work_mem", "'64kB'"),
            ("hnsw.scan_mem_multiplier", "1"),
            ("enable_seqscan", "off"),
        ]:
            connection.execute(sa.text(f"ALTER DATABASE {name} SET {setting} = {value}"))
    library.engine.dispose()
    some = "width % 8 = 0 OR width >= 6000"  # 750 of the near ones, and all the others
    answer = library.query(id=corpus.ids[6_000], k=200, metric="chi2", where=some)
    assert answer.uses_index
    assert all(hit.width is not None and hit.width >= 6_000 for hit in answer.hits)


def test_a_cut_off_without_k_compares_every_row(corpus: Corpus) -> None:
    distances = corpus.distances(corpus.vectors[7], "chi2")
    limit = float(np.sort(distances)[500])
    answer = corpus.library.query(id=corpus.ids[7], metric="chi2", max_distance=limit + 1e-6)
    assert answer.candidates is None
    assert len(answer.hits) == (distances <= limit + 1e-6).sum()


@once
def test_embeddings_with_negative_numbers_are_refused_with_the_reason(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(30, 8, seed=2) - 1.0)
    for exact in (False, True):
        with pytest.raises(DatabaseError, match="negative numbers\nHint: Use cosine, l2 or l1"):
            library.query(id=corpus.ids[0], metric="chi2", exact=exact)


@once
def test_the_function_tells_the_planner_what_it_may_do(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT provolatile, proparallel, proisstrict, obj_description(oid) FROM pg_proc"
            " WHERE oid = 'vecsearch.chi2_distance'::regproc"
        ).fetchone()
    assert row is not None
    assert row[:3] == ("i", "s", True)
    assert row[3].startswith("Chi-squared distance")
