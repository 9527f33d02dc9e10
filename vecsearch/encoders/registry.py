"""Find the encoder that a name, a file or a collection refers to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.config import Runtime
from vecsearch.encoders.autoencoder.family import AutoencoderFamily
from vecsearch.encoders.base import (
    Concept,
    Encoder,
    Identity,
    LazyEncoder,
    TextEncoder,
    Weights,
    package_of,
)
from vecsearch.encoders.family import Family
from vecsearch.encoders.open_clip.family import OpenClipFamily
from vecsearch.encoders.timm.family import TimmFamily
from vecsearch.errors import (
    EncoderError,
    EncoderMismatch,
    WeightsMismatch,
    WeightsUnavailable,
)
from vecsearch.vocabulary import Precision

if TYPE_CHECKING:
    from vecsearch.encoders.base import TextTower, Tokenize
    from vecsearch.encoders.network import TorchEncoder
    from vecsearch.encoders.openvino.cache import Exported


# The first family that recognises a name is used; timm is last, because it accepts every name.
FAMILIES: tuple[Family, ...] = (OpenClipFamily(), AutoencoderFamily(), TimmFamily())


def family_named(model: str) -> Family:
    """Return the family that a --model value belongs to."""
    return next(family for family in FAMILIES if family.recognises(model))


def family_of(stored: Identity) -> Family:
    """Return the family of a stored identity.

    Raises:
        EncoderError: this vecsearch has no such family.

    """
    for family in FAMILIES:
        if family.backend == stored.backend:
            return family
    raise EncoderError(
        f"Unknown encoder family {stored.backend!r} of model {stored.name}. "
        "Upgrade vecsearch: pip install --upgrade vecsearch"
    )


def weights_file(model: str | None, weights: str | Path | None) -> str | Path | None:
    """Return the weights file that --model and --weights name; None if they name none.

    Raises:
        InvalidInput: they contradict each other.

    """
    return weights if model is None else family_named(model).weights_file(model, weights)


def quickest(model: str, weights: str | Path | None, runtime: Runtime) -> Encoder:
    """Load an encoder, to run as fast as it can; see `load`."""
    from vecsearch.encoders.openvino import choice

    return choice.quickest(load(model, weights, device=runtime.device), runtime)


def load(model: str, weights: str | Path | None, *, device: str) -> "TorchEncoder":
    """Load an encoder as it is, run by torch.

    Args:
        model: a timm model's name, perhaps with a tag and a layer, the path of an autoencoder's
            file, or a model of open_clip.
        weights: a safetensors file or a PyTorch state dict; None uses those of an installed
            package, or downloads them from the hub.
        device: "auto", "cpu", "cuda", …

    Raises:
        UnknownModel, WeightsUnavailable, WeightsMismatch: see `vecsearch.errors`.
        EncoderError: the layer's output cannot be made a vector.

    """
    return family_named(model).load(model, weights, device=device)


def concepts(stored: Identity, source: str | Path | None) -> list[Concept]:
    """Return the words in the space of a collection's encoder; none if it has no classifier.

    Raises:
        WeightsUnavailable: its weights cannot be read.

    """
    return [] if stored.weights_sha256 is None else family_of(stored).concepts(stored, source)


def reads_text(stored: Identity) -> bool:
    """Return whether an encoder embeds any sentence, so that its collection is searched by one."""
    return _tokenizer(stored) is not None


def _tokenizer(stored: Identity) -> "Tokenize | None":
    named = (family for family in FAMILIES if family.backend == stored.backend)
    return next((family.tokenizer(stored) for family in named), None)


def for_collection(
    name: str,
    stored: Identity,
    stored_weights: Weights,
    *,
    model: str | None,
    weights: str | Path | None,
    runtime: Runtime,
    quantized: Callable[[str], "Exported | None"] = lambda _: None,
) -> LazyEncoder:
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
    weights = weights_file(model, weights)
    if model is not None and model not in family_of(stored).short_names(stored):
        _require_same_model(name, model, stored)
    now = stored_weights
    if weights is not None and Path(weights).is_file():
        now = Weights.of_file(weights)
    # What another file holds is known by loading it.
    is_own = weights is None or (
        now is not stored_weights and now.file_sha256 == stored_weights.file_sha256
    )
    source = stored_weights.source if weights is None else str(weights)

    def load() -> "TorchEncoder":
        return _load_same(name, stored, source, runtime.device, is_recorded=weights is None)

    def opened() -> Encoder:
        from vecsearch.encoders.openvino import choice

        loaded = None if is_own else load()
        if stored.computes_in is not Precision.fp32:
            return choice.quantized(stored, now, runtime, quantized)
        kept = choice.kept(stored, now, runtime)
        return kept or choice.quickest(loaded or load(), runtime)

    def opened_texts() -> "TextTower":
        from vecsearch.encoders.openvino import choice

        assert tokenize is not None  # noqa: S101 - for the type checker
        return choice.texts(stored, runtime, load, tokenize)

    tokenize = _tokenizer(stored)
    texts = None if tokenize is None else TextEncoder(tokenize, opened_texts)
    lazy = LazyEncoder(opened, now, texts)
    if not is_own:
        _ = lazy.identity
    return lazy


def _load_same(
    name: str, stored: Identity, source: str | None, device: str, *, is_recorded: bool
) -> "TorchEncoder":
    """Load a collection's encoder from `source`, and compare it with the one that is stored."""
    family = family_of(stored)
    is_recorded = is_recorded and source is not None
    if is_recorded and package_of(source) is None and not Path(str(source)).is_file():
        raise WeightsUnavailable(
            f"The weights of collection {name!r} were read from {source}, which is gone. "
            f"Name the file's new place with {family.weights_flag} FILE."
        )
    encoder = family.load_stored(stored, source, device=device)
    if replace(encoder.identity, precision=stored.precision) == stored:
        return encoder
    if is_recorded:
        raise WeightsMismatch(
            f"The weights file {source} has changed since collection {name!r} was made. "
            f"Name the original with {family.weights_flag} FILE, or ingest into a new "
            "--collection."
        )
    raise EncoderMismatch(_mismatch(name, encoder.identity, stored))


def _not_known(name: str) -> Encoder:
    raise WeightsUnavailable(
        f"Collection {name!r} was imported, and which weights made its embeddings is not known, "
        "so a picture that is not in it cannot be embedded. Import the file into a new "
        "--collection with --model and --weights."
    )


def _require_same_model(name: str, model: str, stored: Identity) -> None:
    family = family_named(model)
    full_model, layer = family.parse(model)
    given = replace(stored, backend=family.backend, model=full_model, layer=layer)
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
