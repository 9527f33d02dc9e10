"""Sizes, times, numbers and shares as people read them."""

import math
from collections.abc import Sequence

# Shares closer to 1 than this are not called 100%.
MOST_DECIMALS = 2
# Digits of the smallest of several numbers, and the most decimals of any.
DIGITS, DECIMALS = 2, 6


def human_bytes(size: int) -> str:
    """Return a size in the largest unit in which it is at least one: 1536 is "1.5 kB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1024:  # noqa: PLR2004 - the definition of the units
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def human_time(seconds: float) -> str:
    """Return a time in the largest unit of which there are two at least: 7200 is "2 h"."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def human_number(value: float) -> str:
    """Return a number with enough digits to tell close ones apart: four decimals, if it can."""
    size = abs(value)
    if size >= 1e6:  # noqa: PLR2004 - seven digits are hard to count
        return f"{value:.4e}"
    decimals = 1 if size >= 100 else 6 if 0 < size < 0.01 else 4  # noqa: PLR2004 - five digits
    # Adding 0.0 makes -0.0 positive.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def human_numbers(values: Sequence[float], least_decimals: int = DIGITS) -> list[str]:
    """Return numbers of one column with the same decimals, enough for two digits of the smallest.

    Those below a millionth are 0. There are at least so many decimals, but at most six.
    """
    sizes = [abs(value) for value in values if math.isfinite(value)]
    if max(sizes, default=0.0) >= 1e6:  # noqa: PLR2004 - seven digits are hard to count
        return [human_number(value) for value in values]
    least = min((size for size in sizes if size >= 10**-DECIMALS), default=1.0)
    decimals = min(
        DECIMALS, max(least_decimals, DIGITS, DIGITS - 1 - math.floor(math.log10(least)))
    )
    # Adding 0.0 makes -0.0 positive.
    return [f"{round(value, decimals) + 0.0:,.{decimals}f}" for value in values]


def human_shares(values: Sequence[float], decimals: int = 0) -> list[str]:
    """Return shares of one column as percentages: 65%. What is not all is not called 100%.

    Args:
        values: the shares, of 1.
        decimals: of each; more if one is nearly 1.

    """
    while decimals < MOST_DECIMALS and any(
        value < 1 and _rounds_to_all(value, decimals) for value in values
    ):
        decimals += 1
    return [_share(value, decimals) for value in values]


def _rounds_to_all(value: float, decimals: int) -> bool:
    return round(100 * value, decimals) >= 100  # noqa: PLR2004 - per cent


def _share(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return str(value)
    step = 10.0**-decimals
    if value < 1 and _rounds_to_all(value, decimals):
        return f"{100 - step:.{decimals}f}%"
    return f"{round(100 * value, decimals) + 0.0:.{decimals}f}%"
