"""Compare pictures by their structure, one cropped until it fits the other.

The difference of two pictures is 1 - r, where r is the correlation of their brightness gradients:
0 for equal pictures, about 1 for unrelated ones. Gradients ignore colour and brightness. A window
of one picture is compared with the whole other one, so that a cropped copy is recognised. `screen`
tries a grid of windows, on small squares; `fit` moves the edges of the best one, on larger ones,
which show what differs between two drawings of one layout.
"""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Pictures = NDArray[np.uint8]
    Floats = NDArray[np.float32]
    Edges = NDArray[np.float64]
    Numbers = NDArray[np.intp]

# Pictures are squeezed to squares of this many pixels a side, whatever their proportions.
SMALL, LARGE = 32, 96
# Pairs that differ by more on the grid are unrelated; variants of photos differ by up to 0.21.
UNRELATED = 0.3

# The grid: cells a side of a window, the sides of windows, and the step between them, as shares.
_CELLS = 16
_SIDES = (1.0, 0.95, 0.9, 0.85)
_STEP = 0.025
# No window becomes smaller than this. No better one is searched for below this difference.
_SMALLEST = 0.8
_SAME = 0.01
_GAIN = 1e-4
# Edges of a window: how each moves inward, and windows with one edge moved.
_WHOLE = np.array([0.0, 1.0, 0.0, 1.0])
_INWARD = np.array([1, -1, 1, -1])
_PROBES = np.concatenate([np.zeros((1, 4)), np.diag(_INWARD)])
_ROUNDS = 12
_LAST_STEP = 0.001
# Keeps moves small where a picture does not show how far an edge should move.
_RIDGE = 1e-4
# Gradients, in grey levels a cell: a picture with smaller ones shows nothing to compare.
_FLAT = 0.25
# In the last stage, those above the second are divided by a power of their size, so that an outline
# does not outvote all else.
_WEAK = 4.0
_EQUALISED = 0.7
_CHUNK = 64


class Screened(NamedTuple):
    """The best windows of pairs on the grid.

    Attributes:
        difference: float64 (m,).
        edges: top, bottom, left, right of a window as shares of the picture: float64 (m, 4).
        of_other: whether it is a window of the pair's second picture: bool (m,).

    """

    difference: "NDArray[np.float64]"
    edges: "Edges"
    of_other: "NDArray[np.bool_]"


@dataclass(frozen=True)
class _Grid:
    """The windows of one size: top and left edges, and maps from pixels to cells' gradients.

    Attributes:
        starts: float64 (n,), the edges in either direction.
        mean, slope: float32 (n * (_CELLS - 1), SMALL).

    """

    side: float
    starts: "NDArray[np.float64]"
    mean: "Floats"
    slope: "Floats"


@dataclass(frozen=True)
class _Stage:
    """How finely windows are compared while their edges move.

    Attributes:
        shrink: pixels that are averaged into one, in either direction.
        cells: into how many cells a window is averaged, in either direction.
        equalised: the power of their size by which gradients are divided: 0 is none.
        probe: how far edges move for derivatives.

    """

    shrink: int
    cells: int
    equalised: float
    probe: float


_STAGES = (
    _Stage(2, 24, 0.0, 0.01),
    _Stage(1, 48, _EQUALISED, 0.005),
)


def squeezed(thumbnail: bytes, side: int) -> "Pictures":
    """Return a picture in grey, squeezed to (side, side); the bytes are those of a thumbnail."""
    from PIL import Image

    with Image.open(io.BytesIO(thumbnail)) as picture:
        picture.draft("L", (side, side))  # JPEG alone; a quarter of the time
        grey = picture.convert("L").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def is_flat(pictures: "Pictures") -> "NDArray[np.bool_]":
    """Return for each picture (n, SMALL, SMALL) whether it shows nothing to compare."""
    flat = np.empty(len(pictures), bool)
    whole = _grids()[0]
    for start in range(0, len(pictures), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        gradients = _gradients(pictures[chunk].astype(np.float32), whole.mean, whole.slope)
        flat[chunk] = np.square(gradients).mean(axis=(1, 2, 3)) < _FLAT**2
    return flat


def screen(pictures: "Pictures", others: "Pictures", one: "Numbers", other: "Numbers") -> Screened:
    """Compare pairs of pictures, by windows of either.

    Args:
        pictures: (n, SMALL, SMALL).
        others: the same for the second pictures of pairs.
        one: the numbers of the first pictures of pairs, (m,).
        other: the numbers of the second pictures among `others`, (m,).

    """
    inward, edges = _on_grid(pictures, others, one, other)
    outward, edges_of_other = _on_grid(others, pictures, other, one)
    of_other = outward < inward
    return Screened(
        np.maximum(np.minimum(inward, outward), 0),
        np.where(of_other[:, None], edges_of_other, edges),
        of_other,
    )


def fit(sources: "Pictures", wholes: "Pictures", edges: "Edges") -> "NDArray[np.float64]":
    """Return the differences of pairs after moving the edges of windows, on finer cells.

    Args:
        sources: the pictures of which there are windows, (m, LARGE, LARGE).
        wholes: the pictures to compare them with.
        edges: of the windows, (m, 4), from `screen`.

    """
    found = np.empty(len(sources))

    def work(pairs: "Numbers") -> None:
        coarse, fine = _STAGES
        difference, moved = _fitted(sources[pairs], wholes[pairs], edges[pairs], coarse)
        # Small squares of a drawing may look alike in a window where the pictures do not.
        uncropped, of_whole = _fitted(
            sources[pairs], wholes[pairs], np.tile(_WHOLE, (len(pairs), 1)), coarse
        )
        moved = np.where((uncropped < difference)[:, None], of_whole, moved)
        found[pairs] = np.minimum(difference, uncropped)
        near = found[pairs] <= UNRELATED
        if near.any():
            pairs = pairs[near]
            found[pairs], _ = _fitted(sources[pairs], wholes[pairs], moved[near], fine)

    _in_threads(work, _chunks(np.arange(len(sources))))
    return np.maximum(found, 0)


@cache
def _grids() -> list[_Grid]:
    grids = []
    for side in _SIDES:
        starts = np.linspace(0, 1 - side, round((1 - side) / _STEP) + 1)
        mean, slope = _cells(starts, starts + side, _CELLS, SMALL)
        grids.append(_Grid(side, starts, mean.reshape(-1, SMALL), slope.reshape(-1, SMALL)))
    return grids


@cache
def _grid_edges() -> "Edges":
    """Return the edges of the windows of `_windows`."""
    return np.array(
        [
            (top, top + grid.side, left, left + grid.side)
            for grid in _grids()
            for top in grid.starts
            for left in grid.starts
        ]
    )


def _cells(
    low: "NDArray[np.float64]", high: "NDArray[np.float64]", cells: int, pixels: int
) -> "tuple[Floats, Floats]":
    """Return maps from pixels to means and to differences of neighbouring cells of windows.

    Args:
        low: where windows begin, as a share of the side; any shape (…).
        high: where they end.
        cells: into how many cells a window is averaged.
        pixels: of the picture, a side.

    Returns:
        Two arrays (…, cells - 1, pixels).

    """
    share = np.arange(cells + 1) / cells
    edges = pixels * (low[..., None] + (high - low)[..., None] * share)[..., None]
    pixel = np.arange(pixels)
    within = np.minimum(edges[..., 1:, :], pixel + 1) - np.maximum(edges[..., :-1, :], pixel)
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
    cells = _CELLS - 1
    parts = []
    for grid in grids:
        count = len(grid.starts)
        found = _gradients(pictures, grid.mean, grid.slope)
        found = found.reshape(len(pictures), 2, count, cells, count, cells)
        parts.append(found.transpose(0, 2, 4, 1, 3, 5).reshape(len(pictures), count**2, -1))
    return _unit(np.concatenate(parts, axis=1))


def _on_grid(
    sources: "Pictures", wholes: "Pictures", source: "Numbers", whole: "Numbers"
) -> "tuple[NDArray[np.float64], Edges]":
    """Return the smallest difference of windows of sources to whole pictures, and the windows."""
    found, edges = np.empty(len(source)), np.empty((len(source), 4))

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
            edges[pairs[mine]] = _grid_edges()[best]

    order = np.argsort(source, kind="stable")
    begins = np.flatnonzero(np.diff(source[order], prepend=-1))
    _in_threads(search, np.split(order, begins[_CHUNK::_CHUNK]) if len(order) else ())
    return found, edges


def _in_threads(work: "Callable[[Numbers], None]", chunks: "Iterable[Numbers]") -> None:
    """Work on each chunk; numpy releases the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, chunks))


def _chunks(numbers: "Numbers") -> "Iterator[Numbers]":
    for start in range(0, len(numbers), _CHUNK):
        yield numbers[start : start + _CHUNK]


def _fitted(
    sources: "Pictures", wholes: "Pictures", edges: "Edges", stage: _Stage
) -> "tuple[NDArray[np.float64], Edges]":
    """Return the differences of pairs, and the edges of their windows, after one stage.

    Gauss and Newton's method, whose derivatives are those of windows a little smaller.
    """
    pictures = _shrunk(sources, stage.shrink)
    whole = np.broadcast_to(_WHOLE, (len(wholes), 1, 4))
    targets = _features(_shrunk(wholes, stage.shrink), whole, stage)
    best, at_best = np.full(len(edges), -np.inf), edges.copy()
    active, trial = np.arange(len(edges)), edges
    for _ in range(_ROUNDS):
        probes = trial[:, None] + stage.probe * _PROBES
        found = _features(pictures[active], probes, stage)
        here, target = found[:, :1], targets[active]
        score = (here * target).sum(axis=(1, 2), dtype=np.float64)
        gain = score - best[active]
        better = active[gain > 0]
        best[better], at_best[better] = score[gain > 0], trial[gain > 0]
        slopes = found[:, 1:] - here
        curvature = slopes @ slopes.swapaxes(-1, -2) + _RIDGE * np.eye(4, dtype=np.float32)
        ascent = np.linalg.solve(curvature, slopes @ (target - here).swapaxes(-1, -2))[..., 0]
        moved = trial + np.clip(ascent * stage.probe, -_STEP, _STEP) * _INWARD
        # A step that went too far is halved.
        moved = np.where(gain[:, None] > 0, moved, (at_best[active] + trial) / 2).clip(0, 1)
        large = (moved[:, 1::2] - moved[:, ::2] >= _SMALLEST).all(axis=1)
        far = np.abs(moved - at_best[active]).max(axis=1) >= _LAST_STEP
        goes_on = ((gain <= 0) | (gain > _GAIN)) & far & large & (best[active] < 1 - _SAME)
        active, trial = active[goes_on], moved[goes_on]
        if not len(active):
            break
    return 1 - best, at_best


def _shrunk(pictures: "Pictures", by: int) -> "Floats":
    side = LARGE // by
    means: Floats = pictures.reshape(-1, side, by, side, by).mean(axis=(2, 4), dtype=np.float32)
    return means


def _features(pictures: "Floats", windows: "Edges", stage: _Stage) -> "Floats":
    """Return the unit gradients (n, w, numbers) of windows (n, w, 4) of pictures."""
    pixels = pictures.shape[-1]
    down_mean, down_slope = _cells(windows[..., 0], windows[..., 1], stage.cells, pixels)
    mean, slope = _cells(windows[..., 2], windows[..., 3], stage.cells, pixels)
    across = (down_mean @ pictures[:, None]) @ slope.swapaxes(-1, -2)
    down = (down_slope @ pictures[:, None]) @ mean.swapaxes(-1, -2)
    gradients: Floats = np.stack([across, down], axis=2)
    if stage.equalised:
        sizes = np.square(gradients).sum(axis=2, keepdims=True)
        gradients *= (sizes / _WEAK**2 + 1) ** (-stage.equalised / 2)
    return _unit(gradients.reshape(*windows.shape[:2], -1))
