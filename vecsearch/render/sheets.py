"""Sheets of images: the hits of a query, two answers compared, an autoencoder's training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vecsearch.imaging.pictures import fitted
from vecsearch.imaging.thumbnails import fit
from vecsearch.render.canvas import BLUE, GREEN, GREY, MOUNT, RED, SOFT, Canvas
from vecsearch.render.figures import human_number
from vecsearch.render.tiles import (
    CAPTION,
    GAP,
    HEADER,
    MARGIN,
    NONE,
    TILE,
    draw_head,
    draw_hit_caption,
    draw_query_caption,
    draw_tile,
    hit_pictures,
    short_path,
)
from vecsearch.vocabulary import Metric

if TYPE_CHECKING:
    from uuid import UUID

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from vecsearch.analysis.compare import Example
    from vecsearch.encoders.autoencoder.training import Epoch
    from vecsearch.imaging.scan import Unreadable
    from vecsearch.search.query import Hit

# The shape of a slide.
SHAPE = 16 / 9
# With at most this many hits, the query image is as small as they are.
FEW_HITS = 2
MOST_HITS = 300
# Of a comparison.
STRIP_TILE = 240
STRIP_CAPTION = 72
NAMES = 360
MOST_QUERIES, MOST_ANSWERS = 12, 12
# Of a training.
PAIR_TILE = 224
PLOT_HEIGHT = 640
MOST_PAIRS = 12


def contact_sheet(
    query: Path | bytes,
    hits: "Sequence[Hit]",
    *,
    title: str,
    metric: Metric,
    max_pixels: int,
    notes: Sequence[str] = (),
    stored: "Mapping[UUID, bytes]" = NONE,
    query_thumbnail: bytes | None = None,
) -> "Figure":
    """Draw the query image, large, then each hit with its rank, distance, similarity and file.

    Args:
        query: the query image.
        hits: at most `MOST_HITS` are drawn; the sheet says so if there are more.
        title: on top.
        metric: of the distances.
        max_pixels: larger images are not read.
        notes: how the hits are ranked, and which images could be hits, as clauses; empty ones are
            left out.
        stored: thumbnails by id. The files of other hits are read; a grey tile shows why one cannot
            be.
        query_thumbnail: of the query image; None: the file is read.

    """
    drawn = hits[:MOST_HITS]
    columns, rows, span = _grid(len(drawn))
    across, down = TILE + GAP, TILE + CAPTION + GAP
    sheet = Canvas(2 * MARGIN + columns * across - GAP, 2 * MARGIN + HEADER + rows * down - GAP)
    by = metric.meaning
    if metric is Metric.cosine:
        by += "; similarity (sim.) is 1 − distance"
    by = "; ".join([by, *filter(None, notes)])
    if len(drawn) < len(hits):
        found = f"The first {len(drawn)} of {len(hits):,} hits by {by}"
    elif hits:
        found = f"The {len(hits)} nearest by {by}" if len(hits) > 1 else f"The nearest by {by}"
    else:
        found = "No image matches"
    draw_head(sheet, title, found)

    top = MARGIN + HEADER
    width, height = TILE + (span - 1) * across, TILE + (span - 1) * down
    (picture,) = fitted([query_thumbnail or query], width, height, max_pixels=max_pixels)
    draw_tile(sheet, (MARGIN, top), (width, height), picture, frame=BLUE)
    draw_query_caption(sheet, MARGIN, top + height, width, query)
    cells = [
        (column, row)
        for row in range(rows)
        for column in range(columns)
        if column >= span or row >= span
    ]
    pictures = hit_pictures(drawn, stored, TILE, max_pixels)
    for (column, row), hit, picture in zip(cells, drawn, pictures, strict=False):
        x, y = MARGIN + column * across, top + row * down
        draw_tile(sheet, (x, y), (TILE, TILE), picture)
        draw_hit_caption(sheet, x, y + TILE, hit)
    return sheet.finished()


def _grid(hits: int) -> tuple[int, int, int]:
    """Return columns, rows, and how many of each the query image spans.

    They come closest to the shape of a slide and leave few cells empty.
    """
    span = 2 if hits > FEW_HITS else 1
    cells = hits + span**2

    def rows(columns: int) -> int:
        return max(span, math.ceil(cells / columns))

    def cost(columns: int) -> float:
        width = columns * (TILE + GAP)
        height = rows(columns) * (TILE + CAPTION + GAP) + HEADER
        empty = columns * rows(columns) - cells
        return abs(math.log(width / height / SHAPE)) + empty / cells

    columns = min(range(FEW_HITS + 1, FEW_HITS + 1 + cells), key=cost)
    return columns, rows(columns), span


def comparison_sheet(
    rows: "Sequence[Example]",
    *,
    title: str,
    max_pixels: int,
    stored: "Mapping[str, Mapping[UUID, bytes]]" = MappingProxyType({}),
) -> "Figure":
    """Draw each query image beside one strip of hits per collection.

    Correct hits have a green frame and a tick, wrong ones a red frame and a cross; hits are plain
    if that is unknown.

    Args:
        rows: at most `MOST_QUERIES` are drawn, with `MOST_ANSWERS` hits each; the sheet says so if
            there are more.
        title: on top.
        max_pixels: larger images are not read.
        stored: thumbnails by collection and id, those of the query images under the first
            collection. Other files are read; a grey tile shows why one cannot be.

    """
    drawn = rows[:MOST_QUERIES]
    most = max((len(hits) for row in rows for hits in row.answers.values()), default=0)
    columns = min(most, MOST_ANSWERS)
    across, down = STRIP_TILE + GAP, STRIP_TILE + STRIP_CAPTION
    strips = sum(max(len(row.answers), 1) for row in drawn)
    left = MARGIN + TILE + GAP + NAMES
    sheet = Canvas(
        max(left + columns * across, 4 * TILE) + MARGIN - GAP,
        2 * MARGIN + HEADER + strips * down + (len(drawn) - 1) * GAP,
    )
    limits = [
        f"the first {shown} of {there:,} {what}"
        for shown, there, what in (
            (len(drawn), len(rows), "queries"),
            (columns, most, "hits"),
        )
        if shown < there
    ]
    plain = "The number below a hit is its distance"
    draw_head(sheet, title, f"Only {' and '.join(limits)} are drawn" if limits else plain)

    of_queries = next(iter(stored.values()), NONE)
    y = MARGIN + HEADER
    for row in drawn:
        height = max(len(row.answers), 1) * down - STRIP_CAPTION
        box = min(TILE, height)
        source = of_queries.get(row.id, Path(row.path))
        (picture,) = fitted([source], TILE, box, max_pixels=max_pixels)
        draw_tile(sheet, (MARGIN, y), (TILE, box), picture, frame=BLUE)
        sheet.text(
            MARGIN,
            y + box + 36,
            row.label,
            size=24,
            width=TILE,
            colour=BLUE,
            weight="bold",
        )
        if box < height:
            sheet.text(
                MARGIN, y + box + 68, short_path(Path(row.path)), size=20, width=TILE, colour=SOFT
            )
        for name, hits in row.answers.items():
            drawn_hits = hits[:columns]
            pictures = hit_pictures(drawn_hits, stored.get(name, NONE), STRIP_TILE, max_pixels)
            _strip(sheet, y, name, drawn_hits, pictures, row.correct.get(name))
            y += down
        y += GAP
    return sheet.finished()


def _strip(
    sheet: Canvas,
    y: int,
    name: str,
    hits: "Sequence[Hit]",
    pictures: "Iterator[Picture | Unreadable]",
    correct: Sequence[bool] | None,
) -> None:
    x, side = MARGIN + TILE + GAP, STRIP_TILE
    middle = y + side // 2
    sheet.text(x, middle, name, size=26, width=NAMES - GAP, weight="bold")
    if correct is not None:
        score = f"{sum(correct)} of {len(correct)} correct"
        sheet.text(x, middle + 36, score, size=22, width=NAMES - GAP, colour=SOFT)
    x += NAMES
    if not hits:
        sheet.text(x, middle, "No image matches", size=22, width=3 * side, colour=SOFT)
    for position, (hit, picture) in enumerate(zip(hits, pictures, strict=True)):
        colour, mark = None, ""
        if correct is not None:
            colour, mark = (GREEN, "✓") if correct[position] else (RED, "✗")
        draw_tile(sheet, (x, y), (side, side), picture, frame=colour)
        sheet.text(x, y + side + 36, human_number(hit.distance), size=22, width=side - 30)
        if colour is not None:
            sheet.text(
                x + side,
                y + side + 36,
                mark,
                size=26,
                width=30,
                colour=colour,
                weight="bold",
                align="right",
            )
        x += side + GAP


def training_sheet(
    epochs: "Sequence[Epoch]",
    originals: "NDArray[np.uint8]",
    drawn: "NDArray[np.uint8]",
    *,
    title: str,
) -> "Figure":
    """Draw images above their reconstructions by an autoencoder, and its loss by epoch.

    Args:
        epochs: in order; the last one with `best` was kept.
        originals: shape (n, size, size, 3), 0 to 255; at most `MOST_PAIRS` are drawn.
        drawn: their reconstructions, in the same shape.
        title: on top.

    """
    import PIL.Image

    shown = min(len(originals), MOST_PAIRS)
    left, across = MARGIN + NAMES, PAIR_TILE + GAP
    plot_width, plot_height = max(6, shown) * across - GAP, PLOT_HEIGHT
    pairs = 2 * across + GAP if shown else 0
    sheet = Canvas(left + plot_width + MARGIN, 2 * MARGIN + HEADER + pairs + plot_height + 110)
    first = "" if shown == len(originals) else f"the first {shown} of {len(originals):,} "
    draw_head(sheet, title, f"Top: {first}images and their reconstructions. Bottom: loss by epoch")
    y = MARGIN + HEADER
    for name, tiles in (("Original", originals), ("Reconstruction", drawn)) if shown else ():
        sheet.text(MARGIN, y + PAIR_TILE // 2 + 8, name, size=26, width=NAMES - GAP, weight="bold")
        for position, tile in enumerate(tiles[:shown]):
            picture = fit(PIL.Image.fromarray(tile), PAIR_TILE, PAIR_TILE)
            sheet.picture(left + position * across, y, picture)
        y += across
    _loss_curve(sheet.plot(left, MARGIN + HEADER + pairs, plot_width, plot_height), epochs)
    return sheet.finished()


def _loss_curve(axes: "Axes", epochs: "Sequence[Epoch]") -> None:
    """Plot both losses, which are mean squared errors, and mark the epoch that was kept."""
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch for epoch in epochs]
    dots = "o" if len(epochs) == 1 else None
    for name, colour, losses in (
        ("training", SOFT, [epoch.training_loss for epoch in epochs]),
        ("validation", BLUE, [epoch.validation_loss for epoch in epochs]),
    ):
        axes.plot(numbers, losses, color=colour, linewidth=1.6, marker=dots, label=name)
    kept = [epoch for epoch in epochs if epoch.best][-1:]
    for epoch in kept:
        axes.axvline(epoch.epoch, color=GREY, linewidth=0.8, zorder=0)
        axes.plot(
            [epoch.epoch],
            [epoch.validation_loss],
            color=GREEN,
            marker="o",
            markersize=5,
            linestyle="none",
            label=f"kept: epoch {epoch.epoch}, {epoch.validation_loss:.4g}",
        )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7, colors=SOFT, length=2)
    axes.grid(axis="y", color=MOUNT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.set_xlabel("epoch", fontsize=8, color=SOFT)
    axes.set_ylabel("loss (mean squared error)", fontsize=8, color=SOFT)
    if epochs:
        axes.legend(fontsize=8, frameon=False)
