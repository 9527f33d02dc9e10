"""Sizes, numbers and shares for people."""

import math

import pytest

from vecsearch.render.figures import human_bytes, human_number, human_numbers, human_shares


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 kB"),
        (1536, "1.5 kB"),
        (5 * 1024**2, "5.0 MB"),
        (3 * 1024**3, "3.0 GB"),
        (2 * 1024**4, "2.0 TB"),
        (5000 * 1024**4, "5000.0 TB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert human_bytes(size) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.0, "0.0000"),
        (-1e-9, "0.000000"),
        (0.0012345678, "0.001235"),
        (0.5, "0.5000"),
        (-99.99999, "-100.0000"),
        (12_345.678, "12,345.7"),
        (-1.5e9, "-1.5000e+09"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_have_the_digits_that_tell_them_apart(number: float, words: str) -> None:
    assert human_number(number) == words


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([0.35123, 0.4], ["0.35", "0.40"]),
        ([0.0, 0.0123, 0.5], ["0.000", "0.012", "0.500"]),
        ([0.00001234, 1.0], ["0.000012", "1.000000"]),
        ([-3e-17, 0.5], ["0.00", "0.50"]),
        ([1_234.5, 2.0], ["1,234.50", "2.00"]),
        ([2.5e7, 1.0], ["2.5000e+07", "1.0000"]),
        ([math.nan, 0.25], ["nan", "0.25"]),
        ([], []),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(numbers: list[float], words: list[str]) -> None:
    assert human_numbers(numbers) == words


@pytest.mark.parametrize(
    ("shares", "decimals", "words"),
    [
        ([0.651, 0.4], 0, ["65%", "40%"]),
        ([1.0, 0.5], 0, ["100%", "50%"]),
        ([0.9993, 1.0, 0.5], 0, ["99.9%", "100.0%", "50.0%"]),
        ([0.999999], 0, ["99.99%"]),
        ([-0.03, -1e-9], 0, ["-3%", "0%"]),
        ([0.9642], 1, ["96.4%"]),
        ([math.nan], 0, ["nan"]),
    ],
)
def test_what_is_not_all_is_not_called_all(
    shares: list[float], decimals: int, words: list[str]
) -> None:
    assert human_shares(shares, decimals) == words
