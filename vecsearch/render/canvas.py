"""A white canvas for pictures and text, measured in pixels from its upper left corner.

It uses the object API of matplotlib alone, so that no global state changes.
"""

import io
import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from vecsearch.render import fonts
from vecsearch.render.fonts import Weight

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image as Picture

# A power of two: pixels convert to inches and back exactly, so pictures are not resampled.
DPI = 256
INK, SOFT, GREY, MOUNT = "#111827", "#6b7280", "#d1d5db", "#f3f4f6"
BLUE, GREEN, RED = "#2563eb", "#15803d", "#dc2626"


class Canvas:
    """A canvas; `figure` is the matplotlib figure, `finished` returns it when all is drawn."""

    def __init__(self, width: int, height: int, paper: str = "white") -> None:
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=paper)
        self.width, self.height = width, height
        self._missing: list[str] = []
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
        line = fonts.line(text, weight)
        self._missing += line.missing
        font = FontProperties(family=line.families, size=_points(size), weight=weight)
        artist = self._axes.text(x, y, "", fontproperties=font, color=colour, ha=align, **_PLAIN)

        def fits(kept: int) -> bool:
            artist.set_text(_middle_out(line.letters, kept))
            return artist.get_window_extent().width <= width

        most = len(line.letters)
        if not fits(most):
            # The longest text that fits: every shorter one fits, too.
            fits(bisect_left(range(most), x=True, key=lambda kept: not fits(kept)) - 1)
        return math.ceil(artist.get_window_extent().width)

    def finished(self) -> Figure:
        """Return the figure, after a note on the letters that no font has."""
        fonts.note_missing(self._missing)
        return self.figure

    def pixels(self) -> "Picture":
        """Return what is drawn as a picture, after the same note."""
        import PIL.Image

        written = io.BytesIO()
        self.finished().savefig(written, format="rgba", dpi="figure")
        size = self.width, self.height
        return PIL.Image.frombytes("RGBA", size, written.getvalue()).convert("RGB")

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


def _middle_out(letters: list[str], kept: int) -> str:
    if kept >= len(letters):
        return "".join(letters)
    tail = max(kept, 0) // 2
    return "".join([*letters[: max(kept, 0) - tail], "…", *letters[len(letters) - tail :]])


def _points(pixels: int) -> float:
    return pixels * 72 / DPI
