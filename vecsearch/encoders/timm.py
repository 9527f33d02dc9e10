"""Any timm model as an encoder: its pooled features, its own preprocessing."""

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import timm.models
import torch
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from vecsearch.encoders import ALIASES, AUTOENCODER, Identity, Weights
from vecsearch.encoders.torch_support import choose_device, tensors_sha256
from vecsearch.errors import UnknownModel, WeightsMismatch, WeightsUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

POOLED = "pooled"
HUB_TIMEOUT_S = 10.0


def full_model_name(model: str) -> str:
    """Return a timm model's name with the tag of its weights: resnet18 is resnet18.a1_in1k.

    Raises:
        UnknownModel: timm has no such model or tag.

    """
    model = ALIASES.get(model, model)
    if model == AUTOENCODER:
        raise UnknownModel(
            "An autoencoder is a file. Train one with vecsearch train autoencoder FOLDER, "
            "then name it: --model FILE.safetensors"
        )
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See timm.list_models()."
        raise UnknownModel(f"timm has no model {architecture!r}. {hint}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if not tag:
        default = timm.get_pretrained_cfg(architecture)
        tag = (default.tag if default is not None else None) or ""
    elif tag not in tags:
        known = ", ".join(tags) or "none"
        raise UnknownModel(f"timm's {architecture} has no weights {tag!r}. Its tags: {known}.")
    return f"{architecture}.{tag}" if tag else architecture


class TimmEncoder:
    """A timm model without its classifier. See `vecsearch.encoders.Encoder`."""

    def __init__(
        self, model: torch.nn.Module, name: str, weights: Weights, device: torch.device
    ) -> None:
        # Preprocessing belongs to the weights: create_transform's own defaults differ.
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]  # timm leaves it untyped
        self.identity = Identity(
            model=name,
            layer=POOLED,
            weights_sha256=tensors_sha256(model.state_dict()),
            preprocessing={
                key: list(value) if isinstance(value, tuple) else value
                for key, value in sorted(config.items())
            },
        )
        self.weights = weights
        self._device = device
        self._transform = create_transform(**config, is_training=False)
        self._model = model.eval().to(memory_format=torch.channels_last).to(device)
        self._input_size = tuple(config["input_size"])
        self.dimensions = self.embed(np.zeros((1, *self._input_size), np.float32)).shape[1]

    @classmethod
    def load(cls, model: str, weights: str | Path | None, *, device: str) -> "TimmEncoder":
        """Load a model by name, from the hub or from a file. See `vecsearch.encoders.load`."""
        name = full_model_name(model)
        target = choose_device(device)
        if weights is None:
            return cls(_from_hub(name), name, Weights(None, None), target)
        path = Path(weights).absolute()
        module = timm.create_model(name, pretrained=False, num_classes=0)
        _load_file(module, name, path)
        return cls(module, name, Weights.of_file(path), target)

    def prepare(self, pixels: "Picture") -> "NDArray[np.float32]":
        """Apply the model's own resize, crop and normalisation."""
        array: NDArray[np.float32] = self._transform(pixels).numpy()
        return array

    def embed(self, batch: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return pooled features, shape (n, dimensions)."""
        with torch.inference_mode():
            inputs = torch.from_numpy(batch).to(
                self._device, memory_format=torch.channels_last, non_blocking=True
            )
            features: NDArray[np.float32] = self._model(inputs).float().cpu().numpy()
        return features.reshape(len(batch), -1)


def _from_hub(name: str) -> torch.nn.Module:
    hint = (
        "Pass a weights file instead, --weights FILE (safetensors or a PyTorch state dict), "
        "or train an encoder that needs none: vecsearch train autoencoder FOLDER"
    )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailable(f"timm has no pretrained weights for {name}. {hint}")
    if config.hf_hub_id and not _is_cached(config.hf_hub_id):
        _require_hub(name, hint)
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OSError
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {_first_line(error)}. {hint}"
        ) from error
    return model


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _require_hub(name: str, hint: str) -> None:
    """Ask the hub once: its client would retry for most of a minute before it gave up."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise WeightsUnavailable(
            f"The weights of {name} are not in the cache, and HF_HUB_OFFLINE is set. {hint}"
        )
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {constants.ENDPOINT} cannot be reached "
            f"({_first_line(error)}). {hint}"
        ) from error


def _load_file(model: torch.nn.Module, name: str, path: Path) -> None:
    tensors = _read_tensors(path)
    classifiers = _classifier_prefixes(name)
    kept = {
        key: tensor for key, tensor in tensors.items() if not key.startswith(tuple(classifiers))
    }
    wanted = model.state_dict()
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    missing = sorted(needed - kept.keys())
    extra = sorted(kept.keys() - wanted.keys())
    reshaped = sorted(
        key for key in wanted.keys() & kept.keys() if wanted[key].shape != kept[key].shape
    )
    if missing or extra or reshaped:
        counts = (("missing", missing), ("unknown", extra), ("of another shape", reshaped))
        what = ", ".join(f"{len(keys)} {word} ({keys[0]})" for word, keys in counts if keys)
        raise WeightsMismatch(
            f"{path} does not hold weights of {name}: tensors {what}. "
            "Name the model they belong to with --model, or another file with --weights."
        )
    model.load_state_dict(kept, strict=False)


def _read_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsUnavailable(f"The weights file {path} does not exist. Check --weights.")
    logger = logging.getLogger("timm.models._helpers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        tensors: Any = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # torch, safetensors, zipfile: each its own
        # torch's own text would advise to load the file unsafely.
        raise WeightsUnavailable(
            f"{path} cannot be read as weights. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        ) from error
    finally:
        logger.setLevel(level)
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise WeightsUnavailable(
            f"{path} holds more than named tensors. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        )
    return tensors


def _classifier_prefixes(name: str) -> list[str]:
    config = timm.get_pretrained_cfg(name)
    classifier = (config.classifier if config is not None else None) or ()
    names = [classifier] if isinstance(classifier, str) else list(classifier)
    return [f"{prefix}." for prefix in names]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
