"""Decoding image files, in a worker process if they come from outside: see `pictures`."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from vecsearch.imaging import exif, raws
from vecsearch.imaging.formats import DRAFTED, FORMATS, RAW, WITHOUT_BOXES
from vecsearch.imaging.reading import bytes_sha256
from vecsearch.imaging.scan import Unreadable, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture
    from PIL.ImageFile import ImageFile

# A decoder that shrinks a picture leaves each side this many times the pixels that are needed:
# margin for cropping; no known model crops below half.
MARGIN = 2.5
# Pixels that are converted at once where that takes several copies.
STRIP = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What an image file says of itself.

    Attributes:
        sha256: of the file's bytes, in hex.
        width, height: in pixels, upright.
        format: the name in `vecsearch.imaging.formats.TABLE`: JPEG, PNG, …
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
class Image:
    """A decoded picture, mode RGB and upright, beside the facts of its file.

    It has the file's pixels, or fewer where `decode` was told how many are enough.
    """

    pixels: "Picture"
    facts: Facts


def upright_size(content: bytes | bytearray, path: str) -> tuple[int, int] | None:
    """Return the width and height of the upright picture, from the file's header alone.

    None if the file has no header of an image.
    """
    orientation = None
    try:
        if raws.is_raw(content, path):
            found = raws.preview(content)
            content, orientation = found.content, found.orientation
        with _opened(content) as picture:
            return exif.turned(picture.size, exif.turn(exif.of(picture, orientation)))
    except Exception:  # noqa: BLE001 - as in `decode`, which will say why
        return None


def decode(
    content: bytes | bytearray,
    path: str,
    *,
    max_pixels: int,
    sha256: str | None = None,
    needed: Callable[[], int] | None = None,
    on_header: Callable[[int], None] = lambda _: None,
) -> Image | Unreadable:
    """Decode a file's bytes: upright, RGB; of an animation or a multi-page file, the first frame.

    Of a RAW file, that is its preview, whose width and height are the facts'.

    Args:
        content: the whole file.
        path: what to call it if it is unreadable.
        max_pixels: refuse larger pictures before decoding them.
        sha256: of the content, if it is known.
        needed: returns the pixels that are needed of each side; the decoder of a JPEG, for which
            alone it is called, then makes a smaller picture at less cost, with `MARGIN` times as
            many. None keeps all pixels. The facts always have the width and height of the file.
        on_header: called with the number of pixels, before they are decoded, and before the file
            is opened with as many as its decoder then makes room for.

    Raises:
        MemoryError: there is not enough.

    """
    if not content:
        return Unreadable(path, "The file is empty.")
    sha256 = sha256 or bytes_sha256(content)
    if not raws.is_raw(content, path):
        return _decoded(content, path, sha256, max_pixels, needed, on_header)
    try:
        found = raws.preview(content)
    except raws.NoPreview as error:
        return Unreadable(path, sentence(error))
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        return _damaged(path, error)
    image = _decoded(
        found.content, path, sha256, max_pixels, needed, on_header, orientation=found.orientation
    )
    if isinstance(image, Unreadable):
        return Unreadable(path, f"Its preview cannot be read: {image.reason}")
    return replace(image, facts=_facts(image.facts, RAW.name, found.tags | image.facts.exif))


def _facts(facts: Facts, file_format: str, tags: dict[str, Any]) -> Facts:
    """Return the facts with these tags, and with what they tell."""
    return replace(
        facts,
        format=file_format,
        taken_at=exif.taken_at(tags),
        latitude=exif.degrees(tags, "GPSLatitude", "S", 90),
        longitude=exif.degrees(tags, "GPSLongitude", "W", 180),
        exif=tags,
    )


def _decoded(
    content: bytes | bytearray,
    path: str,
    sha256: str,
    max_pixels: int,
    needed: Callable[[], int] | None,
    on_header: Callable[[int], None],
    *,
    orientation: int | None = None,
) -> Image | Unreadable:
    """Decode what Pillow opens; it is turned by `orientation` if it does not tell its own."""
    import PIL.Image

    announced = _announced(content)
    if announced > max_pixels:
        return _too_large(path, announced, max_pixels)
    on_header(announced)
    try:
        picture: Picture = _opened(content)
        pixels = picture.width * picture.height
    except PIL.UnidentifiedImageError:
        return Unreadable(path, "Not an image, or an unsupported format.")
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        return _damaged(path, error)
    if pixels > max_pixels:
        return _too_large(path, pixels, max_pixels)
    on_header(pixels)
    header = exif.of(picture, orientation)
    file_format = picture.format or "unknown"
    can_shrink = needed is not None and file_format in DRAFTED
    least_side = round(MARGIN * needed()) if needed is not None and can_shrink else None
    size = picture.size
    try:
        if least_side is not None:
            picture.draft(None, (least_side, least_side))
        drafted = picture.size != size
        picture.load()
        # Only now: what TIFF's decoder has turned itself, it no longer says in the header.
        turn = exif.turn(header)
        if turn is not None:
            picture = picture.transpose(turn)
        picture = _to_rgb(picture)
    except Exception as error:  # noqa: BLE001 - as above
        return _damaged(path, error)
    width, height = exif.turned(size, turn) if drafted else picture.size
    facts = Facts(sha256, width, height, file_format)
    return Image(picture, _facts(facts, file_format, exif.read_tags(header)))


def _too_large(path: str, pixels: int, max_pixels: int) -> Unreadable:
    return Unreadable(
        path,
        f"It has {pixels / 1e6:.0f} million pixels; the limit is {max_pixels / 1e6:.0f} million "
        "(--max-pixels).",
    )


def _announced(content: bytes | bytearray) -> int:
    """Return the pixels of a WebP, whose decoder makes room for them when it opens; else 0."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return 0

    def number(start: int, size: int) -> int:
        return int.from_bytes(content[start : start + size], "little")

    match bytes(content[12:16]):
        case b"VP8X":
            return (number(24, 3) + 1) * (number(27, 3) + 1)
        case b"VP8L":
            return ((number(21, 4) & 0x3FFF) + 1) * ((number(21, 4) >> 14 & 0x3FFF) + 1)
        case _:
            return (number(26, 2) & 0x3FFF) * (number(28, 2) & 0x3FFF)


def _damaged(path: str, error: Exception) -> Unreadable:
    """Return the reason; raise a lack of memory, which some decoders say in words."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        raise MemoryError
    return Unreadable(path, f"The image is damaged: {sentence(error)}")


def _opened(content: bytes | bytearray) -> "ImageFile":
    import PIL.Image

    _prepare_once()
    formats = WITHOUT_BOXES
    if content[4:8] == b"ftyp":
        _prepare_heif()
        formats = FORMATS
    return PIL.Image.open(io.BytesIO(content), formats=formats)


@cache
def _prepare_once() -> None:
    import PIL.Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Ours is the cap that counts, and it is checked before decoding.
    PIL.Image.MAX_IMAGE_PIXELS = None


@cache
def _prepare_heif() -> None:
    import PIL.AvifImagePlugin
    import pillow_heif

    pillow_heif.register_heif_opener()
    # There is a worker for each processor.
    pillow_heif.options.DECODE_THREADS = 1
    PIL.AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _to_rgb(picture: "Picture") -> "Picture":
    """Return the picture as a person would see it on white paper, in 8-bit RGB."""
    import PIL.Image

    if picture.mode.startswith(("I", "F")):
        convert = _grey(picture)
    elif picture.has_transparency_data:
        convert = _on_paper
    else:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    rgb = PIL.Image.new("RGB", picture.size)
    for top, strip in _strips(picture):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _strips(picture: "Picture") -> "Iterator[tuple[int, Picture]]":
    """Yield parts of about `STRIP` pixels, each with its first row."""
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _on_paper(strip: "Picture") -> "Picture":
    import PIL.Image

    paper = PIL.Image.new("RGBA", strip.size, "white")
    return PIL.Image.alpha_composite(paper, strip.convert("RGBA")).convert("RGB")


def _grey(picture: "Picture") -> "Callable[[Picture], Picture]":
    """Return what makes grey of 16-bit and 32-bit grey and of floats, which Pillow clips at 255."""
    import numpy as np
    import PIL.Image

    def values(strip: "Picture") -> "NDArray[np.float64]":
        return np.nan_to_num(np.asarray(strip, dtype=np.float64), posinf=0.0, neginf=0.0)

    bottom, top = 0.0, 65_535.0 if picture.mode.startswith("I") else 1.0
    least = min(values(strip).min(initial=0.0) for _, strip in _strips(picture))
    most = max(values(strip).max(initial=0.0) for _, strip in _strips(picture))
    if most > top or least < 0:
        bottom = min(values(strip).min() for _, strip in _strips(picture))
        top = (most - bottom) or 1.0

    def convert(strip: "Picture") -> "Picture":
        scaled = (values(strip) - bottom) * (255.0 / top)
        return PIL.Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")

    return convert
