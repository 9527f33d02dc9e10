"""Parse --model for timm: NAME, NAME.TAG, NAME.LAYER or NAME.TAG.LAYER."""

import difflib

import timm
import torch

from vecsearch.encoders.base import POOLED
from vecsearch.encoders.timm import ALIASES
from vecsearch.errors import UnknownModel
from vecsearch.vocabulary import did_you_mean

# The fully connected layers of a VGG, after ReLU; timm's pooled output is that of the second.
FC1, FC1_MODULE = "fc1", "pre_logits.act1"
_VGG = {"fc1": FC1, FC1_MODULE: FC1, "fc2": POOLED, "pre_logits.act2": POOLED}
NEAREST = 5


def parse(name: str) -> tuple[str, str]:
    """Return a timm model's name with the tag of its weights, and the layer's canonical name.

    This builds the model, without memory for its weights, only if a tag or a layer is named.

    Raises:
        UnknownModel: timm has no such model, tag or layer, or the name is ambiguous.

    """
    architecture, _, rest = name.partition(".")
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models()) or "See timm.list_models()."
        raise UnknownModel(f"timm has no model {architecture!r}. {hint}")
    default = _default(architecture)
    if not rest:
        return default, POOLED
    layers = _layers(architecture)
    tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{architecture}.*")]
    tag, _, layer = rest.partition(".")
    if tag not in tags:
        model, layer = default, rest
    elif rest in layers:
        raise UnknownModel(
            f"{name} can be read as weights or as a layer of {architecture}. "
            f"Say {architecture}.{tag}.{layer or POOLED} or {default}.{rest}."
        )
    else:
        model, layer = f"{architecture}.{tag}", layer or POOLED
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=NEAREST)
        some = near or [name for name in layers if "." not in name]
        raise UnknownModel(
            f"timm's {architecture} has no weights and no layer {layer!r}. "
            f"Its tags: {', '.join(tags) or 'none'}. "
            f"{'Layers near that' if near else 'Its layers'}: {', '.join(some)}."
        )
    return model, layers[layer]


def _default(architecture: str) -> str:
    """Return the architecture with its default tag."""
    if architecture in ALIASES:
        return ALIASES[architecture]
    config = timm.get_pretrained_cfg(architecture)
    tag = config.tag if config is not None else None
    return f"{architecture}.{tag}" if tag else architecture


def _layers(architecture: str) -> dict[str, str]:
    """Return the canonical names of all layers, by all their names."""
    with torch.device("meta"):
        module: torch.nn.Module = timm.create_model(architecture, pretrained=False)
    modules = {name: name for name, _ in module.named_modules() if name}
    if FC1_MODULE in modules:
        modules |= _VGG
    return {POOLED: POOLED} | modules
