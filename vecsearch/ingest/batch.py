"""One transaction's worth of an ingest, on its way from files to rows."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.imaging.scan import File, Unreadable
from vecsearch.ingest.writes import Known

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vecsearch.imaging.thumbnails import Thumbnail
    from vecsearch.ingest.pipeline import Encoded


@dataclass
class Batch:
    """Files on their way: some to be embedded, some whose content a row holds, some broken.

    Attributes:
        embed: files with new content, and its SHA-256.
        encoded: what becomes of those, in order, in portions.
        known: files whose content a row holds.
        draw: thumbnails of contents that rows hold.
        failed: what could not be read.
        counts: what the summary calls each, by the id of its row.
        unwritten: paths whose rows stay as they are.
        origins: the row to take each content from, within this batch.
        sources: the same, once the batch is written.
        overwritten: rows that will hold another content than they do now.

    """

    embed: list[tuple[File, str]] = field(default_factory=list)
    encoded: list["Future[list[Encoded | Unreadable]]"] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    draw: list["Future[Thumbnail | Unreadable]"] = field(default_factory=list)
    failed: list[Unreadable] = field(default_factory=list)
    counts: dict[UUID, str] = field(default_factory=dict)
    unwritten: list[str] = field(default_factory=list)
    origins: dict[str, UUID] = field(default_factory=dict)
    sources: dict[str, UUID] = field(default_factory=dict)
    overwritten: set[UUID] = field(default_factory=set)
