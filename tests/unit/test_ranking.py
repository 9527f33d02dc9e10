"""Precision, average precision, recall: by hand, and by their laws."""

import tracemalloc
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import chi2

from vecsearch.analysis import evaluate, ranking
from vecsearch.analysis.labels import Image
from vecsearch.analysis.sampling import Sample
from vecsearch.vocabulary import Metric

RANKINGS = st.lists(st.booleans(), min_size=1, max_size=40)


def relevant(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([letter == "1" for letter in text])


@pytest.mark.parametrize(
    ("text", "k", "precision"),
    [("1100", 2, 1.0), ("1100", 4, 0.5), ("0011", 2, 0.0), ("10", 10, 0.5)],
)
def test_precision_is_the_relevant_share_of_the_first_k(
    text: str, k: int, precision: float
) -> None:
    assert ranking.precision_at(relevant(text), k) == precision


@pytest.mark.parametrize(
    ("text", "average"),
    [
        ("1", 1.0),
        ("0001", 0.25),
        ("1010", (1 / 1 + 2 / 3) / 2),
        ("01101", (1 / 2 + 2 / 3 + 3 / 5) / 3),
        ("000", None),
    ],
)
def test_average_precision_is_the_mean_of_the_precisions_at_each_relevant_place(
    text: str, average: float | None
) -> None:
    found = ranking.average_precision(relevant(text))
    assert found == (None if average is None else pytest.approx(average))


@settings(derandomize=True, deadline=None)
@given(RANKINGS)
def test_a_ranking_is_perfect_exactly_if_what_is_relevant_comes_first(marks: list[bool]) -> None:
    average = ranking.average_precision(np.array(marks))
    if any(marks):
        assert average is not None
        assert 0 < average <= 1
        assert (average == 1) == (marks == sorted(marks, reverse=True))
    else:
        assert average is None


@settings(derandomize=True, deadline=None)
@given(RANKINGS, st.integers(0, 38))
def test_to_swap_a_relevant_one_forward_never_lowers_the_average(
    marks: list[bool], place: int
) -> None:
    if place + 1 >= len(marks) or marks[place] or not marks[place + 1]:
        return
    better = [*marks[:place], True, False, *marks[place + 2 :]]
    before, after = (ranking.average_precision(np.array(each)) for each in (marks, better))
    assert before is not None
    assert after is not None
    assert after > before


@pytest.mark.parametrize("metric", Metric)
def test_distances_are_what_each_pair_has_alone(metric: Metric) -> None:
    random = np.random.default_rng(3)
    queries, rows = random.random((4, 9)), random.random((7, 9))
    by_hand = {
        "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
        "l2": lambda a, b: np.linalg.norm(a - b),
        "l1": lambda a, b: np.abs(a - b).sum(),
        "ip": lambda a, b: -(a @ b),
        "chi2": chi2,
    }[metric]
    expected = [[by_hand(query, row) for row in rows] for query in queries]
    np.testing.assert_allclose(ranking.distances(queries, rows, metric), expected, rtol=1e-12)


def test_equal_vectors_have_no_negative_square() -> None:
    rows = np.random.default_rng(0).random((20, 500))
    distances = ranking.distances(rows, rows, Metric.l2)
    assert np.isfinite(distances).all()
    assert np.diag(distances).max() < 1e-5


def test_the_nearest_come_first_and_the_query_s_own_not_at_all() -> None:
    assert ranking.nearest_first(np.array([0.3, 0.0, 0.1, 0.1]), own=1).tolist() == [2, 3, 0]


def test_a_query_is_expanded_by_its_nearest_rows_weighted_by_their_similarity_cubed() -> None:
    query = np.array([[2.0, 0.0]])
    # Cosine similarities 0.6 and 0.8, the query itself, and -1.
    rows = np.array([[3.0, 4.0], [0.8, -0.6], [5.0, 0.0], [-1.0, 0.0]])
    both = np.array([[1 + 0.6**3 * 0.6 + 0.8**3 * 0.8, 0.6**3 * 0.8 - 0.8**3 * 0.6]])
    own = np.array([2])
    np.testing.assert_allclose(ranking.expanded(query, rows, 2, own), both)
    # What points away has no weight, even if there is nothing else.
    np.testing.assert_allclose(ranking.expanded(query, rows, 9, own), both)
    nearest = [[1 + 0.8**4, -(0.8**3) * 0.6]]
    np.testing.assert_allclose(ranking.expanded(query, rows, 1, own), nearest)
    # A query that is not a row takes the equal row for a neighbour.
    np.testing.assert_allclose(ranking.expanded(query, rows, 1, np.array([-1])), [[2, 0]])
    # A row without a direction adds nothing.
    np.testing.assert_allclose(ranking.averaged(query[0], np.zeros((1, 2))), [1, 0])


def test_expansion_by_nothing_and_lengths_change_no_distance() -> None:
    random = np.random.default_rng(5)
    queries, rows = random.normal(size=(4, 6)), random.normal(size=(9, 6))
    none = np.full(4, -1)
    alone = ranking.distances(ranking.expanded(queries, rows, 0, none), rows, Metric.cosine)
    np.testing.assert_allclose(alone, ranking.distances(queries, rows, Metric.cosine), atol=1e-12)
    scaled = rows * random.uniform(0.1, 9, (9, 1))
    np.testing.assert_allclose(
        ranking.expanded(7 * queries, scaled, 3, none), ranking.expanded(queries, rows, 3, none)
    )


def test_recall_counts_by_distance_so_that_either_of_two_equals_will_do() -> None:
    exact = np.array([0.0, 0.1, 0.2])
    assert ranking.recall(np.array([0.0, 0.1, 0.2]), exact) == 1
    assert ranking.recall(np.array([0.0, 0.2, 0.2]), exact) == 1
    assert ranking.recall(np.array([0.0, 0.1, 0.3]), exact) == pytest.approx(2 / 3)
    assert ranking.recall(np.array([0.0]), exact) == pytest.approx(1 / 3)
    # Inner products are negative, the least the nearest.
    assert ranking.recall(np.array([-9.0, -7.0]), np.array([-9.0, -8.0])) == 0.5


def test_rankings_are_not_held_all_at_once() -> None:
    distances = np.random.default_rng(0).random((200, 4_000))
    images = [Image(UUID(int=number), "", "", None) for number in range(4_000)]
    sample = Sample(np.arange(200), images, ["a", "b"] * 2_000, distances)
    tracemalloc.start()
    try:
        evaluate.score(sample, k=10)
        assert tracemalloc.get_traced_memory()[1] < distances.nbytes / 4
    finally:
        tracemalloc.stop()
