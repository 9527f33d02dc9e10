"""A convolutional autoencoder: an encoder of one's own, from one's own pictures, no download.

The file is safetensors: tensors, and the architecture as its metadata.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from vecsearch import schema
from vecsearch.encoders import AUTOENCODER, LATENT, Identity, Weights
from vecsearch.encoders.torch_support import choose_device, tensors_sha256
from vecsearch.errors import InvalidInput, WeightsMismatch, WeightsUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

IMAGE_SIZE = 256
VALIDATION_SHARE = 0.2
TRAINING_BATCH_SIZE = 16
LEARNING_RATE = 1e-3
_METADATA_KEY = "vecsearch_autoencoder"


@dataclass(frozen=True)
class Architecture:
    """The shape of the network, saved with its tensors.

    Attributes:
        latent: numbers in one embedding.
        image_size: pixels on each side of the input.
        channels: of each convolution; each halves the width and height.

    """

    latent: int = 16
    image_size: int = IMAGE_SIZE
    channels: tuple[int, ...] = (16, 32, 64, 64, 64)


class Autoencoder(nn.Module):
    """Squeezes a picture through a few numbers and draws it again."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        widths = (3, *architecture.channels)
        side = architecture.image_size // 2 ** len(architecture.channels)
        flat = widths[-1] * side * side
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, architecture.latent))
        up: list[nn.Module] = [
            nn.Linear(architecture.latent, flat),
            nn.ReLU(),
            nn.Unflatten(1, (widths[-1], side, side)),
        ]
        for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True):
            up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        # The last activation keeps pixels in 0..1.
        self.decoder = nn.Sequential(*up[:-1], nn.Sigmoid())

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return reconstructions, same shape as `batch`: (n, 3, size, size), values 0..1."""
        drawn: torch.Tensor = self.decoder(self.encoder(batch))
        return drawn


class AutoencoderEncoder:
    """The encoder half of a trained autoencoder. See `vecsearch.encoders.Encoder`."""

    def __init__(self, model: Autoencoder, weights: Weights, device: torch.device) -> None:
        self.identity = Identity(
            model=AUTOENCODER,
            layer=LATENT,
            weights_sha256=tensors_sha256(model.encoder.state_dict()),
            preprocessing={
                "input_size": [3, model.architecture.image_size, model.architecture.image_size],
                "interpolation": "bilinear",
                "crop_mode": "squash",
            },
        )
        self.weights = weights
        self.dimensions = model.architecture.latent
        self.layer_shape: tuple[int, ...] = (self.dimensions,)
        self._size = model.architecture.image_size
        self._device = device
        self._encoder = model.encoder.eval().to(device)

    @classmethod
    def load(cls, file: str | Path, *, device: str) -> "AutoencoderEncoder":
        """Load a trained file.

        Raises:
            WeightsUnavailable: it cannot be read.
            WeightsMismatch: it is not an autoencoder of ours.

        """
        path = Path(file).absolute()
        target = choose_device(device)
        if not path.is_file():
            raise WeightsUnavailable(f"The model file {path} does not exist. Check --model.")
        try:
            with safetensors.safe_open(path, framework="pt") as opened:
                metadata = (opened.metadata() or {}).get(_METADATA_KEY)
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsUnavailable(
                f"{path} cannot be read as a model file: {error}. "
                "Give one that vecsearch train autoencoder has written."
            ) from error
        try:
            fields = json.loads(metadata or "")
            model = Autoencoder(Architecture(**{**fields, "channels": tuple(fields["channels"])}))
            model.load_state_dict(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsMismatch(
                f"{path} is not an autoencoder that vecsearch has trained. "
                "For a timm model's weights use --model NAME --weights FILE."
            ) from error
        return cls(model, Weights.of_file(path), target)

    def prepare(self, pixels: "Picture") -> "NDArray[np.float32]":
        """Resize to the network's input and scale to 0..1."""
        return _to_input(_squash(pixels, self._size))

    def embed(self, batch: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return latents, shape (n, dimensions)."""
        with torch.inference_mode():
            inputs = torch.from_numpy(batch).to(self._device)
            latents: NDArray[np.float32] = self._encoder(inputs).cpu().numpy()
        return latents


@dataclass(frozen=True)
class Epoch:
    """What one pass over the pictures came to; losses are mean squared errors of 0..1 pixels."""

    epoch: int
    epochs: int
    training_loss: float
    validation_loss: float
    best: bool


def train(
    pictures: Iterable["Picture"],
    count: int,
    output: Path,
    *,
    latent: int = 16,
    epochs: int = 30,
    seed: int = 0,
    device: str = "auto",
    on_batch: Callable[[int, int], None] = lambda _epoch, _pictures: None,
) -> Iterator[Epoch]:
    """Train on pictures and keep the epoch with the least validation loss in `output`.

    A fifth of the pictures, chosen by `seed`, is for validation alone. The pictures wait in a
    temporary file between epochs, so memory does not grow with their number.

    Args:
        pictures: mode RGB, any size; at most `count` of them.
        count: upper bound on the number of pictures.
        output: replaced only once an epoch is complete.
        latent: numbers in one embedding.
        epochs: passes over the pictures.
        seed: of the split, the order, and the first weights.
        device: "auto", "cpu", "cuda", …
        on_batch: called with the epoch, from 1, and the number of pictures just trained on.

    Yields:
        One `Epoch` after each pass.

    Raises:
        InvalidInput: fewer than five pictures, or a nonsensical number.

    """
    if not 1 <= latent <= schema.MAX_DIMENSIONS or epochs < 1:
        raise InvalidInput(
            f"--latent is 1 to {schema.MAX_DIMENSIONS:,}, --epochs 1 or more. Give such numbers."
        )
    if not 0 <= seed < 2**63:
        raise InvalidInput("--seed is 0 or more, below 2**63. Give such a number.")
    target = choose_device(device)
    architecture = Architecture(latent=latent)
    with _stored(pictures, count, architecture.image_size) as stored:
        least = round(1 / VALIDATION_SHARE)
        if len(stored) < least:
            raise InvalidInput(
                f"{len(stored)} pictures are too few to train on. Give at least {least}; "
                "hundreds are better."
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Autoencoder(architecture).to(target)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        order = np.random.default_rng(seed).permutation(len(stored))
        held_out = max(1, int(len(stored) * VALIDATION_SHARE))
        validation, training = order[:held_out], order[held_out:]
        shuffle = np.random.default_rng(seed)
        best = float("inf")
        for epoch in range(1, epochs + 1):
            model.train()
            total = 0.0
            for rows in _batches(shuffle.permutation(training)):
                batch = torch.from_numpy(_to_input(stored[np.sort(rows)])).to(target)
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(batch), batch)
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                total += loss.item() * len(rows)
                on_batch(epoch, len(rows))
            validation_loss = _loss(model, stored, validation, target)
            improved = validation_loss < best
            if improved:
                best = validation_loss
                _save(model, output)
            yield Epoch(epoch, epochs, total / len(training), validation_loss, improved)


def _loss(
    model: Autoencoder,
    stored: "NDArray[np.uint8]",
    rows: "NDArray[np.int64]",
    device: torch.device,
) -> float:
    model.eval()
    total = 0.0
    with torch.inference_mode():
        for some in _batches(rows):
            batch = torch.from_numpy(_to_input(stored[np.sort(some)])).to(device)
            total += nn.functional.mse_loss(model(batch), batch).item() * len(some)
    return total / len(rows)


def _save(model: Autoencoder, output: Path) -> None:
    """Write the file whole or not at all."""
    partial = output.with_name(f".{output.name}.partial")
    metadata = {_METADATA_KEY: json.dumps(asdict(model.architecture))}
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        partial,
        metadata=metadata,
    )
    partial.chmod(0o644)  # safetensors writes for the owner alone
    partial.replace(output)


def _batches(rows: "NDArray[np.int64]") -> "list[NDArray[np.int64]]":
    return np.array_split(rows, range(TRAINING_BATCH_SIZE, len(rows), TRAINING_BATCH_SIZE))


@contextmanager
def _stored(pictures: Iterable["Picture"], count: int, size: int) -> "Iterator[NDArray[np.uint8]]":
    """Yield the pictures as one array on disk, shape (n, size, size, 3)."""
    with TemporaryFile() as file:
        number = 0
        for picture in pictures:
            file.write(np.asarray(_squash(picture, size)).tobytes())
            number += 1
            if number == count:
                break
        file.flush()
        shape = (number, size, size, 3)
        yield (np.memmap(file, np.uint8, "r", shape=shape) if number else np.empty(shape, np.uint8))


def _squash(pixels: "Picture", size: int) -> "Picture":
    from PIL.Image import Resampling

    return pixels.resize((size, size), Resampling.BILINEAR)


def _to_input(pixels: Any) -> "NDArray[np.float32]":
    """Return (…, height, width, 3) bytes as (…, 3, height, width) floats in 0..1."""
    return np.ascontiguousarray(
        np.moveaxis(np.asarray(pixels), -1, -3).astype(np.float32) / np.float32(255)
    )
