"""Reading, hashing and decoding image files."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from vecsearch.imaging import budget, exif
from vecsearch.imaging.formats import DRAFTED, FORMATS
from vecsearch.imaging.scan import Unreadable, os_reason, sentence

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# A decoder that shrinks a picture leaves each side this many times the pixels that are needed:
# margin for cropping; no known model crops below half.
MARGIN = 2.5


@dataclass(frozen=True)
class Facts:
    """What an image file says of itself.

    Attributes:
        sha256: of the file's bytes, in hex.
        width, height: in pixels, upright.
        format: Pillow's name: JPEG, PNG, …
        taken_at: the camera's local time, naive.
        latitude, longitude: degrees north and east.
        exif: JSON values by tag name.

    """

    sha256: str
    width: int
    height: int
    format: str
    taken_at: datetime | None = None
    latitude: float | None = None
    longitude: float | None = None
    exif: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What is known of an image file before it is decoded.

    Attributes:
        pixels: width times height.
        can_shrink: whether the decoder can make a smaller picture at less cost.

    """

    pixels: int
    can_shrink: bool


@dataclass(frozen=True)
class Image:
    """A decoded picture, mode RGB and upright, beside the facts of its file.

    It has the file's pixels, or fewer where `decode` was told how many are enough.
    """

    pixels: "Picture"
    facts: Facts


@dataclass(frozen=True)
class Source:
    """A file that was read: its SHA-256 in hex, and its bytes, if they were few enough to keep."""

    path: str
    sha256: str
    content: bytes | None = None


def read(path: str, *, keep: int) -> Source | Unreadable:
    """Read and hash the file at `path` in bounded memory; keep its bytes if they are so few."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - strings throughout
            size = os.fstat(file.fileno()).st_size
            if size > keep:
                return Source(path, hashlib.file_digest(file, "sha256").hexdigest())
            content = file.readall()
    except OSError as error:
        return Unreadable(path, os_reason(error))
    return Source(path, bytes_sha256(content), content)


def content(source: Source) -> bytes | Unreadable:
    """Return a file's bytes, read again unless they were kept; they must be as they were."""
    if source.content is not None:
        return source.content
    again = read_bytes(source.path)
    if isinstance(again, bytes) and bytes_sha256(again) != source.sha256:
        return Unreadable(source.path, "It changed while it was being read; ingest it again.")
    return again


def bytes_sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def load(path: str, *, max_pixels: int) -> Image | Unreadable:
    """Read, hash and decode the file at `path`."""
    content = read_bytes(path)
    if isinstance(content, Unreadable):
        return content
    return decode(content, path, max_pixels=max_pixels)


def read_bytes(path: str) -> bytes | Unreadable:
    """Read the file at `path`."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - strings throughout
            return file.read()
    except OSError as error:
        return Unreadable(path, os_reason(error))


def longer_side(path: str) -> int | None:
    """Return the longer side in pixels, from the file's header alone; None if it has none."""
    import PIL.Image

    _prepare_pillow()
    try:
        with PIL.Image.open(path, formats=FORMATS) as picture:
            return max(picture.size)
    except Exception:  # noqa: BLE001 - as in `decode`, which will say why
        return None


def read_header(content: bytes) -> Header | None:
    """Return what a file's header says; None if the file has no header of an image."""
    import PIL.Image

    _prepare_pillow()
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            return Header(
                picture.width * picture.height, can_shrink=(picture.format or "") in DRAFTED
            )
    except Exception:  # noqa: BLE001 - as in `decode`, which will say why
        return None


def upright_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height of the upright picture, from the file's header alone.

    None if the file has no header of an image.
    """
    import PIL.Image

    _prepare_pillow()
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            return exif.turned(picture.size, exif.turn(picture.getexif()))
    except Exception:  # noqa: BLE001 - as in `decode`, which will say why
        return None


def decode(
    content: bytes,
    path: str,
    *,
    max_pixels: int,
    sha256: str | None = None,
    least_side: int | None = None,
) -> Image | Unreadable:
    """Decode a file's bytes: upright, RGB; of an animation or a multi-page file, the first frame.

    Args:
        content: the whole file.
        path: what to call it if it is unreadable.
        max_pixels: refuse larger pictures before decoding them.
        sha256: of the content, if it is known.
        least_side: pixels that each side keeps at least; the decoder of a JPEG then makes a
            smaller picture at less cost. None keeps all pixels. The facts always have the width
            and height of the file.

    """
    import PIL.Image

    _prepare_pillow()
    if not content:
        return Unreadable(path, "The file is empty.")
    try:
        picture = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > max_pixels:
            return Unreadable(
                path,
                f"It has {picture.width * picture.height / 1e6:.0f} million pixels; the limit "
                f"is {max_pixels / 1e6:.0f} million (--max-pixels).",
            )
        header = picture.getexif()
        file_format = picture.format or "unknown"
        size = picture.size
        if least_side is not None and file_format in DRAFTED:
            picture.draft(None, (least_side, least_side))
        drafted = picture.size != size
        picture.load()
        # Only now: what TIFF's decoder has turned itself, it no longer says in the header.
        turn = exif.turn(header)
        upright = _to_rgb(picture if turn is None else picture.transpose(turn))
        width, height = exif.turned(size, turn) if drafted else upright.size
        tags = exif.read_tags(header)
    except PIL.UnidentifiedImageError:
        return Unreadable(path, "Not an image, or an unsupported format.")
    except MemoryError:
        return Unreadable(path, "There is not enough memory to decode it.")
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        return Unreadable(path, f"The image is damaged: {sentence(error)}")
    facts = Facts(
        sha256=sha256 or bytes_sha256(content),
        width=width,
        height=height,
        format=file_format,
        taken_at=exif.taken_at(tags),
        latitude=exif.degrees(tags, "GPSLatitude", "S", 90),
        longitude=exif.degrees(tags, "GPSLongitude", "W", 180),
        exif=tags,
    )
    return Image(upright, facts)


@contextmanager
def decoded(
    content: bytes,
    path: str,
    *,
    max_pixels: int,
    sha256: str | None = None,
    needed: Callable[[], int] | None = None,
) -> Iterator[Image | Unreadable]:
    """Decode a file's bytes within the process's budget of pixels; see `decode`.

    The pixels count until the context is left, so they must not be used after it. A thread must
    not decode a second picture inside.

    Args:
        content: the whole file.
        path: see `decode`.
        max_pixels: see `decode`.
        sha256: see `decode`.
        needed: returns the pixels that are needed of each side; a JPEG keeps `MARGIN` times as
            many. It is called only for a JPEG within the limit. None keeps all pixels.

    """
    header = read_header(content)
    pixels, least_side = 0, None
    if header is not None and header.pixels <= max_pixels:
        pixels = header.pixels
        if needed is not None and header.can_shrink:
            least_side = round(MARGIN * needed())
    with budget.DECODING.spend(pixels):
        yield decode(content, path, max_pixels=max_pixels, sha256=sha256, least_side=least_side)


@cache
def _prepare_pillow() -> None:
    """Teach Pillow HEIC, and keep it from warning of odd files; once, since threads decode."""
    import PIL.Image
    import pillow_heif

    pillow_heif.register_heif_opener()
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Ours is the cap that counts, and it is checked before decoding.
    PIL.Image.MAX_IMAGE_PIXELS = None


def _to_rgb(picture: "Picture") -> "Picture":
    """Return the picture as a person would see it on white paper, in 8-bit RGB."""
    import numpy as np
    import PIL.Image

    if picture.mode.startswith(("I", "F")):
        # 16-bit grey, 32-bit grey, floats: Pillow's own conversion clips them at 255.
        values = np.asarray(picture, dtype=np.float64)
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        top = 65_535.0 if picture.mode.startswith("I") else 1.0
        if values.max(initial=0.0) > top or values.min(initial=0.0) < 0:
            values -= values.min()
            top = values.max() or 1.0
        grey = PIL.Image.fromarray((values * (255.0 / top)).round().astype(np.uint8))
        return grey.convert("RGB")
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        paper = PIL.Image.new("RGBA", picture.size, "white")
        return PIL.Image.alpha_composite(paper, with_alpha).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")
