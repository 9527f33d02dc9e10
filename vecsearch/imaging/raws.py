"""RAW files of cameras, by the pictures that cameras embed in them; in a worker process alone."""

import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vecsearch.imaging import exif
from vecsearch.imaging.formats import RAW

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Exif
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

_TIFF = (b"II*\0", b"MM\0*")
# How files begin that are nothing but RAW files: Panasonic, Olympus; Fujifilm, Minolta, Canon.
_LIKE_TIFF = (b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
_BEGINNINGS = (*_LIKE_TIFF, b"FUJIFILMCCD-RAW", b"\0MRM", b"II\x1a\0\0\0HEAP")
# After a TIFF's header: Canon, Phase One.
_MARKS = (b"CR", b"IIII", b"MMMM")
# Tags of a TIFF's directory, and what the second one says of a sensor's picture.
_DIRECTORIES, _PHOTOMETRIC, _DNG = 330, 262, 50706
_SENSOR = {32803, 34892}
_MOST_DIRECTORIES = 16
# Of a TIFF's first directory, what is about the photo, and not about the file.
_ABOUT = {270, 271, 272, 274, 305, 306, 315, 33432, 34665, 34853, 36867}
# LibRaw puts a header of its own before a JPEG that does not begin with one.
_SEGMENT, _EXIF, _BY_LIBRAW = b"\xff\xd8\xff\xe1", b"Exif\0\0", b"dcraw v"
_KNOWN_TO_LIBRAW = (
    *("Make", "Model", "DateTime", "ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength"),
)
# LibRaw's turns as EXIF's orientations.
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}
NO_PREVIEW = (
    "This RAW file has no embedded preview that can be read, and nothing else of it is. "
    "Convert it to JPEG, or to DNG with a preview"
)
UNKNOWN = "This RAW file is damaged, or of a camera that LibRaw does not know. Convert it to JPEG"


class NoPreview(Exception):
    """There is no preview; the message says why, and what to do."""


@dataclass(frozen=True)
class Preview:
    """The largest picture that is embedded in a RAW file.

    Attributes:
        content: an image file.
        orientation: EXIF's, for a picture that does not tell its own.
        tags: of the RAW file, as `exif.read_tags` returns them, for what the picture does not tell.

    """

    content: bytes
    orientation: int = 1
    tags: dict[str, Any] = field(default_factory=dict)


def is_raw(content: bytes | bytearray, path: str) -> bool:
    """Return whether a file is a RAW file by its content or, of a TIFF, by its suffix.

    Pillow would open many as a TIFF of 160 x 120 pixels.
    """
    if content.startswith(_BEGINNINGS) or content[4:12] == b"ftypcrx ":
        return True
    if not content.startswith(_TIFF):
        return False
    if content.startswith(_MARKS, 8):
        return True
    if os.path.splitext(path)[1].lower() in RAW.suffixes:  # noqa: PTH122 - strings: URLs, too
        return True
    try:
        return any(map(_has_sensor, _directories(content)))
    except Exception:  # noqa: BLE001 - readers raise anything on damaged data
        return False


def _has_sensor(directory: "ImageFileDirectory_v2") -> bool:
    return _DNG in directory or directory.get(_PHOTOMETRIC) in _SENSOR


def _directories(content: bytes | bytearray) -> "Iterator[ImageFileDirectory_v2]":
    """Yield the first directory of a TIFF, and those that it has below it."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(content)
    head = file.read(8)
    first = ImageFileDirectory_v2(head)
    file.seek(first.next)
    first.load(file)
    yield first
    below = first.get(_DIRECTORIES, ())
    for start in (below if isinstance(below, tuple) else (below,))[:_MOST_DIRECTORIES]:
        directory = ImageFileDirectory_v2(head)
        file.seek(start)
        directory.load(file)
        yield directory


def preview(content: bytes | bytearray) -> Preview:
    """Return the preview of a RAW file.

    Raises:
        NoPreview: it has none, or a package is missing.
        Exception: what LibRaw raises of damaged files.

    """
    # The only copy, as all that read these bytes share them: RAW files are large.
    file = io.BytesIO(bytes(content))
    found, orientation = _extracted(file)
    own, known = _without_header(found)
    return Preview(own, orientation, known | _own_tags(file))


def _extracted(file: io.BytesIO) -> tuple[bytes, int]:
    """Return what LibRaw finds: an image file, and EXIF's orientation."""
    try:
        import rawpy
    except ImportError as error:
        raise NoPreview(RAW.needs) from error
    try:
        with rawpy.RawPy() as raw:
            raw.open_buffer(file)
            found = raw.extract_thumb().data
            orientation = _ORIENTATIONS.get(raw.sizes.flip, 1)
            return found if isinstance(found, bytes) else _bitmap(found), orientation
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError) as error:
        raise NoPreview(NO_PREVIEW) from error
    except rawpy.LibRawFileUnsupportedError as error:
        raise NoPreview(UNKNOWN) from error
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else ""
        raise OSError(
            reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        ) from error


def _bitmap(pixels: "NDArray[np.uint8]") -> bytes:
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def _without_header(picture: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return a picture without the header by LibRaw, if it has one, and what that tells."""
    end = 4 + int.from_bytes(picture[4:6], "big")
    segment = picture[6:end]
    if not picture.startswith(_SEGMENT) or _BY_LIBRAW not in segment:
        return picture, {}
    told = exif.read_tags(_loaded(io.BytesIO(segment.removeprefix(_EXIF))))
    # Where LibRaw does not know a number, it writes 0.
    known = {name: told[name] for name in _KNOWN_TO_LIBRAW if told.get(name)}
    # Of a time, that is 1970, or 1969 in the west.
    if str(known.pop("DateTime", "")) >= "1971":
        known["DateTime"] = known["DateTimeOriginal"] = told["DateTime"]
    return picture[:2] + picture[end:], known


def _own_tags(file: io.BytesIO) -> dict[str, Any]:
    """Return the tags of a RAW file whose structure is TIFF's, whatever it calls itself."""
    file.seek(0)
    beginning = file.read(4)
    if beginning not in {*_TIFF, *_LIKE_TIFF}:
        return {}
    file.seek(0)
    file.write(_TIFF[beginning.startswith(b"MM")])
    found = _loaded(file)
    for tag in [tag for tag in found if tag not in _ABOUT]:
        del found[tag]
    return exif.read_tags(found)


def _loaded(file: io.BytesIO) -> "Exif":
    """Return EXIF data, which is read from a TIFF's directories as it is asked for."""
    import PIL.Image

    found = PIL.Image.Exif()
    file.seek(0)
    try:
        found.load_from_fp(file)
    except Exception:  # noqa: BLE001 - readers raise anything on damaged data
        return PIL.Image.Exif()
    return found
