"""RAW files: their previews, upright, with what the camera says; and what cannot be read."""

import builtins
import io
import random
import struct
import tracemalloc
from datetime import datetime
from typing import Any

import PIL.Image
import pytest
from raw_support import SENSOR, TAKEN, directory, dng, jpeg

from vecsearch.imaging import decode, raws
from vecsearch.imaging.decode import Image
from vecsearch.imaging.reading import bytes_sha256
from vecsearch.imaging.scan import Unreadable

MAX_PIXELS = 1_000_000
WIDTH, HEIGHT = 320, 200


def preview() -> PIL.Image.Image:
    """Return a red picture whose upper left quarter is blue."""
    drawn = PIL.Image.new("RGB", (WIDTH, HEIGHT), "red")
    drawn.paste("blue", (0, 0, WIDTH // 2, HEIGHT // 2))
    return drawn


def decoded(content: bytes, path: str = "the query", max_pixels: int = MAX_PIXELS) -> Image:
    image = decode.decode(content, path, max_pixels=max_pixels)
    assert isinstance(image, Image), image
    assert decode.upright_size(content, path) == image.pixels.size
    assert (image.facts.width, image.facts.height) == image.pixels.size
    return image


def refusal(content: bytes, path: str = "x.dng", max_pixels: int = MAX_PIXELS) -> str:
    image = decode.decode(content, path, max_pixels=max_pixels)
    assert isinstance(image, Unreadable), image
    assert image.path == path
    return image.reason


def blue_corner(image: Image) -> str:
    """Return which corner is blue, by its sides."""
    width, height = image.pixels.size
    for name, place in {
        "upper left": (9, 9),
        "upper right": (width - 9, 9),
        "lower left": (9, height - 9),
        "lower right": (width - 9, height - 9),
    }.items():
        colour = image.pixels.getpixel(place)
        assert isinstance(colour, tuple)
        if colour[2] > 128:
            return name
    raise AssertionError


def with_orientation(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_a_raw_file_is_its_preview_with_what_the_camera_says() -> None:
    content = dng(jpeg(preview()))
    image = decoded(content)
    assert image.pixels.size == (WIDTH, HEIGHT)
    facts = image.facts
    assert facts.format == "RAW"
    assert facts.sha256 == bytes_sha256(content)
    assert facts.taken_at == datetime(2024, 5, 6, 7, 8, 9)  # noqa: DTZ001 - the camera's
    assert (facts.latitude, facts.longitude) == (-33.5, 151.2)
    assert facts.exif["Make"] == "Tester"
    assert facts.exif["FNumber"] == 2.8
    assert facts.exif["DateTimeOriginal"] == TAKEN
    # What describes the thumbnail, of 8 x 6 pixels, is not about the photo.
    assert "ImageWidth" not in facts.exif


@pytest.mark.parametrize("kind", ["jpeg", "bitmap"])
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, "upper left"), (3, "lower right"), (6, "upper right")]
)
def test_a_preview_is_turned_as_the_raw_file_says(kind: str, orientation: int, corner: str) -> None:
    given = jpeg(preview()) if kind == "jpeg" else preview()
    image = decoded(dng(given, orientation=orientation))
    assert blue_corner(image) == corner
    is_sideways = orientation == 6
    assert image.pixels.size == ((HEIGHT, WIDTH) if is_sideways else (WIDTH, HEIGHT))


@pytest.mark.parametrize("own", [1, 8])
def test_a_preview_that_tells_its_own_orientation_is_turned_once(own: int) -> None:
    content = dng(jpeg(preview(), exif=with_orientation(own)), orientation=6)
    assert blue_corner(decoded(content)) == {1: "upper left", 8: "lower left"}[own]


def test_what_the_preview_tells_comes_first() -> None:
    exif = with_orientation(1)
    exif[0x010F] = "Own"
    facts = decoded(dng(jpeg(preview(), exif=exif))).facts
    assert (facts.exif["Make"], facts.exif["Model"]) == ("Own", "Camera 1")
    assert decoded(dng(jpeg(preview()), with_exif=False)).facts.taken_at is None


def test_fewer_pixels_are_decoded_where_they_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MARGIN", 1)
    content = dng(jpeg(preview()), orientation=6)
    small = decode.decode(content, "x", max_pixels=MAX_PIXELS, needed=lambda: 50)
    assert isinstance(small, Image)
    assert small.facts == decoded(content).facts
    assert small.pixels.size == (HEIGHT // 4, WIDTH // 4)


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"IIRO\x08\0\0\0", "the query"),
        (b"FUJIFILMCCD-RAW 0201", "the query"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "the query"),
        (b"II*\0\x10\0\0\0CR\x02\0", "the query"),
        (b"II*\0\x08\0\0\0", "zip:///a.zip/x.NEF"),
    ],
)
def test_other_cameras_are_told_by_how_files_begin(beginning: bytes, name: str) -> None:
    content = beginning + bytes(200)
    assert raws.is_raw(content, name)
    assert refusal(content, name) == f"{raws.UNKNOWN}."


def test_pictures_are_no_raw_files_whatever_they_are_called() -> None:
    for file_format in ("JPEG", "PNG", "TIFF"):
        buffer = io.BytesIO()
        preview().save(buffer, file_format)
        assert not raws.is_raw(buffer.getvalue(), "the query")
    # Some cameras' software writes JPEGs under the names of RAW files.
    image = decode.decode(jpeg(preview()), "x.nef", max_pixels=MAX_PIXELS)
    assert isinstance(image, Image)
    assert image.facts.format == "JPEG"


def test_a_sensor_is_told_by_the_directories_of_a_tiff() -> None:
    plain = [(256, "I", 8), (262, "H", 2)]
    sensor = [(256, "I", 8), (262, "H", 32803)]
    head = struct.pack("<4sI", b"II*\0", 8)
    assert not raws.is_raw(head + directory(plain, 8), "x.tif")
    assert raws.is_raw(head + directory(sensor, 8), "x.tif")
    # The first directory has 3 fields, and so ends after 50 bytes.
    first = directory([*plain, (330, "I", 50)], 8)
    assert raws.is_raw(head + first + directory(sensor, 50), "x.tif")
    # Directories that refer to themselves, or beyond the file.
    for start in (8, 10**6):
        assert not raws.is_raw(head + directory([*plain, (330, "I", start)], 8), "x.tif")


def test_without_a_preview_a_raw_file_is_not_read() -> None:
    assert refusal(dng(None)) == f"{raws.NO_PREVIEW}."


def test_a_preview_has_the_limits_of_any_picture() -> None:
    content = dng(jpeg(PIL.Image.new("RGB", (1001, 1000))))
    assert refusal(content) == (
        "Its preview cannot be read: It has 1 million pixels; the limit is 1 million "
        "(--max-pixels)."
    )


def test_a_damaged_preview_is_said_to_be_so() -> None:
    given = bytearray(jpeg(preview()))
    given[len(given) // 3 :] = b"\xff" * (len(given) - len(given) // 3)
    reason = refusal(dng(bytes(given), size=(WIDTH, HEIGHT)))
    assert reason.startswith("Its preview cannot be read: The image is damaged: ")


def test_garbage_and_pieces_never_raise() -> None:
    content = dng(jpeg(preview()), orientation=6)
    for length in range(0, len(content), 53):
        decode.decode(content[:length], "x.dng", max_pixels=MAX_PIXELS)
    chance = random.Random(5)
    for _ in range(150):
        odd = bytearray(content)
        for _ in range(chance.randint(1, 20)):
            odd[chance.randrange(8, len(odd))] = chance.randrange(256)
        decode.decode(odd, "x.dng", max_pixels=MAX_PIXELS)
    assert refusal(b"II*\0" + chance.randbytes(5_000)) == f"{raws.UNKNOWN}."
    assert refusal(chance.randbytes(5_000), "x.cr2").startswith("Not an image")


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "rawpy":
            raise ImportError
        return plain(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    expected = "RAW files need a package: pip install 'vecsearch[raw]'."
    assert refusal(dng(jpeg(preview())), "the query") == expected


def test_a_large_raw_file_is_copied_once() -> None:
    content = bytearray(dng(jpeg(preview())) + bytes(20_000_000))
    raws.preview(content)  # loads what it needs
    tracemalloc.start()
    raws.preview(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(content) <= peak < 1.5 * len(content)


def test_the_sensor_s_picture_is_smaller_than_the_preview() -> None:
    assert max(SENSOR) < min(WIDTH, HEIGHT)
