"""How the thumbnails of two pictures are compared."""

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance, ImageOps

from vecsearch.analysis.duplicates.groups import FAR_SHARE
from vecsearch.demo.scenes import SCENES
from vecsearch.imaging import alignment, thumbnails
from vecsearch.vocabulary import MAX_DIFFERENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

Picture = PIL.Image.Image


def drawn(scene: str, seed: int = 0) -> Picture:
    return SCENES[scene](Random(f"{scene} {seed}"))


def cropped(picture: Picture, left: float, top: float, right: float, bottom: float) -> Picture:
    width, height = picture.size
    return picture.crop(
        (round(width * left), round(height * top), round(width * right), round(height * bottom))
    )


def differences(
    pairs: Sequence[tuple[Picture, Picture]], *, mirrored: bool = False
) -> "NDArray[np.float64]":
    """Return the differences of pairs, as duplicates are confirmed."""
    made = [thumbnails.make(picture) for pair in pairs for picture in pair]
    small = np.array([alignment.squeezed(content, alignment.SMALL) for content in made])
    large = np.array([alignment.squeezed(content, alignment.LARGE) for content in made])
    step = -1 if mirrored else 1
    numbers = np.arange(0, len(made), 2)
    screened = alignment.screen(small, small[:, :, ::step], numbers, numbers + 1)
    near = screened.difference <= alignment.UNRELATED
    one, other = large[::2][near], large[1::2, :, ::step][near]
    swapped = screened.of_other[near][:, None, None]
    found = screened.difference.copy()
    found[near] = alignment.fit(
        np.where(swapped, other, one), np.where(swapped, one, other), screened.edges[near]
    )
    return found


VARIANTS: dict[str, Callable[[Picture], Picture]] = {
    "half": lambda picture: picture.resize((160, 160)),
    "another shape": lambda picture: picture.resize((300, 200)),
    "corner": lambda picture: cropped(picture, 0.1, 0.1, 1, 1),
    "off the grid": lambda picture: cropped(picture, 0.015, 0.07, 0.935, 0.99),
    "one side": lambda picture: cropped(picture, 0, 0, 0.94, 1),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "greyscale": lambda picture: picture.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_differs_little(variant: str) -> None:
    pairs = [(drawn(scene), VARIANTS[variant](drawn(scene))) for scene in SCENES]
    found = dict(zip(SCENES, differences(pairs), strict=True))
    assert max(found.values()) <= FAR_SHARE * MAX_DIFFERENCE, found


def test_a_cropped_copy_is_aligned_whichever_of_the_two_it_is() -> None:
    picture = drawn("lighthouse")
    copy = cropped(picture, 0.1, 0, 1, 0.9)
    assert max(differences([(picture, copy), (copy, picture)])) <= 0.03
    # Half of the picture is too little.
    assert differences([(picture, cropped(picture, 0.3, 0.3, 1, 1))]) > 2 * MAX_DIFFERENCE


def test_another_picture_of_the_same_subject_differs() -> None:
    numbers = [(scene, one, other) for scene in SCENES for one, other in combinations(range(3), 2)]
    pairs = [(drawn(scene, one), drawn(scene, other)) for scene, one, other in numbers]
    found = dict(zip(numbers, differences(pairs), strict=True))
    assert min(found.values()) > FAR_SHARE * MAX_DIFFERENCE, found
    assert sum(difference <= MAX_DIFFERENCE for difference in found.values()) <= 3, found


def test_a_mirrored_copy_differs_unless_it_is_looked_for() -> None:
    picture = drawn("mountains")
    mirrored = ImageOps.mirror
    pairs = [
        (picture, mirrored(picture)),
        (picture, mirrored(cropped(picture, 0.1, 0, 1, 0.9))),
        (cropped(picture, 0, 0, 0.9, 0.9), mirrored(picture)),
    ]
    assert min(differences(pairs)) > 2 * MAX_DIFFERENCE
    assert max(differences(pairs, mirrored=True)) <= 0.03
    other = differences([(picture, drawn("mountains", 1))], mirrored=True)
    assert other > 2 * MAX_DIFFERENCE


def test_a_picture_of_one_colour_shows_nothing_to_compare() -> None:
    plain, another = (PIL.Image.new("RGB", (320, 200), colour) for colour in ("teal", "silver"))
    content = [thumbnails.make(picture) for picture in (plain, drawn("clock"))]
    small = np.array([alignment.squeezed(made, alignment.SMALL) for made in content])
    assert alignment.is_flat(small).tolist() == [True, False]
    # What noise JPEG leaves in it counts for nothing.
    assert min(differences([(plain, another), (plain, drawn("clock"))])) > 0.5


def test_many_pairs_are_compared_as_each_alone() -> None:
    pairs = [(drawn(scene, seed), drawn(scene, seed + 1)) for scene in SCENES for seed in range(8)]
    alone = [differences([pair])[0] for pair in pairs[::13]]
    assert differences(pairs)[::13] == pytest.approx(alone, abs=1e-4)
    nothing = np.empty((0, alignment.SMALL, alignment.SMALL), np.uint8)
    none = np.empty(0, np.intp)
    assert alignment.screen(nothing, nothing, none, none).difference.shape == (0,)
    assert alignment.fit(nothing, nothing, np.empty((0, 4))).shape == (0,)
    # Neither stage may trip over pairs of which none goes on.
    one, other = (
        alignment.squeezed(thumbnails.make(drawn(scene)), alignment.LARGE)[None]
        for scene in ("city", "daisy")
    )
    assert alignment.fit(one, other, np.array([[0.0, 1, 0, 1]])) > alignment.UNRELATED
