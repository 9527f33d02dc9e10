"""Draw docs/performance-growth.svg from the results of growth.py.

    python benchmarks/plots.py

Both axes are logarithmic. The dashed line is a straight line through the last two sizes, up to a
billion rows: extrapolated, not measured.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from growth import peak, read_results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BILLION = 10**9
# Colours of equal lightness, as far from white as from black.
INK, BLUE, ORANGE, GREEN = "#7a7a7a", "#3f83d8", "#d1701f", "#2f9a68"
Line = tuple[str, str, Sequence[float]]


def main() -> None:
    """Draw the figure."""
    root = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=root / "results")
    default = root.parent / "docs" / "performance-growth.svg"
    parser.add_argument("--output", type=Path, default=default)
    options = parser.parse_args()
    draw(read_results(options.results), options.output)


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Draw the results of `growth.read_results`, which must have at least two sizes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows = [result["rows"] for result in results]
    asked = [{row["tuned"]: row["p50_ms"] for row in result["asked"]} for result in results]
    panels: list[tuple[str, list[Line]]] = [
        (
            "Time, s",
            [
                ("build the index", BLUE, [result["build_s"] for result in results]),
                ("load", ORANGE, [result["load_s"] for result in results]),
            ],
        ),
        (
            "On disk, MB",
            [
                ("index", BLUE, [result["index_mb"] for result in results]),
                ("table", ORANGE, [result["rows_mb"] for result in results]),
            ],
        ),
        (
            "Answer, p50, ms",
            [
                ("default settings", BLUE, [row[False] for row in asked]),
                ("tuned to recall 0.999", GREEN, [row[True] for row in asked]),
            ],
        ),
        (
            "Peak memory, MB",
            [
                ("server", BLUE, [peak(result, "server") for result in results]),
                ("client", ORANGE, [peak(result, "client") for result in results]),
            ],
        ),
    ]
    style: dict[Any, Any] = {"svg.hashsalt": "vecsearch", "svg.fonttype": "none", "font.size": 9}
    style |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color"), INK)
    style |= dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK)
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 6.6), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (title, lines) in zip(figure.subplots(2, 2).flat, panels, strict=True):
            _panel(axes, title, rows, lines)
        figure.supxlabel("rows", color=INK)
        figure.savefig(file, transparent=True, metadata={"Date": None})


def _panel(axes: "Axes", title: str, rows: Sequence[int], lines: Sequence[Line]) -> None:
    axes.set_title(title, loc="left", color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for name, colour, values in lines:
        axes.plot(rows, values, "o-", color=colour, label=name, markersize=4)
        last = BILLION, extrapolated(rows, values)
        axes.plot((rows[-1], last[0]), (values[-1], last[1]), "--", color=colour, alpha=0.8)
        axes.annotate(
            in_words(last[1], title.rpartition(" ")[2]),
            last,
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    axes.axvspan(rows[-1], BILLION, color=INK, alpha=0.08, linewidth=0)
    axes.text(
        math.sqrt(rows[-1] * BILLION),
        0.03,
        "extrapolated, not measured",
        transform=axes.get_xaxis_transform(),
        ha="center",
        style="italic",
    )
    axes.legend(frameon=False, loc="upper left", labelcolor="linecolor")


def extrapolated(rows: Sequence[int], values: Sequence[float]) -> float:
    """Return the value at a billion rows of the straight line through the last two points.

    The line is straight in logarithms: a power of the number of rows.
    """
    power = math.log(values[-1] / values[-2]) / math.log(rows[-1] / rows[-2])
    return float(values[-1] * (BILLION / rows[-1]) ** power)


def in_words(value: float, unit: str) -> str:
    """Return a value with two digits, in a suitable unit."""
    larger = {"s": ("h", 3_600), "h": ("days", 24), "ms": ("s", 1_000)}
    larger |= {"MB": ("GB", 1_000), "GB": ("TB", 1_000)}
    while unit in larger and value >= larger[unit][1]:
        value, unit = value / larger[unit][1], larger[unit][0]
    return f"{float(f'{value:.2g}'):,g} {unit}"


if __name__ == "__main__":
    main()
