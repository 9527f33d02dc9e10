"""Quantise an exported encoder to int8, calibrated on pictures; only this module imports NNCF.

`mixed` chooses the layers that stay in float32.
"""

import hashlib
import importlib.util
import io
import logging
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.encoders.openvino.cache import MODEL, TENSORS, Exported
from vecsearch.encoders.openvino.engine import openvino, save
from vecsearch.errors import EncoderError, InvalidInput
from vecsearch.vocabulary import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 10
_WITH_WEIGHTS = {"Convolution", "GroupConvolution", "MatMul"}


def require_quantizer() -> None:
    """Check that encoders can be quantised on this machine.

    Raises:
        InvalidInput: NNCF is not installed.

    """
    if importlib.util.find_spec("nncf") is None:
        raise InvalidInput(
            "--precision int8 needs NNCF to calibrate the encoder, which is not installed. "
            "Install it: pip install 'vecsearch[int8]'"
        )


def layers(exported: Exported) -> list[list[str]]:
    """Return the operations that int8 may slow down or spoil, by name in the export.

    Each convolution and each product of matrices is a layer. The additions of residual connections
    are one layer together: each adds little rounding, and all of them much.
    """
    operations = openvino().Core().read_model(exported.model, exported.tensors).get_ordered_ops()
    found = [[op.get_friendly_name()] for op in operations if op.get_type_name() in _WITH_WEIGHTS]
    residual = [
        op.get_friendly_name()
        for op in operations
        if op.get_type_name() == "Add"
        # Otherwise it adds a bias, which is part of the layer before it.
        and all(value.get_node().get_type_name() != "Constant" for value in op.input_values())
    ]
    return [*found, residual] if residual else found


def quantize(
    exported: Exported, pictures: "NDArray[np.uint8]", in_float32: Sequence[str] = ()
) -> Exported:
    """Return an encoder's export in int8.

    Args:
        exported: the export in float32.
        pictures: representative prepared pictures, shape (n, height, width, 3).
        in_float32: names of operations that stay in float32.

    Raises:
        EncoderError: NNCF cannot quantise the network.

    """
    runtime = openvino()
    # Log messages of NNCF and torch do not help users.
    for name in ("nncf", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
    model = runtime.Core().read_model(exported.model, exported.tensors)
    try:
        with redirect_stdout(io.StringIO()):  # it draws bars there
            quantized = nncf.quantize(
                model,
                nncf.Dataset([picture[None] for picture in pictures]),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(pictures),
                ignored_scope=nncf.IgnoredScope(names=list(in_float32), validate=False),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
                ),
            )
    except Exception as error:  # NNCF's and OpenVINO's own, of every kind
        raise EncoderError(
            f"The encoder cannot be quantised: {error}. Leave --precision out."
        ) from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(quantized, folder)
        model_bytes, tensors = ((folder / file).read_bytes() for file in (MODEL, TENSORS))
    return Exported(model_bytes, tensors, exported.dimensions, exported.layer_shape)


def precision_of(quantized: Exported) -> str:
    """Return the precision of an identity, which is unique to this quantised encoder."""
    digest = hashlib.sha256(quantized.model + quantized.tensors).hexdigest()
    return f"{Precision.int8}-{digest[:16]}"


def neighbours_kept(
    one: "NDArray[np.float32]", other: "NDArray[np.float32]", k: int = NEIGHBOURS
) -> float:
    """Return the mean share of each picture's neighbours in one embedding that the other finds.

    Args:
        one: embeddings, shape (n, dimensions).
        other: embeddings of the same pictures, in the same order.
        k: number of neighbours by cosine; a picture is not its own neighbour.

    """
    nearest = [_nearest(embeddings, min(k, len(one) - 1)) for embeddings in (one, other)]
    pairs = zip(*nearest, strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) / len(pair[0]) for pair in pairs]))


def departure(one: "NDArray[np.float32]", other: "NDArray[np.float32]") -> float:
    """Return the mean cosine distance of two embeddings, (n, dimensions), row by row."""
    return float(1.0 - (_unit(one) * _unit(other)).sum(axis=1).mean())


def _unit(embeddings: "NDArray[np.float32]") -> "NDArray[np.float64]":
    wide = embeddings.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300))


def _nearest(embeddings: "NDArray[np.float32]", k: int) -> "NDArray[np.int64]":
    unit = _unit(embeddings)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]
