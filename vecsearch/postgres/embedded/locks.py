"""Waits for another command's lock file: bounded, and it is said for whom."""

import fcntl
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from vecsearch.errors import DatabaseUnavailable
from vecsearch.vocabulary import SAY_AFTER_S

# A command that starts the server may wait for its recovery, and says so itself.
PATIENCE_S = 660.0
POLL_S = 0.02
_LONGEST_COMMAND = 80
_log = logging.getLogger(__name__)


def take(lock: IO[str], operation: int, doing: str) -> None:
    """Lock a file as flock does.

    Args:
        lock: an open lock file.
        operation: LOCK_EX or LOCK_SH.
        doing: what the other command does, for messages.

    Raises:
        DatabaseUnavailable: another process has held it for too long.

    """
    began = time.monotonic()
    has_said = False
    while not is_taken(lock, operation):
        waited = time.monotonic() - began
        if waited > PATIENCE_S:
            raise DatabaseUnavailable(
                f"{_holder(lock)} has held {lock.name} for {waited:.0f} seconds. "
                "End that process if it hangs, and run the command again."
            )
        if waited > SAY_AFTER_S and not has_said:
            _log.warning("Waiting for %s, which %s.", _holder(lock), doing)
            has_said = True
        time.sleep(POLL_S)


def is_taken(lock: IO[str], operation: int) -> bool:
    """Lock a file if nobody is in the way, and return whether it is locked now."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: IO[str]) -> str:
    """Return who holds the lock, where the system shows it."""
    with suppress(OSError, ValueError, psutil.Error):
        inode = str(os.fstat(lock.fileno()).st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            # 1: FLOCK ADVISORY WRITE 4711 fe:00:2245233 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                process = psutil.Process(int(words[4]))
                return f"process {process.pid} ({' '.join(process.cmdline())[:_LONGEST_COMMAND]})"
    return "another command"
