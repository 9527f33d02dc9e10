"""The limit on pixels decoded at once: as many as fit, at least one picture, in order."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import PIL.Image
import pytest
from support import picture

from vecsearch.imaging import budget, decode, thumbnails
from vecsearch.imaging.budget import PixelBudget
from vecsearch.imaging.scan import Unreadable

TIMEOUT_S = 60


class Spender:
    """Spends pixels in a thread of its own until it is told to leave."""

    def __init__(self, pool: ThreadPoolExecutor, shared: PixelBudget, pixels: int) -> None:
        self.entered, self.may_leave = threading.Event(), threading.Event()
        self.left: Future[None] = pool.submit(self._spend, shared, pixels)

    def _spend(self, shared: PixelBudget, pixels: int) -> None:
        with shared.spend(pixels):
            self.entered.set()
            assert self.may_leave.wait(TIMEOUT_S)

    def leave(self) -> None:
        self.may_leave.set()
        self.left.result(TIMEOUT_S)


def waiting(shared: PixelBudget) -> int:
    return len(shared._waiting)  # noqa: SLF001 - who waits does nothing else that can be seen


def test_threads_that_wait_for_room_get_it() -> None:
    shared = PixelBudget(10)
    with ThreadPoolExecutor(1) as pool:
        with shared.spend(5):
            later = Spender(pool, shared, 6)
            assert not later.entered.wait(0.05)
        assert later.entered.wait(TIMEOUT_S)
        later.leave()


def test_a_picture_beyond_the_budget_is_let_in_alone() -> None:
    shared = PixelBudget(10)
    with ThreadPoolExecutor(2) as pool:
        large = Spender(pool, shared, 100)
        assert large.entered.wait(TIMEOUT_S)
        small = Spender(pool, shared, 1)
        assert not small.entered.wait(0.05)
        large.leave()
        assert small.entered.wait(TIMEOUT_S)
        small.leave()


def test_small_pictures_do_not_keep_a_large_one_out() -> None:
    shared = PixelBudget(10)
    with ThreadPoolExecutor(3) as pool:
        first = Spender(pool, shared, 5)
        assert first.entered.wait(TIMEOUT_S)
        large = Spender(pool, shared, 9)
        while not waiting(shared):
            pass
        later = Spender(pool, shared, 5)  # it would fit beside the first
        assert not later.entered.wait(0.05)
        first.leave()
        assert large.entered.wait(TIMEOUT_S)
        assert not later.entered.is_set()
        large.leave()
        assert later.entered.wait(TIMEOUT_S)
        later.leave()


def test_a_failure_gives_the_pixels_back() -> None:
    shared = PixelBudget(10)
    with pytest.raises(ValueError, match="a fault"), shared.spend(10):
        raise ValueError("a fault")
    with shared.spend(10):
        pass


class Spy(PixelBudget):
    """Notes what is spent."""

    def __init__(self) -> None:
        super().__init__(10**9)
        self.spent: list[int] = []

    @contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        self.spent.append(pixels)
        with super().spend(pixels):
            yield


def test_pixels_count_by_the_header_and_only_if_they_will_be_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy = Spy()
    monkeypatch.setattr(budget, "DECODING", spy)
    content = thumbnails.make(picture(1, (40, 30)))
    for max_pixels in (1200, 1199):
        with decode.decoded(content, "x", max_pixels=max_pixels) as image:
            assert isinstance(image, Unreadable) == (max_pixels == 1199)
    with decode.decoded(b"no picture", "x", max_pixels=1200) as image:
        assert isinstance(image, Unreadable)
    assert spy.spent == [1200, 0, 0]
    assert len(list(thumbnails.load([content], 10, 10, max_pixels=1200))) == 1
    assert spy.spent[-1] == 1200


def test_a_jpeg_is_decoded_in_no_more_pixels_than_a_small_picture_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    fit = thumbnails.fit

    def noted(pixels: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
        sizes.append(pixels.size)
        return fit(pixels, width, height)

    monkeypatch.setattr(thumbnails, "fit", noted)
    content = io.BytesIO()
    picture(1, (800, 640)).save(content, "JPEG")
    [small] = thumbnails.load([content.getvalue()], 100, 50, max_pixels=10**6)
    assert sizes == [(400, 320)]  # a quarter would have fewer than 2.5 * 100
    assert isinstance(small, PIL.Image.Image)
    assert small.size == (62, 50)
