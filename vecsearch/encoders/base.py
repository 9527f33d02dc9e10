"""Encoders turn pixels into vectors. Importing this loads no torch; using an encoder does."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vecsearch.encoders.autoencoder import AUTOENCODER
from vecsearch.encoders.once import Once
from vecsearch.encoders.timm import TIMM
from vecsearch.errors import EncoderError
from vecsearch.vocabulary import MAX_HALF, Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vecsearch.imaging.preprocessing import Preprocessing

    # From texts to what a text tower reads, shape (n, tokens); and from that to (n, dimensions).
    Tokenize = Callable[[Sequence[str]], NDArray[np.int64]]
    TextTower = Callable[[NDArray[np.int64]], NDArray[np.float32]]


DEFAULT_MODEL = "resnet50"
# Its weights come with vecsearch, in a package; used where the default's cannot be had.
PACKAGED_MODEL = "tf_efficientnet_lite0"
# Pictures per batch. This many fit a processor's cache: ResNet50 takes 47 ms of CPU time per
# picture in batches of 8, 58 ms in batches of 16, 65 ms in batches of 32.
BATCH_SIZE = 8
# What precedes a package's name in `Weights.source`.
PACKAGE = "package:"
# The backend of imported vectors whose weights are not known.
UNKNOWN = "unknown"
# The default layers, one for each family: what a model's name without a layer means.
POOLED = "pooled"
LATENT = "latent"


@dataclass(frozen=True)
class Identity:
    """The identity of an encoder; vectors are comparable only if all of it is equal.

    Attributes:
        backend: the encoder family, such as "timm"; `UNKNOWN` if `weights_sha256` is None.
        model: a timm model with its tag, or "autoencoder".
        layer: the layer whose output is the embedding.
        weights_sha256: SHA-256 of the loaded tensors by name, independent of the file's format;
            None for imported vectors whose weights are unknown.
        preprocessing: how a picture becomes the encoder's input; JSON values. For a model of
            open_clip also its architecture, which says how a text does.
        precision: "fp32", or "int8-" and the hash of the quantised network, which is different for
            every calibration.

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
        backend = AUTOENCODER if fields["model"] == AUTOENCODER else TIMM
        return cls(UNKNOWN if fields["weights_sha256"] is None else backend, **fields)

    @property
    def computes_in(self) -> Precision:
        """The precision, without the hash of the quantised network."""
        return Precision(self.precision.partition("-")[0])

    @property
    def name(self) -> str:
        """The model, with its layer unless that is the default one."""
        return self.model if self.layer in {POOLED, LATENT} else f"{self.model}.{self.layer}"


@dataclass(frozen=True)
class Weights:
    """Where weights came from.

    Attributes:
        source: an absolute path; "package:NAME" is a Python package; None is the model hub.
        file_sha256: SHA-256 of the file when it was read; None for the hub.

    """

    source: str | None
    file_sha256: str | None

    @classmethod
    def of_file(cls, path: str | Path) -> "Weights":
        """Return the weights of a file, with its current hash."""
        return cls(str(Path(path).absolute()), file_sha256(path))


def package_of(source: str | Path | None) -> str | None:
    """Return the package that a `Weights.source` names; None if it is a file or the hub."""
    return str(source).removeprefix(PACKAGE) if str(source).startswith(PACKAGE) else None


@dataclass(frozen=True)
class Concept:
    """A word whose vector lies in an encoder's space: a class of its original classifier.

    Attributes:
        number: the class, from 0.
        name: the word.
        synonyms: other words for it.
        definition: what it means.
        embedding: the class's weights, shape (dimensions,).
        bias: what is added to an image's inner product with them.

    """

    number: int
    name: str
    synonyms: tuple[str, ...]
    definition: str
    embedding: "NDArray[np.float32]"
    bias: float


class Encoder(Protocol):
    """Turns pictures into vectors."""

    @property
    def identity(self) -> Identity:
        """The identity, which decides which vectors are comparable."""

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
    def preprocessing(self) -> "Preprocessing":
        """How a picture becomes its input."""

    @property
    def concurrency(self) -> int:
        """The number of concurrent calls of `embed` that is fastest; so many are thread-safe."""

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions), of prepared pictures (n, height, width, 3)."""


class TextEncoder:
    """Turns texts into vectors in the space of an encoder's pictures; loaded when first used.

    Args:
        tokenize: prepares texts for the text tower.
        load: loads the text tower; called again if it failed.

    """

    def __init__(self, tokenize: "Tokenize", load: "Callable[[], TextTower]") -> None:
        self._tokenize = tokenize
        self._load = load
        self._tower: Once[TextTower] = Once(retry=True)

    def embed_text(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions), not normalised.

        Raises:
            InvalidInput: a text is longer than the encoder reads.
            EncoderError: the encoder cannot be loaded.

        """
        # A text that cannot be embedded need not wait for the tower.
        tokens = self._tokenize(texts)
        return self._tower.get(self._load)(tokens)


class LazyEncoder:
    """An encoder that is loaded when it is first used, once for all threads.

    If it cannot be loaded, every use raises the same `EncoderError` or `InvalidInput`.

    Args:
        load: loads it.
        weights: where its weights are, if that is known before it is loaded.
        texts: its text tower, which is loaded apart from it; None if it reads no text.

    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        weights: Weights | None = None,
        texts: TextEncoder | None = None,
    ) -> None:
        self.texts = texts
        self._load = load
        self._weights = weights
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
        return self._weights or self._loaded().weights

    @property
    def dimensions(self) -> int:
        """See `Encoder`."""
        return self._loaded().dimensions

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """See `Encoder`."""
        return self._loaded().layer_shape

    @property
    def preprocessing(self) -> "Preprocessing":
        """See `Encoder`."""
        return self._loaded().preprocessing

    @property
    def concurrency(self) -> int:
        """See `Encoder`."""
        return self._loaded().concurrency

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """See `Encoder`."""
        return self._loaded().embed(batch)


def reads_no_text(identity: Identity) -> EncoderError:
    """Return the error for a text that is given to an encoder without a text tower."""
    return EncoderError(f"{identity.name} reads no text. Search by a picture.")


def averaging(encoder: Encoder) -> str | None:
    """Return a note on the layer's shape, if its output is averaged; otherwise None."""
    shape, identity = encoder.layer_shape, encoder.identity
    if math.prod(shape) == encoder.dimensions:
        return None
    return (
        f"Layer {identity.layer} of {identity.model} gives {' × '.join(map(str, shape))}, "
        f"averaged to {encoder.dimensions:,} numbers."
    )


def unusable(embedding: "NDArray[np.float32]") -> str | None:
    """Return why an embedding, shape (dimensions,), cannot be stored; None if it can."""
    import numpy as np

    if not np.isfinite(embedding).all():
        return "The encoder's output has numbers that are not finite."
    if np.abs(embedding).max() > MAX_HALF:
        return "The encoder's output is too large for half precision."
    # Check it in the stored precision, in which tiny numbers become zero.
    if not embedding.astype(np.float16).any():
        return "The encoder's output is all zeros, which has no direction to compare."
    return None


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
