"""Helpers for encoders that run on torch: devices, hashes and files of tensors."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from vecsearch.errors import InvalidInput, WeightsMismatch, WeightsUnavailable
from vecsearch.files import written_whole


def choose_device(name: str) -> torch.device:
    """Return the torch device `name`; "auto" is CUDA if available.

    Raises:
        InvalidInput: there is no such device here.

    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(
            f"There is no device {name!r} here. Use --device auto, cpu or cuda."
        ) from error
    return device


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors by name, dtype, shape and bytes, in hex.

    Counters of training batches are left out: they do not affect embeddings, and conversions
    between file formats drop them.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.endswith("num_batches_tracked"):
            continue
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(
    tensors: Mapping[str, torch.Tensor], file: Path, metadata: dict[str, str]
) -> None:
    """Write a safetensors file, whole or not at all."""
    with written_whole(file) as partial:
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata
        )
        partial.chmod(0o644)  # safetensors writes for the owner alone


def read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return a safetensors file's tensors, on the CPU, and its metadata.

    Raises:
        OSError, safetensors.SafetensorError: it cannot be read, or is not a safetensors file.

    """
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    return safetensors.torch.load_file(file), metadata


def read_weights(path: Path, load: Callable[[str], Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of weights, by name.

    Args:
        path: an absolute path.
        load: reads the file and runs no code that is in it.

    Raises:
        WeightsUnavailable: the file does not exist, cannot be read, or holds more than tensors.

    """
    if not path.is_file():
        raise WeightsUnavailable(f"The weights file {path} does not exist. Check --weights.")
    try:
        tensors: Any = load(str(path))
    except Exception as error:  # torch, safetensors, zipfile: each its own
        # torch's message would suggest an unsafe way to load the file.
        raise WeightsUnavailable(
            f"{path} cannot be read as weights. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise WeightsUnavailable(
            f"{path} holds more than named tensors. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        )
    return tensors


def fill(
    model: torch.nn.Module, name: str, tensors: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Give a model the tensors of a file.

    Args:
        model: the model to fill.
        name: its name, for messages.
        tensors: all that it needs, and no others.
        path: their file, for messages.

    Raises:
        WeightsMismatch: tensors are missing, unknown or of another shape.

    """
    wanted = model.state_dict()
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    missing = sorted(needed - tensors.keys())
    extra = sorted(tensors.keys() - wanted.keys())
    reshaped = sorted(
        key for key in wanted.keys() & tensors.keys() if wanted[key].shape != tensors[key].shape
    )
    if missing or extra or reshaped:
        counts = (("missing", missing), ("unknown", extra), ("of another shape", reshaped))
        what = ", ".join(f"{len(keys)} {word} ({keys[0]})" for word, keys in counts if keys)
        raise WeightsMismatch(
            f"{path} does not hold weights of {name}: tensors {what}. "
            "Name the model they belong to with --model, or another file with --weights."
        )
    model.load_state_dict(tensors, strict=False)
