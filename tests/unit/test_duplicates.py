"""Groups from near pairs, and the cut-off from neighbour distances."""

from itertools import combinations
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import clustered

from vecsearch.analysis.duplicates.groups import group, suggest
from vecsearch.analysis.duplicates.pairs import NOISE, CutOff, Pair

IMAGES = [UUID(int=number) for number in range(12)]
two = st.tuples(st.sampled_from(IMAGES), st.sampled_from(IMAGES)).filter(
    lambda ids: ids[0] != ids[1]
)
near = st.lists(st.tuples(two, st.floats(0, 1)).map(lambda drawn: Pair(*drawn[0], drawn[1])))
laws = settings(derandomize=True, deadline=None, max_examples=200)


def partition(groups: list[set[UUID]]) -> set[frozenset[UUID]]:
    return {frozenset(ids) for ids in groups}


def reachable(pairs: list[Pair], start: UUID) -> frozenset[UUID]:
    found = {start}
    for _ in IMAGES:
        for pair in pairs:
            if found & {pair.image, pair.other}:
                found |= {pair.image, pair.other}
    return frozenset(found)


@laws
@given(near)
def test_groups_are_what_pairs_join_whichever_way_round(pairs: list[Pair]) -> None:
    expected = {reachable(pairs, pair.image) for pair in pairs}
    groups = group(pairs)
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert partition(groups) == expected
    turned = [Pair(pair.other, pair.image, pair.distance) for pair in reversed(pairs)]
    assert partition(group(turned)) == expected


@laws
@given(near, st.lists(two))
def test_images_that_are_no_duplicates_never_share_a_group(
    pairs: list[Pair], apart: list[tuple[UUID, UUID]]
) -> None:
    groups = group(pairs, apart)
    together = {frozenset(ids) for members in groups for ids in combinations(members, 2)}
    assert not together & {frozenset(ids) for ids in apart}
    # Each lies within one that would be there without them.
    assert all(any(members <= larger for larger in group(pairs)) for members in groups)


def test_between_two_that_are_no_duplicates_an_image_goes_to_the_nearer() -> None:
    one, middle, other = IMAGES[:3]
    pairs = [Pair(one, middle, 0.02), Pair(middle, other, 0.01)]
    assert partition(group(pairs, [(one, other)])) == {frozenset({middle, other})}


def neighbour_distances(vectors: "np.ndarray") -> list[list[float]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.maximum(1 - unit @ unit.T, 0)
    np.fill_diagonal(distances, np.inf)
    nearest: list[list[float]] = np.sort(distances, axis=1)[:, :20].tolist()
    return nearest


def near_count(distances: list[list[float]], cut_off: CutOff) -> int:
    """Return how many images have a neighbour within their reach."""
    return sum(
        row[0] <= max(cut_off.floor, cut_off.ratio * row[cut_off.rank - 1]) for row in distances
    )


@pytest.mark.parametrize("dimensions", [4, 8, 16, 64, 256])
def test_among_images_without_duplicates_next_to_none_is_near(dimensions: int) -> None:
    vectors = np.random.default_rng(dimensions).uniform(0, 1, (800, dimensions))
    distances = neighbour_distances(vectors)
    assert near_count(distances, suggest(distances).cut_off) <= 0.05 * len(distances)


def test_the_suggestion_follows_the_scale_of_the_distances() -> None:
    distances = neighbour_distances(clustered(800, 64, seed=1))
    found = suggest(distances)
    smaller = suggest([[distance / 100 for distance in row] for row in distances])
    assert smaller.cut_off.ratio == pytest.approx(found.cut_off.ratio)
    assert smaller.cut_off.floor == pytest.approx(found.cut_off.floor / 100)
    assert smaller.typical == pytest.approx(found.typical / 100)
    assert smaller.alone == pytest.approx(found.alone / 100)


@pytest.mark.parametrize("share", [0.1, 0.5, 1])
def test_however_many_have_a_copy_the_suggestion_finds_the_copies(share: float) -> None:
    vectors = clustered(800, 64, seed=2)
    copies = vectors[: int(800 * share)] * np.random.default_rng(0).normal(1, 0.02, 64)
    distances = neighbour_distances(np.vstack([vectors, copies]))
    found = near_count(distances, suggest(distances).cut_off)
    assert found >= 2 * len(copies)
    assert found <= 2 * len(copies) + 0.05 * 800


@pytest.mark.parametrize("distances", [[], [[]], [[0.0] * 20] * 5, [[0.3]] * 2, [[1e-7, 0.2]] * 3])
def test_of_few_images_or_equal_ones_only_the_equal_are_near(distances: list[list[float]]) -> None:
    cut_off = suggest(distances).cut_off
    assert cut_off.floor >= NOISE
    reach = max(cut_off.floor, cut_off.ratio * 0.3)
    assert 1e-7 <= reach < 0.2
