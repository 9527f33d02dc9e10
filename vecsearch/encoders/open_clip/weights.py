"""Build a model of open_clip and read its weights, from a file or the model hub."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict

from vecsearch.encoders import hub
from vecsearch.encoders.base import Weights
from vecsearch.encoders.open_clip import PREFIX
from vecsearch.encoders.open_clip.names import tags_of
from vecsearch.encoders.open_clip.tokens import require_own
from vecsearch.encoders.tensors import fill, read_weights
from vecsearch.errors import EncoderError, WeightsUnavailable, first_line

SAFE_FILE, FILE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


def read_model(
    name: str,
    config: Mapping[str, Any],
    pretrained: Mapping[str, Any] | None,
    source: str | Path | None,
) -> tuple[torch.nn.Module, Weights]:
    """Return a model with the weights of both towers, and where they came from.

    Args:
        name: see `vecsearch.encoders.open_clip.names.Model`.
        config: likewise.
        pretrained: likewise.
        source: see `vecsearch.encoders.base.Weights`.

    Raises:
        WeightsUnavailable, WeightsMismatch: see `vecsearch.errors`.
        EncoderError: open_clip cannot build the model, or vecsearch cannot read its texts.

    """
    require_own(name, config["text_cfg"])
    if source is None:
        path, weights = _from_hub(name, pretrained), Weights(None, None)
    else:
        path = Path(source).absolute()
        weights = Weights.of_file(path) if path.is_file() else Weights(str(path), None)
    tensors = read_weights(path, _load)
    model = _build(name, config)
    fill(model, name, _converted(model, tensors), path)
    return model, weights


def _build(name: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """Return a model without weights; see open_clip's `create_model`, which logs that it has none.

    Weights of one tower alone are not downloaded, whatever the config says.
    """
    options = deepcopy(dict(config))
    has_text_tower = options.pop("custom_text", False)
    family = open_clip.CustomTextCLIP if has_text_tower else open_clip.CLIP
    if has_text_tower and "multimodal_cfg" in options:
        family = open_clip.CoCa
    try:
        options["vision_cfg"]["timm_model_pretrained"] = False
        model: torch.nn.Module = family(**options)
    except Exception as error:  # open_clip checks little, so any kind
        raise EncoderError(
            f"open_clip cannot build {name} ({type(error).__name__}: {first_line(error)}). "
            "Check the config, or upgrade: pip install --upgrade open-clip-torch"
        ) from error
    return model


def _load(path: str) -> Any:
    if path.endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    # Not open_clip's function, which some files can make load pickles.
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]  # a checkpoint of open_clip's training
    return {str(key).removeprefix("module."): tensor for key, tensor in tensors.items()}


def _converted(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors under the model's names, as open_clip's `load_checkpoint` converts them.

    Unlike there, position embeddings of another size are not interpolated.
    """
    converted: dict[str, torch.Tensor] = convert_state_dict(model, tensors)
    if not hasattr(model, "positional_embedding") and "positional_embedding" in converted:
        converted = convert_to_custom_text_state_dict(converted)
    # Numbers of the loss, which embeddings do not need.
    for name in ("logit_scale", "logit_bias"):
        wanted = getattr(model, name, None)
        if wanted is not None:
            found = converted.get(name, torch.zeros_like(wanted))
            converted[name] = found.reshape(wanted.shape) if found.numel() == 1 else found
    return converted


def _from_hub(name: str, pretrained: Mapping[str, Any] | None) -> Path:
    """Return the file of a tag's weights, which is downloaded if it is not cached."""
    own = name.removeprefix(PREFIX)
    if pretrained is None:
        tags = tags_of(own)
        some = (
            f"Name them: {PREFIX}{own}/TAG, TAG being {', '.join(tags)}. Or give"
            if tags
            else "Give"
        )
        raise WeightsUnavailable(
            f"Which weights of {name}? {some} a file: --weights FILE "
            "(safetensors or a PyTorch state dict)."
        )
    hint = "Pass a weights file instead, --weights FILE (safetensors or a PyTorch state dict)."
    repository, _, file = pretrained.get("hf_hub", "").rpartition("/")
    files = (f"{Path(file).stem}.safetensors", file) if file else (SAFE_FILE, FILE)
    cached = hub.cached(repository, files) if repository else None
    if cached is not None:
        return Path(cached)
    hub.require(name, hint)
    try:
        return Path(open_clip.download_pretrained(dict(pretrained)))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OSError
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {first_line(error)}. {hint}"
        ) from error
