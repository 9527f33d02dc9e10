"""Compare an ingest on Ray with one without it, and kill a node in the middle of one.

    python benchmarks/on_ray.py FOLDER

On one machine, in turns: a plain ingest, one on a Ray cluster that is running, and one that starts
Ray for itself (`--ray local`), each into a new collection, by the command, from its start to its
end. Then two raylets run, and one of them is killed when half of the pictures are done: every
picture must be there once, and its row must be equal to that of the plain ingest.

The results are ratios of wall-clock times in the same round, and the medians of those.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import sqlalchemy as sa
from common import conditions, say
from ingest import copy_pictures
from ray.cluster_utils import Cluster

from vecsearch.config import Settings
from vecsearch.ingest.summary import Progress
from vecsearch.library import Library
from vecsearch.postgres import database

MODEL = "tf_efficientnet_lite0"


@contextmanager
def cluster(nodes: int, cores: int) -> Iterator[tuple[Cluster, list[Any]]]:
    """Run a head without cores, and nodes; yield the cluster and the nodes."""
    with tempfile.TemporaryDirectory(prefix="vs-ray-", dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        os.environ["RAY_TMPDIR"], os.environ["RAY_AUTH_MODE"] = folder, "disabled"
        own = {"object_store_memory": 200_000_000, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **own})
        try:
            yield made, [made.add_node(num_cpus=cores, **own) for _ in range(nodes)]
        finally:
            made.shutdown()
            del os.environ["RAY_TMPDIR"], os.environ["RAY_AUTH_MODE"]


def command(folder: Path, data: Path, name: str, *words: str) -> float:
    """Ingest with the command; return the seconds from its start to its end."""
    line = [sys.executable, "-m", "vecsearch", "ingest", str(folder), "--collection", name]
    line += ["--model", MODEL, "--data-dir", str(data), *words]
    started = perf_counter()
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    elapsed = perf_counter() - started
    added = json.loads(done.stdout)["added"]
    if added != sum(1 for _ in folder.iterdir()):
        raise SystemExit(f"Not every file was added: {done.stdout}")
    return elapsed


def compared(folder: Path, data: Path, rounds: int) -> dict[str, Any]:
    """Measure the three ways in turns."""
    seconds: dict[str, list[float]] = {"plain": [], "cluster": [], "local": []}
    command(folder, data, "warm")  # the export of the encoder is kept from now on
    for number in range(rounds):
        seconds["plain"].append(command(folder, data, f"plain_{number}"))
        with cluster(1, os.cpu_count() or 1) as (running, _):
            # Ray starts workers ahead of their first task, but not of the first job.
            taken = command(folder, data, f"cluster_{number}", "--ray", str(running.address))
        seconds["cluster"].append(taken)
        seconds["local"].append(command(folder, data, f"local_{number}", "--ray", "local"))
        say(str({name: round(times[-1], 1) for name, times in seconds.items()}))
    ratios = {
        name: [one / plain for one, plain in zip(seconds[name], seconds["plain"], strict=True)]
        for name in ("cluster", "local")
    }
    return {
        "seconds": {name: [round(one, 2) for one in times] for name, times in seconds.items()},
        "ratios_to_plain": {name: [round(one, 3) for one in ratios[name]] for name in ratios},
        "median_ratio": {name: round(statistics.median(ratios[name]), 3) for name in ratios},
    }


def killed(folder: Path, data: Path) -> dict[str, Any]:
    """Kill one of two raylets in the middle of an ingest; compare the rows with a plain one's."""
    files = sum(1 for _ in folder.iterdir())
    kills: list[int] = []
    with (
        cluster(2, 1) as (running, nodes),
        Library.open(Settings.load(data_dir=data)) as library,
    ):

        def on_progress(now: Progress) -> None:
            if now.done >= files // 2 and not kills:
                kills.append(now.done)
                running.remove_node(nodes.pop(), allow_graceful=False)

        started = perf_counter()
        summary = library.collection("killed").ingest(
            [folder], model=MODEL, ray=str(running.address), on_progress=on_progress
        )
        elapsed = perf_counter() - started
        one, other = (_rows(library, name) for name in ("plain_0", "killed"))
    furthest = max(float(np.abs(one[path][1] - other[path][1]).max()) for path in one)
    largest = max(float(np.abs(row[1]).max()) for row in one.values())
    return {
        "killed_after": kills[0],
        "seconds": round(elapsed, 2),
        "summary": {name: count for name, count in summary.counts().items() if count},
        "every_picture_once": len(other) == files and summary.added == files,
        "facts_equal": {path: row[0] for path, row in one.items()}
        == {path: row[0] for path, row in other.items()},
        "largest_difference_of_a_number": furthest,
        "largest_number": largest,
    }


def _rows(library: Library, name: str) -> dict[str, Any]:
    with database.reading(library.engine) as connection:
        rows = connection.execute(
            sa.text(
                "SELECT path, id, sha256, width, height, format, file_size, modified_at, label,"
                f" CAST(embedding AS real[]) FROM vecsearch.{name}"
            )
        ).all()
    return {path: (tuple(facts), np.array(vector)) for path, *facts, vector in rows}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder of pictures, to be copied")
    parser.add_argument("--files", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    # Otherwise Ray lowers the priority of its workers, so that others' work would count.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary) / "pictures", Path(temporary) / "data"
        copy_pictures(arguments.images, folder, arguments.files)
        found = {
            "files": arguments.files,
            "model": MODEL,
            "before": conditions(),
            **compared(folder, data, arguments.rounds),
            "one_of_two_raylets_killed": killed(folder, data),
            "after": conditions(),
        }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
