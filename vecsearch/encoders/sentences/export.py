"""Load a sentence encoder with torch, and export it to OpenVINO."""

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import sentence_transformers
import torch
import transformers.utils.logging

from vecsearch.encoders.openvino.cache import Cache
from vecsearch.encoders.openvino.engine import save
from vecsearch.encoders.openvino.export import converted, keep_if_alike, least_cosine, read
from vecsearch.encoders.sentences.engine import Network, on_engine
from vecsearch.encoders.sentences.source import Source
from vecsearch.errors import WeightsUnavailable, first_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Token numbers and a mask to trace and compare with: texts of two lengths.
EXAMPLE = ([[101, 2417, 5909, 102, 0], [101, 1037, 2417, 3899, 102]], [[1, 1, 1, 1, 0], [1] * 5])


class Tower(torch.nn.Module):
    """A sentence encoder from token numbers and mask, each (n, tokens), to vectors.

    Args:
        source: where its files are.
        device: "auto", "cpu", "cuda", …

    Raises:
        WeightsUnavailable: its files cannot be read.

    """

    def __init__(self, source: Source, device: str) -> None:
        super().__init__()
        # They log their progress, and how they would rather be called by themselves.
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped
        for name in ("sentence_transformers", "transformers"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._modules_in_order = sentence_transformers.SentenceTransformer(
                    str(source.folder),
                    device=None if device == "auto" else device,
                    local_files_only=True,
                    model_kwargs={"use_safetensors": True},
                ).eval()
        except Exception as error:  # the library's, its libraries' and OSError
            raise WeightsUnavailable(
                f"The sentence encoder in {source.folder} cannot be read: {first_line(error)}. "
                "Name another folder: VECSEARCH_SENTENCES"
            ) from error

    def forward(self, numbers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return vectors, shape (n, dimensions)."""
        features = {"input_ids": numbers, "attention_mask": mask}
        vectors: torch.Tensor = self._modules_in_order(features)["sentence_embedding"]
        return vectors

    def run(self, numbers: "NDArray[np.int64]", mask: "NDArray[np.int64]") -> "NDArray[np.float32]":
        """Return vectors; see `vecsearch.encoders.sentences.engine.Network`."""
        device = next(self.parameters()).device
        with torch.inference_mode():
            tensors = (torch.from_numpy(part).to(device) for part in (numbers, mask))
            vectors: NDArray[np.float32] = self(*tensors).float().cpu().numpy()
        return vectors


def on_openvino(tower: Tower, source: Source, cache: Cache) -> tuple[Network | None, str]:
    """Export a sentence encoder; see `vecsearch.encoders.openvino.export.keep_if_alike`."""
    example = tuple(torch.tensor(part) for part in EXAMPLE)
    texts = tuple(part.numpy() for part in example)
    expected = tower.run(*texts)

    def make(folder: Path) -> tuple[Network, float]:
        save(converted(tower, *example), folder)
        network = on_engine(read(folder, expected.shape[1], expected.shape[1:]))
        return network, least_cosine(network(*texts), expected)

    facts = {"dimensions": expected.shape[1], "layer_shape": expected.shape[1:]}
    return keep_if_alike(cache, source.identity, facts, make)
