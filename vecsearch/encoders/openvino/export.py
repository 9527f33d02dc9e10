"""Export a network from torch to OpenVINO, and check that both give the same embeddings."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from vecsearch.encoders.once import Once
from vecsearch.encoders.openvino.cache import MODEL, TENSORS, Cache, Exported
from vecsearch.encoders.openvino.engine import EngineEncoder, EngineTexts, openvino, save, streams
from vecsearch.encoders.openvino.fallback import go_on_with_torch
from vecsearch.errors import first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vecsearch.encoders.base import Encoder, Identity
    from vecsearch.encoders.network import Network, TorchEncoder, TorchTexts

T = TypeVar("T")

# The smallest accepted cosine similarity between embeddings of the export and of torch.
LEAST_COSINE = 0.99999
PICTURES = 8


def export(network: "Network", height: int, width: int, folder: Path) -> None:
    """Write a network's graph and tensors into a folder.

    Raises:
        OSError: the files cannot be written.
        Exception: any error of torch or OpenVINO, if they cannot convert the network.

    """
    model = converted(network, torch.zeros((2, height, width, 3), dtype=torch.uint8))
    model.reshape([-1, height, width, 3])
    save(model, folder)


def converted(network: torch.nn.Module, *example: torch.Tensor) -> Any:
    """Return a network as a model of OpenVINO; the example's shapes may vary later.

    Raises:
        Exception: any error of torch or OpenVINO, if they cannot convert the network.

    """
    openvino()
    from openvino.tools.ovc import convert_model

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tools warn about each other
        # Not torch.export: OpenVINO cannot convert its graph of a vision transformer, and it takes
        # three times as long.
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]  # untyped there
        return convert_model(traced, example_input=example)


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


def keep_if_alike(
    cache: Cache,
    identity: "Identity",
    facts: Mapping[str, Any],
    make: Callable[[Path], tuple[T, float]],
) -> tuple[T | None, str]:
    """Make an export, and keep it if it agrees with torch; if not, keep the reason.

    Args:
        cache: the cache for exports.
        identity: identity of the encoder.
        facts: further facts to keep; see `Cache.keep`.
        make: writes the export into a folder, and returns what runs it and its least cosine to
            torch.

    Returns:
        What runs it, or None and the reason, as the end of "The export of … to OpenVINO …".

    """
    made, cosine, refused = None, None, None
    try:
        with cache.partial() as folder:
            try:
                made, cosine = make(folder)
                if cosine < LEAST_COSINE:
                    refused = (
                        f"agrees with torch to a cosine of {cosine:.6f} alone, where "
                        f"{LEAST_COSINE} is needed"
                    )
            except (OSError, MemoryError):
                raise  # of this machine at this time: no reason to refuse it for good
            except Exception as error:  # noqa: BLE001 - the tools', of every kind
                refused = f"cannot be made ({first_line(error)})"
            if refused is not None:
                for file in folder.iterdir():
                    file.unlink()
            of_making = {"refused": refused, "least_cosine": cosine, "torch": torch.__version__}
            cache.keep(identity, folder, {**facts, **of_making})
    except OSError as error:
        refused = (
            f"cannot be kept in {cache.folder} ({error.strerror or error}); "
            "set VECSEARCH_CACHE_DIR to a folder that can be written"
        )
    return (made, "") if refused is None else (None, refused)


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
        self.concurrency = streams()
        self.preprocessing = encoder.preprocessing
        self._torch: TorchEncoder | None = encoder
        self._cache = cache
        self._insist = insist
        # A cache that was full has room again some day.
        self._chosen: Once[Encoder] = Once(retry=True)

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions)."""
        return self._chosen.get(lambda: self._choose(batch)).embed(batch)

    def _choose(self, batch: "NDArray[np.uint8]") -> "Encoder":
        """Return the export if it can be made, agrees with torch and can be kept; else torch."""
        encoder = self._torch
        assert encoder is not None  # noqa: S101 - for the type checker
        facts = {"dimensions": self.dimensions, "layer_shape": self.layer_shape}
        engine, refused = keep_if_alike(
            self._cache, self.identity, facts, lambda folder: self._exported(encoder, folder, batch)
        )
        if engine is not None:
            self._torch = None  # frees its memory
            return engine
        self.concurrency = encoder.concurrency
        go_on_with_torch(self.identity, refused, insist=self._insist)
        return encoder

    def _exported(
        self, encoder: "TorchEncoder", folder: Path, batch: "NDArray[np.uint8]"
    ) -> tuple[EngineEncoder, float]:
        """Return the export, as it was written, and its least cosine to torch."""
        export(encoder.network, *encoder.preprocessing.input_size, folder)
        written = read(folder, self.dimensions, self.layer_shape)
        engine = EngineEncoder(self.identity, self.weights, written)
        pictures = telling(batch)
        return engine, least_cosine(engine.embed(pictures), encoder.embed(pictures))


def exported_texts(
    texts: "TorchTexts", identity: "Identity", tokens: "NDArray[np.int64]", cache: Cache
) -> tuple[EngineTexts | None, str]:
    """Export a text tower, and keep the export if it agrees with torch; see `keep_if_alike`.

    Args:
        texts: the tower, on the CPU.
        identity: the tower's, in the cache.
        tokens: those of some texts, to compare both with.
        cache: the cache for exports.

    """
    wanted = texts(tokens)
    dimensions = wanted.shape[1]
    facts = {"dimensions": dimensions, "layer_shape": (dimensions,)}

    def make(folder: Path) -> tuple[EngineTexts, float]:
        model = converted(texts.tower, torch.from_numpy(tokens[:2]))
        model.reshape([-1, tokens.shape[1]])
        save(model, folder)
        engine = EngineTexts(read(folder, dimensions, (dimensions,)))
        return engine, least_cosine(engine(tokens), wanted)

    return keep_if_alike(cache, identity, facts, make)


def read(folder: Path, dimensions: int, layer_shape: tuple[int, ...]) -> Exported:
    """Return the export that a folder holds, as it was written."""
    model, tensors = ((folder / name).read_bytes() for name in (MODEL, TENSORS))
    return Exported(model, tensors, dimensions, layer_shape)
