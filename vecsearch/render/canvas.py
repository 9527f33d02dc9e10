"""A white canvas for pictures and text, measured in pixels from its upper left corner.

It uses the object API of matplotlib alone, so that no global state changes.
"""

import math
import unicodedata
from bisect import bisect_left
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image as Picture

# A power of two: pixels convert to inches and back exactly, so pictures are not resampled.
DPI = 256
INK, SOFT, GREY, MOUNT = "#111827", "#6b7280", "#d1d5db", "#f3f4f6"
BLUE, GREEN, RED = "#2563eb", "#15803d", "#dc2626"

Weight = Literal["normal", "bold"]
# Unicode categories of marks, which are drawn with the letter before them.
_MARKS = frozenset({"Mn", "Mc", "Me", "Cf"})
# matplotlib ships the first; the others, where installed, have the characters it lacks.
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Arial Unicode MS",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Segoe UI",
    "Segoe UI Symbol",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
)


class Canvas:
    """A canvas; `figure` is the matplotlib figure."""

    def __init__(self, width: int, height: int) -> None:
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.width, self.height = width, height
        FigureCanvasAgg(self.figure)
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height, 0)
        self._axes.set_autoscale_on(False)

    def picture(self, x: int, y: int, picture: "Picture") -> None:
        """Put a picture's upper left corner at (x, y), pixel for pixel."""
        self._axes.imshow(
            np.asarray(picture),
            extent=(x, x + picture.width, y + picture.height, y),
            aspect="auto",
            interpolation="none",
        )

    def frame(self, x: int, y: int, width: int, height: int, colour: str, line: int = 8) -> None:
        """Draw a frame around (x, y, width, height)."""
        self._axes.add_patch(
            Rectangle(
                (x - line / 2, y - line / 2),
                width + line,
                height + line,
                fill=False,
                edgecolor=colour,
                linewidth=_points(line),
                joinstyle="round",
            )
        )

    def block(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """Fill a rectangle below the pictures."""
        self._axes.add_patch(
            Rectangle((x, y), width, height, facecolor=colour, linewidth=0, zorder=-1)
        )

    def text(
        self,
        x: int,
        y: int,
        text: str,
        *,
        size: int,
        width: int,
        colour: str = INK,
        weight: Weight = "normal",
        align: Literal["left", "center", "right"] = "left",
    ) -> int:
        """Write one line with its baseline at y, shortened in the middle to fit `width`.

        Returns its width.
        """
        whole = drawable(text, weight)
        artist = self._axes.text(
            x, y, whole, fontproperties=_font(size, weight), color=colour, ha=align, **_PLAIN
        )

        def fits(kept: int) -> bool:
            artist.set_text(_middle_out(whole, kept))
            return artist.get_window_extent().width <= width

        if not fits(len(whole)):
            # The longest text that fits: every shorter one fits, too.
            fits(bisect_left(range(len(whole)), x=True, key=lambda kept: not fits(kept)) - 1)
        return math.ceil(artist.get_window_extent().width)

    def plot(self, x: int, y: int, width: int, height: int) -> "Axes":
        """Return axes whose data area is (x, y, width, height)."""
        return self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )


# A file may be called $x_1$: this is text, not mathematics.
_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}


def drawable(text: str, weight: Weight = "normal") -> str:
    """Return the text on one line, with � for characters that no installed font has."""
    fonts = _characters(weight)
    clusters: list[str] = []
    # Composed, as some systems split file names into letters and accents.
    for letter in unicodedata.normalize("NFC", " ".join(text.split())):
        if clusters and unicodedata.category(letter) in _MARKS:
            clusters[-1] += letter
        else:
            clusters.append(letter)
    # A letter and its marks are drawn by one font.
    return "".join(
        cluster if any(font.issuperset(map(ord, cluster)) for font in fonts) else "\ufffd"
        for cluster in clusters
    )


def _middle_out(line: str, kept: int) -> str:
    if kept >= len(line):
        return line
    tail = max(kept, 0) // 2
    return f"{line[: max(kept, 0) - tail]}…{line[len(line) - tail :]}"


def _points(pixels: int) -> float:
    return pixels * 72 / DPI


def _font(size: int, weight: Weight) -> FontProperties:
    return FontProperties(family=list(_families()), size=_points(size), weight=weight)


@cache
def _families() -> tuple[str, ...]:
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(family for family in _FAMILIES if family in installed)


@cache
def _characters(weight: Weight) -> tuple[frozenset[int], ...]:
    fonts = (
        font_manager.findfont(FontProperties(family=family, weight=weight))
        for family in _families()
    )
    return tuple(frozenset(font_manager.get_font(font).get_charmap()) for font in fonts)
