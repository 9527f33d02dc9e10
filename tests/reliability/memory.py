"""The memory of processes while something goes on: does it grow?"""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from reliability.frame import Place

SAMPLE_S = 2.0
# The memory of a process settles first.
SETTLED = 0.3


class Memory:
    """The memory of processes over time."""

    def __init__(self, process: int, place: Place) -> None:
        self.process, self.place = process, place
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def watch(self, over: Callable[[], bool]) -> None:
        """Sample the memory until it is over."""
        started = time.monotonic()
        while not over():
            now = time.monotonic() - started
            found = {"serve": megabytes(self.process)}
            if postmaster := self.place.postmaster():
                found["the server's processes"] = megabytes(postmaster)
            for name, size in found.items():
                self.samples[name].append((now, size))
            time.sleep(SAMPLE_S)

    def lines(self) -> list[dict[str, Any]]:
        """Return, for each process, its memory and the slope of a line through it."""
        found = []
        for name, samples in self.samples.items():
            settled = samples[int(SETTLED * len(samples)) :]
            moments, sizes = (np.array(values) for values in zip(*settled, strict=True))
            slope = float(np.polyfit(moments, sizes, 1)[0]) if len(settled) > 1 else 0.0
            found.append(
                {
                    "table": "memory",
                    "memory of": name,
                    "median_mb": round(float(np.median(sizes)), 1),
                    "largest_mb": round(float(sizes.max()), 1),
                    "growth_mb_a_minute": round(60 * slope, 3),
                    "flat": bool(slope * moments.max() < np.median(sizes) / 10),
                }
            )
        return found


def megabytes(root: int) -> float:
    """Return the memory of a process and its children, each shared page counted once."""
    total = 0
    for process in (root, *children(root)):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def children(parent: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found
