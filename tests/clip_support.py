"""A small model of open_clip with seeded weights, and the encoder that it is."""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import ON_TORCH

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import Identity, LazyEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vecsearch.encoders.network import TorchEncoder

# A model of open_clip that is small for all but its vocabulary, in open_clip's own terms.
SMALL_CLIP: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def save_clip(
    folder: Path, seed: int = 0, preprocessing: dict[str, Any] | None = None, **changes: Any
) -> tuple[Path, Path]:
    """Save a small model of open_clip with seeded weights; return its config and its weights.

    They have the names that open_clip itself gives and looks for.
    """
    import open_clip
    import safetensors.torch
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(SMALL_CLIP | changes)
    files = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
    files[0].write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing or {}}))
    torch.manual_seed(seed)
    has_text_tower = config.pop("custom_text", False)
    kind = open_clip.CustomTextCLIP if has_text_tower else open_clip.CLIP
    model = open_clip.CoCa(**config) if "multimodal_cfg" in config else kind(**config)
    # Fresh biases are zero, and so is every residual branch of a fresh ResNet.
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    safetensors.torch.save_file(model.state_dict(), files[1])
    return files


def load(files: tuple[Path, Path]) -> "TorchEncoder":
    return registry.load(f"open_clip:{files[0]}", files[1], device="cpu")


def of_collection(
    encoder: "TorchEncoder",
    runtime: Runtime = ON_TORCH,
    *,
    model: str | None = None,
    weights: str | Path | None = None,
) -> LazyEncoder:
    """Return the encoder as a collection has it, whose identity comes from JSON."""
    stored = Identity.from_json(json.loads(json.dumps(asdict(encoder.identity))))
    return registry.for_collection(
        "images",
        stored,
        encoder.weights,
        model=model,
        weights=weights,
        runtime=runtime,
    )


def texts_of(encoder: LazyEncoder, texts: list[str]) -> "NDArray[np.float32]":
    assert encoder.texts is not None
    return encoder.texts.embed_text(texts)
