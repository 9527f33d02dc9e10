"""One transaction's worth of an ingest, on its way from files to rows, and who decodes it."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from uuid import UUID

from vecsearch import images
from vecsearch.encoders import Encoder
from vecsearch.images import Facts, File, Image, Unreadable
from vecsearch.queries.writes import Known
from vecsearch.thumbnails import Thumbnail

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Decoded:
    """What is kept of a picture: a batch of full-size ones is gigabytes.

    Attributes:
        inputs: what `Encoder.prepare` made of it.

    """

    facts: Facts
    thumbnail: Thumbnail
    inputs: "NDArray[np.uint8]"


@dataclass
class Batch:
    """Files on their way: some to be embedded, some whose content a row holds, some broken.

    Attributes:
        embed: files with new content, and its SHA-256.
        known: files whose content a row holds.
        draw: thumbnails of contents that rows hold.
        failed: what could not be read.
        counts: what the summary calls each, by the id of its row.
        unwritten: paths whose rows stay as they are.
        origins: the row to take each content from, within this batch.
        sources: the same, once the batch is written.
        overwritten: rows that will hold another content than they do now.

    """

    embed: list[tuple[File, str, "Future[Decoded | Unreadable]"]] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    draw: list["Future[Thumbnail | Unreadable]"] = field(default_factory=list)
    failed: list[Unreadable] = field(default_factory=list)
    counts: dict[UUID, str] = field(default_factory=dict)
    unwritten: list[str] = field(default_factory=list)
    origins: dict[str, UUID] = field(default_factory=dict)
    sources: dict[str, UUID] = field(default_factory=dict)
    overwritten: set[UUID] = field(default_factory=set)


class Decoder:
    """Threads that read files; left as a context manager, it drops what has not begun."""

    def __init__(self, encoder: Encoder, *, max_pixels: int) -> None:
        self._encoder = encoder
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def hash(self, paths: Iterable[str]) -> Iterator[str | Unreadable]:
        """Yield the SHA-256 of each file, in order."""
        return self._pool.map(images.file_sha256, paths)

    def decode(self, path: str, sha256: str) -> "Future[Decoded | Unreadable]":
        """Begin to decode a file, which must have this SHA-256, for the encoder."""

        def decoded() -> Decoded | Unreadable:
            image = self._load(path, sha256)
            if isinstance(image, Unreadable):
                return image
            return Decoded(image.facts, Thumbnail.of(image), self._encoder.prepare(image.pixels))

        return self._pool.submit(decoded)

    def draw(self, path: str, sha256: str) -> "Future[Thumbnail | Unreadable]":
        """Begin to make the thumbnail of a file, which must have this SHA-256."""

        def drawn() -> Thumbnail | Unreadable:
            image = self._load(path, sha256)
            return image if isinstance(image, Unreadable) else Thumbnail.of(image)

        return self._pool.submit(drawn)

    def _load(self, path: str, sha256: str) -> Image | Unreadable:
        image = images.load(path, max_pixels=self._max_pixels)
        if isinstance(image, Image) and image.facts.sha256 != sha256:
            return Unreadable(path, "It changed while it was being read; ingest it again.")
        return image
