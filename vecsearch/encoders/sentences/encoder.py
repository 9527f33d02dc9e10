"""Embed sentences: on OpenVINO with a cached export, or on torch."""

import hashlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vecsearch.config import Runtime
from vecsearch.encoders.once import Once
from vecsearch.encoders.openvino import choice
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.encoders.openvino.fallback import go_on_with_torch
from vecsearch.encoders.sentences import source
from vecsearch.encoders.sentences.engine import Network, on_engine
from vecsearch.encoders.sentences.source import Source
from vecsearch.errors import InvalidInput
from vecsearch.files import written_whole
from vecsearch.vocabulary import Engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32
# The longest text of a query and the longest definition have fewer.
MOST_TOKENS = 256


class SentenceEncoder:
    """A sentence encoder, loaded when it is used; its methods may be called from any thread.

    Args:
        runtime: where it is and how it runs.

    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._opened: Once[_Opened] = Once(retry=True)
        self._kept: dict[str, NDArray[np.float32]] = {}

    @property
    def is_available(self) -> bool:
        """Whether the extra that it needs is installed."""
        return source.available()

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return vectors of length 1, shape (texts, dimensions).

        Raises:
            WeightsUnavailable, WeightsMismatch: its files are not there, or others.
            EncoderError: the user chose OpenVINO, which cannot run it.

        """
        return self._opened.get(self._open).embed(texts)

    def embed_kept(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return the same, from the cache if these texts were embedded before.

        Raises:
            WeightsUnavailable, WeightsMismatch, EncoderError: see `embed`.

        """
        opened = self._opened.get(self._open)
        key = hashlib.sha256(repr((opened.identity, texts)).encode()).hexdigest()
        if key not in self._kept:
            file = self._runtime.cache_dir / "sentences" / f"{key}.npy"
            found = _read(file, len(texts))
            if found is None:
                found = opened.embed(texts)
                _write(file, found)
            self._kept[key] = found
        return self._kept[key]

    def _open(self) -> "_Opened":
        found = source.find(self._runtime.sentences)
        return _Opened(found, _network(found, self._runtime))


class _Opened:
    """A loaded sentence encoder."""

    def __init__(self, opened: Source, network: Network) -> None:
        from tokenizers import Tokenizer

        self.identity = repr(opened.identity)
        self._network = network
        self._tokenizer = Tokenizer.from_file(str(opened.folder / source.TOKENIZER))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.enable_padding(**{**(self._tokenizer.padding or {}), "length": None})
        # One text takes milliseconds, on all cores.
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """See `SentenceEncoder.embed`."""
        # Texts of like lengths together, because the shorter are padded.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        with self._lock:
            vectors = np.concatenate(
                [self._embed([texts[each] for each in part]) for part in parts]
            )
        placed = np.empty_like(vectors)
        placed[order] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return placed

    def _embed(self, texts: list[str]) -> "NDArray[np.float32]":
        encoded = self._tokenizer.encode_batch(texts)
        numbers = np.array([each.ids for each in encoded], np.int64)
        return self._network(numbers, np.array([each.attention_mask for each in encoded], np.int64))


def _network(opened: Source, runtime: Runtime) -> Network:
    cache = choice.exports(runtime)
    found = None if cache is None else cache.find(opened.identity)
    if isinstance(found, Exported):
        return on_engine(found)
    from vecsearch.encoders.sentences.export import Tower, on_openvino

    tower = Tower(opened, runtime.device)
    if cache is not None:
        network, refused = (None, found.reason) if found else on_openvino(tower, opened, cache)
        if network is not None:
            return network
        insist = runtime.engine == Engine.openvino
        go_on_with_torch(opened.identity, refused, insist=insist)
    return tower.run


def _read(file: Path, rows: int) -> "NDArray[np.float32] | None":
    """Return kept vectors; None if there are none, or the file is damaged."""
    try:
        found: NDArray[np.float32] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (rows, found.shape[-1]) else None


def _write(file: Path, vectors: "NDArray[np.float32]") -> None:
    # If the cache cannot be written, the next command embeds them again.
    with suppress(OSError, InvalidInput):
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as partial, partial.open("wb") as opened:
            np.save(opened, vectors, allow_pickle=False)
