"""What a build may take of the machine: memory, and parallel workers."""

import os
from contextlib import suppress
from dataclasses import dataclass

# What a graph takes beside its vectors, a row, and what to spare.
GRAPH_BYTES, SPARE = 700, 1.2
# Of the machine's memory, where the server is ours; and what Postgres wants for each process.
MEMORY_SHARE, LEAST_MEMORY = 4, 2**26
PROCESS_MEMORY = 2**25


@dataclass(frozen=True)
class Resources:
    """What a build may take.

    Attributes:
        memory: bytes for the graph; None: what it needs, within bounds.
        workers: parallel workers beside the first process; None: by the machine's cores.
        embedded: whether the server is on this machine, and ours.

    """

    memory: int | None = None
    workers: int | None = None
    embedded: bool = False


# Whatever the build needs, within the server's own bounds.
ANY = Resources()


@dataclass(frozen=True)
class Chosen:
    """What a build takes.

    Attributes:
        memory: bytes.
        workers: parallel workers beside the first process.
        needed: bytes that the whole graph takes; with less memory a build is much slower.

    """

    memory: int
    workers: int
    needed: int


def choose(rows: int, dimensions: int, server: tuple[int, int], resources: Resources) -> Chosen:
    """Return what a build takes.

    Args:
        rows: of the table.
        dimensions: of the vectors that are indexed.
        server: its maintenance_work_mem in bytes, and its parallel maintenance workers.
        resources: what the user says.

    """
    needed = int(rows * (2 * dimensions + GRAPH_BYTES) * SPARE)
    memory, workers = server
    if resources.embedded:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = machine // MEMORY_SHARE
        workers = (os.cpu_count() or 1) - 1
    if resources.workers is not None:
        workers = resources.workers
    # Postgres gives each process its part, and takes fewer where there is not enough for all.
    least = max(LEAST_MEMORY, PROCESS_MEMORY * (workers + 1))
    memory = max(min(needed, memory), min(least, memory))
    if resources.memory is not None:
        memory = resources.memory
    if resources.embedded and resources.workers is None and not _can_share(memory):
        workers = 0
    return Chosen(memory, workers, needed)


def _can_share(memory: int) -> bool:
    """Tell whether processes can share so much: containers are often given 64 MB."""
    with suppress(OSError):
        shared = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size alone
        return shared.f_bavail * shared.f_frsize > memory
    return True


def gigabytes(size: int) -> str:
    """Return a size as Postgres and `--memory` take it, rounded up."""
    if size < 2**30:
        return f"{-(-size // 2**20)}MB"
    return f"{-(-size // 2**30)}GB"
