"""Progress on stderr: bars on a terminal, silence in a pipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from vecsearch.encoders.autoencoder.training import Epoch
    from vecsearch.ingest import summary


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


class _CountColumn(MofNCompleteColumn):
    """How many of how many; nothing while neither is known."""

    def render(self, task: Task) -> Text:
        if task.total:
            return super().render(task)
        return Text(f"{int(task.completed):,}" if task.completed else "")


@contextmanager
def _bar() -> Iterator[Progress]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _CountColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        yield progress


class TrainingProgress:
    """Moves a bar through the pictures of each epoch."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("Reading", total=None)
        self._epoch = 0
        self._pictures: int | None = None
        self._done = 0

    def batch(self, epoch: int, pictures: int) -> None:
        """Move the bar by one batch."""
        if epoch != self._epoch:
            self._epoch, self._done = epoch, 0
            self._bar.reset(self._task, description=f"Epoch {epoch}", total=self._pictures)
        self._done += pictures
        self._bar.advance(self._task, pictures)

    def epoch(self, epoch: "Epoch") -> None:
        """Note the end of an epoch, and print its losses on a terminal."""
        # Epochs from before an interruption come without batches.
        self._pictures = self._done or None
        if self._bar.console.is_terminal:
            self._bar.console.print(
                f"epoch {epoch.epoch}  training {epoch.training_loss:.5f}"
                f"  validation {epoch.validation_loss:.5f}{'  best' if epoch.best else ''}"
            )


class _Stepping:
    """A bar of a task of several steps, which makes way for a question."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("Opening", total=None)

    def _move(self, step: str, done: int, total: int | None) -> None:
        self._bar.update(self._task, description=step, completed=done, total=total)

    def aside(self, ask: Callable[[str], bool]) -> Callable[[str], bool]:
        """Return what asks while no bar is drawn."""

        def asked(sentence: str) -> bool:
            self._bar.stop()
            try:
                return ask(sentence)
            finally:
                self._bar.start()

        return asked


class StepsProgress(_Stepping):
    """Shows the progress of a task of several steps."""

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Move the bar to where the task is."""
        self._move(step, done, total)


class IngestProgress(_Stepping):
    """Shows the progress of an ingest, unless it is to stop."""

    def __init__(self, bar: Progress, require_going_on: Callable[[], None]) -> None:
        super().__init__(bar)
        self._require_going_on = require_going_on

    def __call__(self, now: "summary.Progress") -> None:
        """Move the bar to where the ingest is."""
        self._require_going_on()
        self._move(now.step, now.done, now.total)


@contextmanager
def steps_progress() -> Iterator[StepsProgress]:
    """Show the progress of a task of several steps."""
    with _bar() as bar:
        yield StepsProgress(bar)


@contextmanager
def ingest_progress(
    require_going_on: Callable[[], None] = lambda: None,
) -> Iterator[IngestProgress]:
    """Show the progress of an ingest, which ends where `require_going_on` raises."""
    with _bar() as bar:
        yield IngestProgress(bar, require_going_on)


@contextmanager
def training_progress() -> Iterator[TrainingProgress]:
    """Show the progress of a training."""
    with _bar() as bar:
        yield TrainingProgress(bar)
