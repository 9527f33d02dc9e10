"""Altered copies of pictures: who looks for one must find the original."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from vecsearch.imaging import thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def _cropped(picture: "Picture") -> "Picture":
    width, height = picture.size
    return picture.crop((0, 0, max(1, round(0.6 * width)), max(1, round(0.6 * height))))


def _recompressed(picture: "Picture") -> "Picture":
    import PIL.Image

    content = io.BytesIO()
    picture.save(content, "JPEG", quality=10)
    return PIL.Image.open(content).convert("RGB")


def _lit(factor: float) -> Callable[["Picture"], "Picture"]:
    return lambda picture: picture.point(lambda value: min(255, round(factor * value)))


def _grey(picture: "Picture") -> "Picture":
    return picture.convert("L").convert("RGB")


def _small(picture: "Picture") -> "Picture":
    return thumbnails.fit(picture, 64, 64)


# Strong enough for some originals to be missed: what every setting finds tells nothing of them.
KINDS: dict[str, Callable[["Picture"], "Picture"]] = {
    "cropped": _cropped,
    "recompressed": _recompressed,
    "brightened": _lit(1.8),
    "darkened": _lit(0.3),
    "grey": _grey,
    "shrunk": _small,
}


def make(picture: "Picture") -> list["Picture"]:
    """Return an altered copy of each of `KINDS`, mode RGB, of a picture of mode RGB."""
    return [alter(picture) for alter in KINDS.values()]
