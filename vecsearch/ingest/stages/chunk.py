"""What one transaction of an ingest writes, on its way from files to rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.imaging.scan import Unreadable
from vecsearch.ingest.classify import Decision
from vecsearch.ingest.summary import Outcome

if TYPE_CHECKING:
    from vecsearch.ingest.stages.places import Making


@dataclass
class Chunk:
    """Files that are written in one transaction, on their way.

    Attributes:
        unreadable: its files that could not be read.
        making: what becomes of its contents; None in a dry run.

    """

    number: int
    decisions: list[Decision]
    unreadable: list[Unreadable]
    making: "Making | None" = None

    def __len__(self) -> int:
        return len(self.decisions) + len(self.unreadable)

    def overtake(self, outcomes: Mapping[UUID, Outcome]) -> None:
        """Take over what another run has left to do; see `pending.record_overtaken`."""
        self.decisions = [
            replace(
                item,
                outcome=outcomes[item.id],
                is_written=outcomes[item.id] is not Outcome.unchanged,
            )
            if item.id in outcomes
            else item
            for item in self.decisions
        ]
