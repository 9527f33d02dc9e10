"""A picture is prepared as timm prepares it, bit by bit, without timm."""

from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import picture
from timm.data.transforms_factory import create_transform

from vecsearch.errors import EncoderError
from vecsearch.imaging import preprocessing
from vecsearch.imaging.preprocessing import Preprocessing

PLAIN: dict[str, Any] = {
    "input_size": [3, 32, 32],
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_pct": 0.875,
    "crop_mode": "center",
}
FILTERS = ["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
MODES = ["center", "squash", "border"]


def assert_as_timm(config: dict[str, Any], pixels: PIL.Image.Image) -> None:
    transform = create_transform(**config, is_training=False, normalize=False)
    wanted = np.moveaxis(transform(pixels).numpy(), 0, -1)
    found = Preprocessing.of(config).prepare(pixels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", [(64, 48), (500, 300), (32, 32), (36, 36), (3, 900), (1, 1)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_it_is_timm_s_own_transform(mode: str, interpolation: str, size: tuple[int, int]) -> None:
    config = PLAIN | {"crop_mode": mode, "interpolation": interpolation}
    if mode == "border" and 900 in size:
        size = (30, 900)  # timm would resize a narrower one to nothing
    assert_as_timm(config, picture(5, size))


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 130),
    height=st.integers(1, 130),
    target=st.sampled_from([(32, 32), (31, 31), (24, 40), (40, 24)]),
    crop=st.sampled_from([0.8, 0.875, 0.95, 0.965, 1.0, 1.2]),
    mode=st.sampled_from(MODES),
    interpolation=st.sampled_from(FILTERS[:2]),
)
def test_whatever_the_sizes(
    width: int,
    height: int,
    target: tuple[int, int],
    crop: float,
    mode: str,
    interpolation: str,
) -> None:
    if mode == "border" and max(width, height) > 20 * min(width, height):
        height = width  # timm would resize it to nothing
    config = PLAIN | {
        "input_size": [3, *target],
        "crop_pct": crop,
        "crop_mode": mode,
        "interpolation": interpolation,
    }
    assert_as_timm(config, picture(width, (width, height)))


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 40_001)])
def test_a_sliver_is_not_resized_whole(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    pixels = picture(1, size)
    whole = Preprocessing.of(PLAIN).prepare(pixels)
    monkeypatch.setattr(preprocessing, "MOST_RESIZED", 0)
    part = Preprocessing.of(PLAIN).prepare(pixels)
    # Rounded once more.
    assert np.abs(part.astype(int) - whole).max() <= 2


def test_a_long_sliver_takes_no_gigabytes() -> None:
    # Whole it would be 36 by 36 times 16 million.
    pixels = PIL.Image.new("RGB", (1, 16_000_000), (9, 8, 7))
    prepared = Preprocessing.of(PLAIN).prepare(pixels)
    assert (prepared == [9, 8, 7]).all()


def test_a_sliver_in_a_border_keeps_a_line() -> None:
    prepared = Preprocessing.of(PLAIN | {"crop_mode": "border"}).prepare(
        PIL.Image.new("RGB", (1, 900), (9, 8, 7))
    )
    assert (prepared[:, 16] == [9, 8, 7]).all() or (prepared[:, 15] == [9, 8, 7]).all()


@pytest.mark.parametrize(
    "change", [{"input_size": [1, 28, 28]}, {"interpolation": "random"}], ids=["grey", "random"]
)
def test_what_pillow_cannot_prepare_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="Name another --model"):
        Preprocessing.of(PLAIN | change)
