"""Which process is the server of a data folder: no other one is signalled or waited for."""

import os
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from vecsearch.postgres.embedded.programs import OPEN_FILES, read_text

PID_FILE = "postmaster.pid"
# In the command line of a server whose -D is an open file.
FOLDER_SETTING = "vecsearch.folder"
# Lines of the file: process, data folder, start time, port, socket's folder, address, memory, state
_PID, _PORT, _SOCKET, _STATE = 0, 3, 4, 7
_NAMES = {"postgres", "postmaster"}
# The first message of the protocol, which is answered by a letter.
_ASK_FOR_TLS = struct.pack("!ii", 8, 80877103)


@dataclass(frozen=True)
class Postmaster:
    """A running server's first process, and what it wrote of itself."""

    process: psutil.Process
    port: int
    socket_folder: Path
    state: str

    @property
    def pid(self) -> int:
        """The process' number."""
        return int(self.process.pid)

    @property
    def is_ready(self) -> bool:
        """Whether it takes connections."""
        return self.state == "ready"

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self.state == "stopping"

    @property
    def is_suspended(self) -> bool:
        """Whether a signal has stopped it, so that it answers nobody."""
        with suppress(psutil.Error):
            return bool(self.process.status() == psutil.STATUS_STOPPED)
        return False


def find(folder: Path) -> Postmaster | None:
    """Return the server that runs in a data folder; None if there is none.

    The number in its file may be that of a process which has nothing to do with it: the server was
    killed, and its number was given to another. It is the server if it is a Postgres that was
    started in this folder. Its start time adds nothing, and moves with the system's clock.
    """
    lines = _read(folder / PID_FILE)
    pid = _number(lines, _PID)
    process = None if pid is None else _process(pid)
    if process is None or not _serves(process, folder):
        return None
    place = lines[_SOCKET] if len(lines) > _SOCKET else ""
    own = not place or place.startswith(f"{OPEN_FILES}/")
    return Postmaster(
        process,
        _number(lines, _PORT) or 0,
        folder if own else Path(place),
        lines[_STATE] if len(lines) > _STATE else "",
    )


def forget(folder: Path, socket_folder: Path) -> None:
    """Remove what a killed server left if its number is another process' now.

    Postgres would take that process for the server. Children of the killed one that still live are
    found by their shared memory.

    Raises:
        RuntimeError: a server answers that this system's processes do not show.

    """
    if any(map(_answers, socket_folder.glob(".s.PGSQL.*[0-9]"))):
        raise RuntimeError(
            "a server that is no process of this system, perhaps of another container, uses it"
        )
    for file in (folder / PID_FILE, *socket_folder.glob(".s.PGSQL.*.lock")):
        number = _number(_read(file), _PID)
        if number is None or psutil.pid_exists(number):
            with suppress(OSError):
                file.unlink()


def shut_down(found: Postmaster, *, at_once: bool = False) -> None:
    """Ask a server to end, which takes until its processes have ended and its tables are written.

    Args:
        found: the server.
        at_once: without writing them, so that its next start recovers what was stored.

    """
    # psutil sends nothing to a process that has got the number since.
    with suppress(psutil.NoSuchProcess):
        found.process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)


def orphans(folder: Path) -> list[int]:
    """Return the processes of a killed server that still work in a data folder, where they show."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            is_postgres = process.name() == "postgres"
            if is_postgres and Path(process.cwd()).samefile(folder):
                found.append(process.pid)
    return found


def _read(file: Path) -> list[str]:
    """Return the lines of a server's file; none while it is being written or removed."""
    try:
        text = read_text(file)
    except OSError:
        return []
    return [line.strip() for line in text.splitlines()]


def _number(lines: list[str], line: int) -> int | None:
    try:
        # A single-user Postgres writes its number negative.
        number = abs(int(lines[line]))
    except (IndexError, ValueError):
        return None
    return number if 0 < number < 2**31 else None


def _process(pid: int) -> psutil.Process | None:
    """Return a living process; a zombie is not one."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _serves(process: psutil.Process, folder: Path) -> bool:
    """Return whether a process is a Postgres that was started in a folder."""
    try:
        words = process.cmdline()
        if not words or Path(words[0]).name not in _NAMES:
            return False
        try:
            # Postgres works in its data folder.
            named = [process.cwd()]
        except psutil.AccessDenied:
            # A container may show only the command line of another user's process.
            prefix = f"{FOLDER_SETTING}="
            named = [word for option, word in pairwise(words) if option == "-D"]
            named += [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
        return any(
            Path(name).samefile(folder) for name in named if not name.startswith("/proc/self/")
        )
    except (psutil.Error, OSError):
        return False


def _answers(address: Path) -> bool:
    """Return whether a server answers on a socket; children of a killed one may keep it open."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(1)
        probe.connect(os.fspath(address))
        probe.sendall(_ASK_FOR_TLS)
        return probe.recv(1) != b""
    return False
