"""A convolutional autoencoder, trained on the user's own pictures, without any download.

Its file is in safetensors format, with the architecture in the metadata.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors
import torch
from torch import nn

from vecsearch.encoders.autoencoder import AUTOENCODER
from vecsearch.encoders.base import LATENT, Identity, Weights
from vecsearch.encoders.network import Network, TorchEncoder
from vecsearch.encoders.tensors import choose_device, read_tensors, tensors_sha256, write_tensors
from vecsearch.errors import WeightsMismatch, WeightsUnavailable
from vecsearch.imaging.preprocessing import Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Channels for 256 by 256 pixels; smaller inputs have fewer convolutions and use the last of these.
CHANNELS = (16, 16, 16, 32, 64, 128)
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
_METADATA_KEY = "vecsearch_autoencoder"


@dataclass(frozen=True)
class Architecture:
    """The shape of the network, saved with its tensors.

    Attributes:
        latent: dimensions of an embedding.
        image_size: width and height of the input, in pixels.
        channels: channels of each convolution, which halves width and height.
        activation: a key of `ACTIVATIONS`; the oldest files lack it.

    """

    latent: int
    image_size: int
    channels: tuple[int, ...]
    activation: str = "relu"

    @classmethod
    def for_size(cls, latent: int, image_size: int) -> Self:
        """Return the architecture for an image size, a power of two, halved down to 4 by 4."""
        halvings = image_size.bit_length() - 3
        return cls(latent, image_size, CHANNELS[-halvings:], "gelu")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the architecture that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: the text is not an architecture.

        """
        fields = json.loads(text)
        return cls(**{**fields, "channels": tuple(fields["channels"])})

    def to_json(self) -> str:
        """Return the architecture as text for the file's metadata."""
        return json.dumps(asdict(self))


class Autoencoder(nn.Module):
    """A network that encodes a picture as a few numbers and reconstructs it from them."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        activation = ACTIVATIONS[architecture.activation]
        widths = (3, *architecture.channels)
        side = architecture.image_size // 2 ** len(architecture.channels)
        flat = widths[-1] * side * side
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), activation()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, architecture.latent))
        up: list[nn.Module] = [
            nn.Linear(architecture.latent, flat),
            activation(),
            nn.Unflatten(1, (widths[-1], side, side)),
        ]
        for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), activation()]
        # The last activation keeps pixels between 0 and 1.
        self.decoder = nn.Sequential(*up[:-1], nn.Sigmoid())

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return reconstructions, same shape as `batch`: (n, 3, size, size), values 0..1."""
        drawn: torch.Tensor = self.decoder(self.encoder(batch))
        return drawn


def save(model: Autoencoder, output: Path) -> None:
    """Write the file that `AutoencoderEncoder.load` reads; on failure nothing changes."""
    write_tensors(model.state_dict(), output, {_METADATA_KEY: model.architecture.to_json()})


class AutoencoderEncoder(TorchEncoder):
    """The encoder half of a trained autoencoder. See `vecsearch.encoders.base.Encoder`."""

    def __init__(self, model: Autoencoder, weights: Weights, device: torch.device) -> None:
        size = model.architecture.image_size
        identity = Identity(
            backend=AUTOENCODER,
            model=AUTOENCODER,
            layer=LATENT,
            weights_sha256=tensors_sha256(model.encoder.state_dict()),
            preprocessing=_squashing(size),
        )
        network = Network(model.encoder, Preprocessing.of(identity.preprocessing), None)
        super().__init__(identity, weights, network, device)
        self.dimensions = model.architecture.latent
        self.layer_shape = (self.dimensions,)

    @classmethod
    def load(cls, file: str | Path, *, device: str) -> "AutoencoderEncoder":
        """Load a trained file.

        Raises:
            WeightsUnavailable: it cannot be read.
            WeightsMismatch: it is not an autoencoder of vecsearch.

        """
        path = Path(file).absolute()
        target = choose_device(device)
        if not path.is_file():
            raise WeightsUnavailable(f"The model file {path} does not exist. Check --model.")
        try:
            tensors, metadata = read_tensors(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsUnavailable(
                f"{path} cannot be read as a model file: {error}. "
                "Give one that vecsearch train autoencoder has written."
            ) from error
        try:
            model = Autoencoder(Architecture.from_json(metadata.get(_METADATA_KEY, "")))
            model.load_state_dict(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsMismatch(
                f"{path} is not an autoencoder that vecsearch has trained. "
                "For a timm model's weights use --model NAME --weights FILE."
            ) from error
        return cls(model, Weights.of_file(path), target)


def squashing(size: int) -> Preprocessing:
    """Return what resizes pictures to `size` by `size` pixels, ignoring the aspect ratio."""
    return Preprocessing.of(_squashing(size))


def _squashing(size: int) -> dict[str, Any]:
    return {"input_size": [3, size, size], "interpolation": "bilinear", "crop_mode": "squash"}


def to_input(pixels: Any) -> "NDArray[np.float32]":
    """Return (…, height, width, 3) bytes as (…, 3, height, width) floats in 0..1."""
    return np.ascontiguousarray(
        np.moveaxis(np.asarray(pixels), -1, -3).astype(np.float32) / np.float32(255)
    )
