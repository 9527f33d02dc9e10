"""Queries by pictures in memory: Pillow images and arrays."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from support import picture

from vecsearch.errors import InvalidInput
from vecsearch.search.query import Query
from vecsearch.search.questions.pictures import Picture


def decoded(source: Any) -> Any:
    with PIL.Image.open(BytesIO(Picture.read(source).content)) as opened:
        opened.load()
        return opened


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "CMYK", "F", "1"])
def test_a_pillow_image_is_taken_without_loss(mode: str) -> None:
    image = picture(3).convert("L").convert(mode) if mode == "I;16" else picture(3).convert(mode)
    assert Picture.read(image).sha256 == Picture.read(image).sha256
    before, after = (np.asarray(each.convert("RGB")) for each in (image, decoded(image)))
    if mode == "F":
        assert after.shape == before.shape
    else:
        assert np.array_equal(after, before)


def test_a_path_is_named_as_it_is_stored(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "1.png")
    (tmp_path / "below").mkdir()
    assert Picture.read(tmp_path / "below" / ".." / "1.png").path == str(tmp_path / "1.png")


def test_an_array_is_a_picture() -> None:
    pixels = np.asarray(picture(4))
    assert np.array_equal(np.asarray(decoded(pixels)), pixels)
    grey = np.asarray(picture(4).convert("L"))
    assert Picture.read(grey).content != Picture.read(pixels).content
    # Whether there is an image is asked without comparing its pixels.
    assert Query(pixels).parts[0].name == "the picture"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3)), r"An array of float64 with shape \(4, 4, 3\) is no picture"),
        (np.zeros((3, 4, 4), np.uint8), r"with shape \(3, 4, 4\) is no picture"),
        (np.zeros((0, 4, 3), np.uint8), "is no picture"),
        (np.zeros(4, np.uint8), "is no picture"),
        (17, "A value of type int is no picture"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Picture.read(given)
