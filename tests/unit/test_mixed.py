"""Int8 with some layers in float32: which, how many, and what that does to a real network."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import picture

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.encoders.openvino import choice, mixed, quantize
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.encoders.openvino.engine import EngineEncoder

NOTHING = np.zeros((4, 1), np.float32)
PICTURES = np.zeros((4, 1, 1, 3), np.uint8)


def test_the_layers_that_spoil_the_real_network_are_found_and_left(tmp_path: Path) -> None:
    encoder = registry.quickest(PACKAGED_MODEL, None, Runtime("cpu", "openvino", tmp_path))
    pictures = np.stack(
        [encoder.preprocessing.prepare(picture(seed, (300, 260))) for seed in range(8)]
    )
    exact = encoder.embed(pictures)
    exported = choice.exported(encoder.identity, Runtime("cpu", "openvino", tmp_path))

    def embed(made: Exported, some: NDArray[np.uint8]) -> NDArray[np.float32]:
        return EngineEncoder(encoder.identity, encoder.weights, made).embed(some)

    layers = quantize.layers(exported)
    assert len(layers) == 50
    assert len(layers[-1]) == 9  # additions of the residual connections
    # The second sees every pixel, through nine weights a channel.
    few = [layers[30], layers[1]]
    assert mixed.by_error(exported, few, pictures, exact, embed) == [layers[1], layers[30]]
    left = quantize.quantize(exported, pictures[::2], [*layers[0], *layers[1]])
    # All in int8: 0.16.
    assert quantize.departure(exact, embed(left, pictures)) < 0.03


class Additive:
    """Stands in for NNCF: each layer in int8 loses a share of the neighbours of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
        self.losses = {f"layer {place}": loss for place, loss in enumerate(losses)}
        self.quantised = 0
        monkeypatch.setattr(quantize, "layers", lambda _: [[name] for name in self.losses])
        monkeypatch.setattr(quantize, "quantize", self.quantize)
        monkeypatch.setattr(quantize, "neighbours_kept", lambda _, lost: 1.0 - float(lost[0, 0]))
        monkeypatch.setattr(quantize, "departure", lambda _, lost: float(lost[0, 0]))

    def quantize(self, _: Exported, __: NDArray[np.uint8], left: list[str]) -> Exported:
        self.quantised += 1
        lost = sum(loss for name, loss in self.losses.items() if name not in left)
        return Exported(str(lost).encode(), b"", 1, (1,))

    def choose(self) -> mixed.Mixed:
        def embed(made: Exported, some: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.full((len(some), 1), float(made.model), np.float32)

        return mixed.choose(Exported(b"", b"", 1, (1,)), PICTURES, NOTHING, embed)


def test_as_few_layers_stay_as_keep_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [0.0001] * 64
    for place in (3, 40, 41, 42, 60):
        losses[place] = 0.02
    nncf = Additive(monkeypatch, losses)
    chosen = nncf.choose()
    # Five must stay, and layers go in steps of four.
    assert (chosen.in_float32, chosen.layers) == (8, 64)
    assert chosen.neighbours_kept == pytest.approx(1 - 56 * 0.0001)
    assert nncf.quantised == 1 + 64 + 4


def test_nothing_is_searched_where_all_of_int8_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    nncf = Additive(monkeypatch, [0.001] * 20)
    assert nncf.choose().in_float32 == 0
    assert nncf.quantised == 1


def test_a_network_that_int8_ruins_keeps_what_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Additive(monkeypatch, [0.03] * 16).choose()
    assert chosen.in_float32 == 15
    assert chosen.neighbours_kept == pytest.approx(0.97)
