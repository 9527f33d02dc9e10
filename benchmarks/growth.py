"""Measure how load, build, index, queries and memory of vecsearch grow with the number of rows.

    python benchmarks/growth.py --rows 10000 100000 1000000 --data-dir FOLDER

Every size has its own database in FOLDER, which is deleted afterwards. Vectors (see vectors.py) are
imported without an index, from NPZ files of 50,000 rows; then `index create --method compact` runs,
and queries, one at a time, for the 10 nearest by cosine to vectors that are not stored, by default
settings; then `index tune` runs, and the same queries. A size with results in the output folder is
skipped.

Peak memory, on Linux, is the sum of the processes' proportional set sizes, sampled five times a
second: those of the server, with shared buffers counted once, and those of this process and its
children, which also make the vectors. The kernel's file cache is not included.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import common
import product
import sqlalchemy as sa
from common import RECALL, ROUNDS, K, percentiles, say
from vectors import Array, Nearest, Vectors

from vecsearch.config import Settings
from vecsearch.library import Library

COLLECTION = "growth"
# Bytes per row for rows, indexes, the server's log, and the rows of one import twice.
BYTES_PER_ROW = 10_000
LEAST_BYTES = 3_000_000_000
SAMPLES_PER_SECOND = 5


def main() -> None:
    """Measure each size that has no results yet, and print all."""
    options = _arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    for rows in sorted(options.rows):
        file = options.output / f"growth-{rows}.json"
        if file.exists():
            say(f"{file} is there; delete it to measure again.")
            continue
        with tempfile.TemporaryDirectory(dir=options.data_dir) as folder:
            _require_space(Path(folder), rows)
            result = _measure(Path(folder), rows, options)
        file.write_text(json.dumps(result, indent=1) + "\n")
    results = read_results(options.output)
    print(table(results))


def _measure(folder: Path, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    source = Vectors(rows, options.seed)
    queries = source.queries(options.queries)
    exact = Nearest(queries, K)

    def chunks() -> Iterator[Array]:
        for chunk in source:
            exact.add(chunk)
            yield chunk

    with Library.open(Settings.load(data_dir=folder)) as library:
        library.upgrade()
        memory = Memory(library)
        with memory.phase("load"):
            load_s = product.load(library, COLLECTION, chunks(), rows)
        say(f"{rows:,} rows loaded in {load_s:.0f} s")
        with memory.phase("build"):
            built = product.build(library, COLLECTION, "compact")
        say(f"index built in {built['build_s']:.0f} s")
        sizes = product.megabytes(library, COLLECTION)
        with memory.phase("ask"):
            asked = [_ask(library, queries, exact, tuned=False)]
        with memory.phase("tune"):
            tuned = product.tune(library, COLLECTION, RECALL)
        say(f"index tuned in {tuned['tune_s']:.0f} s")
        with memory.phase("ask, tuned"):
            asked.append(_ask(library, queries, exact, tuned=True))
    return {
        "rows": rows,
        "seed": options.seed,
        "queries": len(queries),
        "rounds": ROUNDS,
        "cpus": os.cpu_count(),
        "load_s": load_s,
        **built,
        **tuned,
        **{f"{name}_mb": size for name, size in sizes.items()},
        "peak_mb": memory.peaks,
        "asked": asked,
    }


def _ask(library: Library, queries: Array, exact: Nearest, *, tuned: bool) -> dict[str, Any]:
    """Query in rounds, with the library's own settings."""
    statement = product.Statement(library, COLLECTION)
    recall = exact.recall([statement.ask(query, None) for query in queries])
    times: list[list[float]] = []
    for _ in range(ROUNDS):
        times.append([])
        for query in queries:
            started = perf_counter()
            statement.ask(query, None)
            times[-1].append(perf_counter() - started)
    statement.close()
    return {
        "breadth": statement.breadth,
        "ef_search": statement.ef_search,
        "tuned": tuned,
        "recall": recall,
        **percentiles(times),
    }


class Memory:
    """Peak memory of the server, and of this process with its children, in MB."""

    def __init__(self, library: Library) -> None:
        with library.engine.connect() as connection:
            backend = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        # A backend's parent is the server's first process.
        self._server = common.parents()[int(backend)]
        self.peaks: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record peak memory during the `with` block."""
        peaks = self.peaks[name] = {"server": 0.0, "client": 0.0}
        ended = threading.Event()

        def watch() -> None:
            while True:
                for part, root in (("server", self._server), ("client", os.getpid())):
                    size = common.memory([root], apart_from=[self._server]) / 1e6
                    peaks[part] = max(peaks[part], size)
                if ended.wait(1 / SAMPLES_PER_SECOND):
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the results of all measured sizes, smallest first."""
    results = [json.loads(file.read_text()) for file in folder.glob("growth-*.json")]
    return sorted(results, key=lambda result: int(result["rows"]))


def peak(result: dict[str, Any], part: str) -> float:
    """Return the highest of a part's peaks over all phases, in MB."""
    return max(float(peaks[part]) for peaks in result["peak_mb"].values())


def table(results: list[dict[str, Any]]) -> str:
    """Return Markdown tables of results: storage, and queries."""
    names = (
        "rows, load s, build s, its graph s, index MB, compact MB, table MB, server MB, client MB"
    )
    lines = [f"| {names.replace(', ', ' | ')} |", "|--:" * 9 + "|"]
    for result in results:
        numbers = (
            f"{result['load_s']:,.0f}",
            f"{result['build_s']:,.0f}",
            f"{result['graph_s']:,.0f}",
            *(f"{result[f'{name}_mb']:,.0f}" for name in ("index", "compact", "rows")),
            *(f"{peak(result, part):,.0f}" for part in ("server", "client")),
        )
        lines.append(f"| {result['rows']:,} | {' | '.join(numbers)} |")
    names = "rows, settings, candidates, ef_search, recall@10, p50 ms, p95 ms"
    lines += ["", f"| {names.replace(', ', ' | ')} |", "|--:|---" + "|--:" * 5 + "|"]
    for result in results:
        for asked in result["asked"]:
            settings = "tuned" if asked["tuned"] else "default"
            wide = f"{asked['breadth']} | {asked['ef_search']} | {asked['recall']:.4f}"
            times = f"{asked['p50_ms']:.2f} | {asked['p95_ms']:.2f}"
            lines.append(f"| {result['rows']:,} | {settings} | {wide} | {times} |")
    return "\n".join(lines)


def _require_space(folder: Path, rows: int) -> None:
    needed = max(rows * BYTES_PER_ROW, LEAST_BYTES)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{rows:,} rows need {needed / 1e9:.0f} GB in {folder.parent}, where {free / 1e9:.0f} "
            "are free. Name a folder on another disk with --data-dir."
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data-dir", type=Path, help="an existing folder with 10 kB of free space per row"
    )
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results, help="a folder, for JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
