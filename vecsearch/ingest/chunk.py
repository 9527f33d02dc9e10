"""What one transaction of an ingest writes, on its way from files to rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.imaging.scan import Unreadable
from vecsearch.ingest.classify import Decision
from vecsearch.ingest.summary import Outcome

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vecsearch.imaging.thumbnails import Thumbnail
    from vecsearch.ingest.pipeline import Encoded


@dataclass
class Chunk:
    """Files that are written in one transaction, on their way.

    Attributes:
        unreadable: its files that could not be read.
        embedding: what becomes of its new contents, in batches, in order.
        contents: the SHA-256 of those, in the same order.
        drawing: thumbnails of stored contents that lack one.

    """

    number: int
    decisions: list[Decision]
    unreadable: list[Unreadable]
    contents: list[str] = field(default_factory=list)
    embedding: "list[Future[list[Encoded | Unreadable]]]" = field(default_factory=list)
    drawing: "list[Future[Thumbnail | Unreadable]]" = field(default_factory=list)

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
