"""A query picture or sentence becomes an embedding, for one caller or for many at once.

Pictures are decoded a few at a time, so that memory stays bounded; they are embedded together with
whatever else waits, as the encoder is fastest; and embeddings are remembered, so that asking about
one picture again, with another filter say, costs no encoder.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import BATCH_SIZE, Encoder, LazyEncoder, TextEncoder, unusable
from vecsearch.encoders.once import Once
from vecsearch.errors import ImageUnreadable, InvalidInput
from vecsearch.imaging import pictures, scan
from vecsearch.imaging.pictures import Outside, Wanted
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.questions.pictures import Picture

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

    from vecsearch.encoders.openvino.cache import Exported
    from vecsearch.encoders.sentences.encoder import SentenceEncoder

# Eight megabytes of ResNet50's.
REMEMBERED = 1_000

OnBatch = Callable[[int, float], None]
FindQuantized = Callable[[str], "Exported | None"]


class Embedder:
    """Embeds query pictures and texts with one encoder; its methods may be called from any thread.

    Args:
        load: gives the encoder, which is called for one batch at a time; called when there is
            something to embed, and again if it failed.
        max_pixels: pictures with more are refused before they are decoded.
        on_batch: told the size of each batch, and the seconds that it took.
        texts: embeds texts in the space of the encoder's pictures; None if the encoder cannot.

    """

    def __init__(
        self,
        load: Callable[[], Encoder],
        *,
        max_pixels: int,
        on_batch: OnBatch = lambda *_: None,
        texts: TextEncoder | None = None,
    ) -> None:
        self._load = load
        self._texts = texts
        self._encoder: Once[Encoder] = Once(retry=True)
        self._max_pixels = max_pixels
        self._on_batch = on_batch
        self._waiting: deque[tuple[NDArray[np.uint8], Future[NDArray[np.float32]]]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def warm(self) -> Encoder:
        """Return the encoder, loaded; without this, the first picture waits for it.

        Raises:
            EncoderError: it cannot be loaded.

        """
        return self._encoder.get(self._loaded)

    def embed(self, picture: Picture) -> NDArray[np.float32]:
        """Return the picture's embedding, shape (dimensions,).

        Raises:
            ImageUnreadable: it cannot be decoded, or its embedding cannot be compared.
            EncoderError: the encoder cannot be loaded.

        """
        known = self.remembered(picture)
        if known is not None:
            return known
        name = picture.path or "The picture"
        # What is no picture need not wait for an encoder.
        inputs = self._prepared(picture, name)
        encoder = self.warm()
        mine: Future[NDArray[np.float32]] = Future()
        self._waiting.append((inputs, mine))
        self._worker.submit(self._embed_waiting, encoder)
        embedding = mine.result()
        reason = unusable(embedding)
        if reason is not None:
            raise ImageUnreadable(f"{name}: {reason}")
        self._remember(picture, embedding)
        return embedding

    def embed_pixels(self, drawn: "Sequence[Pixels]") -> NDArray[np.float32]:
        """Return the embeddings, shape (n, dimensions), of pictures of mode RGB.

        Raises:
            EncoderError: the encoder cannot be loaded.

        """
        encoder = self.warm()
        inputs = [encoder.preprocessing.prepare(pixels) for pixels in drawn]
        batches = [
            np.stack(inputs[start : start + BATCH_SIZE])
            for start in range(0, len(inputs), BATCH_SIZE)
        ]
        return np.concatenate([*self._worker.map(encoder.embed, batches)])

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return a text's embedding, shape (dimensions,), comparable with those of pictures.

        Raises:
            InvalidInput: the text is longer than the encoder reads, the encoder reads none, or the
                embedding cannot be compared.
            EncoderError: the encoder cannot be loaded.

        """
        if self._texts is None:
            raise InvalidInput("The collection's encoder reads no text. Search by a picture.")
        known = self.remembered(text)
        if known is not None:
            return known
        embedding: NDArray[np.float32] = self._texts.embed_text([text])[0]
        reason = unusable(embedding)
        if reason is not None:
            raise InvalidInput(f"{text!r}: {reason} Ask with other words.")
        self._remember(text, embedding)
        return embedding

    def remembered(self, target: Picture | str) -> NDArray[np.float32] | None:
        """Return the embedding of a picture or a text that was embedded lately."""
        key = _key(target)
        with self._lock:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
            return known

    def _remember(self, target: Picture | str, embedding: NDArray[np.float32]) -> None:
        with self._lock:
            self._remembered[_key(target)] = embedding
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)

    def _loaded(self) -> Encoder:
        encoder = self._load()
        _ = encoder.identity  # loads a lazy one
        return encoder

    def _prepared(self, picture: Picture, name: str) -> NDArray[np.uint8]:
        """Return the encoder's input; the encoder is loaded once the picture could be decoded."""
        crop = picture.crop
        made = pictures.make(
            pictures.of_bytes(picture.content, name, picture.sha256),
            Wanted(
                preprocessing=lambda: self.warm().preprocessing,
                crop=None if crop is None else crop.box,
            ),
            max_pixels=self._max_pixels,
        )
        if isinstance(made, scan.Unreadable):
            raise ImageUnreadable(f"{name}: {made.reason}")
        if isinstance(made, Outside):
            assert crop is not None  # noqa: S101 - for the type checker
            raise crop.outside(made.width, made.height)
        assert made.inputs is not None  # noqa: S101 - likewise
        return made.inputs

    def _embed_waiting(self, encoder: Encoder) -> None:
        """Embed what waits, as one batch; nothing may be left by the time one's turn comes."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_SIZE))]
        if not batch:
            return
        started = perf_counter()
        try:
            embeddings = encoder.embed(np.stack([inputs for inputs, _ in batch]))
            answers = list(zip(batch, embeddings, strict=True))
            self._on_batch(len(batch), perf_counter() - started)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), embedding in answers:
            future.set_result(embedding)


def _key(target: Picture | str) -> str:
    return f"text {target}" if isinstance(target, str) else target.key


class Embedders:
    """The embedders of collections, each with the collection's own encoder, loaded once and kept.

    Args:
        runtime: how encoders run.
        max_pixels: see `Embedder`.
        quantized: see `vecsearch.encoders.registry.for_collection`.

    Attributes:
        on_batch: see `Embedder`.

    """

    def __init__(
        self,
        runtime: Runtime,
        max_pixels: int,
        quantized: FindQuantized = lambda _: None,
    ) -> None:
        self.on_batch: OnBatch = lambda *_: None
        self._runtime = runtime
        self._quantized = quantized
        self._max_pixels = max_pixels
        self._kept: dict[str, tuple[StoredCollection, Embedder]] = {}
        self._lock = threading.Lock()

    @cached_property
    def sentences(self) -> "SentenceEncoder":
        """What understands phrases, for all collections; imported when a phrase is asked for."""
        from vecsearch.encoders.sentences.encoder import SentenceEncoder

        return SentenceEncoder(self._runtime)

    def of(
        self,
        collection: StoredCollection,
        model: str | None = None,
        weights: str | Path | None = None,
    ) -> Embedder:
        """Return a collection's embedder.

        Args:
            collection: whose encoder.
            model: what the user says it is; None takes the collection's word.
            weights: where they are now; None: where they were.

        Raises:
            EncoderError: `model` or `weights` are another encoder's.

        """
        if (model, weights) != (None, None):
            encoder = collection_encoder(collection, model, weights, self._runtime, self._quantized)
            return Embedder(lambda: encoder, max_pixels=self._max_pixels, texts=encoder.texts)
        with self._lock:
            known, embedder = self._kept.get(collection.name, (None, None))
            # Another collection may have come under this name.
            if embedder is None or known is None or not known.has_encoder_of(collection):

                def unloaded() -> LazyEncoder:
                    return collection_encoder(
                        collection, None, None, self._runtime, self._quantized
                    )

                embedder = Embedder(
                    unloaded,
                    max_pixels=self._max_pixels,
                    on_batch=self._tell,
                    texts=unloaded().texts,
                )
                self._kept[collection.name] = (collection, embedder)
            return embedder

    def _tell(self, size: int, seconds: float) -> None:
        self.on_batch(size, seconds)


def collection_encoder(
    collection: StoredCollection,
    model: str | None,
    weights: str | Path | None,
    runtime: Runtime,
    quantized: FindQuantized = lambda _: None,
) -> LazyEncoder:
    """Return a collection's encoder, loaded when it is used; see `vecsearch.encoders.base`."""
    return registry.for_collection(
        collection.name,
        collection.identity,
        collection.weights,
        model=model,
        weights=weights,
        runtime=runtime,
        quantized=quantized,
    )
