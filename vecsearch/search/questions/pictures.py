"""A picture to search by, or a part of one."""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vecsearch.errors import InvalidInput
from vecsearch.files import said_if_slow
from vecsearch.imaging import pictures, reading, scan
from vecsearch.imaging.sources import containers, remote

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Pixels


# Dimensions of an array of pixels.
GREY_OR_RGB = {2, 3}
# What a picture may be given as; see `Picture.read`.
Given: TypeAlias = "str | Path | bytes | Picture | Pixels | NDArray[np.uint8]"


@dataclass(frozen=True)
class Crop:
    """A part of an upright picture, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Crop":
        """Read `X,Y,WIDTH,HEIGHT`.

        Raises:
            InvalidInput: it is not that.

        """
        numbers = [part.strip() for part in text.split(",")]
        is_number = re.compile("[0-9]{1,9}").fullmatch
        if len(numbers) != len(fields(cls)) or not all(map(is_number, numbers)):
            raise InvalidInput(
                f"{text!r} is no crop. Give X,Y,WIDTH,HEIGHT in pixels: 10,20,200,100"
            )
        return cls(*map(int, numbers))

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in pixels."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def outside(self, width: int, height: int) -> InvalidInput:
        """Return the error for a crop that is empty, or not within a picture of this size."""
        return InvalidInput(
            f"The crop {self} is not within the picture, which has {width} × {height} pixels. "
            "Give X,Y,WIDTH,HEIGHT of a part of it."
        )


@dataclass(frozen=True)
class Picture:
    """A picture to search by: a file's bytes, its absolute path if it has one, the part to use."""

    content: bytes
    path: str | None = None
    crop: Crop | None = None

    @property
    def key(self) -> str:
        """What is equal for pictures that have one embedding."""
        return self.sha256 if self.crop is None else f"{self.sha256} {self.crop}"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex."""
        return reading.bytes_sha256(self.content)

    @classmethod
    def hashed(cls, content: bytes, sha256: str) -> "Picture":
        """Return a picture whose SHA-256 is known."""
        picture = cls(content)
        vars(picture)["sha256"] = sha256
        return picture

    @classmethod
    def read(cls, source: "Given") -> "Picture":
        """Read a file, or take its bytes, or a picture as it is.

        Args:
            source: a path or a URL; a file's bytes; a Pillow image; pixels from 0 to 255 as an
                array of uint8, shape (height, width) for grey or (height, width, 3) for RGB.

        Raises:
            InvalidInput: the file cannot be read, or an array has another shape or dtype.

        """
        if isinstance(source, Picture):
            return source
        if isinstance(source, bytes):
            return cls(source)
        if not isinstance(source, str | Path):
            return cls(_png(source))
        if isinstance(source, str) and remote.is_url(source):
            return cls._fetched(scan.absolute(source))
        if (kind := containers.at(str(source))) is not None:
            raise InvalidInput(
                f"{source} is a {kind.noun}. Ingest it, or name a picture in it: "
                f"{kind.location(str(source))}/…"
            )
        path = Path(scan.absolute(source))
        try:
            with said_if_slow(path), path.open("rb") as file:
                # A pipe is welcome, but a device may have no end.
                content = file.read(reading.MOST_BYTES + 1)
        except FileNotFoundError as error:
            raise InvalidInput(f"{path} does not exist. Check the path.") from error
        except OSError as error:
            raise InvalidInput(
                f"{path} cannot be read: {error.strerror}. Name an image file."
            ) from error
        if len(content) > reading.MOST_BYTES:
            raise InvalidInput(
                f"{path} has more than {reading.MOST_BYTES // 10**6} MB, the limit for a picture. "
                "Name a smaller file."
            )
        return cls(content, scan.storable(str(path)))

    @classmethod
    def _fetched(cls, url: str) -> "Picture":
        found = pictures.fetch(url, reading.MOST_BYTES)
        if isinstance(found, scan.Unreadable):
            raise InvalidInput(f"{url} cannot be read: {found.reason} Name an image file.")
        return cls(bytes(found.content or b""), url)


def _png(pixels: "Pixels | NDArray[np.uint8]") -> bytes:
    """Return an image in memory as a file without loss."""
    import PIL.Image

    image: Any = pixels
    if isinstance(pixels, np.ndarray):
        is_picture = pixels.ndim in GREY_OR_RGB and pixels.shape[2:] in {(), (3,)} and pixels.size
        if pixels.dtype != np.uint8 or not is_picture:
            raise InvalidInput(
                f"An array of {pixels.dtype} with shape {pixels.shape} is no picture. Give uint8 "
                "with shape (height, width, 3), or (height, width) for grey."
            )
        image = PIL.Image.fromarray(pixels)
    if not isinstance(image, PIL.Image.Image):
        raise InvalidInput(
            f"A value of type {type(image).__name__} is no picture. Give a path, bytes, a Pillow "
            "image or an array of uint8."
        )
    content = BytesIO()
    try:
        image.save(content, "PNG")
    except OSError:  # of a mode that PNG lacks, such as CMYK
        image.convert("RGB").save(content, "PNG")
    return content.getvalue()
