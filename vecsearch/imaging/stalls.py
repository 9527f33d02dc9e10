"""File systems that stop answering, as a network share may: waited for, named, and given up."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, Self

# Seconds without progress after which a folder or a file is given up; a disk may have to spin up.
STALL_S = 15.0
# How many stalls give a file system up for the run: one file that stalls is no dead share.
MOST_STALLS = 4


class Stalled(Exception):
    """The file system did not answer for `STALL_S` seconds."""


class Work(Protocol):
    """Calls of the file system."""

    @property
    def steps(self) -> Hashable:
        """How far it has come; it is waited for as long as this changes."""
        ...

    def run(self) -> None:
        """Make the calls."""
        ...


class Watch:
    """A thread that calls the file system, since nothing can cancel a call that never returns.

    One that stalls is left behind, and ends with the process at the latest. Leave the context to
    end the thread.
    """

    def __init__(self) -> None:
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._works.put(None)

    def run(self, work: Work) -> None:
        """Run a work, and raise what it raises.

        Raises:
            Stalled: it made no progress; it may still be running, and change its own attributes.

        """
        self._works.put(work)
        while True:
            before = work.steps
            try:
                error = self._ends.get(timeout=STALL_S)
            except Empty:
                if work.steps != before:
                    continue
                self._works.put(None)
                self._begin()
                raise Stalled from None
            if error is not None:
                raise error
            return

    def _begin(self) -> None:
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(self._works, self._ends), daemon=True).start()


def _serve(works: "SimpleQueue[Work | None]", ends: "SimpleQueue[BaseException | None]") -> None:
    while (work := works.get()) is not None:
        try:
            work.run()
        except BaseException as error:  # noqa: BLE001 - raised where the work is waited for
            ends.put(error)
        else:
            ends.put(None)


class Devices:
    """The file systems of a run, by the paths that its walk met, and those that are given up."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._stalls: Counter[int | str] = Counter()

    def met(self, path: str, number: int) -> None:
        """Note the device of a folder, or of a file that is on another than its folder."""
        self._numbers[path] = number

    def of(self, path: str) -> int | None:
        """Return the device of a file that the walk met, or None."""
        found = self._numbers.get(path)
        return self._numbers.get(os.path.dirname(path)) if found is None else found  # noqa: PTH120

    def stalled(self, which: int | str | None) -> None:
        """Note a stall of a device or, where a stalled folder's is not known, of its parent."""
        if which is not None:
            self._stalls[which] += 1

    def is_given_up(self, which: int | str | None) -> bool:
        """Return whether it has stalled too often to be tried again."""
        return which is not None and self._stalls.get(which, 0) >= MOST_STALLS


def answers(paths: Sequence[str], ask: Callable[[str], bool], *, unanswered: bool) -> list[bool]:
    """Return what a question about each path is answered.

    Args:
        paths: any.
        ask: calls the file system.
        unanswered: the answer for paths whose file system stalls, and, after `MOST_STALLS` of
            them, for all others.

    """
    given: list[bool] = []
    stalls = 0
    with Watch() as watch:
        while len(given) < len(paths) and stalls < MOST_STALLS:
            work = _Asking(paths[len(given) :], ask)
            try:
                watch.run(work)
            except Stalled:
                stalls += 1
                given += [*work.given, unanswered]
            else:
                given += work.given
    return given + [unanswered] * (len(paths) - len(given))


class _Asking:
    """One question about each of some paths."""

    def __init__(self, paths: Sequence[str], ask: Callable[[str], bool]) -> None:
        self.given: list[bool] = []
        self._paths = paths
        self._ask = ask

    @property
    def steps(self) -> int:
        return len(self.given)

    def run(self) -> None:
        for path in self._paths:
            self.given.append(self._ask(path))
