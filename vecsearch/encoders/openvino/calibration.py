"""Calibrate an int8 encoder for a new collection on the collection's own pictures."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.config import Runtime
from vecsearch.encoders.base import Encoder
from vecsearch.encoders.openvino import choice, mixed, quantize
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.encoders.openvino.engine import EngineEncoder
from vecsearch.errors import InvalidInput
from vecsearch.imaging import pictures, scan
from vecsearch.imaging.pictures import Made, Wanted

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURES = 600
# Fewer pictures do not represent the collection.
FEWEST = 20


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        encoder: the quantised encoder.
        exported: its model, to store with the collection.
        pictures: number of pictures used for calibration and comparison.
        neighbours_kept: share of their ten nearest neighbours in fp32 that int8 finds, 0 to 1.
        in_float32: number of layers that stay in float32.
        layers: number of all layers.
        seconds: duration of the calibration.

    """

    encoder: EngineEncoder
    exported: Exported
    pictures: int
    neighbours_kept: float
    in_float32: int
    layers: int
    seconds: float

    @property
    def note(self) -> str:
        """A note for the user."""
        return (
            f"int8 finds {self.neighbours_kept:.1%} of the 10 nearest that fp32 finds, measured on "
            f"the {self.pictures} pictures of its calibration, which took {self.seconds:.0f} s; "
            f"{self.in_float32} of {self.layers} layers stay in fp32."
        )


def calibrate(
    encoder: Encoder, walk: Iterable[scan.File], runtime: Runtime, *, max_pixels: int
) -> Calibrated:
    """Quantise an encoder with pictures spread evenly over a walk.

    Args:
        encoder: the encoder, in fp32.
        walk: the files to choose from.
        runtime: how encoders run; only OpenVINO runs int8.
        max_pixels: pictures with more pixels are skipped.

    Raises:
        InvalidInput: there are too few pictures, or NNCF is not installed.
        EncoderError: the encoder cannot be quantised.

    """
    started = perf_counter()
    quantize.require_quantizer()
    runtime = choice.require_engine(runtime)
    inputs = _spread(encoder, walk, max_pixels)
    exact = encoder.embed(inputs)
    exported = choice.exported(encoder.identity, runtime)

    def engine(made: Exported) -> EngineEncoder:
        identity = replace(encoder.identity, precision=quantize.precision_of(made))
        return EngineEncoder(identity, encoder.weights, made)

    chosen = mixed.choose(exported, inputs, exact, lambda made, some: engine(made).embed(some))
    return Calibrated(
        engine(chosen.exported),
        chosen.exported,
        len(inputs),
        chosen.neighbours_kept,
        chosen.in_float32,
        chosen.layers,
        perf_counter() - started,
    )


def _spread(encoder: Encoder, walk: Iterable[scan.File], max_pixels: int) -> "NDArray[np.uint8]":
    """Return prepared pictures spread evenly over a walk; few files are held in memory at once."""
    chosen: list[scan.File] = []
    step = 1
    for place, file in enumerate(walk):
        if place % step == 0:
            chosen.append(file)
        if len(chosen) > 2 * PICTURES:
            chosen, step = chosen[::2], 2 * step
    places = np.linspace(0, len(chosen), min(PICTURES, len(chosen)), endpoint=False, dtype=int)
    wanted = Wanted(preprocessing=encoder.preprocessing)
    made = (pictures.make(chosen[place].path, wanted, max_pixels=max_pixels) for place in places)
    inputs = [each.inputs for each in made if isinstance(each, Made) and each.inputs is not None]
    if len(inputs) < FEWEST:
        raise InvalidInput(
            f"{len(inputs)} pictures are too few to calibrate int8 on. "
            f"Give at least {FEWEST}, or leave --precision out."
        )
    return np.stack(inputs)
