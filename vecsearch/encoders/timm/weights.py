"""Read a timm model's weights: from a file, a Python package or the model hub."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import timm.models
import torch

from vecsearch.encoders import hub
from vecsearch.encoders.base import Weights, package_of
from vecsearch.encoders.tensors import fill, read_weights
from vecsearch.encoders.timm import packaged
from vecsearch.errors import WeightsUnavailable, first_line

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
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
        tensors, weights = read_weights(path, _load), Weights.of_file(path)
    else:
        path = packaged.file(name, package)
        tensors = packaged.convert(read_weights(path, _load), name, path, _blocks(model))
        weights = replace(Weights.of_file(path), source=str(source))
    unwanted = (AUXILIARY, *(() if with_head else _classifiers(name)))
    prefixes = tuple(f"{module}." for module in unwanted)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefixes)}
    fill(model, name, kept, path)
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
    if config.hf_hub_id and hub.cached(config.hf_hub_id, HUB_FILES) is None:
        hub.require(name, hint)
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OSError
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {first_line(error)}. {hint}"
        ) from error
    return model


def _load(path: str) -> Any:
    logger = logging.getLogger("timm.models._helpers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return timm.models.load_state_dict(path, weights_only=True)
    finally:
        logger.setLevel(level)


def _classifiers(name: str) -> list[str]:
    """Return the modules that only a model with classes has."""
    config = timm.get_pretrained_cfg(name)
    classifier = (config.classifier if config is not None else None) or ()
    return [classifier] if isinstance(classifier, str) else list(classifier)


def is_of_head(layer: str, name: str) -> bool:
    """Return whether a layer is the classifier, contains it or shares a head with it."""
    return layer.partition(".")[0] in {part.partition(".")[0] for part in _classifiers(name)}
