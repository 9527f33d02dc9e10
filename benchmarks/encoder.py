"""Compare the encoder alone with the machine's matrix multiplication, in fp32 and int8.

    python benchmarks/encoder.py PICTURES --weights resnet50.safetensors

ResNet50 needs 8.2 GFLOP per picture, so sgemm's speed bounds the pictures per second. All sides
take turns in one run, and ratios of medians are printed. PICTURES is a folder of real pictures:
int8 is calibrated on half of them, and its neighbours are compared on all. All layers are in int8
here; int8.py measures what an ingest does, which leaves some in fp32.

With random weights, all pictures have almost the same features, so rounding reorders neighbours.
`--condition FILE` computes the statistics of the batch norms from PICTURES, as training would,
writes the weights to FILE, and measures those.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from common import bare, prepared

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import BATCH_SIZE
from vecsearch.encoders.openvino import choice, quantize
from vecsearch.encoders.openvino.engine import EngineEncoder
from vecsearch.imaging import scan

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "resnet50"
GFLOP_A_PICTURE = 8.2
SIDE = 2048


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--condition", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8, help="of 8 pictures, a round")
    arguments = parser.parse_args()
    weights = arguments.weights
    if arguments.condition is not None:
        weights = condition(weights, arguments.pictures, arguments.condition)
    with tempfile.TemporaryDirectory() as cache:
        measured = measure(arguments, weights, Runtime("cpu", "openvino", Path(cache)))
    print(json.dumps(measured, indent=1))


def measure(arguments: argparse.Namespace, weights: Path, runtime: Runtime) -> dict[str, Any]:
    """Return images per second, ratios to the bound, and int8's share of fp32's neighbours."""
    import torch

    plain = registry.load(MODEL, weights, device="cpu")
    pictures = prepared(plain, _files(arguments.pictures))
    exact = choice.quickest(plain, runtime)
    exact_embeddings = exact.embed(pictures)
    started = perf_counter()
    eighth = quantize.quantize(choice.exported(plain.identity, runtime), pictures[::2])
    calibrated_s = perf_counter() - started
    identity = replace(plain.identity, precision=quantize.precision_of(eighth))
    rounded = EngineEncoder(identity, plain.weights, eighth)

    whole = pictures[: len(pictures) // BATCH_SIZE * BATCH_SIZE]
    count = arguments.batches * BATCH_SIZE
    matrix = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    tensor = torch.from_numpy(matrix)
    sides: dict[str, Callable[[], float]] = {
        "numpy sgemm": lambda: sgemm(lambda: matrix @ matrix),
        "torch sgemm": lambda: sgemm(lambda: tensor @ tensor),
        "fp32": lambda: bare(exact, whole, count).rate,
        "int8": lambda: bare(rounded, whole, count).rate,
        "torch eager": lambda: bare(plain, whole, count).rate,
    }
    rounds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rounds[name].append(side())
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    bound = max(medians["numpy sgemm"], medians["torch sgemm"])
    cosines = _cosines(exact_embeddings)
    return {
        "images a second, of which the bound is sgemm's": medians | {"bound": bound},
        "ratio to the bound": {name: medians[name] / bound for name in ("fp32", "int8")},
        "fp32 to torch eager": medians["fp32"] / medians["torch eager"],
        "int8's share of fp32's 10 nearest": quantize.neighbours_kept(
            exact_embeddings, rounded.embed(pictures)
        ),
        "pictures": len(pictures),
        "seconds to calibrate": calibrated_s,
        "cosine of two pictures, 1st and 99th percentile": np.percentile(cosines, [1, 99]).tolist(),
    }


def _files(folder: Path) -> list[str]:
    return [file.path for file in scan.Walk([folder])]


def sgemm(multiply: Callable[[], object]) -> float:
    """Return the pictures per second that the speed of matrix multiplication allows."""
    times = 8
    started = perf_counter()
    for _ in range(times):
        multiply()
    seconds = perf_counter() - started
    return times * 2 * SIDE**3 / seconds / 1e9 / GFLOP_A_PICTURE


def condition(weights: Path, pictures: Path, output: Path) -> Path:
    """Write weights with batch norm statistics of the pictures; return the file."""
    import safetensors.torch
    import torch

    encoder = registry.load(MODEL, weights, device="cpu")
    norms = [
        layer for layer in encoder.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)
    ]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    batch = torch.from_numpy(prepared(encoder, _files(pictures)))
    # A norm's statistics are valid once those of all earlier norms are.
    for layer in norms:
        layer.train()
    with torch.no_grad():
        for part in torch.split(batch, 32):
            encoder.network(part)
    state = safetensors.torch.load_file(weights)
    state |= {
        name.removeprefix("model."): tensor.contiguous()
        for name, tensor in encoder.network.state_dict().items()
        if name.removeprefix("model.") in state
    }
    safetensors.torch.save_file(state, output)
    return output


def _cosines(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines: NDArray[np.float32] = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    return cosines


if __name__ == "__main__":
    main()
