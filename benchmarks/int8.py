"""Measure what int8 costs in quality and gains in speed, on real weights and labelled photos.

    python benchmarks/int8.py PICTURES --also MORE

PICTURES is a folder of folders, each a label. The encoder is calibrated as by `ingest --precision
int8`. Printed are the share of fp32's ten nearest that int8 finds, mAP of both, and the ratio of
speeds: both take turns in one run, and each round compares their CPU time, which other processes
on the machine disturb less than the time on the clock. MORE is a folder that calibration never
sees; its pictures are judged alone and among PICTURES. With `--half`, calibration sees every
second one of PICTURES only, and the queries are the others.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import bare, conditions, prepared

from vecsearch.analysis import ranking
from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import BATCH_SIZE, PACKAGED_MODEL, Encoder
from vecsearch.encoders.openvino import calibration, mixed
from vecsearch.encoders.openvino.quantize import NEIGHBOURS
from vecsearch.imaging import pictures, scan
from vecsearch.vocabulary import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_PIXELS = 10**9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--also", type=Path)
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--model", default=PACKAGED_MODEL)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--least-kept", type=float, default=mixed.LEAST_KEPT)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    mixed.LEAST_KEPT = arguments.least_kept
    with tempfile.TemporaryDirectory() as cache:
        measured = measure(arguments, Runtime("cpu", "openvino", Path(cache)))
    print(json.dumps(measured, indent=1))


def measure(arguments: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """Return shares, mAP and ratios of speed; see the module."""
    files = list(readable(arguments.pictures))
    exact = registry.quickest(arguments.model, arguments.weights, runtime)
    seen = files[::2] if arguments.half else files
    made = calibration.calibrate(exact, seen, runtime, max_pixels=MAX_PIXELS)
    pictures = prepared(exact, [file.path for file in files])
    plain, rounded = exact.embed(pictures), made.encoder.embed(pictures)
    queries = np.arange(1, len(files), 2) if arguments.half else np.arange(len(files))
    labels = np.array([file.label for file in files])
    result: dict[str, Any] = {
        "model": exact.identity.name,
        "note": made.note,
        "pictures": len(files),
        "queries": len(queries),
        f"share of fp32's {NEIGHBOURS} nearest": share(plain, rounded, queries),
        "mAP in fp32": mean_average_precision(plain, labels, queries),
        "mAP in int8": mean_average_precision(rounded, labels, queries),
    }
    if arguments.also is not None:
        more = prepared(exact, [file.path for file in readable(arguments.also)])
        alone = exact.embed(more), made.encoder.embed(more)
        both = np.concatenate([plain, alone[0]]), np.concatenate([rounded, alone[1]])
        for name, pair in (("never seen, alone", alone), ("all together", both)):
            everyone = np.arange(len(pair[0]))
            result[f"share of {len(everyone)}, {name}"] = share(pair[0], pair[1], everyone)
    ratios = speed(exact, made.encoder, pictures, arguments.rounds)
    result["pictures a CPU second, int8 to fp32"] = {
        "median": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }
    result["conditions"] = conditions()
    return result


def readable(folder: Path) -> Iterator[scan.File]:
    """Yield a folder's pictures; those that cannot be decoded are left out, as by an ingest."""
    for file in scan.Walk([folder]):
        made = pictures.make(file.path, pictures.Wanted(), max_pixels=MAX_PIXELS)
        if isinstance(made, pictures.Made):
            yield file


def share(
    plain: "NDArray[np.float32]", rounded: "NDArray[np.float32]", queries: "NDArray[np.int64]"
) -> float:
    """Return the share of the queries' nearest in one embedding that the other finds."""
    one, other = (
        [ranking.nearest_first(row, own)[:NEIGHBOURS] for own, row in rows(embeddings, queries)]
        for embeddings in (plain, rounded)
    )
    return float(np.mean([np.isin(*pair).mean() for pair in zip(one, other, strict=True)]))


def mean_average_precision(
    embeddings: "NDArray[np.float32]", labels: "NDArray[np.str_]", queries: "NDArray[np.int64]"
) -> float:
    """Return the mAP of the queries, each left out of its own ranking."""
    found = (
        ranking.average_precision(labels[ranking.nearest_first(row, own)] == labels[own])
        for own, row in rows(embeddings, queries)
    )
    return float(np.mean([precision for precision in found if precision is not None]))


def rows(
    embeddings: "NDArray[np.float32]", queries: "NDArray[np.int64]"
) -> Iterator[tuple[int, "NDArray[np.float64]"]]:
    """Yield each query's place and its cosine distances to all."""
    distances = ranking.distances(embeddings[queries], embeddings, Metric.cosine)
    yield from zip(queries.tolist(), distances, strict=True)


def speed(
    plain: Encoder, rounded: Encoder, pictures: "NDArray[np.uint8]", rounds: int
) -> list[float]:
    """Return each round's ratio of pictures per CPU second."""
    count = 8 * BATCH_SIZE
    for encoder in (plain, rounded):
        bare(encoder, pictures, BATCH_SIZE)
    return [
        bare(plain, pictures, count).cpu / bare(rounded, pictures, count).cpu for _ in range(rounds)
    ]


if __name__ == "__main__":
    main()
