"""The OpenVINO engine: the first inference runs alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vecsearch.encoders.openvino import engine


def test_the_first_inference_ends_before_a_second_begins_and_later_ones_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "_begun", threading.Event())
    running, waiting, may_end, both = (threading.Event() for _ in range(4))
    meeting = threading.Barrier(2, timeout=10)

    def first() -> None:
        with engine.first_alone():
            running.set()
            assert may_end.wait(10)

    def second() -> None:
        waiting.set()
        with engine.first_alone():
            both.set()

    def later() -> None:
        with engine.first_alone():
            meeting.wait()

    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(first)]
        assert running.wait(10)
        begun.append(pool.submit(second))
        assert waiting.wait(10)
        assert not both.wait(0.1)
        may_end.set()
        begun += [pool.submit(later), pool.submit(later)]
        for future in begun:
            future.result(10)
