"""Thumbnails: images made small, to be stored in the database or drawn on sheets and pages."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from vecsearch.imaging import decode

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# The longer side of a stored thumbnail, in pixels.
SIDE = 320
MEDIA_TYPE = "image/jpeg"
# Thumbnails stored by older versions are WebP.
MEDIA_TYPES = (MEDIA_TYPE, "image/webp")
# A photo takes about 15 kB and 0.25 ms. WebP is a fifth smaller and takes ten times as long, more
# than everything else that ingest does to a photo of the size used on the web, its embedding aside.
_QUALITY = 75


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail to store.

    Attributes:
        sha256: of the file that it was made from, in hex.
        width, height: of the thumbnail, in pixels.
        image: bytes of one of `MEDIA_TYPES`.

    """

    sha256: str
    width: int
    height: int
    image: bytes

    @classmethod
    def of(cls, image: decode.Image) -> Self:
        """Make the thumbnail of a decoded image."""
        facts = image.facts
        fitting = size(facts.width, facts.height)
        return cls(facts.sha256, *fitting, _encoded(image.pixels, fitting))


def make(pixels: "Picture") -> bytes:
    """Return the thumbnail of an RGB picture: bytes of `MEDIA_TYPE`, of the size from `size`."""
    return _encoded(pixels, size(*pixels.size))


def media_type(image: bytes) -> str:
    """Return the media type of a stored thumbnail: one of `MEDIA_TYPES`."""
    return MEDIA_TYPES[image.startswith(b"RIFF")]


def _encoded(pixels: "Picture", fitting: tuple[int, int]) -> bytes:
    from PIL.Image import Resampling

    # The reducing gap averages big photos down first: a seventh of the time, as sharp.
    small = pixels.resize(fitting, Resampling.HAMMING, reducing_gap=2.0)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def size(width: int, height: int) -> tuple[int, int]:
    """Return the size of a picture's thumbnail: within SIDE x SIDE, never enlarged."""
    return (width, height) if max(width, height) <= SIDE else fitted(width, height, SIDE, SIDE)


def fit(picture: "Picture", width: int, height: int) -> "Picture":
    """Return the picture resized to fit width x height pixels, its proportions kept."""
    from PIL.Image import Resampling

    return picture.resize(fitted(*picture.size, width, height), Resampling.LANCZOS)


def fitted(width: int, height: int, most_width: int, most_height: int) -> tuple[int, int]:
    """Return the largest size of these proportions that fits a box; at least one pixel."""
    scale = min(most_width / width, most_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
