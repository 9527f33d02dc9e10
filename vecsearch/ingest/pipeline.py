"""From files to embeddings, in threads: read and hash, decode, draw, prepare, embed.

Each stage works ahead of the next, within bounds: only small files' bytes are kept, a decoded
picture lives only while a thread works on it, and prepared pictures wait in batches, of which the
caller has few under way.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import numpy as np

from vecsearch.encoders.base import BATCH_SIZE, Encoder
from vecsearch.imaging import decode
from vecsearch.imaging.decode import Facts, Image, Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.thumbnails import SIDE, Thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Files up to this many bytes are read once; a larger one is read for its hash, then to be decoded.
KEPT_BYTES = 1 << 20


@dataclass(frozen=True)
class Encoded:
    """What a file becomes: its facts, its thumbnail and its embedding, shape (dimensions,)."""

    facts: Facts
    thumbnail: Thumbnail
    embedding: "NDArray[np.float32]"


@dataclass(frozen=True)
class _Prepared:
    facts: Facts
    thumbnail: Thumbnail
    inputs: "NDArray[np.uint8]"


Results = list[Encoded | Unreadable]


class Pipeline:
    """The threads of one ingest; leaving its context drops the work that has not begun.

    Batches go to the encoder in the order in which they were submitted.

    Args:
        encoder: used, and so loaded, only once a picture could be decoded.
        max_pixels: pictures with more are unreadable.

    """

    def __init__(self, encoder: Encoder, *, max_pixels: int) -> None:
        self._encoder = encoder
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode")
        # One thread, which waits for each batch to be prepared before it turns to the next one.
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="queue")
        # Made by that thread: how many threads it has is known once the encoder is loaded.
        self._embedders: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._queue.shutdown(cancel_futures=True)
        if self._embedders is not None:
            self._embedders.shutdown(cancel_futures=True)
        self._decoders.shutdown()

    def read(self, paths: Iterable[str], *, keep: bool) -> Iterator[Source | Unreadable]:
        """Yield each file's SHA-256, in order, with a small file's bytes if `keep` is set."""
        limit = KEPT_BYTES if keep else 0
        return self._decoders.map(lambda path: decode.read(path, keep=limit), paths)

    def embed(self, sources: Sequence[Source]) -> list[Future[Results]]:
        """Begin to embed files; return batches of them, in order.

        A future raises what the encoder raises.
        """
        return [self._submit(batch) for batch in batches(sources)]

    def draw(self, source: Source) -> "Future[Thumbnail | Unreadable]":
        """Begin to make the thumbnail of a file."""
        return self._decoders.submit(self._draw, source)

    def _submit(self, batch: Sequence[Source]) -> Future[Results]:
        preparing = [self._decoders.submit(self._prepare, source) for source in batch]
        finished: Future[Results] = Future()
        _follow(self._queue.submit(self._start, preparing, finished), finished)
        return finished

    def _start(
        self, preparing: "list[Future[_Prepared | Unreadable]]", finished: Future[Results]
    ) -> None:
        """Hand a batch to the encoder when its pictures are prepared."""
        try:
            results = [future.result() for future in preparing]
            unreadable = [item for item in results if isinstance(item, Unreadable)]
            if len(unreadable) == len(results):
                finished.set_result([*unreadable])
                return
            if self._embedders is None:
                self._embedders = ThreadPoolExecutor(
                    self._encoder.concurrency, thread_name_prefix="embed"
                )
            _follow(self._embedders.submit(self._embed, results, finished), finished)
        except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
            finished.set_exception(error)

    def _embed(self, results: list[_Prepared | Unreadable], finished: Future[Results]) -> None:
        try:
            inputs = np.stack([item.inputs for item in results if isinstance(item, _Prepared)])
            embeddings = iter(self._encoder.embed(inputs))
            encoded = [
                item
                if isinstance(item, Unreadable)
                else Encoded(item.facts, item.thumbnail, next(embeddings))
                for item in results
            ]
        except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
            finished.set_exception(error)
        else:
            finished.set_result(encoded)

    def _prepare(self, source: Source) -> "_Prepared | Unreadable":
        # A lazy encoder is loaded before it must be, to decode fewer pixels.
        with self._decoded(source, lambda: max(SIDE, *self._encoder.input_size)) as image:
            if isinstance(image, Unreadable):
                return image
            thumbnail = Thumbnail.of(image)
            return _Prepared(image.facts, thumbnail, self._encoder.prepare(image.pixels))

    def _draw(self, source: Source) -> Thumbnail | Unreadable:
        with self._decoded(source, lambda: SIDE) as image:
            return image if isinstance(image, Unreadable) else Thumbnail.of(image)

    @contextmanager
    def _decoded(self, source: Source, needed: Callable[[], int]) -> Iterator[Image | Unreadable]:
        """Yield the picture, which lives no longer; a file that changed is unreadable."""
        content = decode.content(source)
        if isinstance(content, Unreadable):
            yield content
            return
        with decode.decoded(
            content, source.path, max_pixels=self._max_pixels, sha256=source.sha256, needed=needed
        ) as image:
            yield image


def _follow(work: Future[None], finished: Future[Results]) -> None:
    """Cancel a batch when its work is dropped, so that nobody waits for it."""
    work.add_done_callback(lambda done: done.cancelled() and finished.cancel())


def batches(sources: Sequence[Source]) -> list[Sequence[Source]]:
    """Return the sources in batches of nearly equal size.

    A full batch and more make an even number of batches: at the end of a run, two calls of the
    encoder then end at about the same time.
    """
    count = -(-len(sources) // BATCH_SIZE)
    count += count % 2 if len(sources) >= BATCH_SIZE else 0
    ends = [number * len(sources) // count for number in range(count + 1)] if count else []
    return [sources[start:end] for start, end in pairwise(ends)]
