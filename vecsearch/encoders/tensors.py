"""Helpers for encoders that run on torch: devices, hashes and files of tensors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from vecsearch.errors import InvalidInput
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
