"""Read EXIF: tags as JSON values, time, place and orientation."""

import json
import math
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Exif
    from PIL.Image import Image as Picture

# EXIF orientation (CIPA DC-008, tag 0x0112) to the PIL.Image.Transpose that undoes it.
ORIENTATIONS: dict[Any, Any] = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
# The transposes that exchange width and height: quarter turns, and flips across a diagonal.
SIDEWAYS = frozenset({2, 4, 5, 6})
# Characters of a file's tags as JSON; with more, they are no camera's.
MOST = 1 << 20


def of(picture: "Picture", orientation: int | None = None) -> "Exif":
    """Return a picture's EXIF data; what is broken counts as none, and costs nothing else.

    It has this orientation, if one is given and the picture does not tell its own.
    """
    import PIL.Image
    from PIL import ExifTags

    try:
        found = picture.getexif()
    except Exception:  # noqa: BLE001 - readers raise anything on damaged data
        found = PIL.Image.Exif()
    if orientation is not None and ExifTags.Base.Orientation not in found:
        found[ExifTags.Base.Orientation] = orientation
    return found


def turn(exif: "Exif") -> Any:
    """Return the `PIL.Image.Transpose` that makes the picture upright; None if it is upright."""
    from PIL import ExifTags

    try:
        return ORIENTATIONS.get(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - as above
        return None


def turned(size: tuple[int, int], turn: Any) -> tuple[int, int]:
    """Return the width and height of a picture of this size after its turn."""
    return size[::-1] if turn in SIDEWAYS else size


def read_tags(exif: "Exif") -> dict[str, Any]:
    """Return the tags by name, with values that JSON can represent; damaged ones are left out."""
    from PIL import ExifTags

    tags: dict[str, Any] = {}
    for names, read in (
        (ExifTags.TAGS, lambda: exif),
        (ExifTags.TAGS, lambda: exif.get_ifd(ExifTags.IFD.Exif)),
        (ExifTags.GPSTAGS, lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)),
    ):
        tags |= _named(read, names)
    for pointer in ("ExifOffset", "GPSInfo", "ExifInteroperabilityOffset"):
        tags.pop(pointer, None)
    return tags if len(json.dumps(tags)) <= MOST else {}


def _named(read: "Callable[[], Mapping[int, Any]]", names: "Mapping[int, str]") -> dict[str, Any]:
    """Return the tags of a directory; one that is damaged is left out."""
    tags = {}
    try:
        directory = read()
        for tag in directory:
            with suppress(Exception):
                clean = _json_value(directory[tag])
                if tag in names and clean is not None:
                    tags[names[tag]] = clean
    except Exception:  # noqa: BLE001 - as above
        return tags
    return tags


def taken_at(tags: dict[str, Any]) -> datetime | None:
    """Return the camera's local time, without a time zone; None if there is none."""
    for name in ("DateTimeOriginal", "DateTimeDigitized"):
        try:
            return datetime.strptime(str(tags[name])[:19], "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 - EXIF has no zone
        except (KeyError, ValueError):
            continue
    return None


def degrees(tags: dict[str, Any], name: str, negative: str, limit: int) -> float | None:
    """Return a coordinate in degrees; None if it is missing or invalid.

    Args:
        tags: from `read_tags`.
        name: name of the tag: "GPSLatitude" or "GPSLongitude".
        negative: the reference that makes the value negative: "S" or "W".
        limit: the largest valid absolute value.

    """
    match tags.get(name):
        case [(int() | float()) as d, (int() | float()) as m, (int() | float()) as s]:
            value = d + m / 60 + s / 3600
        case _:
            return None
    if str(tags.get(f"{name}Ref", "")).upper().startswith(negative):
        value = -value
    return value if abs(value) <= limit else None


def _json_value(value: object) -> Any:
    """Return an EXIF value as JSON and Postgres can store it; None if they cannot."""
    if isinstance(value, str):
        text = value.replace("\0", "").strip()
        return text.encode(errors="replace").decode() or None
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, bytes) or not hasattr(value, "__float__"):
        return None
    try:
        number = float(value)
    except (ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
