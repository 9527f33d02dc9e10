"""Query pictures become embeddings: in batches, once each, and whatever fails is said to all."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pytest
from support import PixelEncoder, picture, png

from vecsearch.encoders import once
from vecsearch.encoders.base import BATCH_SIZE
from vecsearch.errors import ImageUnreadable, InvalidInput, WeightsUnavailable
from vecsearch.imaging import pictures, reading
from vecsearch.search.questions import embedder
from vecsearch.search.questions.embedder import Embedder
from vecsearch.search.questions.pictures import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXELS = 10**6


def new(seed: int) -> Picture:
    return Picture(png(seed))


def expected(seed: int) -> "NDArray[np.float32]":
    return PixelEncoder().preprocessing.prepare(picture(seed)).reshape(-1).astype(np.float32)


class Gated(PixelEncoder):
    """An encoder that embeds when it is told to, and tells that it has begun."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.sizes: list[int] = []
        self.fault = fault

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        self.begun.set()
        assert self.gate.wait(60)
        self.sizes.append(len(batch))
        if self.fault is not None:
            raise self.fault
        return super().embed(batch)


def asked_while_busy(
    encoder: Gated, count: int, ask: Callable[[int], object]
) -> list["object | BaseException"]:
    """Return what `count` callers get who come while the encoder is busy with a first one."""
    waiting = threading.Semaphore(0)
    make = pictures.make

    def made(*arguments: Any, **options: Any) -> object:
        result = make(*arguments, **options)
        waiting.release()
        return result

    # To know who waits.
    with patch.object(pictures, "make", made), ThreadPoolExecutor(count + 1) as pool:
        first = pool.submit(ask, 0)
        assert encoder.begun.wait(60)
        others = [pool.submit(ask, number) for number in range(1, count + 1)]
        for _ in range(count + 1):
            assert waiting.acquire(timeout=60)
        encoder.gate.set()
        return [done.exception() or done.result() for done in [first, *others]]


def test_who_waits_is_embedded_together() -> None:
    encoder = Gated()
    batches: list[int] = []
    mine = Embedder(
        lambda: encoder, max_pixels=PIXELS, on_batch=lambda size, _: batches.append(size)
    )
    count = 2 * BATCH_SIZE
    answers = asked_while_busy(encoder, count, lambda number: mine.embed(new(number)))
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, expected(number))
    assert sum(encoder.sizes) == count + 1
    assert encoder.sizes[0] == 1
    assert max(encoder.sizes) <= BATCH_SIZE
    # The last to be prepared may come just after a batch has gone.
    assert len(encoder.sizes) <= 5
    assert batches == encoder.sizes


def test_a_fault_is_delivered_to_all_who_wait_and_to_nobody_later() -> None:
    encoder = Gated(RuntimeError("no memory"))
    mine = Embedder(lambda: encoder, max_pixels=PIXELS)
    answers = asked_while_busy(encoder, 4, lambda number: mine.embed(new(number)))
    assert [str(answer) for answer in answers] == ["no memory"] * 5
    encoder.fault = None
    np.testing.assert_array_equal(mine.embed(new(1)), expected(1))


def test_who_waits_for_an_encoder_that_fails_does_not_try_it_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[int] = []
    waiting = threading.Semaphore(0)

    class Awaited(Future[object]):
        def result(self, timeout: float | None = None) -> object:
            waiting.release()
            return super().result(timeout)

    def load() -> PixelEncoder:
        loads.append(1)
        for _ in range(4):
            assert waiting.acquire(timeout=60)
        raise WeightsUnavailable("gone")

    monkeypatch.setattr(once, "Future", Awaited)
    mine = Embedder(load, max_pixels=PIXELS)
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(mine.warm) for _ in range(5)]
        assert [str(answer.exception()) for answer in answers] == ["gone"] * 5
    assert len(loads) == 1


@pytest.mark.parametrize("where", ["short", "on_batch"])
def test_a_fault_beside_the_encoder_leaves_nobody_waiting(where: str) -> None:
    class Short(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            return super().embed(batch)[:0] if where == "short" else super().embed(batch)

    def told(_size: int, _seconds: float) -> None:
        if where == "on_batch":
            raise ValueError("a fault")

    mine = Embedder(Short, max_pixels=PIXELS, on_batch=told)
    with pytest.raises(ValueError, match="fault" if where == "on_batch" else "shorter"):
        mine.embed(new(1))


def test_embeddings_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "REMEMBERED", 2)
    encoder = PixelEncoder()
    mine = Embedder(lambda: encoder, max_pixels=PIXELS)
    for number in (1, 2, 1, 3):
        mine.embed(new(number))
    assert len(encoder.embedded) == 3
    np.testing.assert_array_equal(mine.embed(new(1)), expected(1))
    assert len(encoder.embedded) == 3
    mine.embed(new(2))
    assert len(encoder.embedded) == 4


def test_an_encoder_is_loaded_once_and_tried_again_if_that_failed() -> None:
    loads: list[int] = []

    def load() -> PixelEncoder:
        loads.append(1)
        if len(loads) == 1:
            raise WeightsUnavailable("gone")
        return PixelEncoder()

    mine = Embedder(load, max_pixels=PIXELS)
    with pytest.raises(WeightsUnavailable, match="gone"):
        mine.embed(new(1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: mine.embed(new(number)), range(8)))
    assert len(loads) == 2


def test_what_cannot_be_searched_for_is_refused_without_the_encoder() -> None:
    def load() -> PixelEncoder:
        raise AssertionError("loaded")

    mine = Embedder(load, max_pixels=100)
    for content, reason in (
        (b"", "empty"),
        (b"<html>", "Not an image"),
        (new(1).content, "pixels"),
    ):
        with pytest.raises(ImageUnreadable, match=reason):
            mine.embed(Picture(content))


def test_an_embedding_that_cannot_be_compared_is_refused_and_not_remembered() -> None:
    class Zero(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            return super().embed(batch) * 0

    encoder = Zero()
    mine = Embedder(lambda: encoder, max_pixels=PIXELS)
    for _ in range(2):
        with pytest.raises(ImageUnreadable):
            mine.embed(new(1))
    assert len(encoder.embedded) == 2


def test_no_file_is_read_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 3_000_000)
    with pytest.raises(InvalidInput, match="more than 3 MB"):
        Picture.read(Path("/dev/zero"))
