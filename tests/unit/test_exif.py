"""EXIF: orientation, date and place are read, and invalid EXIF does no harm."""

import io
import json
import math
import struct
from datetime import datetime
from typing import Any

import numpy as np
import PIL.Image
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL.Image import Transpose

from vecsearch.imaging import decode
from vecsearch.imaging.decode import Image

# EXIF's types: text, integers, fractions, bytes of one's own, floating point.
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, FLOAT, DOUBLE = 2, 3, 4, 5, 7, 10, 11, 12
MAKE, ORIENTATION, X_RESOLUTION, EXPOSURE_TIME, MAKER_NOTE = 0x10F, 0x112, 0x11A, 0x829A, 0x927C
EXIF_POINTER, GPS_POINTER = 0x8769, 0x8825
DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED = 0x9003, 0x9004
# How an upright picture is stored so that each orientation turns it back.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
Tag = tuple[int, int, int, bytes]


def text(tag: int, value: str) -> Tag:
    content = value.encode("latin-1") + b"\0"
    return tag, ASCII, len(content), content


def short(tag: int, value: int) -> Tag:
    return tag, SHORT, 1, struct.pack("<H", value)


def rationals(tag: int, *fractions: tuple[int, int]) -> Tag:
    return tag, RATIONAL, len(fractions), b"".join(struct.pack("<II", *each) for each in fractions)


def folder(tags: list[Tag], offset: int) -> bytes:
    """Return tags as the bytes of an image file directory that lies at this offset."""
    data = b""
    entries = struct.pack("<H", len(tags))
    behind = offset + 2 + 12 * len(tags) + 4
    for tag, kind, count, value in sorted(tags):
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack("<I", behind + len(data))
            data += value
        entries += struct.pack("<HHI", tag, kind, count) + place
    return entries + struct.pack("<I", 0) + data


def exif_block(tags: list[Tag], exif: list[Tag], gps: list[Tag]) -> bytes:
    """Return EXIF with exactly these tags; Pillow would refuse to write many of them."""

    def main(exif_at: int, gps_at: int) -> bytes:
        pointers = [
            (EXIF_POINTER, LONG, 1, struct.pack("<I", exif_at)),
            (GPS_POINTER, LONG, 1, struct.pack("<I", gps_at)),
        ]
        return folder([*tags, *pointers], 8)

    exif_at = 8 + len(main(0, 0))
    gps_at = exif_at + len(folder(exif, exif_at))
    header = b"Exif\0\0II*\0" + struct.pack("<I", 8)
    return header + main(exif_at, gps_at) + folder(exif, exif_at) + folder(gps, gps_at)


def jpeg(block: bytes) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (30, 20), "red").save(buffer, "JPEG", exif=block)
    return buffer.getvalue()


def decoded(content: bytes) -> Image:
    result = decode.decode(content, "x", max_pixels=1_000_000)
    assert isinstance(result, Image), result
    return result


def tagged(*tags: Tag, exif: list[Tag] | None = None, gps: list[Tag] | None = None) -> decode.Facts:
    facts = decoded(jpeg(exif_block(list(tags), exif or [], gps or []))).facts
    assert "\\u0000" not in json.dumps(facts.exif, allow_nan=False)
    return facts


def upright() -> PIL.Image.Image:
    """Draw a picture that no turn or flip leaves as it is, of areas that compression keeps."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255, 0, 0
    pixels[:20, 30:] = 0, 255, 0
    pixels[20:, 30:] = 0, 0, 255
    return PIL.Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_comes_out_upright(file_format: str, orientation: int) -> None:
    pillow_heif.register_heif_opener()
    turn = STORED[orientation]
    stored = upright() if turn is None else upright().transpose(turn)
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    buffer = io.BytesIO()
    # As bytes, which HEIF's writer turns into a rotation of its own; TIFF's are its own tags.
    stored.save(buffer, file_format, exif=exif if file_format == "TIFF" else exif.tobytes())
    result = decoded(buffer.getvalue())
    assert (result.facts.width, result.facts.height) == result.pixels.size == (60, 40)
    difference = np.asarray(result.pixels, np.float64) - np.asarray(upright(), np.float64)
    assert np.abs(difference).mean() < 12  # a quarter turn astray is over 80


def test_date_and_place_are_read() -> None:
    facts = tagged(
        text(MAKE, "Canon"),
        exif=[text(DATE_TIME_ORIGINAL, "2024:05:06 07:08:09"), rationals(EXPOSURE_TIME, (1, 250))],
        gps=[
            text(1, "N"),
            rationals(2, (48, 1), (51, 1), (2958, 100)),
            text(3, "E"),
            rationals(4, (2, 1), (17, 1), (402, 10)),
        ],
    )
    assert facts.taken_at == datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001 - a camera has no zone
    assert facts.latitude == pytest.approx(48.858217, abs=1e-6)
    assert facts.longitude == pytest.approx(2.294500, abs=1e-6)
    assert facts.exif["Make"] == "Canon"
    assert facts.exif["ExposureTime"] == pytest.approx(0.004)
    assert not facts.exif.keys() & {"ExifOffset", "GPSInfo"}  # offsets say nothing to anyone


def test_south_and_west_are_negative() -> None:
    facts = tagged(
        gps=[
            text(1, "S"),
            rationals(2, (33, 1), (30, 1), (0, 1)),
            text(3, "W"),
            rationals(4, (70, 1), (15, 1), (0, 1)),
        ]
    )
    assert (facts.latitude, facts.longitude) == (-33.5, -70.25)


@pytest.mark.parametrize(
    "gps",
    [
        [text(1, "N"), rationals(2, (0, 0), (0, 0), (0, 0))],
        [text(1, "N"), rationals(2, (91, 1), (0, 1), (0, 1))],
        [text(1, "N"), rationals(2, (48, 1))],
        [text(1, "N"), text(2, "48.5")],
        [text(1, "N")],
    ],
    ids=["zero denominators", "beyond the pole", "degrees alone", "text", "a hemisphere alone"],
)
def test_a_place_that_cannot_be_is_none(gps: list[Tag]) -> None:
    assert tagged(gps=gps).latitude is None


@pytest.mark.parametrize("blank", ["    :  :     :  :  ", "0000:00:00 00:00:00", "2024-13-45", ""])
def test_a_date_left_blank_gives_way_to_the_next(blank: str) -> None:
    digitized = text(DATE_TIME_DIGITIZED, "2020:01:02 03:04:05")
    facts = tagged(exif=[text(DATE_TIME_ORIGINAL, blank), digitized])
    assert facts.taken_at == datetime(2020, 1, 2, 3, 4, 5)  # noqa: DTZ001 - a camera has no zone
    assert tagged(exif=[text(DATE_TIME_ORIGINAL, blank)]).taken_at is None


def test_a_picture_without_exif_has_none() -> None:
    buffer = io.BytesIO()
    upright().save(buffer, "PNG")
    facts = decoded(buffer.getvalue()).facts
    assert (facts.exif, facts.taken_at, facts.latitude, facts.longitude) == ({}, None, None, None)


ODD: dict[str, Tag] = {
    "text with a NUL inside": (MAKE, ASCII, 8, b"Ca\0non\0\0"),
    "text that is not UTF-8": (MAKE, ASCII, 5, b"\xff\xfe\xfdx\0"),
    "a number for text": short(MAKE, 7),
    "text for a number": text(X_RESOLUTION, "72.0"),
    "a fraction over zero": rationals(X_RESOLUTION, (72, 0)),
    "nothing over zero": rationals(X_RESOLUTION, (0, 0)),
    "a fraction below zero": (X_RESOLUTION, SRATIONAL, 1, struct.pack("<ii", -1, 2)),
    "not a number": (0xC000, DOUBLE, 1, struct.pack("<d", math.nan)),
    "infinity": (X_RESOLUTION, FLOAT, 1, struct.pack("<f", math.inf)),
    "bytes": (MAKER_NOTE, UNDEFINED, 6, b"\0\1\2\xff\xfe\0"),
    "a value beyond the end": (MAKE, ASCII, 9_999_999, struct.pack("<I", 8)),
    "a type that does not exist": (MAKE, 99, 1, b"x"),
}


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_tag_costs_neither_picture_nor_orientation(odd: Tag, *, turned: bool) -> None:
    facts = tagged(short(ORIENTATION, 6 if turned else 1), odd)
    assert (facts.width, facts.height) == ((20, 30) if turned else (30, 20))


def test_text_loses_its_nul_and_bytes_are_left_out() -> None:
    facts = tagged(ODD["text with a NUL inside"], exif=[ODD["bytes"]])
    assert facts.exif == {"Make": "Canon"}


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int) -> None:
    assert tagged(short(ORIENTATION, value)).width == 30


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0hello world", b"Exif\0\0II*\0\x08\0\0\0\x20"]
)
def test_a_damaged_exif_block_is_as_good_as_none(block: bytes) -> None:
    assert decoded(jpeg(block)).facts.exif == {}


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_no_exif_block_keeps_a_good_picture_out(data: st.DataObject) -> None:
    good = exif_block(
        [short(ORIENTATION, 6), text(MAKE, "Canon"), rationals(X_RESOLUTION, (72, 1))],
        [text(DATE_TIME_ORIGINAL, "2024:05:06 07:08:09")],
        [text(1, "N"), rationals(2, (48, 1), (51, 1), (29, 1))],
    )
    block = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        # The first six bytes say that this is EXIF.
        block[data.draw(st.integers(6, len(block) - 1))] = data.draw(st.integers(0, 255))
    facts: Any = decoded(jpeg(bytes(block))).facts
    assert "\\u0000" not in json.dumps(facts.exif, allow_nan=False)
    assert json.dumps(facts.exif, ensure_ascii=False).encode()
