"""Decoding: every format and mode comes out as a person sees it, and nothing ever raises."""

import hashlib
import io
import os
import random
import struct
import zlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import picture

from vecsearch.imaging import decode, reading
from vecsearch.imaging.decode import Image
from vecsearch.imaging.reading import CHANGED, Source
from vecsearch.imaging.scan import Unreadable

MAX_PIXELS = 1_000_000
HALF_BLUE = (127, 127, 255)  # blue at half strength on white paper


def encoded(drawn: PIL.Image.Image, file_format: str, **options: Any) -> bytes:
    if file_format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    drawn.save(buffer, file_format, **options)
    return buffer.getvalue()


def decoded(content: bytes) -> Image:
    result = decode.decode(content, "x", max_pixels=MAX_PIXELS)
    assert isinstance(result, Image), result
    assert result.pixels.mode == "RGB"
    assert result.pixels.size == (result.facts.width, result.facts.height)
    return result


def refusal(content: bytes, max_pixels: int = MAX_PIXELS) -> str:
    result = decode.decode(content, "x", max_pixels=max_pixels)
    assert isinstance(result, Unreadable)
    assert result.path == "x"
    return result.reason


def corner(content: bytes) -> tuple[int, ...]:
    colour = decoded(content).pixels.getpixel((0, 0))
    assert isinstance(colour, tuple)
    return tuple(int(part) for part in colour)


def plain(mode: str, colour: Any) -> PIL.Image.Image:
    return PIL.Image.new(mode, (8, 6), colour)


def palette(colours: bytes) -> PIL.Image.Image:
    drawn = plain("P", 1)
    drawn.putpalette(colours)
    return drawn


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey(values: list[list[float]], kind: type[np.generic]) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.array(values, kind))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("WEBP", {"quality": 95}),
        ("AVIF", {"quality": 95}),
        ("HEIF", {"quality": 95}),
    ],
    ids=str,
)
def test_every_format_comes_out_as_it_was_drawn(file_format: str, options: dict[str, Any]) -> None:
    drawn = picture(1)
    content = encoded(drawn, file_format, **options)
    result = decoded(content)
    difference = np.asarray(result.pixels, np.float64) - np.asarray(drawn, np.float64)
    assert np.abs(difference).mean() < 6  # no more than compression loses
    assert result.facts.format == file_format
    assert result.facts.sha256 == hashlib.sha256(content).hexdigest()
    assert (result.facts.width, result.facts.height) == (64, 48)


@pytest.mark.parametrize(
    ("drawn", "file_format", "options", "expected"),
    [
        (palette(bytes([0, 0, 0, 10, 20, 30])), "PNG", {}, (10, 20, 30)),
        (palette(bytes([0, 0, 0, 10, 20, 30])), "PNG", {"transparency": 1}, (255, 255, 255)),
        (palette(bytes([0, 0, 0, 10, 20, 30])), "PNG", {"transparency": 0}, (10, 20, 30)),
        (plain("RGBA", (0, 0, 255, 128)), "PNG", {}, HALF_BLUE),
        (plain("RGBA", (0, 0, 255, 0)), "PNG", {}, (255, 255, 255)),
        (plain("RGBA", (0, 0, 255, 128)), "WEBP", {"lossless": True}, HALF_BLUE),
        (plain("LA", (0, 128)), "PNG", {}, (127, 127, 127)),
        (plain("L", 77), "PNG", {}, (77, 77, 77)),
        (plain("L", 77), "PNG", {"transparency": 77}, (255, 255, 255)),
        (plain("RGB", (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, (255, 255, 255)),
        (plain("1", 1), "PNG", {}, (255, 255, 255)),
        (plain("1", 0), "TIFF", {}, (0, 0, 0)),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", {}, (255, 0, 0)),
        (plain("I;16", 32_768), "PNG", {}, (128, 128, 128)),
        (plain("I;16", 65_535), "TIFF", {}, (255, 255, 255)),
        (plain("I", 32_768), "TIFF", {}, (128, 128, 128)),
        (plain("F", 0.5), "TIFF", {}, (128, 128, 128)),
    ],
    ids=lambda value: getattr(value, "mode", None) or str(value),
)
def test_every_mode_comes_out_as_seen_on_white_paper(
    drawn: PIL.Image.Image, file_format: str, options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert corner(encoded(drawn, file_format, **options)) == expected


def test_a_cmyk_jpeg_comes_out_in_its_colours() -> None:
    red, green, blue = corner(encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([[0.0, 0.25, 1.0]], np.float32, [0, 64, 255]),
        ([[0.0, 80.0, 200.0]], np.float32, [0, 102, 255]),
        ([[-1.0, -0.6, 1.0]], np.float32, [0, 51, 255]),
        ([[np.nan, np.inf, 1.0]], np.float32, [0, 0, 255]),
        ([[5.0, 5.0, 5.0]], np.float32, [0, 0, 0]),
        ([[0, 80_000, 200_000]], np.int32, [0, 102, 255]),
        ([[-100, -60, 100]], np.int32, [0, 51, 255]),
    ],
    ids=str,
)
def test_numbers_beyond_a_screen_s_range_are_spread_over_it(
    values: list[list[float]], kind: type[np.generic], expected: list[int]
) -> None:
    result = decoded(encoded(grey(values, kind), "TIFF"))
    assert np.asarray(result.pixels)[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_or_many_pages_the_first_is_taken(file_format: str) -> None:
    first, *others = (plain("RGB", colour) for colour in ("red", "lime", "blue"))
    content = encoded(first, file_format, save_all=True, append_images=others)
    red, green, blue = corner(content)
    assert red > 240
    assert green < 15
    assert blue < 15


def test_the_cap_on_pixels_is_inclusive() -> None:
    content = encoded(plain("RGB", "red"), "PNG")
    assert isinstance(decode.decode(content, "x", max_pixels=48), Image)
    assert "--max-pixels" in refusal(content, max_pixels=47)


def test_too_many_pixels_are_refused_before_any_is_decoded() -> None:
    """There is only a header, so that decoding would give another reason."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"?")
    assert refusal(content) == "It has 200 million pixels; the limit is 1 million (--max-pixels)."
    assert "damaged" in refusal(content, max_pixels=200_000_000)


@pytest.mark.parametrize(
    "content", [b"This is a letter, not a photo.", b"\xff\xd8\xff", b"%PDF-1.7\n", b"\0" * 1000]
)
def test_what_is_no_image_is_called_that(content: bytes) -> None:
    assert refusal(content) == "Not an image, or an unsupported format."


def test_an_empty_file_is_called_that() -> None:
    assert refusal(b"") == "The file is empty."


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_damaged_rather_than_half_grey(file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(PIL.Image.fromarray(noise), file_format)
    decoded(content)
    assert refusal(content[: len(content) * 2 // 3])


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (png_chunk(b"IHDR", b"\0\0\0\1"), "Truncated IHDR chunk"),
        (png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))), "Decompressed data too"),
    ],
    ids=["half a header", "a text that explodes"],
)
def test_what_decoders_raise_of_their_own_becomes_a_reason(chunk: bytes, reason: str) -> None:
    content = encoded(picture(1), "PNG")
    start, rest = content[:8], content[8:] if b"zTXt" in chunk else b""
    header, rest = rest[:25], rest[25:]
    assert refusal(start + header + chunk + rest).startswith(f"The image is damaged: {reason}")


def test_postscript_is_not_handed_to_ghostscript() -> None:
    """A file from a stranger must not choose which program runs, whatever it is called."""
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert refusal(content) == "Not an image, or an unsupported format."


def test_a_file_is_read_whole_and_kept_if_it_is_small(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    picture(1).save(file)
    content = file.read_bytes()
    sha256 = decoded(content).facts.sha256
    most = len(content)
    assert reading.hashed(str(file), keep=most, most=most) == Source(str(file), sha256, content)
    assert reading.hashed(str(file), keep=most - 1, most=most) == Source(str(file), sha256)
    assert reading.read(str(file), most=most) == content
    refused = reading.read(str(file), most=most - 1)
    assert isinstance(refused, Unreadable)
    assert "limit" in refused.reason


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_smaller_and_its_facts_stay(
    orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "MARGIN", 1)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(3, (1200, 805)), "JPEG", exif=exif)
    whole = decoded(content)
    assert decode.upright_size(content, "x") == whole.pixels.size
    for least, divisor in ((805, 1), (403, 1), (402, 2), (201, 4), (100, 8), (1, 8)):
        small = decode.decode(content, "x", max_pixels=MAX_PIXELS, needed=partial(int, least))
        assert isinstance(small, Image)
        assert small.facts == whole.facts
        assert small.pixels.size == tuple(-(-side // divisor) for side in whole.pixels.size)
        expected = whole.pixels.resize(small.pixels.size, PIL.Image.Resampling.BOX)
        difference = np.asarray(small.pixels, float) - np.asarray(expected, float)
        assert np.abs(difference).mean() < 3


def test_only_a_jpeg_is_decoded_smaller() -> None:
    content = encoded(picture(3, (1200, 800)), "PNG")
    image = decode.decode(content, "x", max_pixels=MAX_PIXELS, needed=lambda: 1)
    assert isinstance(image, Image)
    assert image.pixels.size == (1200, 800)


def test_a_file_that_is_gone_or_a_folder_is_unreadable(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.png")
    assert reading.read(gone, most=9) == Unreadable(gone, "No such file or directory.")
    folder = str(tmp_path)
    assert reading.read(folder, most=9) == Unreadable(folder, "Is a directory.")


def test_what_is_no_file_of_a_disk_is_neither_waited_for_nor_read_for_ever(tmp_path: Path) -> None:
    pipe, kernel = tmp_path / "pipe.jpg", tmp_path / "kernel.jpg"
    os.mkfifo(pipe)
    kernel.symlink_to("/proc/self/maps")  # its size is 0
    for path in (pipe, Path(os.devnull)):
        found = reading.read(str(path), most=10**6)
        assert found == Unreadable(str(path), "It is not a regular file.")
    assert reading.read(str(kernel), most=10**6) == b""


def test_a_file_that_grows_or_shrinks_while_it_is_read_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "one.png"
    file.write_bytes(b"1234")
    stat = os.fstat
    for change in (-1, 1):

        def earlier(descriptor: int, change: int = change) -> os.stat_result:
            info = [*stat(descriptor)]
            info[6] += change
            return os.stat_result(info)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fstat", earlier)
            assert reading.read(str(file), most=10**6) == Unreadable(str(file), CHANGED)


@cache
def whole_files() -> list[bytes]:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    return [
        encoded(picture(1), "PNG", exif=exif),
        encoded(picture(2).quantize(8), "PNG", transparency=3),
        encoded(picture(3), "JPEG", exif=exif),
        encoded(picture(4).convert("CMYK"), "JPEG", progressive=True),
        encoded(picture(5), "TIFF", compression="tiff_lzw", exif=exif),
        encoded(picture(6), "GIF", save_all=True, append_images=[picture(7)]),
        encoded(picture(8).convert("RGBA"), "WEBP", lossless=True),
        encoded(picture(9), "BMP"),
    ]


def never_raises(content: bytes) -> None:
    result = decode.decode(content, "x", max_pixels=MAX_PIXELS)
    if isinstance(result, Unreadable):
        assert "\0" not in result.reason
        assert result.reason.encode()
        assert result.reason.endswith(".")
    else:
        assert result.pixels.mode == "RGB"


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.binary(max_size=500))
@example(b"\x89PNG\r\n\x1a\n")
@example(b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0")
@example(b"P5 2 2 255 abc")
def test_no_bytes_at_all_make_decoding_raise(content: bytes) -> None:
    never_raises(content)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.integers(0, 7), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_no_damage_to_a_valid_file_makes_decoding_raise(
    which: int, seed: int, changes: int
) -> None:
    """Headers are where decoders branch, so half of the damage is done there."""
    content = bytearray(whole_files()[which])
    random_ = random.Random(seed)
    for _ in range(changes):
        end = len(content) if random_.random() < 0.5 else min(len(content), 150)
        place = random_.randrange(end)
        match random_.randrange(4):
            case 0:
                content[place] ^= 1 << random_.randrange(8)
            case 1:
                content[place] = random_.choice((0, 1, 127, 128, 255))
            case 2:
                content[place : place + random_.randrange(1, 40)] = b""
            case 3:
                content[place:place] = random_.randbytes(random_.randrange(1, 9))
    never_raises(bytes(content))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_broken_exif_costs_only_itself(file_format: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x010F], exif[0x0132] = "Camera" * 5, "2024:05:06 07:08:09"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    good = exif.tobytes()
    whole = encoded(picture(1), file_format, exif=good)
    good = good.removeprefix(b"Exif\0\0")
    wanted = decoded(whole).pixels
    random_ = random.Random(0)
    # Without a header, libavif takes the whole file for damaged.
    first = 8 if file_format == "AVIF" else 0
    for _ in range(60):
        broken = bytearray(good)
        for _ in range(random_.randrange(1, 12)):
            broken[random_.randrange(first, len(broken))] = random_.randrange(256)
        if random_.random() < 0.3:
            del broken[random_.randrange(8, len(broken)) :]
        if file_format in {"AVIF", "HEIF"}:
            # Their writers read it.
            content = whole.replace(good, bytes(broken).ljust(len(good), b"\0"))
            assert content != whole
        else:
            content = encoded(picture(1), file_format, exif=b"Exif\0\0" + bytes(broken))
        result = decode.decode(content, "x", max_pixels=MAX_PIXELS)
        assert isinstance(result, Image), result
        assert {*result.pixels.size} == {*wanted.size}
