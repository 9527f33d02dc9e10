"""Read a timm model's weights: from a file, a Python package or the model hub."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import timm.models
import torch

from vecsearch.encoders.base import Weights, package_of
from vecsearch.encoders.timm import packaged
from vecsearch.errors import WeightsMismatch, WeightsUnavailable, first_line

HUB_TIMEOUT_S = 10.0
# A second head of Inception v3, used only in training: its files contain it, timm's model does not.
AUXILIARY = "AuxLogits"


def read_model(
    name: str, source: str | Path | None, *, with_head: bool
) -> tuple[torch.nn.Module, Weights]:
    """Return a model with its weights, and where they came from.

    Args:
        name: timm's name, with the tag.
        source: see `vecsearch.encoders.base.Weights`.
        with_head: whether the classifier is wanted.

    Raises:
        WeightsUnavailable, WeightsMismatch: see `vecsearch.errors`.

    """
    # Zero classes remove the classifier.
    options: dict[str, Any] = {} if with_head else {"num_classes": 0}
    if source is None:
        return _from_hub(name, options), Weights(None, None)
    model = timm.create_model(name, pretrained=False, **options)
    package = package_of(source)
    if package is None:
        path = Path(source).absolute()
        tensors, weights = _read_tensors(path), Weights.of_file(path)
    else:
        path = packaged.file(name, package)
        tensors = packaged.convert(_read_tensors(path), name, path, _blocks(model))
        weights = replace(Weights.of_file(path), source=str(source))
    unwanted = [AUXILIARY, *([] if with_head else _classifiers(name))]
    _fill(model, name, tensors, path, unwanted)
    return model, weights


def _blocks(model: torch.nn.Module) -> list[str]:
    """Return the names of a network's blocks, such as "blocks.1.0", in order."""
    return [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]


def _from_hub(name: str, options: dict[str, Any]) -> torch.nn.Module:
    hint = (
        f"{packaged.installing(name)}"
        "Pass a weights file instead, --weights FILE (safetensors or a PyTorch state dict), "
        "or train an encoder that needs none: vecsearch train autoencoder FOLDER"
    )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailable(f"timm has no pretrained weights for {name}. {hint}")
    if config.hf_hub_id and not _is_cached(config.hf_hub_id):
        _require_hub(name, hint)
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OSError
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {first_line(error)}. {hint}"
        ) from error
    return model


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _require_hub(name: str, hint: str) -> None:
    """Check once that the hub can be reached; its client would retry for most of a minute."""
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
            f"({first_line(error)}). {hint}"
        ) from error


def _fill(
    model: torch.nn.Module,
    name: str,
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    unwanted: list[str],
) -> None:
    prefixes = tuple(f"{module}." for module in unwanted)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefixes)}
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
        # torch's message would suggest an unsafe way to load the file.
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


def _classifiers(name: str) -> list[str]:
    """Return the modules that only a model with classes has."""
    config = timm.get_pretrained_cfg(name)
    classifier = (config.classifier if config is not None else None) or ()
    return [classifier] if isinstance(classifier, str) else list(classifier)


def is_of_head(layer: str, name: str) -> bool:
    """Return whether a layer is the classifier, contains it or shares a head with it."""
    return layer.partition(".")[0] in {part.partition(".")[0] for part in _classifiers(name)}
