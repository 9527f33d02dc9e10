"""The parent's side of a worker: start it, ask it, and kill it when its time is over."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import vecsearch
from vecsearch.errors import VecsearchError, first_line
from vecsearch.imaging.processes.channel import Channel, Message

# Seconds for a worker to import what it needs, on a busy machine, and for one to die.
START_S, DEATH_S = 120, 2
# Where vecsearch is, last: it may be importable here by other means than there.
_MAIN = "import sys, importlib; sys.path.append(sys.argv[2]); "
_MAIN += "importlib.import_module(sys.argv[1]).main()"
_HOME = str(Path(vecsearch.__file__).parents[1])
# Workers run beside one another, so a second thread of one would take a processor from another.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # others reserve more than they use
}

# Answers a question of the worker with an object, and the seconds that it has from then on.
Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], float]]


class Ended(Exception):
    """The worker did not reply.

    Attributes:
        in_time: whether it ended by itself, rather than for its time limit.
        words: how, for users.

    """

    def __init__(self, words: str, *, in_time: bool) -> None:
        super().__init__(words)
        self.words = words
        self.in_time = in_time


class Process:
    """A worker process; one thread uses it at a time.

    Args:
        module: a module of vecsearch whose `main` calls `vecsearch.imaging.processes.child.serve`.

    """

    def __init__(self, module: str) -> None:
        end, other = socket.socketpair()
        with other:
            try:
                # -P: a file in the current folder must not be taken for a module.
                self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                    [sys.executable, "-P", "-c", _MAIN, module, _HOME],
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=os.environ | _ENVIRONMENT,
                )
            except OSError as error:
                end.close()
                raise _not_started(error.strerror) from error
        self._channel = Channel(end)
        self._is_ready = False

    def is_alive(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def ask(
        self,
        fields: dict[str, Any],
        blobs: Sequence[bytes | bytearray] = (),
        *,
        seconds: float,
        answer: Answer | None = None,
    ) -> Message:
        """Send a request and return the reply; a failure leaves the worker unusable.

        Raises:
            Ended: it crashed, or took longer.
            VecsearchError: it never started.

        """
        self._await_ready()
        with self._within(seconds):
            self._channel.send(fields, blobs)
        return self.receive(seconds=seconds, answer=answer)

    def receive(self, *, seconds: float, answer: Answer | None = None) -> Message:
        """Return the next reply to a request that has several; see `ask`."""
        while True:
            with self._within(seconds):
                fields, blobs = self._channel.receive()
            if "ask" not in fields or answer is None:
                return fields, blobs
            said, seconds = answer(fields["ask"])
            with self._within(seconds):
                self._channel.send(said)

    def kill(self) -> None:
        """End it at once; one that the system cannot end is left behind."""
        self._process.kill()
        self._channel.close()
        if self._process.stderr is not None:
            self._process.stderr.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_S)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Bound how long a message takes, and say how the worker ended if there is none."""
        self._channel.deadline = monotonic() + seconds
        try:
            yield
        except (EOFError, OSError, ValueError) as error:
            raise self._ended(error, seconds) from error

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        self._channel.deadline = monotonic() + START_S
        stderr = self._process.stderr
        try:
            self._channel.receive()
        except (EOFError, OSError, ValueError) as error:
            self._process.kill()
            said = b"" if stderr is None else stderr.read()
            raise _not_started(said.decode(errors="replace").rpartition("\n\n")[2]) from error
        self._is_ready = True
        if stderr is not None:
            stderr.close()

    def _ended(self, error: Exception, seconds: float) -> Ended:
        if isinstance(error, TimeoutError):
            return Ended(f"It took longer than {seconds:.0f} s, its limit", in_time=False)
        try:
            status = self._process.wait(DEATH_S)
        except subprocess.TimeoutExpired:
            return Ended("It confused the process that read it", in_time=True)
        if status == -getattr(signal, "SIGXCPU", 0):
            return Ended(f"It took longer than {seconds:.0f} s, its limit", in_time=False)
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Ended(f"It crashed the process that read it ({name})", in_time=True)


def _not_started(reason: object) -> VecsearchError:
    lines = str(reason).strip().splitlines()
    return VecsearchError(
        f"A worker process does not start: {first_line(lines[-1] if lines else 'it ended')}. "
        "Free some memory, or check the installation: pip check"
    )
