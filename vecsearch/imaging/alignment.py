"""Compare pictures by their structure, one cropped until it fits the other.

The difference of two pictures is 1 - r, where r is the correlation of their brightness gradients:
0 for equal pictures, about 1 for unrelated ones. Gradients ignore colour and brightness. A window
of one picture is compared with the whole other one, so that a cropped copy is recognised. The
window is searched on a grid first, then by moving its edges.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Numbers = NDArray[np.intp]

# Pictures are compared as squares of this many pixels a side, whatever their proportions.
SIDE = 48
# Cells a side into which a window is averaged: on the grid, and while its edges move.
_COARSE, _FINE = 16, 24
# The grid: the sides of windows, and the step between them, as shares of the picture.
_SIDES = (1.0, 0.95, 0.9, 0.85)
_STEP = 0.025
# Then one edge moves at a time, by a step of the grid at first. The step is halved when no move
# gains anything; the search ends when it is less than the last one.
_MOVES = np.concatenate([np.eye(4), -np.eye(4)])
_LAST_STEP = 0.005
_GAIN = 1e-5
_SMALLEST = 0.8
# Pairs that differ by more on the grid are unrelated; at most 0.21 was measured for variants.
_UNRELATED = 0.3
# No better window needs to be searched for below this.
_SAME = 0.01
# A picture whose gradients are smaller than this, in grey levels a cell, shows nothing to compare.
_FLAT = 0.25
_CHUNK = 64


@dataclass(frozen=True)
class _Grid:
    """The windows of one size: top and left edges, and maps from pixels to cells' gradients.

    Attributes:
        starts: float64 (n,), the edges in either direction.
        mean, slope: float32 (n * (_COARSE - 1), SIDE).

    """

    side: float
    starts: "NDArray[np.float64]"
    mean: "Floats"
    slope: "Floats"


def small(thumbnail: bytes) -> "NDArray[np.uint8]":
    """Return a picture in grey, squeezed to (SIDE, SIDE); the bytes are those of a thumbnail."""
    from PIL import Image

    with Image.open(io.BytesIO(thumbnail)) as picture:
        picture.draft("L", (SIDE, SIDE))  # JPEG alone; a quarter of the time
        grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def is_flat(pictures: "NDArray[np.uint8]") -> "NDArray[np.bool_]":
    """Return for each picture (n, SIDE, SIDE) whether it shows nothing that could be compared."""
    flat = np.empty(len(pictures), bool)
    whole = _grids()[0]
    for start in range(0, len(pictures), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        gradients = _gradients(pictures[chunk].astype(np.float32), whole.mean, whole.slope)
        flat[chunk] = np.square(gradients).mean(axis=(1, 2, 3)) < _FLAT**2
    return flat


def differences(
    pictures: "NDArray[np.uint8]", one: "Numbers", other: "Numbers", *, mirrored: bool = False
) -> "NDArray[np.float64]":
    """Return the differences of pairs of pictures, 0 to 2; a flat picture's say nothing.

    Args:
        pictures: (n, SIDE, SIDE).
        one: the numbers of the first pictures of pairs, (m,).
        other: those of the second pictures.
        mirrored: compare mirrored pictures, too, and return the smaller difference.

    """
    found = _differences(pictures, pictures, one, other)
    if mirrored:
        found = np.minimum(found, _differences(pictures, pictures[:, :, ::-1], one, other))
    return np.maximum(found, 0)


def _differences(
    pictures: "NDArray[np.uint8]", others: "NDArray[np.uint8]", one: "Numbers", other: "Numbers"
) -> "NDArray[np.float64]":
    inward, windows = _on_grid(pictures, others, one, other)
    outward, windows_of_other = _on_grid(others, pictures, other, one)
    found = np.minimum(inward, outward)
    for sources, wholes, source, whole, edges, is_better in (
        (pictures, others, one, other, windows, inward <= outward),
        (others, pictures, other, one, windows_of_other, inward > outward),
    ):
        near = np.flatnonzero(is_better & (found <= _UNRELATED))
        found[near] = _fitted(sources, wholes, source[near], whole[near], edges[near])
    return found


@cache
def _grids() -> list[_Grid]:
    grids = []
    for side in _SIDES:
        starts = np.linspace(0, 1 - side, round((1 - side) / _STEP) + 1)
        mean, slope = _cells(starts, starts + side, _COARSE)
        grids.append(_Grid(side, starts, mean.reshape(-1, SIDE), slope.reshape(-1, SIDE)))
    return grids


def _cells(
    low: "NDArray[np.float64]", high: "NDArray[np.float64]", cells: int
) -> "tuple[Floats, Floats]":
    """Return maps from pixels to means and to differences of neighbouring cells of windows.

    Args:
        low: where windows begin, as a share of the side; any shape (…).
        high: where they end.
        cells: into how many cells a window is averaged.

    Returns:
        Two arrays (…, cells - 1, SIDE).

    """
    share = np.arange(cells + 1) / cells
    edges = SIDE * (low[..., None] + (high - low)[..., None] * share)[..., None]
    pixels = np.arange(SIDE)
    within = np.minimum(edges[..., 1:, :], pixels + 1) - np.maximum(edges[..., :-1, :], pixels)
    weights = np.maximum(within, 0).astype(np.float32)
    weights /= weights.sum(axis=-1, keepdims=True)
    before, after = weights[..., :-1, :], weights[..., 1:, :]
    return (before + after) / 2, after - before


def _gradients(pictures: "Floats", mean: "Floats", slope: "Floats") -> "Floats":
    """Return the gradients (n, 2, rows, columns) of pictures: across, and down."""
    return np.stack([(mean @ pictures) @ slope.T, (slope @ pictures) @ mean.T], axis=1)


def _unit(gradients: "Floats") -> "Floats":
    """Divide vectors by their lengths; those of flat windows stay shorter than 1."""
    lengths = np.sqrt(np.einsum("...i,...i->...", gradients, gradients))
    shortest = _FLAT * np.sqrt(gradients.shape[-1])
    unit: Floats = gradients / np.maximum(lengths, shortest)[..., None]
    return unit


def _windows(pictures: "Floats", grids: list[_Grid]) -> "Floats":
    """Return the unit gradients of each window of each picture: (n, windows, numbers)."""
    cells = _COARSE - 1
    parts = []
    for grid in grids:
        count = len(grid.starts)
        found = _gradients(pictures, grid.mean, grid.slope)
        found = found.reshape(len(pictures), 2, count, cells, count, cells)
        parts.append(found.transpose(0, 2, 4, 1, 3, 5).reshape(len(pictures), count**2, -1))
    return _unit(np.concatenate(parts, axis=1))


@cache
def _edges() -> "NDArray[np.float64]":
    """Return the edges of the windows of `_windows`: top, bottom, left, right."""
    return np.array(
        [
            (top, top + grid.side, left, left + grid.side)
            for grid in _grids()
            for top in grid.starts
            for left in grid.starts
        ]
    )


def _on_grid(
    sources: "NDArray[np.uint8]", wholes: "NDArray[np.uint8]", source: "Numbers", whole: "Numbers"
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Return the smallest difference of windows of sources to whole pictures, and the windows."""
    found, windows = np.empty(len(source)), np.empty((len(source), 4))

    def search(pairs: "Numbers") -> None:
        numbers, place = np.unique(source[pairs], return_inverse=True)
        cropped = _windows(sources[numbers].astype(np.float32), _grids())
        targets, target = np.unique(whole[pairs], return_inverse=True)
        complete = _windows(wholes[targets].astype(np.float32), _grids()[:1])[:, 0]
        begins = np.searchsorted(place, np.arange(len(numbers) + 1))
        for number, crops in enumerate(cropped):
            mine = slice(begins[number], begins[number + 1])
            scores = complete[target[mine]] @ crops.T
            best = scores.argmax(axis=1)
            found[pairs[mine]] = 1 - scores[np.arange(len(best)), best]
            windows[pairs[mine]] = _edges()[best]

    _in_threads(search, _by_picture(source))
    return found, windows


def _in_threads(work: "Callable[[Numbers], None]", chunks: "Iterable[Numbers]") -> None:
    """Work on each chunk; numpy releases the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, chunks))


def _by_picture(source: "Numbers") -> "Iterator[Numbers]":
    """Yield the numbers of pairs, ordered by their first picture, `_CHUNK` pictures at a time."""
    order = np.argsort(source, kind="stable")
    ordered = source[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))[::_CHUNK]
    yield from np.split(order, begins[1:]) if len(order) else ()


def _fitted(
    sources: "NDArray[np.uint8]",
    wholes: "NDArray[np.uint8]",
    source: "Numbers",
    whole: "Numbers",
    windows: "NDArray[np.float64]",
) -> "NDArray[np.float64]":
    """Return the differences of pairs after moving the edges of windows, by steepest ascent."""
    found = np.empty(len(source))

    def fit(pairs: "Numbers") -> None:
        pictures = sources[source[pairs]].astype(np.float32)
        everything = np.broadcast_to([0.0, 1.0, 0.0, 1.0], (len(pairs), 1, 4))
        targets = _fine(wholes[whole[pairs]].astype(np.float32), everything)[:, 0]
        edges = windows[pairs]
        best = _agreement(pictures, targets, edges[:, None])[:, 0]
        steps = np.full(len(pairs), _STEP)
        while len(active := np.flatnonzero((steps >= _LAST_STEP) & (best < 1 - _SAME))):
            moved = np.clip(edges[active, None] + steps[active, None, None] * _MOVES, 0, 1)
            scores = _agreement(pictures[active], targets[active], moved)
            large = (moved[..., 1::2] - moved[..., ::2] >= _SMALLEST).all(axis=-1)
            scores[~large] = -np.inf
            choice = scores.argmax(axis=1)
            score = scores[np.arange(len(active)), choice]
            better = score > best[active] + _GAIN
            edges[active[better]] = moved[better, choice[better]]
            best[active[better]] = score[better]
            steps[active[~better]] /= 2
        found[pairs] = 1 - best

    chunks = np.split(np.arange(len(source)), range(_CHUNK, len(source), _CHUNK))
    _in_threads(fit, chunks if len(source) else ())
    return found


def _fine(pictures: "Floats", windows: "NDArray[np.float64]") -> "Floats":
    """Return the unit gradients (n, w, numbers) of windows (n, w, 4) of pictures."""
    down_mean, down_slope = _cells(windows[..., 0], windows[..., 1], _FINE)
    mean, slope = _cells(windows[..., 2], windows[..., 3], _FINE)
    pixels = pictures[:, None]
    across = (down_mean @ pixels) @ slope.swapaxes(-1, -2)
    down = (down_slope @ pixels) @ mean.swapaxes(-1, -2)
    gradients: Floats = np.stack([across, down], axis=2)
    return _unit(gradients.reshape(*windows.shape[:2], -1))


def _agreement(pictures: "Floats", targets: "Floats", windows: "NDArray[np.float64]") -> "Floats":
    """Return the correlation of each window (n, w, 4) with its target: (n, w)."""
    return (_fine(pictures, windows) @ targets[..., None])[..., 0]
