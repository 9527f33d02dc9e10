"""Encoders turn pixels into vectors. Importing this loads no torch; using an encoder does."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vecsearch.encoders.once import Once
from vecsearch.vocabulary import MAX_HALF, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture


DEFAULT_MODEL = "resnet50"
# How many pictures an encoder is given at once. A processor's cache holds as many: ResNet50 takes
# 47 ms of CPU a picture in batches of 8, 58 of 16, 65 of 32.
BATCH_SIZE = 8
# The backend of imported vectors whose weights are not known.
UNKNOWN = "unknown"
# The layers that a model's name alone means; each family has one of them.
POOLED = "pooled"
LATENT = "latent"


@dataclass(frozen=True)
class Identity:
    """What makes two vectors comparable: all of it must be equal.

    Attributes:
        backend: the encoder family, such as "timm"; `UNKNOWN` if `weights_sha256` is None.
        model: a timm model with its tag, or "autoencoder".
        layer: the layer whose output is the embedding.
        weights_sha256: of the loaded tensors, by name; independent of the file's format. None:
            the vectors were imported, and which weights made them is not known.
        preprocessing: how a picture becomes the encoder's input; JSON values.
        precision: "fp32", or "int8-" and the hash of the quantised network, of which two
            calibrations never make the same.

    """

    backend: str
    model: str
    layer: str
    weights_sha256: str | None
    preprocessing: dict[str, Any]
    precision: str = Precision.fp32.value

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Identity":
        """Return the identity that an exported file tells; older files do not tell the backend.

        Raises:
            TypeError, KeyError: the fields are not an identity's.

        """
        if "backend" in fields:
            return cls(**fields)
        backend = "autoencoder" if fields["model"] == "autoencoder" else "timm"
        return cls(UNKNOWN if fields["weights_sha256"] is None else backend, **fields)

    @property
    def computes_in(self) -> Precision:
        """The precision, without the hash of the quantised network."""
        return Precision(self.precision.partition("-")[0])

    @property
    def name(self) -> str:
        """The model, and the layer unless it is the one that the model alone means."""
        return self.model if self.layer in {POOLED, LATENT} else f"{self.model}.{self.layer}"


@dataclass(frozen=True)
class Weights:
    """Where weights came from.

    Attributes:
        source: an absolute path; None is the model hub.
        file_sha256: of that file when it was read; None with the hub.

    """

    source: str | None
    file_sha256: str | None

    @classmethod
    def of_file(cls, path: str | Path) -> "Weights":
        """Describe a file as it is now."""
        return cls(str(Path(path).absolute()), file_sha256(path))


class Encoder(Protocol):
    """Turns pictures into vectors."""

    @property
    def identity(self) -> Identity:
        """What this encoder's vectors can be compared with."""

    @property
    def weights(self) -> Weights:
        """Where its weights came from."""

    @property
    def dimensions(self) -> int:
        """Numbers in one embedding."""

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The layer's output for one picture, such as (1024, 14, 14), before it is averaged."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of a prepared picture, in pixels."""

    @property
    def concurrency(self) -> int:
        """How many calls of `embed` at once make it fastest; it is safe to call by as many."""

    def prepare(self, pixels: "Picture") -> "NDArray[np.uint8]":
        """Resize and crop, shape (height, width, 3); safe to call in threads.

        Args:
            pixels: mode RGB, any size.

        """

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions), of prepared pictures (n, height, width, 3)."""


class LazyEncoder:
    """An encoder that is loaded when it is first used, once for all threads.

    If it cannot be loaded, every use raises the same `EncoderError`.
    """

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self._encoder: Once[Encoder] = Once()

    def _loaded(self) -> Encoder:
        return self._encoder.get(self._load)

    @property
    def identity(self) -> Identity:
        """See `Encoder`."""
        return self._loaded().identity

    @property
    def weights(self) -> Weights:
        """See `Encoder`."""
        return self._loaded().weights

    @property
    def dimensions(self) -> int:
        """See `Encoder`."""
        return self._loaded().dimensions

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """See `Encoder`."""
        return self._loaded().layer_shape

    @property
    def input_size(self) -> tuple[int, int]:
        """See `Encoder`."""
        return self._loaded().input_size

    @property
    def concurrency(self) -> int:
        """See `Encoder`."""
        return self._loaded().concurrency

    def prepare(self, pixels: "Picture") -> "NDArray[np.uint8]":
        """See `Encoder`."""
        return self._loaded().prepare(pixels)

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """See `Encoder`."""
        return self._loaded().embed(batch)


def averaging(encoder: Encoder) -> str | None:
    """Say what the encoder's layer gives, if it is more than the embedding holds."""
    shape, identity = encoder.layer_shape, encoder.identity
    if math.prod(shape) == encoder.dimensions:
        return None
    return (
        f"Layer {identity.layer} of {identity.model} gives {' × '.join(map(str, shape))}, "
        f"averaged to {encoder.dimensions:,} numbers."
    )


def unusable(embedding: "NDArray[np.float32]") -> str | None:
    """Say why an embedding, shape (dimensions,), cannot be stored or compared, if it cannot."""
    import numpy as np

    if not np.isfinite(embedding).all():
        return "The encoder's output has numbers that are not finite."
    if np.abs(embedding).max() > MAX_HALF:
        return "The encoder's output is too large for half precision."
    # Compared as it would be stored: tiny numbers become zero.
    if not embedding.astype(np.float16).any():
        return "The encoder's output is all zeros, which has no direction to compare."
    return None


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
