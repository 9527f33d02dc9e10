"""Start the server of a data folder, and wait until it takes connections."""

import logging
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import (
    access,
    configure,
    folder,
    postmaster,
    programs,
    troubles,
)
from vecsearch.postgres.embedded.postmaster import Postmaster
from vecsearch.vocabulary import SAY_AFTER_S

# Recovery replays up to max_wal_size, and children of a killed server may work for as long.
START_TIMEOUT_S = 600.0
# A server that takes longer to end is asked to end at once.
STOP_TIMEOUT_S = 30.0
POLL_S = 0.01
RELAUNCH_AFTER_S = 0.2
# A log's end that is read for the reason.
_READ_BYTES = 2**20
_STILL_IN_USE = "is still in use"
_RECOVERING = "automatic recovery in progress"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launched:
    """A server that this process has started, and where its log begins."""

    process: "subprocess.Popen[bytes]"
    database: Path
    begins: int

    @property
    def log(self) -> Path:
        """The file that it writes to."""
        return self.database / "log"

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def printed(self) -> str:
        """Return what it has written to its log."""
        with os.fdopen(programs.open_file(self.log, os.O_RDONLY), "rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self.begins, end - _READ_BYTES))
            return log.read().decode(errors="replace")


# The children of this process, which become zombies unless it asks for their ends.
_children: list[Launched] = []


def up(data_dir: Path, meanwhile: Callable[[], None] = lambda: None) -> Postmaster:
    """Return the server of a data folder, started if it does not run, when it takes connections.

    The caller holds the lock of who starts it.

    Args:
        data_dir: see `vecsearch.postgres.embedded.folder`.
        meanwhile: called once, while the server starts.

    Raises:
        DatabaseUnavailable: its disk is full, it is suspended, or not ready after a long time.
        RuntimeError: it does not start, for another reason.

    """
    database = folder.postgres(data_dir)
    launched = None if postmaster.find(database) else _launch_configured(data_dir)
    meanwhile()
    wait, ending = _Wait(), None
    while (found := postmaster.find(database)) is None or not found.is_ready:
        wait.on()
        if found is not None:
            require_awake(found)
            if found.is_stopping:
                ending = ending or Ending()
                ending.hasten(found)
            wait.say(found.state, launched)
        elif launched is None:
            # It was stopping.
            launched = _launch_configured(data_dir)
        elif (status := launched.process.poll()) is not None:
            printed = launched.printed()
            if _STILL_IN_USE not in printed:
                raise troubles.explained(printed, database, status, "postgres")
            wait.say_orphans(database)
            time.sleep(RELAUNCH_AFTER_S)
            launched = _launch_configured(data_dir)
    require_awake(found)
    return found


def launch(
    database: Path, options: Callable[[str], Sequence[str]], binary: Path | None = None
) -> Launched:
    """Start a server in a database's folder, and return at once.

    Args:
        database: the folder.
        options: given the folder's path as the server reaches it, returns its options.
        binary: `postgres`; None: that of the wheel, of the folder's version.

    """
    binary = binary or programs.program("postgres", folder.version(database))
    user = programs.account_of(database)
    log = database / "log"
    opened = programs.open_file(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.fchmod(opened, 0o600)
        begins = os.fstat(opened).st_size
        with programs.entrance(database, user) as entrance, programs.executing(binary):
            process = subprocess.Popen(  # noqa: S603 - a program of the wheel
                [str(binary), "-D", entrance.path, *options(entrance.path)],
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                # Ctrl-C is for the command, not for the server.
                start_new_session=True,
                **entrance.options,
            )
    finally:
        os.close(opened)
    launched = Launched(process, database, begins)
    _children.append(launched)
    return launched


def is_alive(database: Path) -> bool:
    """Return whether a server that this process started lives, which its files may not show yet."""
    return any(child.is_alive for child in _children if child.database == database)


def reap() -> None:
    """Let the system forget servers of this process that have ended."""
    _children[:] = [child for child in _children if child.is_alive]


def _launch_configured(data_dir: Path) -> Launched:
    reap()
    database = folder.postgres(data_dir)
    port = access.port(data_dir)
    access.require_free(port)
    user = programs.account_of(database)
    sockets = folder.socket_folder(data_dir, user)
    postmaster.forget(database, sockets)
    configure.write_files(database, user)
    return launch(database, lambda seen: configure.options(database, seen, sockets, port))


def require_awake(found: Postmaster) -> None:
    """Check that no signal has stopped the server.

    Raises:
        DatabaseUnavailable: one has.

    """
    if found.is_suspended:
        raise DatabaseUnavailable(
            f"The embedded Postgres, process {found.pid}, is suspended and answers nobody. "
            f"Resume it: kill -CONT {found.pid}"
        )


class Ending:
    """A server that was asked to end, and is asked to end at once if it takes long."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_hastened = False

    @property
    def seconds(self) -> float:
        """How long it has been ending."""
        return time.monotonic() - self._began

    def hasten(self, found: Postmaster) -> None:
        """Tell it to end at once if it is time to."""
        if self._is_hastened or self.seconds < STOP_TIMEOUT_S:
            return
        _log.warning(
            "The database has not ended after %.0f seconds; it ends at once now, and recovers what "
            "was stored when it starts.",
            self.seconds,
        )
        postmaster.shut_down(found, at_once=True)
        self._is_hastened = True


class _Wait:
    """A wait for the server, which is bounded and says what it is for."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._said: set[str] = set()

    def on(self) -> None:
        """Wait a moment more."""
        if time.monotonic() - self._began > START_TIMEOUT_S:
            raise DatabaseUnavailable(
                f"The embedded Postgres is not ready after {START_TIMEOUT_S:.0f} seconds, and goes "
                "on. Run the command again later."
            )
        time.sleep(POLL_S)

    def say(self, state: str, launched: Launched | None) -> None:
        if self._is_due("state"):
            recovers = launched is not None and _RECOVERING in launched.printed()
            _log.warning(
                "The database %s.",
                "was not shut down cleanly, and recovers what was stored; this may take minutes"
                if recovers
                else f"is {state or 'starting'}; waiting for it",
            )

    def say_orphans(self, database: Path) -> None:
        if self._is_due("orphans"):
            left = ", ".join(map(str, postmaster.orphans(database)))
            _log.warning(
                "The database's server was killed, and processes of it are still at work%s; waiting"
                " for their end.",
                f" ({left})" if left else "",
            )

    def _is_due(self, what: str) -> bool:
        due = what not in self._said and time.monotonic() - self._began > SAY_AFTER_S
        if due:
            self._said.add(what)
        return due
