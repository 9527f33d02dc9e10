"""What several benchmarks share: constants, percentiles, the encoder alone, memory of processes."""

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.encoders.base import BATCH_SIZE, Encoder
from vecsearch.imaging import pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = 10
RECALL = 0.999
ROUNDS = 5
MAX_PIXELS = 10**9


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def conditions() -> str:
    """Return the conditions of the measurement: processors and load."""
    return f"{os.cpu_count()} CPUs ({platform.machine()}), load {os.getloadavg()[0]:.1f}"


def percentiles(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the median over rounds of the median and of the 95th percentile of seconds, in ms."""
    p95 = (statistics.quantiles(seconds, n=20)[18] for seconds in rounds)
    return {
        "p50_ms": 1000 * statistics.median(map(statistics.median, rounds)),
        "p95_ms": 1000 * statistics.median(p95),
    }


@dataclass
class Measured:
    """Pictures per second, and milliseconds of this process's CPU time per picture."""

    rate: float
    cpu: float

    @classmethod
    def since(cls, wall: float, cpu: float, pictures: int) -> "Measured":
        """Return the measurement from two earlier clock readings until now."""
        elapsed = perf_counter() - wall
        return cls(pictures / elapsed, 1000 * (process_time() - cpu) / pictures)


def prepared(encoder: Encoder, paths: Iterable[str | Path]) -> "NDArray[np.uint8]":
    """Return pictures as the encoder's input."""
    inputs = []
    for path in paths:
        wanted = pictures.Wanted(preprocessing=encoder.preprocessing)
        made = pictures.make(str(path), wanted, max_pixels=MAX_PIXELS)
        if not isinstance(made, pictures.Made) or made.inputs is None:
            raise SystemExit(f"{path}: {made}")
        inputs.append(made.inputs)
    return np.stack(inputs)


def bare(encoder: Encoder, pictures: "NDArray[np.uint8]", count: int) -> Measured:
    """Measure the forward pass on prepared pictures, in batches like those of an ingest."""
    starts = range(0, count, BATCH_SIZE)
    with ThreadPoolExecutor(encoder.concurrency) as pool:
        started, cpu = perf_counter(), process_time()
        for _ in pool.map(
            lambda start: encoder.embed(pictures[start % len(pictures) :][:BATCH_SIZE]), starts
        ):
            pass
        return Measured.since(started, cpu, count)


def parents() -> dict[int, int]:
    """Return the parent of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name, in parentheses, may have anything in it.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            found[int(folder.name)] = int(fields[1])
    return found


def memory(roots: Iterable[int], *, apart_from: Iterable[int] = ()) -> int:
    """Return the bytes of processes and their descendants; shared memory counts once.

    Args:
        roots: the processes.
        apart_from: processes that are left out with their descendants.

    """
    known, left_out = parents(), set(apart_from)
    family = set(roots)
    while grown := {p for p, parent in known.items() if parent in family} - family - left_out:
        family |= grown
    return sum(map(proportional, family))


def proportional(process: int) -> int:
    """Return a process' proportional set size in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
