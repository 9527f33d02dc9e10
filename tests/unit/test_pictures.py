"""Pictures from outside: none takes the program down, or more than its share of memory and time."""

import io
import os
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image
import pytest
from reliability import damaged
from support import PixelEncoder, picture, png

from vecsearch.imaging import pictures, worker
from vecsearch.imaging.pictures import Made, Outside, Wanted
from vecsearch.imaging.processes.pool import Pool
from vecsearch.imaging.reading import CHANGED, Source
from vecsearch.imaging.scan import Unreadable

if TYPE_CHECKING:
    from vecsearch.imaging.processes.process import Process

MAX_PIXELS = 128_000_000
ALL = Wanted(thumbnail=True, preprocessing=PixelEncoder.preprocessing, fit=(20, 20))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """The workers of a test alone."""
    made = Pool("vecsearch.imaging.worker", 2)
    monkeypatch.setattr(pictures, "WORKERS", made)
    yield made
    made.close()


def make(content: bytes, wanted: Wanted = ALL) -> Made | Unreadable | Outside:
    return pictures.make(pictures.of_bytes(content, "x"), wanted, max_pixels=MAX_PIXELS)


def reason(content: bytes) -> str:
    made = make(content)
    assert isinstance(made, Unreadable)
    return made.reason


def idle(pool: Pool) -> "Process":
    [only] = pool._idle  # noqa: SLF001 - to see the worker itself
    return only


def encoded(drawn: PIL.Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    drawn.save(buffer, file_format, **options)
    return buffer.getvalue()


def bits(width: int, height: int) -> bytes:
    """Return a PNG of one bit a pixel."""
    return encoded(PIL.Image.new("1", (width, height)), "PNG")


def scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated; each takes its time, and no bytes."""
    content = encoded(PIL.Image.new("L", (4000, 4000), 9), "JPEG", progressive=True)
    last = content.rfind(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + content[-2:]


def test_what_is_wanted_is_made(tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    picture(1).save(file)
    made = pictures.make(str(file), ALL, max_pixels=MAX_PIXELS)
    assert isinstance(made, Made)
    assert (made.facts.width, made.facts.height, made.facts.format) == (64, 48, "PNG")
    assert made.inputs is not None
    assert made.inputs.tolist() == PixelEncoder.preprocessing.prepare(picture(1)).tolist()
    assert made.thumbnail is not None
    assert made.thumbnail.sha256 == made.facts.sha256
    assert made.fitted is not None
    assert made.fitted.size == (20, 15)
    source = pictures.read(str(file), keep=0, max_pixels=MAX_PIXELS)
    assert source == Source(str(file), made.facts.sha256)
    assert pictures.size_of(str(file)) == pictures.size_of(file.read_bytes()) == (64, 48)
    assert isinstance(source, Source)
    file.write_bytes(png(2))
    changed = pictures.make(source, ALL, max_pixels=MAX_PIXELS)
    assert changed == Unreadable(str(file), CHANGED)


def test_a_crop_must_lie_within_the_picture() -> None:
    assert make(png(1), Wanted(fit=(9, 9), crop=(0, 0, 65, 48))) == Outside(64, 48)
    part = make(png(1), Wanted(fit=(99, 99), crop=(8, 4, 40, 20)))
    assert isinstance(part, Made)
    assert part.fitted is not None
    expected = picture(1).crop((8, 4, 40, 20)).resize((99, 50), PIL.Image.Resampling.LANCZOS)
    assert part.fitted.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The file is empty."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Not an image, or an unsupported format."),
        (b"<!DOCTYPE html><img src=x>", "Not an image, or an unsupported format."),
        (bits(12_000, 12_000), "It has 144 million pixels; the limit is 128 million"),
        (
            b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(40),
            "It has 268 million pixels; the limit is 128 million",
        ),
    ],
    ids=["empty", "SVG", "HTML", "bomb", "WebP bomb"],
)
def test_what_is_no_picture_is_refused_with_its_reason(content: bytes, words: str) -> None:
    assert reason(content).startswith(words)


@pytest.mark.parametrize("size", [(1, 1), (1, 30_000), (30_000, 1)], ids=str)
def test_odd_sizes_are_pictures(size: tuple[int, int]) -> None:
    made = make(bits(*size))
    assert isinstance(made, Made)
    assert (made.facts.width, made.facts.height) == size


def test_a_decoder_that_takes_for_ever_is_killed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(worker, "SECONDS", 1)
        patched.setattr(worker, "SECONDS_PER_MEGAPIXEL", 0)
        assert reason(scans(20_000)) == "It took longer than 1 s, its limit."
    assert isinstance(make(scans(0)), Made)


def test_memory_is_a_small_multiple_of_the_picture(pool: Pool) -> None:
    width, height = 4000, 3000
    rows = zlib.compress(bytes((2 * width + 1) * height), 1)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    assert isinstance(make(content), Made)
    status = Path(f"/proc/{idle(pool)._process.pid}/status").read_text()  # noqa: SLF001 - likewise
    [peak] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    assert peak < 60_000 + 8 * width * height / 1000


def test_a_large_picture_waits_for_another_and_small_ones_do_not(pool: Pool) -> None:
    with ThreadPoolExecutor(1) as threads:
        with pictures._ONE_LARGE:  # noqa: SLF001 - as if one were being decoded
            large = threads.submit(make, bits(7000, 6000))
            assert isinstance(make(png(1)), Made)
            assert isinstance(make(png(2)), Made)
            assert not large.done()
        assert isinstance(large.result(60), Made)


def test_a_worker_that_somebody_kills_costs_no_picture(pool: Pool) -> None:
    assert isinstance(make(png(1)), Made)
    first = idle(pool)
    asked = threading.Event()

    def preprocessing() -> object:
        if not asked.is_set():
            asked.set()
            os.kill(first._process.pid, signal.SIGKILL)  # noqa: SLF001 - likewise
        return PixelEncoder.preprocessing

    made = make(png(2), Wanted(preprocessing=preprocessing))  # type: ignore[arg-type]  # a lambda's
    assert isinstance(made, Made)
    assert made.inputs is not None


def test_a_pipe_and_a_device_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (str(tmp_path / "pipe.jpg"), "/dev/zero"):
        unreadable = Unreadable(path, "It is not a regular file.")
        assert pictures.read(path, keep=10, max_pixels=MAX_PIXELS) == unreadable
        assert pictures.make(path, ALL, max_pixels=MAX_PIXELS) == unreadable


def test_a_file_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "sparse.jpg"
    with file.open("wb") as out:
        out.write(encoded(picture(1), "JPEG"))
        out.truncate(26 * 10**9)
    found = pictures.read(str(file), keep=10, max_pixels=MAX_PIXELS)
    assert isinstance(found, Unreadable)
    assert found.reason == "It has 26,000 MB; the limit is 512 MB, and grows with --max-pixels."


def test_damaged_files_of_every_format_are_recorded_or_read(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    for seed in range(4):
        picture(seed, (120, 90)).save(tmp_path / "good" / f"{seed}.png")
    figures = damaged.tried(tmp_path / "good", tmp_path / "bad", 4 * len(damaged.FORMATS), 0)
    assert figures["survived"] == figures["tried"]
    assert figures["recorded"] > figures["read"] > 0
    assert figures["crashed"] == figures["hung"] == figures["out_of_memory"] == 0
