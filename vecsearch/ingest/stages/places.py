"""What a run asks of the place where its files are read and embedded, and that place here."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self
from uuid import UUID

from vecsearch.encoders.base import Identity, Weights, unusable
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import File, Unreadable
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest.stages.pipeline import Encoded, Pipeline

if TYPE_CHECKING:
    from types import TracebackType

    from vecsearch.encoders.base import Encoder
    from vecsearch.imaging.stalls import Devices

# Chunks on their way while one is written: no thread of the encoder may run out of batches.
AHEAD = 2


@dataclass(frozen=True)
class MadeBy:
    """An encoder, as far as another process needs to know it to make the same one."""

    identity: Identity
    weights: Weights


@dataclass(frozen=True)
class Order:
    """What is to be made of a chunk's files.

    Attributes:
        contents: one file of each new content, to be embedded.
        missing: one file of each stored content that lacks a thumbnail.
        new: files with these contents, to be added to the collection where they are embedded, if
            that is elsewhere; each with its SHA-256.
        needed: the SHA-256 of contents that are needed for other files, too.
        since: when the run began, by the database's clock.

    """

    contents: Sequence[Source]
    missing: Sequence[Source]
    new: Sequence[tuple[File, str]]
    needed: AbstractSet[str]
    since: datetime


@dataclass(frozen=True)
class Product:
    """What was made of a chunk's files.

    Attributes:
        encoded: by SHA-256, the contents of files that are still to be written.
        reasons: by SHA-256, why contents cannot be embedded.
        drawn: the thumbnails that were missing, or why there is none.
        added: the ids of the files that were added where they were embedded.

    """

    encoded: dict[str, Encoded]
    reasons: dict[str, str]
    drawn: Sequence[Thumbnail | Unreadable] = ()
    added: frozenset[UUID] = field(default_factory=frozenset)


class Making(Protocol):
    """Files that are being embedded."""

    def result(self) -> Product:
        """Wait for what becomes of them.

        Raises:
            VecsearchError: what the encoder raises, for one.

        """
        ...


class Files(Protocol):
    """The files of a chunk, which have begun to be read."""

    def read(self) -> Sequence[Source | Unreadable]:
        """Wait until they are read and hashed; return them in order, without their bytes."""
        ...

    def embed(self, order: Order) -> Making:
        """Begin to embed them, and perhaps others that were read before."""
        ...


class Place(Protocol):
    """Where files are read and embedded; a context in which that goes on."""

    @property
    def reading(self) -> int:
        """Chunks to be read at once."""
        ...

    @property
    def ahead(self) -> int:
        """Chunks to be on their way while one is written."""
        ...

    def expect(self, made_by: Callable[[], MadeBy]) -> None:
        """Take in what returns the encoder, for a place that has to make it again.

        It is called in a thread, and may take as long as the encoder needs to be loaded.
        """
        ...

    def take(self, paths: Sequence[str], *, keep: bool) -> Files:
        """Begin to read files; `keep` if they may have to be embedded."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None: ...


class Here:
    """The machine of the run, as a `Place`; see `Pipeline` for its arguments."""

    reading = 1
    ahead = AHEAD

    def __init__(self, encoder: "Encoder", *, max_pixels: int, devices: "Devices") -> None:
        self._pipeline = Pipeline(encoder, max_pixels=max_pixels, devices=devices)

    def __enter__(self) -> Self:
        self._pipeline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipeline.__exit__()

    def expect(self, made_by: Callable[[], MadeBy]) -> None:
        """See `Place`; the encoder is here."""

    def take(self, paths: Sequence[str], *, keep: bool) -> "FilesHere":
        """See `Place`."""
        return FilesHere(self._pipeline, paths, keep=keep)


class FilesHere:
    """The files of a chunk, on this machine."""

    def __init__(self, pipeline: Pipeline, paths: Sequence[str], *, keep: bool) -> None:
        self._pipeline = pipeline
        self._opened = pipeline.read(paths, keep=keep)
        self._kept: dict[str, Source] = {}

    def read(self) -> list[Source | Unreadable]:
        """See `Files`."""
        found = [*self._opened]
        read = [item for item in found if isinstance(item, Source)]
        self._kept = {item.path: item for item in read if item.content is not None}
        return [
            Source(item.path, item.sha256) if isinstance(item, Source) else item for item in found
        ]

    def embed(self, order: Order) -> "MakingHere":
        """See `Files`; the bytes that it does not need are dropped."""
        kept, self._kept = self._kept, {}
        return MakingHere(
            [source.sha256 for source in order.contents],
            self._pipeline.embed([kept.get(source.path, source) for source in order.contents]),
            [self._pipeline.draw(kept.get(source.path, source)) for source in order.missing],
        )


@dataclass(frozen=True)
class MakingHere:
    """Files that are being embedded on this machine.

    Attributes:
        contents: their SHA-256, in order.
        batches: what becomes of those, in order.
        drawing: the thumbnails that are missing.

    """

    contents: Sequence[str]
    batches: Sequence[Future[list[Encoded | Unreadable]]]
    drawing: Sequence[Future[Thumbnail | Unreadable]]

    def result(self) -> Product:
        """See `Making`."""
        encoded: dict[str, Encoded] = {}
        reasons: dict[str, str] = {}
        results = [item for batch in self.batches for item in batch.result()]
        for digest, item in zip(self.contents, results, strict=True):
            reason = unusable(item.embedding) if isinstance(item, Encoded) else item.reason
            if isinstance(item, Encoded) and reason is None:
                encoded[digest] = item
            elif reason is not None:
                reasons[digest] = reason
        return Product(encoded, reasons, [drawing.result() for drawing in self.drawing])
