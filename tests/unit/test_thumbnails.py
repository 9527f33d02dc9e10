"""What a stored thumbnail is."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import picture

from vecsearch.imaging import decode, reading, thumbnails
from vecsearch.imaging.thumbnails import SIDE, Thumbnail

SIDES = st.integers(1, 2_000)


def decoded(content: bytes) -> PIL.Image.Image:
    image = decode.decode(content, "a thumbnail", max_pixels=SIDE * SIDE)
    assert isinstance(image, decode.Image)
    assert PIL.Image.MIME[image.facts.format] == thumbnails.MEDIA_TYPE
    return image.pixels


@settings(derandomize=True, deadline=None, max_examples=30)
@given(SIDES, SIDES)
@example(1, 1)
@example(SIDE, SIDE)
@example(SIDE + 1, 1)
@example(1, 20_000)
@example(20_000, 2)
def test_it_fits_keeps_proportions_and_is_never_enlarged(width: int, height: int) -> None:
    small = decoded(thumbnails.make(PIL.Image.new("RGB", (width, height), "red")))
    assert small.size == thumbnails.size(width, height)
    if max(width, height) <= SIDE:
        assert small.size == (width, height)
    else:
        assert max(small.size) == SIDE
        scale = SIDE / max(width, height)
        assert abs(small.width - width * scale) <= 1
        assert abs(small.height - height * scale) <= 1


@pytest.mark.parametrize("size", [(200, 150), (2_000, 1_500)])
def test_it_looks_like_the_picture(size: tuple[int, int]) -> None:
    original = picture(3, size)
    small = decoded(thumbnails.make(original))
    expected = original.resize(small.size, PIL.Image.Resampling.BOX)
    difference = np.abs(np.asarray(small, dtype=float) - np.asarray(expected, dtype=float))
    assert difference.mean() < 5


def test_it_is_of_the_file_s_content_and_knows_its_own_size() -> None:
    file = io.BytesIO()
    picture(1, (640, 100)).save(file, "PNG")
    image = decode.decode(file.getvalue(), "picture", max_pixels=1_000_000)
    assert isinstance(image, decode.Image)
    thumbnail = Thumbnail.of(image)
    assert thumbnail.sha256 == reading.bytes_sha256(file.getvalue())
    assert (thumbnail.width, thumbnail.height) == (320, 50) == decoded(thumbnail.image).size
