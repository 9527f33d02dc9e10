"""What tests make for themselves: weights, pictures. Nothing here is random without a seed.

`python tests/support.py FILE` saves the seeded ResNet50 to FILE.
"""

import sys
from pathlib import Path

import numpy as np
import PIL.Image


def save_weights(path: Path, model: str = "resnet50.tv_in1k", seed: int = 0) -> Path:
    """Save seeded weights of a timm model as safetensors, or as a state dict if so named."""
    import safetensors.torch
    import timm
    import torch

    torch.manual_seed(seed)
    # zero_init_last: otherwise every residual branch of a fresh ResNet is zero.
    module = timm.create_model(model, pretrained=False, zero_init_last=False)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(module.state_dict(), path)
    else:
        torch.save(module.state_dict(), path)
    return path


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> PIL.Image.Image:
    """Draw a picture of coloured blocks that no other seed draws."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return PIL.Image.fromarray(blocks).resize(size, PIL.Image.Resampling.NEAREST)


if __name__ == "__main__":
    save_weights(Path(sys.argv[1]))
