"""Quantise an exported encoder to int8, calibrated on pictures; only this module imports NNCF."""

import hashlib
import importlib.util
import io
import logging
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.encoders.openvino.cache import MODEL, TENSORS, Exported
from vecsearch.encoders.openvino.engine import openvino
from vecsearch.errors import EncoderError, InvalidInput
from vecsearch.vocabulary import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 10


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


def quantize(exported: Exported, pictures: "NDArray[np.uint8]") -> Exported:
    """Return an encoder's export in int8.

    Args:
        exported: the export in float32.
        pictures: representative prepared pictures, shape (n, height, width, 3).

    Raises:
        EncoderError: NNCF cannot quantise the network.

    """
    runtime = openvino()
    # Log messages of NNCF and torch do not help users.
    for name in ("nncf", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import nncf

    model = runtime.Core().read_model(exported.model, exported.tensors)
    try:
        with redirect_stdout(io.StringIO()):  # it draws bars there
            quantized = nncf.quantize(
                model,
                nncf.Dataset([picture[None] for picture in pictures]),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(pictures),
            )
    except Exception as error:  # NNCF's and OpenVINO's own, of every kind
        raise EncoderError(
            f"The encoder cannot be quantised: {error}. Leave --precision out."
        ) from error
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runtime.save_model(quantized, folder / MODEL, compress_to_fp16=False)
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


def _nearest(embeddings: "NDArray[np.float32]", k: int) -> "NDArray[np.int64]":
    wide = embeddings.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]
