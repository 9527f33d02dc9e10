"""Which image of a group is kept."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from vecsearch.analysis.duplicates.keeping import ORDERS
from vecsearch.analysis.duplicates.pairs import Member
from vecsearch.vocabulary import KeepRule


def member(path: str, **facts: Any) -> Member:
    usual = {
        "sha256": None,
        "width": 8,
        "height": 6,
        "file_size": 100,
        "modified_at": datetime(2020, 1, 1, tzinfo=UTC),
        "taken_at": None,
    }
    return Member(UUID(int=1), path, **{**usual, **facts})


LATER = datetime(2021, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("rule", [KeepRule.oldest, KeepRule.newest, KeepRule.largest])
def test_of_copies_the_original_is_kept(rule: KeepRule) -> None:
    taken = datetime(2019, 1, 1)  # noqa: DTZ001 - a camera's
    copies = [
        member("/a/1.jpg", taken_at=taken),
        member("/b/1.jpg", taken_at=taken),
        member("/a/1-copy.jpg", taken_at=taken),
        member("/1.jpg", taken_at=taken, modified_at=LATER),
        member("/0.jpg", taken_at=taken, modified_at=None),
    ]
    for shuffled in permutations(copies):
        assert sorted(shuffled, key=ORDERS[rule]) == copies


def test_the_largest_has_most_pixels_then_bytes_then_age() -> None:
    ordered = [
        member("/z.jpg", width=9, height=6, file_size=1, modified_at=LATER),
        member("/y.jpg", file_size=101, modified_at=LATER),
        member("/x.jpg"),
        member("/a.jpg", modified_at=LATER),
        member("/0.jpg", width=None, file_size=10**6),
    ]
    for shuffled in permutations(ordered):
        assert sorted(shuffled, key=ORDERS[KeepRule.largest]) == ordered
