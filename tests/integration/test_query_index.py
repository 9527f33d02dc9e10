"""What the index may not change: an answer is as long and as near as if every row were compared."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import Corpus, citus, clustered, every_server

from vecsearch.postgres import catalog, database
from vecsearch.search import execute
from vecsearch.search.plan import plan
from vecsearch.search.query import Hit, Query

pytestmark = citus

FILTERS = {
    "true": 3_000,
    "width % 2 = 0": 1_500,
    "label = 'c7'": 150,
    "width % 400 = 399": 7,
    "width IN (5, 3000)": 1,
    "false": 0,
}
# Of the corpus' clusters, and not in it.
QUERIES = clustered(3_100, 64, seed=1)[3_000:]


@pytest.fixture(scope="session", params=["hnsw", "compact"])
def corpus(request: pytest.FixtureRequest, corpus: Corpus, compact_corpus: Corpus) -> Corpus:
    """The corpus under each of its indexes."""
    return corpus if request.param == "hnsw" else compact_corpus


def search(corpus: Corpus, query: NDArray[np.float64], **options: Any) -> list[Hit]:
    with database.reading(corpus.library.engine) as connection:
        collection = catalog.get_collection(connection, corpus.name)
        defaults: dict[str, Any] = {"id": "", "k": 10}
        asked = Query(**defaults | options)
        found = plan(connection, collection, query.astype(np.float32), asked)
        return execute.nearest(connection, found)[0]


def expected(
    corpus: Corpus, query: NDArray[np.float64], where: str, cut_off: float = np.inf
) -> NDArray[np.float64]:
    """Return the distances of the rows that `where` lets pass, nearest first."""
    row = np.arange(len(corpus))
    passing = {
        "true": row >= 0,
        "width % 2 = 0": row % 2 == 0,
        "label = 'c7'": row % 20 == 7,
        "width % 400 = 399": row % 400 == 399,
        "width IN (5, 3000)": row == 5,
        "false": row < 0,
    }[where]
    assert passing.sum() == FILTERS[where]
    distances = np.sort(corpus.distances(query)[passing])
    return distances[distances <= cut_off]


def check_nearly(hits: list[Hit], distances: NDArray[np.float64]) -> None:
    """Check that hits are distinct, in order, as many, and nearly all as near as these."""
    assert len({hit.id for hit in hits}) == len(hits) == len(distances)
    found = [hit.distance for hit in hits]
    assert found == sorted(found)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert np.less_equal(found, distances[-1] + 1e-5).mean() >= 0.95


def check(hits: list[Hit], distances: NDArray[np.float64]) -> None:
    """Check that hits are distinct, in order, and at exactly these distances."""
    assert len({hit.id for hit in hits}) == len(hits) == len(distances)
    assert np.allclose([hit.distance for hit in hits], distances, atol=1e-5)
    if hits:
        check_nearly(hits, distances)


@every_server
def test_the_index_is_used_and_finds_the_nearest(corpus: Corpus) -> None:
    assert corpus.library.query(id=corpus.ids[0]).uses_index
    assert not corpus.library.query(id=corpus.ids[0], exact=True).uses_index
    found = 0
    for query in QUERIES:
        nearest_ten = np.sort(corpus.distances(query))[:10]
        hits = search(corpus, query)
        assert len(hits) == 10
        found += sum(hit.distance <= nearest_ten[-1] + 1e-6 for hit in hits)
    assert found / (10 * len(QUERIES)) >= 0.99


@pytest.mark.parametrize("k", [1, 10, 100, 999, 1000, 1001, 2999, 3000, 3005])
@pytest.mark.parametrize("exact", [False, True])
def test_an_answer_has_k_rows_or_all_there_are(
    corpus: Corpus,
    k: int,
    exact: bool,
) -> None:
    for query in QUERIES[:2]:
        hits = search(corpus, query, k=k, exact=exact)
        distances = expected(corpus, query, "true")[:k]
        if exact or k >= len(corpus):
            check(hits, distances)
        else:
            check_nearly(hits, distances)


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("k", [1, 7, 8, 150, 151, 1500])
def test_a_filter_takes_nothing_from_an_answer(corpus: Corpus, where: str, k: int) -> None:
    hits = search(corpus, QUERIES[0], k=k, where=where)
    distances = expected(corpus, QUERIES[0], where)[:k]
    if k >= FILTERS[where]:
        check(hits, distances)
    else:
        check_nearly(hits, distances)


@pytest.mark.parametrize("where", FILTERS)
@pytest.mark.parametrize("quantile", [0, 0.001, 0.01, 0.3, 1])
def test_a_cut_off_without_k_returns_all_within(
    corpus: Corpus, where: str, quantile: float
) -> None:
    query = QUERIES[1]
    cut_off = float(np.quantile(corpus.distances(query), quantile)) + 1e-5
    hits = search(corpus, query, k=None, where=where, max_distance=cut_off)
    check(hits, expected(corpus, query, where, cut_off))


@every_server
@pytest.mark.parametrize("k", [1, 5, 30, 31, 1000])
def test_a_cut_off_with_k_returns_the_nearest_within(corpus: Corpus, k: int) -> None:
    query = QUERIES[2]
    distances = np.sort(corpus.distances(query))
    cut_off = float(distances[29:31].mean())
    check(search(corpus, query, k=k, max_distance=cut_off, exact=True), distances[: min(k, 30)])
    hits = search(corpus, query, k=k, max_distance=cut_off)
    assert min(k, 30) - 1 <= len(hits) <= min(k, 30)
    assert all(hit.distance <= cut_off for hit in hits)
    assert search(corpus, query, k=k, max_distance=float(distances[0]) - 1e-4) == []


def test_min_similarity_is_a_cut_off_too(corpus: Corpus) -> None:
    distances = np.sort(corpus.distances(corpus.vectors[5]))
    for similarity in (1.0, 0.9, 0.65, 0.0, -1.0):
        hits = corpus.library.query(id=corpus.ids[5], min_similarity=similarity).hits
        assert (
            abs(len(hits) - (distances <= 1 - similarity + 1e-9).sum())
            <= (np.abs(distances - (1 - similarity)) < 1e-5).sum()
        )
        assert all(hit.similarity == 1 - hit.distance for hit in hits)


@every_server
@settings(
    derandomize=True,
    deadline=None,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    position=st.integers(0, 2_999),
    k=st.none() | st.integers(1, 3_100),
    where=st.none() | st.sampled_from(list(FILTERS)),
    max_distance=st.none() | st.floats(-1, 2),
    exact=st.booleans(),
    exclude_self=st.booleans(),
)
@example(
    position=191,
    k=2_520,
    where=None,
    max_distance=0.5912901096645689,
    exact=False,
    exclude_self=False,
)
def test_whatever_is_asked_the_answer_is_complete_and_in_order(
    corpus: Corpus,
    position: int,
    k: int | None,
    where: str | None,
    max_distance: float | None,
    *,
    exact: bool,
    exclude_self: bool,
) -> None:
    hits = corpus.library.query(
        id=corpus.ids[position],
        k=k,
        where=where,
        max_distance=max_distance,
        exact=exact,
        exclude_self=exclude_self,
    ).hits
    assert len({hit.id for hit in hits}) == len(hits)
    keys = [(hit.distance, hit.id != corpus.ids[position], hit.path) for hit in hits]
    assert keys == sorted(keys)
    assert not (exclude_self and corpus.ids[position] in {hit.id for hit in hits})
    if k is None and max_distance is None:
        k = 10
    distances = expected(corpus, corpus.vectors[position], where or "true")
    available = len(distances) if max_distance is None else int((distances <= max_distance).sum())
    doubtful = 0 if max_distance is None else int((abs(distances - max_distance) < 1e-5).sum())
    most = len(corpus) if k is None else k
    assert min(available - doubtful - exclude_self, most) <= len(hits)
    assert len(hits) <= min(available + doubtful, most)
