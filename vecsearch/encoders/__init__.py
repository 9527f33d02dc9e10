"""Encoders turn pixels into vectors. Importing this loads no torch; using an encoder does."""

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vecsearch import schema
from vecsearch.config import Runtime
from vecsearch.errors import (
    EncoderError,
    EncoderMismatch,
    InvalidInput,
    WeightsMismatch,
    WeightsUnavailable,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from vecsearch.encoders.cache import Exported
    from vecsearch.encoders.network import TorchEncoder

DEFAULT_MODEL = "resnet50"
AUTOENCODER = "autoencoder"
POOLED = "pooled"
LATENT = "latent"
FP32 = "fp32"
INT8 = "int8"
PRECISIONS = (FP32, INT8)
# Newer recipes' weights give odd cosines (pytorch/vision#8382), so the bare name means the classic.
ALIASES = {"resnet50": "resnet50.tv_in1k"}


@dataclass(frozen=True)
class Identity:
    """What makes two vectors comparable: all of it must be equal.

    Attributes:
        model: a timm model with its tag, or "autoencoder".
        layer: the layer whose output is the embedding.
        weights_sha256: of the loaded tensors, by name; independent of the file's format. None:
            the vectors were imported, and which weights made them is not known.
        preprocessing: how a picture becomes the encoder's input; JSON values.
        precision: "fp32", or "int8-" and the hash of the quantised network, of which two
            calibrations never make the same.

    """

    model: str
    layer: str
    weights_sha256: str | None
    preprocessing: dict[str, Any]
    precision: str = FP32

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
    """An encoder that is loaded when it is first used, once, by whichever thread comes first.

    A failure is kept, too: threads that wait for the encoder do not each try again.
    """

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._error: EncoderError | None = None

    def _loaded(self) -> Encoder:
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._encoder is None:
                try:
                    self._encoder = self._load()
                except EncoderError as error:
                    self._error = error
                    raise
            return self._encoder

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
    def concurrency(self) -> int:
        """See `Encoder`."""
        return self._loaded().concurrency

    def prepare(self, pixels: "Picture") -> "NDArray[np.uint8]":
        """See `Encoder`."""
        return self._loaded().prepare(pixels)

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """See `Encoder`."""
        return self._loaded().embed(batch)


def quickest(model: str, weights: str | Path | None, runtime: Runtime) -> Encoder:
    """Load an encoder, to run as fast as it can; see `load`."""
    from vecsearch.encoders import choice

    return choice.quickest(load(model, weights, device=runtime.device), runtime)


def load(model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
    """Load an encoder as it is, run by torch.

    Args:
        model: a timm model's name, perhaps with a tag and a layer, or the path of an
            autoencoder's file.
        weights: a safetensors file or a PyTorch state dict; None downloads them from the hub.
        device: "auto", "cpu", "cuda", …

    Raises:
        UnknownModel, WeightsUnavailable, WeightsMismatch: see `vecsearch.errors`.
        EncoderError: the layer's output cannot be made a vector.

    """
    if is_file_name(model):
        if weights is not None:
            raise InvalidInput(
                f"{model} holds its own weights. Leave --weights out, or name a timm model."
            )
        from vecsearch.encoders.autoencoder import AutoencoderEncoder

        return AutoencoderEncoder.load(model, device=device)
    from vecsearch.encoders.timm import TimmEncoder

    return TimmEncoder.load(model, weights, device=device)


def for_collection(
    name: str,
    stored: Identity,
    stored_weights: Weights,
    *,
    model: str | None,
    weights: str | Path | None,
    runtime: Runtime,
    quantized: Callable[[str], "Exported | None"] = lambda _: None,
) -> Encoder:
    """Return the encoder of an existing collection, loaded only when it is used.

    What can be checked without torch is checked now: a model or a weights file that is named and
    is not the collection's own is loaded at once, to be compared with it.

    Args:
        name: the collection's.
        stored: what made its embeddings.
        stored_weights: where the weights were.
        model: what the user says it is.
        weights: where the user says they are.
        runtime: how encoders run.
        quantized: finds a quantised encoder by its precision where collections are kept.

    Raises:
        EncoderMismatch: `model` or `weights` are another encoder's.
        WeightsMismatch: the weights file changed since the collection was made.
        WeightsUnavailable: the weights file is gone.

    """
    if stored.weights_sha256 is None:
        return LazyEncoder(lambda: _not_known(name))
    if model is not None and is_file_name(model):
        if weights is not None:
            load(model, weights, device=runtime.device)
        model, weights = AUTOENCODER, model
    if model is not None and model not in _names(stored):
        _require_same_model(name, model, stored)
    now = stored_weights
    if weights is not None and Path(weights).is_file():
        now = Weights.of_file(weights)
    # What another file holds is known by loading it.
    is_own = weights is None or (
        now is not stored_weights and now.file_sha256 == stored_weights.file_sha256
    )

    source = stored_weights.source if weights is None else str(weights)

    def opened() -> Encoder:
        from vecsearch.encoders import choice

        if not is_own:
            _load_same(name, stored, source, runtime.device, is_recorded=False)
        if stored.precision != FP32:
            return choice.quantized(stored, now, runtime, quantized)
        return choice.kept(stored, now, runtime) or choice.quickest(
            _load_same(name, stored, source, runtime.device, is_recorded=weights is None), runtime
        )

    lazy = LazyEncoder(opened)
    if not is_own:
        _ = lazy.identity
    return lazy


def _load_same(
    name: str, stored: Identity, source: str | None, device: str, *, is_recorded: bool
) -> "TorchEncoder":
    """Load a collection's encoder from `source`, and compare it with the one that is stored."""
    is_recorded = is_recorded and source is not None
    if is_recorded and not Path(str(source)).is_file():
        raise WeightsUnavailable(
            f"The weights of collection {name!r} were read from {source}, which is gone. "
            f"Name the file's new place with {_flag(stored)} FILE."
        )
    encoder = (
        load(source, None, device=device)
        if stored.model == AUTOENCODER and source is not None
        else load(f"{stored.model}.{stored.layer}", source, device=device)
    )
    if replace(encoder.identity, precision=stored.precision) == stored:
        return encoder
    if is_recorded:
        raise WeightsMismatch(
            f"The weights file {source} has changed since collection {name!r} was made. "
            f"Name the original with {_flag(stored)} FILE, or ingest into a new "
            "--collection."
        )
    raise EncoderMismatch(_mismatch(name, encoder.identity, stored))


def _not_known(name: str) -> Encoder:
    raise WeightsUnavailable(
        f"Collection {name!r} was imported, and which weights made its embeddings is not known, "
        "so a picture that is not in it cannot be embedded. Import the file into a new "
        "--collection with --model and --weights."
    )


def require_precision(precision: str | None) -> None:
    """Refuse what is no precision.

    Raises:
        InvalidInput: it is none of `PRECISIONS`.

    """
    if precision not in {None, *PRECISIONS}:
        raise InvalidInput(
            f"There is no precision {precision!r}. Use one of: {', '.join(PRECISIONS)}."
        )


def is_file_name(model: str) -> bool:
    """Tell by its looks whether a --model value names a file rather than a timm model."""
    return model.endswith(".safetensors") or model.startswith(("/", "./", "../", "~"))


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
    if np.abs(embedding).max() > schema.MAX_HALF:
        return "The encoder's output is too large for half precision."
    # Compared as it would be stored: tiny numbers become zero.
    if not embedding.astype(np.float16).any():
        return "The encoder's output is all zeros, which has no direction to compare."
    return None


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flag(stored: Identity) -> str:
    return "--model" if stored.model == AUTOENCODER else "--weights"


def _names(stored: Identity) -> set[str]:
    """Return the names of a model and its layer that can be told without timm."""
    aliases = (alias for alias, model in ALIASES.items() if model == stored.model)
    return {replace(stored, model=model).name for model in (stored.model, *aliases)}


def _require_same_model(name: str, model: str, stored: Identity) -> None:
    given = replace(stored, model=model, layer=LATENT)
    if model != AUTOENCODER:
        from vecsearch.encoders.timm_names import parse

        full_model, layer = parse(model)
        given = replace(stored, model=full_model, layer=layer)
    if given != stored:
        raise EncoderMismatch(
            f"Collection {name!r} was made by {stored.name}, and vectors of {given.name} cannot "
            "be compared with it. Leave --model out, or use a collection of its own: "
            "--collection NAME"
        )


def _mismatch(name: str, given: Identity, stored: Identity) -> str:
    differing = [
        field.replace("_sha256", "")
        for field in ("model", "layer", "weights_sha256", "preprocessing", "precision")
        if getattr(given, field) != getattr(stored, field)
    ]
    return (
        f"Collection {name!r} was made by {stored.name} with other {' and '.join(differing)}, "
        "so the vectors cannot be compared. Use its own weights, or a collection of its own: "
        "--collection NAME"
    )
