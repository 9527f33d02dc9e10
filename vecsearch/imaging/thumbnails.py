"""Pictures made to fit: small enough to be stored beside a collection, or for sheets and pages."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vecsearch.imaging import decode, scan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL.Image import Image as Picture

# Of a stored thumbnail, in pixels.
SIDE = 320
MEDIA_TYPE = "image/jpeg"
# Of those that are stored: they once were WebP.
MEDIA_TYPES = (MEDIA_TYPE, "image/webp")
# A photo takes about 15 kB in 0.25 ms; WebP, a fifth smaller, takes ten times as long, which is
# more than everything else that is done to a photo of the web's size, its embedding aside.
_QUALITY = 75


@dataclass(frozen=True)
class Thumbnail:
    """A thumbnail to store.

    Attributes:
        sha256: of the file that it was made of, in hex.
        width, height: its own, in pixels.
        image: of one of `MEDIA_TYPES`.

    """

    sha256: str
    width: int
    height: int
    image: bytes

    @classmethod
    def of(cls, image: decode.Image) -> Self:
        """Make it of a decoded picture."""
        facts = image.facts
        fitting = size(facts.width, facts.height)
        return cls(facts.sha256, *fitting, _encoded(image.pixels, fitting))


def make(pixels: "Picture") -> bytes:
    """Return the picture as `MEDIA_TYPE`, of the size that `size` says; it must be RGB."""
    return _encoded(pixels, size(*pixels.size))


def media_type(image: bytes) -> str:
    """Return the type of a stored thumbnail: one of `MEDIA_TYPES`."""
    return MEDIA_TYPES[image.startswith(b"RIFF")]


def _encoded(pixels: "Picture", fitting: tuple[int, int]) -> bytes:
    from PIL.Image import Resampling

    # Averaged down first where that costs no sharpness: a seventh of the time for a big photo.
    small = pixels.resize(fitting, Resampling.HAMMING, reducing_gap=2.0)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()


def size(width: int, height: int) -> tuple[int, int]:
    """Return the thumbnail's pixels for a picture's: within SIDE x SIDE, never enlarged."""
    return (width, height) if max(width, height) <= SIDE else fitted(width, height, SIDE, SIDE)


def fit(picture: "Picture", width: int, height: int) -> "Picture":
    """Return the picture as large as width x height pixels allow, its proportions kept."""
    from PIL.Image import Resampling

    return picture.resize(fitted(*picture.size, width, height), Resampling.LANCZOS)


def fitted(width: int, height: int, most_width: int, most_height: int) -> tuple[int, int]:
    """Return the largest size of these proportions, and at least one pixel, within a box."""
    scale = min(most_width / width, most_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def load(
    sources: "Iterable[Path | bytes]", width: int, height: int, *, max_pixels: int
) -> "Iterator[Picture | scan.Unreadable]":
    """Yield each file, or file's bytes, fitted into width x height pixels, in order.

    A picture that cannot be read is its reason.
    """

    def small(source: Path | bytes) -> "Picture | scan.Unreadable":
        path = "the query" if isinstance(source, bytes) else str(source)
        content = source if isinstance(source, bytes) else decode.read_bytes(path)
        if isinstance(content, scan.Unreadable):
            return content
        with decode.decoded(content, path, max_pixels=max_pixels) as image:
            return image if isinstance(image, scan.Unreadable) else fit(image.pixels, width, height)

    # Decoders release the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        yield from pool.map(small, sources)
