"""What a run did: an outcome for each file, and their counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from vecsearch.errors import NotConfirmed


class Outcome(StrEnum):
    """What a run does with a file, or with a row whose file is gone."""

    added = "added"
    updated = "updated"
    moved = "moved"
    copied = "copied"
    unchanged = "unchanged"
    pruned = "pruned"
    gone = "gone"
    failed = "failed"


@dataclass(frozen=True)
class Summary:
    """What became of the files: added + updated + moved + copied + unchanged + failed = files.

    Attributes:
        added: new content at a new path.
        updated: new content at a known path.
        moved: known content at a new path, its old path gone.
        copied: known content at a new path, its old path still there.
        unchanged: known content at a known path.
        pruned: rows removed because their files are gone.
        gone: rows that stay, although their files are gone.
        failed: files and folders that could not be read.
        notes: sentences for the user, complete once the run is done.

    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    copied: int = 0
    unchanged: int = 0
    pruned: int = 0
    gone: int = 0
    failed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """Number of files whose rows were written."""
        return self.added + self.updated + self.moved + self.copied

    @property
    def stored(self) -> int:
        """Number of files that have a row now."""
        return self.changed + self.unchanged

    @classmethod
    def of(cls, counts: Mapping[Outcome, int], notes: tuple[str, ...] = ()) -> Self:
        """Return the summary with these counts; a missing one is zero."""
        fields: dict[str, Any] = {outcome: counts.get(outcome, 0) for outcome in Outcome}
        return cls(**fields, notes=notes)

    def counts(self) -> dict[str, int]:
        """Return the counts by name, in order, as commands print them."""
        return {outcome.value: getattr(self, outcome) for outcome in Outcome}


class PruneRefused(NotConfirmed):
    """A run did everything but prune, which needs a yes.

    Attributes:
        summary: what it did.

    """

    def __init__(self, question: str, summary: Summary) -> None:
        super().__init__(
            f"{question} That needs a yes, so no row was deleted; everything else was done. "
            "If these files are gone for good, add --yes."
        )
        self.summary = summary


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        done, total: files to open; what is unchanged, and has a thumbnail, is not among them.
        summary: the counts so far.
        step: what is being done, in a word or two.

    """

    done: int
    total: int
    summary: Summary
    step: str = "Ingesting"
