"""What is made once: for every thread, with its failure, and again only where that is wanted."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vecsearch.encoders.once import Once
from vecsearch.errors import InvalidInput, VecsearchError, WeightsUnavailable

TIMEOUT_S = 60


class Making:
    """Fails as often as it is told, then makes its number of tries."""

    def __init__(self, *faults: BaseException) -> None:
        self.faults = list(faults)
        self.tries = 0

    def __call__(self) -> int:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)
        return self.tries


@pytest.mark.parametrize("retry", [False, True])
def test_a_value_is_made_once(retry: bool) -> None:
    value: Once[int] = Once(retry=retry)
    make = Making()
    assert [value.get(make) for _ in range(3)] == [1, 1, 1]
    assert make.tries == 1


@pytest.mark.parametrize("kind", [WeightsUnavailable, InvalidInput])
def test_a_failure_is_kept(kind: type[VecsearchError]) -> None:
    value: Once[int] = Once()
    make = Making(kind("gone"))
    for _ in range(3):
        with pytest.raises(kind, match="gone"):
            value.get(make)
    assert make.tries == 1


def test_a_later_call_tries_again_where_that_is_wanted() -> None:
    value: Once[int] = Once(retry=True)
    make = Making(WeightsUnavailable("gone"))
    with pytest.raises(WeightsUnavailable, match="gone"):
        value.get(make)
    assert value.get(make) == 2


@pytest.mark.parametrize("fault", [ValueError("a fault"), KeyboardInterrupt()])
def test_a_fault_that_is_no_encoder_s_is_not_kept(fault: BaseException) -> None:
    value: Once[int] = Once()
    make = Making(fault)
    with pytest.raises(type(fault)):
        value.get(make)
    assert value.get(make) == 2


def test_a_call_while_the_value_is_made_waits_for_it() -> None:
    value: Once[int] = Once()
    begun, may_end = threading.Event(), threading.Event()

    def slowly() -> int:
        begun.set()
        assert may_end.wait(TIMEOUT_S)
        return 7

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(value.get, slowly)
        assert begun.wait(TIMEOUT_S)
        second = pool.submit(value.get, lambda: 8)
        may_end.set()
        assert (first.result(TIMEOUT_S), second.result(TIMEOUT_S)) == (7, 7)
