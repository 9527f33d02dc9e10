"""From files to embeddings: read and hash, decode, draw, prepare, embed.

Each stage works ahead of the next, within bounds: only small files' bytes are kept, a decoded
picture lives only in the worker process that a thread has asked, and prepared pictures wait in
batches, of which the caller has few under way.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from vecsearch.encoders.base import BATCH_SIZE, Encoder
from vecsearch.imaging import pictures
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.pictures import Made, Outside, Wanted
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import GIVEN_UP, Unanswered, Unreadable
from vecsearch.imaging.sources.remote import is_url
from vecsearch.imaging.stalls import Devices
from vecsearch.imaging.thumbnails import Thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vecsearch.imaging.preprocessing import Preprocessing

T = TypeVar("T")
# Files up to this many bytes are read once; a larger one is read for its hash, then to be decoded.
KEPT_BYTES = 1 << 20
# Likewise where reading again means fetching again; three chunks of them are under way.
FETCHED_BYTES = 1 << 23


@dataclass(frozen=True)
class Encoded:
    """What a file becomes: its facts, its thumbnail and its embedding, shape (dimensions,)."""

    facts: Facts
    thumbnail: Thumbnail
    embedding: "NDArray[np.float32]"


Results = list[Encoded | Unreadable]


class Pipeline:
    """The threads of one ingest; leaving its context drops the work that has not begun.

    Batches go to the encoder in the order in which they were submitted.

    Args:
        encoder: used, and so loaded, only once a picture could be decoded.
        max_pixels: pictures with more are unreadable.
        devices: where the files are; those on one that stalls too often are unreadable.

    """

    def __init__(self, encoder: Encoder, *, max_pixels: int, devices: Devices) -> None:
        self._encoder = encoder
        self._devices = devices
        self._max_pixels = max_pixels
        self._preprocessing: Preprocessing | None = None
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
        most = self._max_pixels

        def read(path: str) -> Source | Unreadable:
            few = FETCHED_BYTES if is_url(path) else KEPT_BYTES
            limit = few if keep else 0
            return self._answered(path, lambda: pictures.read(path, keep=limit, max_pixels=most))

        return self._decoders.map(read, paths)

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
        self, preparing: "list[Future[Made | Unreadable]]", finished: Future[Results]
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

    def _embed(self, results: list[Made | Unreadable], finished: Future[Results]) -> None:
        try:
            inputs = [
                item.inputs
                for item in results
                if isinstance(item, Made) and item.inputs is not None
            ]
            embeddings = iter(self._encoder.embed(np.stack(inputs)))
            encoded: Results = []
            for item in results:
                if isinstance(item, Unreadable):
                    encoded.append(item)
                else:
                    assert item.thumbnail is not None  # noqa: S101 - for the type checker
                    encoded.append(Encoded(item.facts, item.thumbnail, next(embeddings)))
        except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
            finished.set_exception(error)
        else:
            finished.set_result(encoded)

    def _prepare(self, source: Source) -> Made | Unreadable:
        # Once loaded, the encoder says at once how pictures are prepared.
        wanted = Wanted(
            thumbnail=True, preprocessing=self._preprocessing or self._ask, may_shrink=True
        )
        return self._made(source, wanted)

    def _ask(self) -> "Preprocessing":
        self._preprocessing = self._encoder.preprocessing
        return self._preprocessing

    def _draw(self, source: Source) -> Thumbnail | Unreadable:
        made = self._made(source, Wanted(thumbnail=True, may_shrink=True))
        if isinstance(made, Unreadable):
            return made
        assert made.thumbnail is not None  # noqa: S101 - for the type checker
        return made.thumbnail

    def _made(self, source: Source, wanted: Wanted) -> Made | Unreadable:
        def make() -> Made | Unreadable | Outside:
            return pictures.make(source, wanted, max_pixels=self._max_pixels)

        made = make() if source.content is not None else self._answered(source.path, make)
        assert not isinstance(made, Outside)  # noqa: S101 - there is no crop
        return made

    def _answered(self, path: str, read: Callable[[], T]) -> T | Unreadable:
        """Return what is read of a file, unless its device is given up."""
        device = self._devices.of(path)
        if self._devices.is_given_up(device):
            return Unreadable(path, GIVEN_UP)
        found = read()
        if isinstance(found, Unanswered):
            self._devices.stalled(device)
        return found


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
