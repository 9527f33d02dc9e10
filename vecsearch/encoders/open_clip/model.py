"""A model of open_clip as an encoder: pictures by one tower, sentences by the other."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from vecsearch.encoders.base import POOLED, Identity, Weights
from vecsearch.encoders.network import Network, TorchEncoder, TorchTexts
from vecsearch.encoders.open_clip import CONFIG, OPEN_CLIP
from vecsearch.encoders.open_clip.names import Model, parse
from vecsearch.encoders.open_clip.weights import read_model
from vecsearch.encoders.tensors import choose_device, tensors_sha256
from vecsearch.errors import EncoderError
from vecsearch.imaging.preprocessing import Preprocessing

# Our name of open_clip's resize mode. "longest" pads with black, and we pad with the mean.
CROP_MODES = {"shortest": "center", "squash": "squash"}
FILTERS = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}


class Tower(torch.nn.Module):
    """One tower of a model of open_clip.

    Args:
        model: the model.
        encode: the method that the tower is: encode_image or encode_text.

    """

    def __init__(self, model: torch.nn.Module, encode: str) -> None:
        super().__init__()
        self.model = model
        self.encode = encode

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return embeddings, shape (n, dimensions), not normalised."""
        embeddings: torch.Tensor = getattr(self.model, self.encode)(inputs, normalize=False)
        return embeddings


class OpenClipEncoder(TorchEncoder):
    """A model of open_clip. See `vecsearch.encoders.base.Encoder`.

    Its identity has the hash of both towers' weights, and the architecture in the preprocessing.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        preprocessing: Mapping[str, Any],
        weights: Weights,
        device: torch.device,
    ) -> None:
        identity = Identity(
            backend=OPEN_CLIP,
            model=name,
            layer=POOLED,
            weights_sha256=tensors_sha256(model.state_dict()),
            preprocessing=dict(preprocessing),
        )
        images = Network(
            Tower(model, "encode_image"), Preprocessing.of(identity.preprocessing), None
        )
        super().__init__(identity, weights, images, device)
        self._model = model
        self.dimensions = int(identity.preprocessing[CONFIG]["embed_dim"])
        self.layer_shape = (self.dimensions,)

    @classmethod
    def load(cls, model: str, weights: str | Path | None, *, device: str) -> "OpenClipEncoder":
        """Load a model by its --model value, from a file or the hub. See `registry.load`."""
        target = choose_device(device)
        named = parse(model)
        made, used = read_model(named.name, named.config, named.pretrained, weights)
        return cls(made, named.name, _preprocessing(made, named), used, target)

    @classmethod
    def load_stored(
        cls, stored: Identity, source: str | Path | None, *, device: str
    ) -> "OpenClipEncoder":
        """Load a stored model; its config is in its identity."""
        target = choose_device(device)
        pretrained = parse(stored.model).pretrained if source is None else None
        config = stored.preprocessing[CONFIG]
        made, used = read_model(stored.model, config, pretrained, source)
        return cls(made, stored.model, stored.preprocessing, used, target)

    def texts(self) -> TorchTexts:
        """See `TorchEncoder`; the result does not keep the image tower in memory."""
        model = copy(self._model)
        model.__dict__["_modules"] = {
            name: module for name, module in self._model.named_children() if name != "visual"
        }
        return TorchTexts(Tower(model, "encode_text").eval(), self.device)


def _preprocessing(model: torch.nn.Module, named: Model) -> dict[str, Any]:
    """Return open_clip's preprocessing in timm's terms, as identities have it, and the config.

    Raises:
        EncoderError: vecsearch cannot prepare pictures like that.

    """
    wanted = merge_preprocess_dict(PreprocessCfg(), named.preprocessing)
    size: Any = getattr(model.visual, "image_size")  # noqa: B009 - torch types what a module has
    height, width = (size, size) if isinstance(size, int) else size
    mode, resampling = wanted["resize_mode"], wanted["interpolation"]
    if mode not in CROP_MODES or resampling not in FILTERS:
        raise EncoderError(
            f"{named.name} resizes pictures by {mode!r} and {resampling!r}, and vecsearch knows "
            f"{' and '.join(CROP_MODES)}, {' and '.join(FILTERS)}. Name another --model."
        )
    # open_clip uses no other to resize the shorter side of what is not square.
    has_choice = height == width or mode == "squash"
    return {
        "crop_mode": CROP_MODES[mode],
        "crop_pct": 1.0,
        "input_size": [3, int(height), int(width)],
        "interpolation": FILTERS[resampling] if has_choice else "bicubic",
        "mean": _channels(wanted["mean"]),
        "std": _channels(wanted["std"]),
        CONFIG: named.config,
    }


def _channels(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(one) for one in value]
