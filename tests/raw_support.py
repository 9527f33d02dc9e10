"""RAW files of our own making: a DNG as cameras write it, with a preview, EXIF and a place."""

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

# TIFF's field types, by struct's letter.
_TYPES = {"B": 1, "s": 2, "H": 3, "I": 4, "r": 5}
Field = tuple[int, str, Any]
# Of the picture from the sensor; the preview is larger.
SENSOR = (48, 32)
TAKEN = "2024:05:06 07:08:09"


def jpeg(pixels: PIL.Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def directory(fields: Sequence[Field], start: int) -> bytes:
    """Return a TIFF directory that is written at `start`, and the values that it refers to."""
    after = start + 2 + 12 * len(fields) + 4
    entries, values = struct.pack("<H", len(fields)), b""
    for tag, kind, value in sorted(fields):
        parts = value if isinstance(value, list) else [value]
        if kind == "s":
            content = value.encode() + b"\0"
            count = len(content)
        elif kind == "r":
            content, count = b"".join(struct.pack("<II", *part) for part in parts), len(parts)
        else:
            content, count = struct.pack(f"<{len(parts)}{kind}", *parts), len(parts)
        entries += struct.pack("<HHI", tag, _TYPES[kind], count)
        if len(content) <= 4:
            entries += content.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", after + len(values))
            values += content + b"\0" * (len(content) % 2)
    return entries + struct.pack("<I", 0) + values


def dng(
    preview: bytes | PIL.Image.Image | None,
    *,
    orientation: int = 1,
    size: tuple[int, int] | None = None,
    with_exif: bool = True,
) -> bytes:
    """Return a DNG with an 8 x 6 thumbnail, a sensor's picture and a preview.

    Args:
        preview: a JPEG, pixels to be stored as a bitmap, or none.
        orientation: EXIF's, of the file.
        size: what the file says of the preview; None reads it from the preview.
        with_exif: whether it tells when, where and with what it was taken.

    """
    content = bytearray(b"II*\0\0\0\0\0")

    def put(data: bytes) -> int:
        content.extend(b"\0" * (len(content) % 2))
        start = len(content)
        content.extend(data)
        return start

    def write(fields: Sequence[Field]) -> int:
        start = len(content) + len(content) % 2
        return put(directory(fields, start))

    sensor = np.full(SENSOR[::-1], 1000, "<u2").tobytes()
    below = [
        write(
            [
                (254, "I", 0), (256, "I", SENSOR[0]), (257, "I", SENSOR[1]), (258, "H", 16),
                (259, "H", 1), (262, "H", 32803), (273, "I", put(sensor)), (277, "H", 1),
                (278, "I", SENSOR[1]), (279, "I", len(sensor)), (33421, "H", [2, 2]),
                (33422, "B", [0, 1, 1, 2]),
            ]
        )
    ]  # fmt: skip
    if preview is not None:
        if isinstance(preview, bytes):
            if size is None:
                size = PIL.Image.open(io.BytesIO(preview)).size
            data, compression, photometric = preview, 7, 6
        else:
            size = size or preview.size
            data, compression, photometric = preview.tobytes(), 1, 2
        below.append(
            write(
                [
                    (254, "I", 1), (256, "I", size[0]), (257, "I", size[1]),
                    (258, "H", [8, 8, 8]), (259, "H", compression), (262, "H", photometric),
                    (273, "I", put(data)), (277, "H", 3), (278, "I", size[1]),
                    (279, "I", len(data)), (284, "H", 1),
                ]
            )
        )  # fmt: skip
    fields: list[Field] = [
        (271, "s", "Tester"), (272, "s", "Camera 1"), (274, "H", orientation),
        (330, "I", below), (50706, "B", [1, 4, 0, 0]), (50708, "s", "Tester Camera 1"),
    ]  # fmt: skip
    if preview is not None:
        small = bytes(8 * 6 * 3)
        fields += [
            (254, "I", 1), (256, "I", 8), (257, "I", 6), (258, "H", [8, 8, 8]), (259, "H", 1),
            (262, "H", 2), (273, "I", put(small)), (277, "H", 3), (278, "I", 6),
            (279, "I", len(small)),
        ]  # fmt: skip
    if with_exif:
        taken = [(36867, "s", TAKEN), (33437, "r", (28, 10)), (34855, "H", 200)]
        place = [
            (1, "s", "S"), (2, "r", [(33, 1), (30, 1), (0, 1)]),
            (3, "s", "E"), (4, "r", [(151, 1), (12, 1), (0, 1)]),
        ]  # fmt: skip
        fields += [(34665, "I", write(taken)), (34853, "I", write(place))]
    start = write(fields)
    content[4:8] = struct.pack("<I", start)
    return bytes(content)
