"""Compare a cold query, which starts the database, with importing timm and one forward pass.

    python benchmarks/cold_query.py PICTURES --weights resnet50.safetensors

One of PICTURES is not ingested and serves as the new query picture. All sides take turns; ratios of
medians are printed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = """
import timm, torch
model = timm.create_model("resnet50.tv_in1k", pretrained=False, num_classes=0).eval()
with torch.inference_mode():
    model(torch.zeros(1, 3, 224, 224))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["VECSEARCH_DATA_DIR"] = str(folder / "data")
        os.environ["VECSEARCH_CACHE_DIR"] = str(folder / "cache")
        *known, new = sorted(file for file in arguments.pictures.iterdir() if file.is_file())
        (folder / "known").mkdir()
        for file in known:
            shutil.copy(file, folder / "known")
        _vecsearch("ingest", str(folder / "known"), "--weights", str(arguments.weights))
        stored = folder / "known" / known[0].name
        sides: dict[str, Callable[[], None]] = {
            "new picture": lambda: _vecsearch("query", str(new)),
            "stored picture": lambda: _vecsearch("query", str(stored)),
            "timm and torch": lambda: _python("-c", MODEL),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for run in sides.values():
            run()
        for _ in range(arguments.rounds):
            for side, run in sides.items():
                _vecsearch("db", "stop")
                started = perf_counter()
                run()
                seconds[side].append(perf_counter() - started)
        _vecsearch("db", "stop")
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    base = medians.pop("timm and torch")
    ratios = {side: median / base for side, median in medians.items()}
    medians["timm and torch"] = base
    print(json.dumps({"seconds": medians, "ratio to timm and torch": ratios}, indent=1))


def _vecsearch(*arguments: str) -> None:
    _python("-m", "vecsearch", *arguments)


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
