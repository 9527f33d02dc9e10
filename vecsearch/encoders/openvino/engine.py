"""Run an exported encoder on OpenVINO, without torch, timm or the weights file."""

import errno
import importlib
import importlib.util
import os
import queue
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vecsearch.encoders.base import Identity, Weights
from vecsearch.encoders.openvino.cache import MODEL, TENSORS, Exported
from vecsearch.errors import first_line
from vecsearch.imaging.preprocessing import Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A stream a core is fastest; beyond these many, they share cores and memory stays bounded.
MOST_STREAMS = 8
# ResNet50's speed is the same from 1 to 16; this bounds what a stream holds.
LARGEST_PART = 8
_CONVERTER = "openvino.tools.ovc"
# Where a graph says that numbers are in the file of tensors.
_STORED = re.compile(rb'offset="(\d+)" size="(\d+)"')
# Of the whole process; see `first_alone`.
_begun, _beginning = threading.Event(), threading.Lock()


def available() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def openvino() -> Any:
    """Import OpenVINO's runtime, with no telemetry and without its converter."""
    if "openvino" not in sys.modules:
        # It reports each import and each conversion to its maker, unless this cannot be imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None forbids it
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # likewise; it takes half a second
    try:
        return importlib.import_module("openvino")
    finally:
        if sys.modules.get(_CONVERTER, ...) is None:
            del sys.modules[_CONVERTER]


def save(model: Any, folder: Path) -> None:
    """Write a model of OpenVINO into a folder.

    Raises:
        OSError: the files cannot be written, or not whole: the disk is full, say.

    """
    try:
        openvino().save_model(model, folder / MODEL, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(first_line(error)) from error
    # What a stream could not write is not always an error.
    graph = (folder / MODEL).read_bytes().rstrip()
    ends = [int(offset) + int(size) for offset, size in _STORED.findall(graph)]
    if not graph.endswith(b"</net>") or (folder / TENSORS).stat().st_size < max(ends, default=0):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def streams() -> int:
    """Return the best number of concurrent inferences on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST_STREAMS)


def compiled(exported: Exported, count: int) -> Any:
    """Return an exported network, compiled to compute in float32 with this many streams."""
    core = openvino().Core()
    model = core.read_model(exported.model, exported.tensors)
    # By default, OpenVINO would use bfloat16 on processors that support it.
    return core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": count}
    )


class EngineTexts:
    """An exported text tower: tokens in, embeddings out; safe to call in threads.

    Args:
        exported: the exported tower.

    """

    def __init__(self, exported: Exported) -> None:
        self._request = compiled(exported, 1).create_infer_request()
        self._one_at_a_time = threading.Lock()

    def __call__(self, tokens: "NDArray[np.int64]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions), of tokens, shape (n, tokens)."""
        with self._one_at_a_time, first_alone():
            # A copy: the output is the request's, which the next text overwrites.
            embeddings: NDArray[np.float32] = self._request.infer({0: tokens})[0].copy()
        return embeddings


class EngineEncoder:
    """An exported encoder. See `vecsearch.encoders.base.Encoder`.

    Args:
        identity: identity of the exported encoder.
        weights: where its weights were; they are not read.
        exported: the exported network.

    """

    def __init__(self, identity: Identity, weights: Weights, exported: Exported) -> None:
        self.identity = identity
        self.weights = weights
        self.dimensions = exported.dimensions
        self.layer_shape = exported.layer_shape
        self.concurrency = streams()
        self.preprocessing = Preprocessing.of(identity.preprocessing)
        network = compiled(exported, self.concurrency)
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.concurrency):
            self._idle.put(network.create_infer_request())
        self._pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="engine")

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions); a batch is divided among the streams."""
        parts = min(len(batch), max(self.concurrency, -(-len(batch) // LARGEST_PART)))
        return np.concatenate(list(self._pool.map(self._infer, np.array_split(batch, parts))))

    def _infer(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        request = self._idle.get()
        try:
            with first_alone():
                # A copy: the output is the request's, which the next picture overwrites.
                features: NDArray[np.float32] = request.infer({0: batch}, share_inputs=True)[
                    0
                ].copy()
        finally:
            self._idle.put(request)
        return features


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the process's first inference finish before a second one begins.

    The bindings initialise their static objects in it. If two threads do so at once, they deadlock:
    one has the interpreter lock and waits for the static's guard, the other the reverse.
    """
    if _begun.is_set():
        yield
        return
    with _beginning:
        yield
    _begun.set()
