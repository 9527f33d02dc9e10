"""Pictures made to fit, for sheets and pages alike."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from PIL.Image import Image as Picture


def thumbnails(
    sources: "Iterable[Path | bytes]", width: int, height: int, *, max_pixels: int
) -> "Iterator[Picture | images.Unreadable]":
    """Yield each file, or file's bytes, fitted into width x height pixels, in order.

    A picture that cannot be read is its reason.
    """

    def small(source: Path | bytes) -> "Picture | images.Unreadable":
        if isinstance(source, bytes):
            image = images.decode(source, "the query", max_pixels=max_pixels)
        else:
            image = images.load(str(source), max_pixels=max_pixels)
        return image if isinstance(image, images.Unreadable) else fit(image.pixels, width, height)

    # Decoders release the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        yield from pool.map(small, sources)


def fit(picture: "Picture", width: int, height: int) -> "Picture":
    """Return the picture as large as width x height pixels allow, its proportions kept."""
    from PIL.Image import Resampling

    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Resampling.LANCZOS)
