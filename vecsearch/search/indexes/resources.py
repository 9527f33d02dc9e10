"""The size of an HNSW index; the memory, the parallel workers and the time of its build."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass

from vecsearch.vocabulary import EF_CONSTRUCTION, least_ef_construction

# Bytes of the graph per row, without its vector, and a safety factor.
GRAPH_BYTES, SPARE = 700, 1.2
# A build on the embedded server may use 1 / MEMORY_SHARE of the machine's memory, and at least
# LEAST_MEMORY bytes. Postgres needs PROCESS_MEMORY bytes for each process.
MEMORY_SHARE, LEAST_MEMORY = 4, 2**26
PROCESS_MEMORY = 2**25
# Bytes in pgvector's pages (hnsw.h): a page's room, an element without its vector, a vector without
# its numbers, a list of links without the links, a link, a pointer to an item. Items start at
# multiples of 8.
_PAGE, _ROOM = 8_192, 8_160
_ELEMENT, _VECTOR, _LINKS, _LINK, _ITEM = 72, 8, 4, 6, 4
# Seconds of one process to link a row among 100,000, per dimension and beside; a row among more
# takes longer as their logarithm grows. Measured by benchmarks/growth.py and databases.py.
_SECONDS_PER_DIMENSION, _SECONDS_PER_ROW, _MEASURED_ROWS = 3.8e-7, 2.35e-4, 100_000


@dataclass(frozen=True)
class Resources:
    """The resources that a build may use.

    Attributes:
        memory: bytes for the graph; None uses what it needs, within bounds.
        workers: parallel workers in addition to the main process; None depends on the cores.
        embedded: whether the server is the embedded one.

    """

    memory: int | None = None
    workers: int | None = None
    embedded: bool = False


# What the build needs, within the server's own limits.
ANY = Resources()


@dataclass(frozen=True)
class Chosen:
    """The resources chosen for a build.

    Attributes:
        memory: bytes.
        workers: parallel workers in addition to the main process.
        needed: bytes that the whole graph needs; with less memory, the build is much slower.

    """

    memory: int
    workers: int
    needed: int


def choose(rows: int, dimensions: int, server: tuple[int, int], resources: Resources) -> Chosen:
    """Return the resources for a build.

    Args:
        rows: number of rows of the table.
        dimensions: dimensions of the indexed vectors.
        server: maintenance_work_mem in bytes, and the number of parallel maintenance workers.
        resources: the user's limits.

    """
    needed = int(rows * (2 * dimensions + GRAPH_BYTES) * SPARE)
    memory, workers = server
    if resources.embedded:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = machine // MEMORY_SHARE
        workers = (os.cpu_count() or 1) - 1
    if resources.workers is not None:
        workers = resources.workers
    # Postgres divides the memory among processes, and starts fewer if it is not enough for all.
    least = max(LEAST_MEMORY, PROCESS_MEMORY * (workers + 1))
    memory = max(min(needed, memory), min(least, memory))
    if resources.memory is not None:
        memory = resources.memory
    if resources.embedded and resources.workers is None and not _can_share(memory):
        workers = 0
    return Chosen(memory, workers, needed)


def hnsw_bytes(dimensions: int, m: int) -> float:
    """Return the bytes of an HNSW index per row, computed from pgvector's page layout.

    Args:
        dimensions: numbers of a halfvec.
        m: links of a row in each layer, twice as many in the lowest one; a row is in the next layer
            with probability 1 / m.

    """
    element = _aligned(_ELEMENT + _VECTOR + 2 * dimensions)
    links = _aligned(_LINKS + 2 * m * _LINK) + m * _LINK / (m - 1)
    size = element + links + 2 * _ITEM
    # A row's two items are on one page if they fit.
    return _PAGE / max(1, math.floor(_ROOM / size))


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def build_seconds(rows: int, dimensions: int, workers: int) -> float:
    """Return about how long a graph is built that fits in memory, on cores like those measured."""
    growth = max(1.0, math.log(rows) / math.log(_MEASURED_ROWS)) if rows > 1 else 1.0
    growth *= least_ef_construction(rows) / EF_CONSTRUCTION.default
    row = _SECONDS_PER_DIMENSION * dimensions + _SECONDS_PER_ROW
    return rows * row * growth / (workers + 1)


def _can_share(memory: int) -> bool:
    """Return whether /dev/shm has room for this much; in containers it often has only 64 MB."""
    with suppress(OSError):
        shared = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size alone
        return shared.f_bavail * shared.f_frsize > memory
    return True


def gigabytes(size: int) -> str:
    """Return a size in the form that Postgres and `--memory` take, rounded up."""
    if size < 2**30:
        return f"{-(-size // 2**20)}MB"
    return f"{-(-size // 2**30)}GB"
