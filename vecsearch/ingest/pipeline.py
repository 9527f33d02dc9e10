"""From files to embeddings, in threads: read and hash, decode, draw, prepare, embed.

Every stage works ahead of the one behind it, and only so far: files' bytes are kept for small
files alone, pictures of full size for as long as a thread works on one, and the pictures that are
prepared wait in portions of which the caller has few under way.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np

from vecsearch.encoders.base import Encoder
from vecsearch.imaging import decode
from vecsearch.imaging.decode import Facts, Header, Image, Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.thumbnails import SIDE, Thumbnail
from vecsearch.search.embedder import BATCH_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

PORTION = BATCH_SIZE
# Files up to this many bytes are read once; a larger one is read for its hash, then to be decoded.
KEPT_BYTES = 1 << 20
# Decoded at once, for each processor: three phones' photos, and not three panoramas.
PIXELS_AT_ONCE = 36_000_000
# A decoder that shrinks a picture leaves each side this many times the pixels that are needed.
MARGIN = 2.5


@dataclass(frozen=True)
class Encoded:
    """What becomes of a file: its facts, its thumbnail and its embedding, shape (dimensions,)."""

    facts: Facts
    thumbnail: Thumbnail
    embedding: "NDArray[np.float32]"


@dataclass(frozen=True)
class _Prepared:
    facts: Facts
    thumbnail: Thumbnail
    inputs: "NDArray[np.uint8]"


class Pipeline:
    """The threads of one ingest; left as a context manager, it drops what has not begun.

    Args:
        encoder: used, and so loaded, only once a picture could be decoded.
        max_pixels: pictures with more are unreadable.
        portions: how many are under way at most; as many threads wait for them.

    """

    def __init__(self, encoder: Encoder, *, max_pixels: int, portions: int) -> None:
        self._encoder = encoder
        self._max_pixels = max_pixels
        processors = os.cpu_count() or 1
        self._room = _Room(PIXELS_AT_ONCE * processors)
        self._decoders = ThreadPoolExecutor(processors, thread_name_prefix="decode")
        self._embedders = ThreadPoolExecutor(portions, thread_name_prefix="embed")
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._begun.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._embedders.shutdown(cancel_futures=True)
        self._decoders.shutdown()

    def read(self, paths: Iterable[str], *, keep: bool) -> Iterator[Source | Unreadable]:
        """Yield each file's SHA-256, in order, with its bytes if they are to be kept and few."""
        limit = KEPT_BYTES if keep else 0
        return self._decoders.map(lambda path: decode.read(path, keep=limit), paths)

    def embed(self, sources: Sequence[Source]) -> "list[Future[list[Encoded | Unreadable]]]":
        """Begin to embed files; return portions of them, in order.

        A future raises what the encoder does.
        """
        return [self._submit(portion) for portion in portions(sources)]

    def draw(self, source: Source) -> "Future[Thumbnail | Unreadable]":
        """Begin to make the thumbnail of a file."""
        return self._decoders.submit(self._draw, source)

    def _submit(self, portion: Sequence[Source]) -> "Future[list[Encoded | Unreadable]]":
        preparing = [self._decoders.submit(self._prepare, source) for source in portion]
        before, self._begun = self._begun, threading.Event()
        return self._embedders.submit(self._embed, preparing, before, self._begun)

    def _embed(
        self,
        preparing: "list[Future[_Prepared | Unreadable]]",
        before: threading.Event,
        begun: threading.Event,
    ) -> "list[Encoded | Unreadable]":
        """Embed a portion, not before the one before it has begun: it is waited for sooner."""
        try:
            results = [future.result() for future in preparing]
            before.wait()
            return self._run(results, begun)
        finally:
            begun.set()

    def _run(
        self, results: "list[_Prepared | Unreadable]", begun: threading.Event
    ) -> "list[Encoded | Unreadable]":
        prepared = [item for item in results if isinstance(item, _Prepared)]
        if not prepared:
            return [item for item in results if isinstance(item, Unreadable)]
        inputs = np.stack([item.inputs for item in prepared])
        with self._turns:
            begun.set()
            embeddings = iter(self._encoder.embed(inputs))
        return [
            item
            if isinstance(item, Unreadable)
            else Encoded(item.facts, item.thumbnail, next(embeddings))
            for item in results
        ]

    @property
    def _turns(self) -> threading.BoundedSemaphore:
        with self._lock:
            return self._semaphore

    @cached_property
    def _semaphore(self) -> threading.BoundedSemaphore:
        return threading.BoundedSemaphore(self._encoder.concurrency)

    def _prepare(self, source: Source) -> "_Prepared | Unreadable":
        with self._decoded(source, for_encoder=True) as image:
            if isinstance(image, Unreadable):
                return image
            thumbnail = Thumbnail.of(image)
            return _Prepared(image.facts, thumbnail, self._encoder.prepare(image.pixels))

    def _draw(self, source: Source) -> Thumbnail | Unreadable:
        with self._decoded(source, for_encoder=False) as image:
            return image if isinstance(image, Unreadable) else Thumbnail.of(image)

    def _least_side(self, header: Header | None, *, for_encoder: bool) -> int | None:
        """Return the pixels that each side keeps for the thumbnail and the encoder.

        Only a JPEG within the limit needs the number, so only such a file loads a lazy encoder
        before it is decoded.
        """
        if header is None or not header.can_shrink or header.pixels > self._max_pixels:
            return None
        # Leaves margin for cropping; no known model crops below half.
        needed = max(SIDE, *self._encoder.input_size) if for_encoder else SIDE
        return round(MARGIN * needed)

    @contextmanager
    def _decoded(self, source: Source, *, for_encoder: bool) -> Iterator[Image | Unreadable]:
        """Yield the picture, which lives no longer; a file that changed is unreadable."""
        content = decode.content(source)
        if isinstance(content, Unreadable):
            yield content
            return
        header = decode.read_header(content)
        with self._room.of(0 if header is None else header.pixels):
            yield decode.decode(
                content,
                source.path,
                max_pixels=self._max_pixels,
                sha256=source.sha256,
                least_side=self._least_side(header, for_encoder=for_encoder),
            )


def portions(sources: Sequence[Source]) -> list[Sequence[Source]]:
    """Return the sources in portions of equal size, or nearly.

    Of a full portion and more there is an even number: at the end of a run, two calls of the
    encoder are then done at about the same time.
    """
    count = -(-len(sources) // PORTION)
    count += count % 2 if len(sources) >= PORTION else 0
    ends = [number * len(sources) // count for number in range(count + 1)] if count else []
    return [sources[start:end] for start, end in pairwise(ends)]


class _Room:
    """Bounds the pixels that are decoded at once; one picture may always be, however large."""

    def __init__(self, pixels: int) -> None:
        self._limit = pixels
        self._used = 0
        self._freed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for so many pixels, and take it."""
        with self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + pixels <= self._limit)
            self._used += pixels
        try:
            yield
        finally:
            with self._freed:
                self._used -= pixels
                self._freed.notify_all()
