"""Choose the layers of an int8 encoder that stay in float32, by what int8 does to the embeddings.

In a small network int8 costs a tenth of each picture's neighbours, and a few layers cause most of
that. The layers are ranked by the error that each causes alone, and as few are left in float32 as
keep enough neighbours. Errors of single layers add up well enough for this. Source: Wu et al.,
Integer Quantization for Deep Learning Inference (2020), on partial quantization.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.encoders.openvino import quantize
from vecsearch.encoders.openvino.cache import Exported

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Among more pictures, neighbours are closer together, and more are lost: with the packaged network
# this leaves 0.975 on 799 photos (benchmarks/int8.py), where all layers in bfloat16 keep 0.973.
LEAST_KEPT = 0.978
# Layers are left out in this many steps, which are searched by bisection.
STEPS = 16
# Pictures that layers are ranked on; half of them calibrate.
RANKED_ON = 64

Embed = Callable[[Exported, "NDArray[np.uint8]"], "NDArray[np.float32]"]


@dataclass(frozen=True)
class Mixed:
    """An encoder in int8, with some layers in float32.

    Attributes:
        exported: its export.
        neighbours_kept: share of the pictures' nearest neighbours in float32 that it finds.
        in_float32: number of layers in float32.
        layers: number of all layers.

    """

    exported: Exported
    neighbours_kept: float
    in_float32: int
    layers: int


def choose(
    exported: Exported,
    pictures: "NDArray[np.uint8]",
    exact: "NDArray[np.float32]",
    embed: Embed,
) -> Mixed:
    """Quantise an export, leaving as few layers in float32 as keep `LEAST_KEPT` of neighbours.

    If too many layers would have to stay, most of them do, and fewer neighbours are kept.

    Args:
        exported: the export in float32.
        pictures: representative prepared pictures. Every second one calibrates; neighbours are
            compared among all.
        exact: their embeddings in float32.
        embed: runs an export on pictures.

    Raises:
        EncoderError: NNCF cannot quantise the network.

    """
    layers = quantize.layers(exported)

    def attempt(left: list[list[str]]) -> Mixed:
        names = [name for layer in left for name in layer]
        made = quantize.quantize(exported, pictures[::2], names)
        kept = quantize.neighbours_kept(exact, embed(made, pictures))
        return Mixed(made, kept, len(left), len(layers))

    whole = attempt([])
    if whole.neighbours_kept >= LEAST_KEPT:
        return whole
    ranked = by_error(exported, layers, pictures, exact, embed)
    attempts: dict[int, Mixed] = {}

    def enough(step: int) -> bool:
        attempts[step] = attempt(ranked[: -(-step * len(ranked) // STEPS)])
        return attempts[step].neighbours_kept >= LEAST_KEPT

    steps = range(1, STEPS)
    return attempts[steps[min(bisect_left(steps, True, key=enough), len(steps) - 1)]]


def by_error(
    exported: Exported,
    layers: list[list[str]],
    pictures: "NDArray[np.uint8]",
    exact: "NDArray[np.float32]",
    embed: Embed,
) -> list[list[str]]:
    """Return layers by the error that each causes when it alone is in int8, the largest first.

    The error is measured on other pictures than those that calibrate.
    """
    count = min(RANKED_ON, len(pictures))
    some = np.linspace(0, len(pictures), count, endpoint=False, dtype=int)
    seen, judged = some[::2], some[1::2]
    errors = []
    for layer in layers:
        others = [name for other in layers if other is not layer for name in other]
        alone = quantize.quantize(exported, pictures[seen], others)
        errors.append(quantize.departure(exact[judged], embed(alone, pictures[judged])))
    return [layers[place] for place in np.argsort(-np.array(errors), kind="stable")]
