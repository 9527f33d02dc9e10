"""Run an exported sentence encoder on OpenVINO, without torch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vecsearch.encoders.openvino.cache import Exported
from vecsearch.encoders.openvino.engine import first_alone, openvino

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# From token numbers and a mask of those that count, both (n, tokens), to vectors (n, dimensions);
# for one thread at a time.
Network = Callable[["NDArray[np.int64]", "NDArray[np.int64]"], "NDArray[np.float32]"]


def on_engine(exported: Exported) -> Network:
    """Return an exported sentence encoder, ready to run."""
    core = openvino().Core()
    model = core.read_model(exported.model, exported.tensors)
    # By default, OpenVINO would use bfloat16 on processors that support it.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(numbers: "NDArray[np.int64]", mask: "NDArray[np.int64]") -> "NDArray[np.float32]":
        with first_alone():
            # A copy: the output is the request's, which the next text overwrites.
            vectors: NDArray[np.float32] = request.infer({0: numbers, 1: mask})[0].copy()
        return vectors

    return run
