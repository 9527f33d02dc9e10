"""Compare an ingest with its encoder alone, and with the way of a tutorial.

    python benchmarks/ingest.py FOLDER --weights FILE

Every round measures three things, in one process and in fp32: a whole ingest of copies of the
folder's pictures, each with unique bytes, into a new collection, from the walk to the index; the
same encoder's forward pass on ready pictures, with as many threads as the ingest has; and the
tutorial way, one picture at a time through timm's own transform and an eager model, on some of the
pictures.

The results are ratios of medians with the encoder already loaded, because loading takes the same
time for ten files as for a million. The time of the whole command, with start-up, database and
loading, is printed as well.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from common import Measured, bare, conditions, prepared

from vecsearch.config import Settings
from vecsearch.encoders import base, registry
from vecsearch.encoders.base import BATCH_SIZE, Encoder
from vecsearch.encoders.timm import ALIASES
from vecsearch.imaging import scan
from vecsearch.ingest.run import Ingest, Options
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.search.indexes.build import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Batches of ready pictures in one measurement of the encoder alone.
BARE = 384


class Watched:
    """An encoder that measures the time of its forward passes; see `encoders.base.Encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self.busy = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Embed pictures, and add the time to `busy`."""
        started = perf_counter()
        try:
            return self._encoder.embed(batch)
        finally:
            with self._lock:
                self.busy += perf_counter() - started


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        copy_pictures(arguments.images, folder, arguments.files)
        settings = Settings.load(data_dir=Path(temporary) / "data")
        print(f"{arguments.files} files, {conditions()}")
        with Library.open(settings) as library:
            library.upgrade()
            _measure(library, _encoder(settings, folder, arguments), folder, arguments)
        command = _command(folder, arguments, Path(temporary) / "data")
        print(f"the whole command, start-up included: {command:.2f} pictures/s; {conditions()}")


def _measure(
    library: Library, encoder: Encoder, folder: Path, arguments: argparse.Namespace
) -> None:
    paths = sorted(folder.iterdir())
    pictures = prepared(encoder, paths[: 8 * BATCH_SIZE])
    watched = Watched(encoder)
    bare(encoder, pictures, 4 * BATCH_SIZE)
    tutorial = Tutorial(arguments.model, arguments.weights)
    tutorial.embed(paths[:2])
    rounds: list[tuple[Measured, Measured, Measured]] = []
    for number in range(arguments.rounds):
        alone = bare(encoder, pictures, BARE)
        ingest, busy = whole(library, watched, folder, f"round_{number}")
        some = paths[number :: len(paths) // arguments.tutorial][: arguments.tutorial]
        started, cpu = perf_counter(), process_time()
        tutorial.embed(some)
        slow = Measured.since(started, cpu, len(some))
        print(
            f"round {number}: encoder alone {_shown(alone)}; ingest {_shown(ingest)}, "
            f"encoder busy {busy:.0%}; tutorial {_shown(slow)}",
            flush=True,
        )
        rounds.append((alone, ingest, slow))
    bare_rate, rate, tutorial_rate = (
        statistics.median(item.rate for item in column) for column in zip(*rounds, strict=True)
    )
    ratios = [ingest.rate / alone.rate for alone, ingest, _ in rounds]
    print(
        f"ingest to encoder alone: {rate / bare_rate:.3f}, by round {statistics.median(ratios):.3f}"
        f" ({min(ratios):.3f} to {max(ratios):.3f})"
    )
    print(f"ingest to the tutorial way: {rate / tutorial_rate:.2f}")


def _encoder(settings: Settings, folder: Path, arguments: argparse.Namespace) -> Encoder:
    """Return the encoder as in a second run: exported, if possible."""
    first = registry.quickest(arguments.model, arguments.weights, settings.runtime)
    first.embed(prepared(first, sorted(folder.iterdir())[:BATCH_SIZE]))
    return registry.quickest(arguments.model, arguments.weights, settings.runtime)


def whole(
    library: Library, encoder: Watched, folder: Path, collection: str
) -> tuple[Measured, float]:
    """Measure an ingest into a new collection, and the share of its time spent on embedding."""
    encoder.busy = 0.0
    started, cpu = perf_counter(), process_time()
    with database.session(library.engine) as connection:
        run = Ingest(connection, collection, scan.Walk([folder]), encoder, Options())
        for _ in run:
            pass
    library.collection(collection).ensure_index(on_progress=quiet)
    measured = Measured.since(started, cpu, run.summary.added)
    if run.summary.added != sum(1 for _ in folder.iterdir()):
        raise SystemExit(f"Not every file was new: {run.summary}")
    elapsed = run.summary.added / measured.rate
    return measured, encoder.busy / (encoder.concurrency * elapsed)


def copy_pictures(source: Path, folder: Path, count: int) -> None:
    """Fill a folder with copies of another's pictures, each with unique bytes appended."""
    originals = sorted(path for path in source.rglob("*") if path.is_file())
    folder.mkdir()
    for number, original in enumerate(islice(cycle(originals), count)):
        content = original.read_bytes() + number.to_bytes(4, "big")
        (folder / f"{number:06}{original.suffix}").write_bytes(content)


class Tutorial:
    """The way of a tutorial: timm's model, timm's transform, one picture at a time."""

    def __init__(self, model: str, weights: Path | None) -> None:
        import timm
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        name = ALIASES.get(model, model)
        self._model = timm.create_model(name, pretrained=weights is None)
        if weights is not None:
            self._model.load_state_dict(timm.models.load_state_dict(str(weights)))
        self._model.reset_classifier(0)  # type: ignore[operator]  # a method of timm's models
        self._model.eval()
        config = resolve_model_data_config(self._model)  # type: ignore[no-untyped-call]  # untyped there
        self._transform = create_transform(**config, is_training=False)

    def embed(self, paths: list[Path]) -> None:
        """Embed pictures."""
        import PIL.Image
        import torch

        for path in paths:
            with PIL.Image.open(path) as picture, torch.no_grad():
                self._model(self._transform(picture.convert("RGB")).unsqueeze(0)).numpy()


def _command(folder: Path, arguments: argparse.Namespace, data_dir: Path) -> float:
    command = [sys.executable, "-m", "vecsearch", "ingest", str(folder), "--collection", "command"]
    command += ["--model", arguments.model, "--data-dir", str(data_dir)]
    if arguments.weights is not None:
        command += ["--weights", str(arguments.weights)]
    started = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return float(arguments.files) / (perf_counter() - started)


def _shown(measured: Measured) -> str:
    return f"{measured.rate:.2f}/s at {measured.cpu:.1f} CPU ms"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder of pictures, to be copied")
    parser.add_argument("--weights", type=Path, help="the model's weights; default: the model hub")
    parser.add_argument("--model", default=base.DEFAULT_MODEL)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--tutorial", type=int, default=24, help="pictures for the tutorial way in each round"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
