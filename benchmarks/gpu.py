"""Compare an ingest on a CUDA device with the encoder alone and with decoding alone.

    python benchmarks/gpu.py FOLDER --weights FILE

Every round measures, in one process: the forward pass on ready pictures; decoding and preparing
with the threads of an ingest, without embedding; and a whole ingest of copies of the folder's
pictures, each with unique bytes, into a new collection. Before that, it prints the smallest cosine
similarity between the device's embeddings and those of torch on the CPU. Without a device, it
prints a message.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import MAX_PIXELS, bare, conditions, prepared
from ingest import Watched, copy_pictures, whole

from vecsearch.config import Settings
from vecsearch.encoders import base, registry
from vecsearch.encoders.base import BATCH_SIZE, Encoder
from vecsearch.encoders.openvino.export import least_cosine
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.stalls import Devices
from vecsearch.ingest.stages.pipeline import Pipeline
from vecsearch.library import Library


class Preparing:
    """An encoder that prepares pictures like another one, but does not embed them."""

    concurrency = 1

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def embed(self, batch: "np.typing.NDArray[np.uint8]") -> "np.typing.NDArray[np.float32]":
        """Return ones."""
        return np.ones((len(batch), self.dimensions), np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder of pictures, to be copied")
    parser.add_argument("--weights", type=Path, help="the model's weights; default: the model hub")
    parser.add_argument("--model", default=base.DEFAULT_MODEL)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA device, so nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        copy_pictures(arguments.images, folder, arguments.files)
        paths = sorted(folder.iterdir())
        settings = Settings.load(data_dir=Path(temporary) / "data", device="cuda")
        encoder = registry.quickest(arguments.model, arguments.weights, settings.runtime)
        pictures = prepared(encoder, paths[: 16 * BATCH_SIZE])
        bare(encoder, pictures, len(pictures))
        print(f"{torch.cuda.get_device_name()}, {arguments.files} files, {conditions()}")
        print(f"least cosine to the CPU: {_agreement(encoder, pictures, arguments):.7f}")
        with Library.open(settings) as library:
            library.upgrade()
            rounds: list[tuple[float, float, float]] = []
            for number in range(arguments.rounds):
                alone = bare(encoder, pictures, arguments.files).rate
                decoding = _decoding(encoder, paths)
                watched = Watched(encoder)
                ingest, busy = whole(library, watched, folder, f"round_{number}")
                rounds.append((alone, decoding, ingest.rate))
                print(
                    f"round {number}: encoder alone {alone:.0f}/s, decoding alone {decoding:.0f}/s,"
                    f" ingest {ingest.rate:.0f}/s, encoder busy {busy:.0%}",
                    flush=True,
                )
    alone, decoding, rate = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"ingest to encoder alone: {rate / alone:.3f}; to decoding alone: {rate / decoding:.3f}")


def _agreement(
    encoder: Encoder, pictures: "np.typing.NDArray[np.uint8]", arguments: argparse.Namespace
) -> float:
    """Return the smallest cosine similarity between embeddings of the device and of the CPU."""
    on_cpu = registry.load(arguments.model, arguments.weights, device="cpu")
    return least_cosine(encoder.embed(pictures), on_cpu.embed(pictures))


def _decoding(encoder: Encoder, paths: list[Path]) -> float:
    """Return the pictures per second that are read, decoded, made thumbnails of and prepared."""
    size = 32 * BATCH_SIZE
    with Pipeline(Preparing(encoder), max_pixels=MAX_PIXELS, devices=Devices()) as pipeline:
        started = perf_counter()
        for start in range(0, len(paths), size):
            read = pipeline.read(map(str, paths[start : start + size]), keep=True)
            sources = [item for item in read if not isinstance(item, Unreadable)]
            for batch in pipeline.embed(sources):
                batch.result()
        return len(paths) / (perf_counter() - started)


if __name__ == "__main__":
    main()
