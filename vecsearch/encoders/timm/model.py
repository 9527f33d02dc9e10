"""Any timm model as an encoder: one of its layers, its own preprocessing."""

from pathlib import Path
from typing import Any

import torch
from timm.data.config import resolve_model_data_config

from vecsearch.encoders.base import POOLED, Identity, Weights
from vecsearch.encoders.network import Network, TorchEncoder
from vecsearch.encoders.tensors import choose_device, tensors_sha256
from vecsearch.encoders.timm import TIMM
from vecsearch.encoders.timm.names import FC1, FC1_MODULE, parse
from vecsearch.encoders.timm.packaged import packaged_source
from vecsearch.encoders.timm.weights import is_of_head, read_model
from vecsearch.errors import EncoderError
from vecsearch.imaging.preprocessing import Preprocessing


class TimmEncoder(TorchEncoder):
    """A layer of a timm model, averaged to a vector. See `vecsearch.encoders.base.Encoder`.

    Maps are averaged over height and width, token sequences over tokens.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        layer: str,
        weights: Weights,
        device: torch.device,
    ) -> None:
        # The preprocessing depends on the weights; the defaults of create_transform differ.
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]  # timm leaves it untyped
        identity = Identity(
            backend=TIMM,
            model=name,
            layer=layer,
            weights_sha256=tensors_sha256(model.state_dict()),
            preprocessing={
                key: list(value) if isinstance(value, tuple) else value
                for key, value in sorted(config.items())
            },
        )
        tap = {POOLED: None, FC1: FC1_MODULE}.get(layer, layer)
        network = Network(model, Preprocessing.of(identity.preprocessing), tap)
        super().__init__(identity, weights, network, device)
        # With two pictures: a layer that works on windows has another number of outputs.
        output = self._output_for_two()
        self.layer_shape = tuple(output.shape[1:])
        self.network.averaged = self._axes(output)
        averaged = set(self.network.averaged)
        [self.dimensions] = (
            side for axis, side in enumerate(output.shape) if axis and axis not in averaged
        )

    @classmethod
    def load(cls, model: str, weights: str | Path | None, *, device: str) -> "TimmEncoder":
        """Load a model by name, from a file, a package or the hub. See `registry.load`."""
        name, layer = parse(model)
        return cls.load_from(name, layer, weights or packaged_source(name), device=device)

    @classmethod
    def load_from(
        cls, name: str, layer: str, source: str | Path | None, *, device: str
    ) -> "TimmEncoder":
        """Load a model by its full name.

        Args:
            name: timm's name, with the tag.
            layer: its canonical name.
            source: see `vecsearch.encoders.base.Weights`.
            device: see `registry.load`.

        """
        target = choose_device(device)
        model, used = read_model(name, source, with_head=is_of_head(layer, name))
        return cls(model, name, layer, used, target)

    def _output_for_two(self) -> torch.Tensor:
        match outputs := self.outputs_for_two():
            case [torch.Tensor() as output] if output.ndim > 1 and len(output) == 2:  # noqa: PLR2004
                return output
            case [output]:
                raise self._unusable(_described(output))
        raise self._unusable(f"{len(outputs)} outputs" if outputs else "nothing")

    def _axes(self, output: torch.Tensor) -> tuple[int, ...]:
        """Return the axes of height and width, or of tokens."""
        size = self.preprocessing
        match output.shape[1:]:
            case (_,):
                return ()
            case (_, _):
                return (1,)
            case (first, second, third):
                channels_last = getattr(self.network.model, "output_fmt", "") == "NHWC"
                if size.height != size.width or first == second == third:
                    return (1, 2) if channels_last else (2, 3)
                # A layer's axes may differ from its model's; the map of a square picture is square.
                if second == third:
                    return (2, 3)
                if first == second:
                    return (1, 2)
        raise self._unusable(_described(output))

    def _unusable(self, given: str) -> EncoderError:
        return EncoderError(
            f"Layer {self.identity.layer} of {self.identity.model} gives {given} for 2 pictures, "
            "where a vector, a map or a sequence of tokens for each is needed. Name another layer."
        )


def _described(output: Any) -> str:
    if not isinstance(output, torch.Tensor):
        return f"a {type(output).__name__}"
    return " × ".join(map(str, output.shape)) or "a number"
