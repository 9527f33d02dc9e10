"""Export a network from torch to OpenVINO, and check that both give the same embeddings."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vecsearch.encoders.once import Once
from vecsearch.encoders.openvino.cache import MODEL, TENSORS, Cache, Exported
from vecsearch.encoders.openvino.engine import EngineEncoder, openvino, streams
from vecsearch.encoders.openvino.fallback import go_on_with_torch
from vecsearch.errors import first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from vecsearch.encoders.base import Encoder
    from vecsearch.encoders.network import Network, TorchEncoder

# The smallest accepted cosine similarity between embeddings of the export and of torch.
LEAST_COSINE = 0.99999
PICTURES = 8


def export(network: "Network", height: int, width: int, folder: Path) -> None:
    """Write a network's graph and tensors into a folder.

    Raises:
        OSError, RuntimeError: the files cannot be written.
        Exception: any error of torch or OpenVINO, if they cannot convert the network.

    """
    runtime = openvino()
    from openvino.tools.ovc import convert_model

    pixels = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tools warn about each other
        # Not torch.export: OpenVINO cannot convert its graph of a vision transformer, and it takes
        # three times as long.
        traced = torch.jit.trace(network, pixels, check_trace=False)  # type: ignore[no-untyped-call]  # untyped there
        model = convert_model(traced, example_input=pixels)
    model.reshape([-1, height, width, 3])
    runtime.save_model(model, folder / MODEL, compress_to_fp16=False)


def least_cosine(one: "NDArray[np.float32]", other: "NDArray[np.float32]") -> float:
    """Return the smallest cosine similarity between two embeddings, (n, dimensions), row by row."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    same = (first == second).all(axis=1)  # zeros, too
    cosines = np.where(same, 1.0, (first * second).sum(axis=1) / np.where(norms, norms, 1.0))
    return float(cosines.min())


def telling(batch: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """Return eight pictures of a batch; mirrored and negative ones fill a smaller batch."""
    turned = [batch, batch[:, :, ::-1], batch[:, ::-1], batch[:, ::-1, ::-1]]
    negatives = [255 - pictures for pictures in turned]
    return np.ascontiguousarray(np.concatenate([*turned, *negatives])[:PICTURES])


class Exporting:
    """A torch encoder that is exported when it embeds its first batch.

    Both embed the batch, and the results are compared. If they differ too much, torch is used, with
    a warning. See `vecsearch.encoders.base.Encoder`.

    Args:
        encoder: a torch encoder on the CPU.
        cache: the cache for exports.
        insist: raise an error instead of using torch.

    """

    def __init__(self, encoder: "TorchEncoder", cache: Cache, *, insist: bool) -> None:
        self.identity = encoder.identity
        self.weights = encoder.weights
        self.dimensions = encoder.dimensions
        self.layer_shape = encoder.layer_shape
        self.input_size = encoder.input_size
        self.concurrency = streams()
        self._preprocessing = encoder.preprocessing
        self._torch: TorchEncoder | None = encoder
        self._cache = cache
        self._insist = insist
        self._chosen: Once[Encoder] = Once()

    def prepare(self, pixels: "Picture") -> "NDArray[np.uint8]":
        """Resize and crop as the model's weights were trained."""
        return self._preprocessing.prepare(pixels)

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions)."""
        return self._chosen.get(lambda: self._choose(batch)).embed(batch)

    def _choose(self, batch: "NDArray[np.uint8]") -> "Encoder":
        """Return the export if it can be made, agrees with torch and can be kept; else torch."""
        encoder = self._torch
        assert encoder is not None  # noqa: S101 - for the type checker
        try:
            with self._cache.partial() as folder:
                facts: dict[str, Any] = {
                    "dimensions": self.dimensions,
                    "layer_shape": self.layer_shape,
                }
                try:
                    engine, cosine = self._exported(encoder, folder, batch)
                    refused = _refusal(cosine)
                except (OSError, MemoryError):
                    raise  # of this machine at this time: no reason to refuse it for good
                except Exception as error:  # noqa: BLE001 - the tools', of every kind
                    cosine, refused = None, f"cannot be made ({first_line(error)})"
                if refused is not None:
                    for file in folder.iterdir():
                        file.unlink()
                facts |= {"refused": refused, "least_cosine": cosine, "torch": torch.__version__}
                self._cache.keep(self.identity, folder, facts)
        except OSError as error:
            refused = (
                f"cannot be kept in {self._cache.folder} ({error.strerror or error}); "
                "set VECSEARCH_CACHE_DIR to a folder that can be written"
            )
        if refused is None:
            self._torch = None  # frees its memory
            return engine
        self.concurrency = encoder.concurrency
        go_on_with_torch(self.identity, refused, insist=self._insist)
        return encoder

    def _exported(
        self, encoder: "TorchEncoder", folder: Path, batch: "NDArray[np.uint8]"
    ) -> tuple[EngineEncoder, float]:
        """Return the export, as it was written, and its least cosine to torch."""
        export(encoder.network, *encoder.input_size, folder)
        written = Exported(
            (folder / MODEL).read_bytes(),
            (folder / TENSORS).read_bytes(),
            self.dimensions,
            self.layer_shape,
        )
        engine = EngineEncoder(self.identity, self.weights, written)
        pictures = telling(batch)
        return engine, least_cosine(engine.embed(pictures), encoder.embed(pictures))


def _refusal(cosine: float) -> str | None:
    if cosine >= LEAST_COSINE:
        return None
    return f"agrees with torch to a cosine of {cosine:.6f} alone, where {LEAST_COSINE} is needed"
