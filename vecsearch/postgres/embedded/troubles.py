"""What Postgres prints when it cannot start, in our words."""

import errno
import os
import shutil
import signal
from pathlib import Path

from vecsearch.errors import DatabaseUnavailable

# A segment of its log, and some more.
ROOM_MB = 64
# With less, Postgres cannot even print why it does not start.
_LEAST_MB = 1
_FULL = ("No space left on device", "Disk quota exceeded")
# Memory that programs share is counted apart, in /dev/shm.
_MEMORY = "shared memory segment"
# How a server ends that was told to, or killed. By an error of its own, it ends with status 1, or
# with the signal of a crash.
_FROM_OUTSIDE = {0, *(-n for n in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))}


class EndedFromOutside(RuntimeError):
    """A program of Postgres was ended while it started, by no fault of its own."""


def explained(
    printed: str, folder: Path, status: int, program: str
) -> DatabaseUnavailable | RuntimeError:
    """Return the error for a program of Postgres that ended with a status.

    Args:
        printed: all that it printed, or wrote to its log.
        folder: the database's.
        status: a number of subprocess.
        program: its name.

    """
    if is_full(printed) or _free_mb(folder) < _LEAST_MB:
        return full_disk(folder)
    said = [line for line in printed.splitlines() if _is_reason(line)]
    how = f"{program} ended with {f'signal {-status}' if status < 0 else f'status {status}'}"
    if status in _FROM_OUTSIDE:
        return EndedFromOutside(how)
    if said:
        return RuntimeError(said[-1].partition("FATAL:")[2].strip() or said[-1].strip())
    return RuntimeError(how)


def is_full(printed: str) -> bool:
    """Return whether a program printed that its disk is full."""
    return any(
        reason in line and _MEMORY not in line for line in printed.splitlines() for reason in _FULL
    )


def is_full_disk(error: OSError) -> bool:
    """Return whether an error of the system says that a disk is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def full_disk(folder: Path) -> DatabaseUnavailable:
    """Return the error for a database whose disk is full."""
    return DatabaseUnavailable(
        f"There is no space left on the disk of {folder}: {_free_mb(folder)} MB are free. Free at "
        f"least {ROOM_MB} MB and run the command again; what was stored is kept."
    )


def _free_mb(folder: Path) -> int:
    place = folder if folder.exists() else folder.parent
    return shutil.disk_usage(os.fspath(place)).free // 2**20


def _is_reason(line: str) -> bool:
    return any(mark in line for mark in ("FATAL:", "PANIC:", "error:"))
