"""Damage thousands of picture files of every format, and decode them as an ingest does.

    python -m reliability.damaged PICTURES [--files 2400] [--seed 0]

Run it in tests/. PICTURES is a folder of good pictures. Each becomes files of every format, which
are truncated, flipped, spliced and overwritten. Prints one line of JSON: how many were tried;
recorded with a reason or read after all; how many of these crashed their process, took too long or
too much memory; what escaped, which must be nothing; and the most memory that any process took.
"""

import argparse
import io
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import pillow_heif

from vecsearch.config import DEFAULT_MAX_PIXELS
from vecsearch.imaging import pictures
from vecsearch.imaging.pictures import Made, Wanted
from vecsearch.imaging.preprocessing import Preprocessing
from vecsearch.imaging.processes import decoding
from vecsearch.imaging.scan import Unreadable, Walk

# Larger originals would only take longer.
SIDE = 640
PREPARED = Preprocessing.of(
    {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_mode": "center"}
)
WANTED = Wanted(thumbnail=True, preprocessing=PREPARED, may_shrink=True)
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpg": ("JPEG", "RGB", {}),
    "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
    "cmyk.jpg": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "grey16.png": ("PNG", "I;16", {}),
    "palette.png": ("PNG", "P", {"transparency": 3}),
    "gif": ("GIF", "P", {"save_all": True, "append_images": 2}),
    "webp": ("WEBP", "RGB", {}),
    "lossless.webp": ("WEBP", "RGBA", {"lossless": True}),
    "lzw.tif": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "deflate.tif": ("TIFF", "RGBA", {"compression": "tiff_deflate"}),
    "float.tif": ("TIFF", "F", {}),
    "jpeg.tif": ("TIFF", "RGB", {"compression": "jpeg"}),
    "bmp": ("BMP", "RGB", {}),
    "avif": ("AVIF", "RGB", {"speed": 10}),
    "heic": ("HEIF", "RGB", {}),
    "mpo.jpg": ("MPO", "RGB", {"save_all": True, "append_images": 1}),
}


@dataclass
class Figures:
    """What became of the files.

    Attributes:
        outcomes: how many of each.
        escaped: what was raised, by file.

    """

    outcomes: Counter[str] = field(default_factory=Counter)
    escaped: dict[str, str] = field(default_factory=dict)

    def count(self, file: Path) -> None:
        """Decode a file and count its outcome."""
        try:
            made = pictures.make(str(file), WANTED, max_pixels=DEFAULT_MAX_PIXELS)
        except Exception as error:  # noqa: BLE001 - it is what must not be
            self.escaped[file.name] = repr(error)
            return
        self.outcomes["read" if isinstance(made, Made) else "recorded"] += 1
        if isinstance(made, Unreadable):
            kinds = {"crashed": "crash", "hung": "longer than", "out_of_memory": "of memory"}
            for name, words in kinds.items():
                self.outcomes[name] += words in made.reason


def main() -> None:
    """Damage, decode, print."""
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        figures = tried(arguments.pictures, Path(folder), arguments.files, arguments.seed)
    print(json.dumps(figures))
    sys.exit(figures["lost"] > 0)


def tried(originals: Path, folder: Path, files: int, seed: int) -> dict[str, Any]:
    """Return the figures of so many damaged files."""
    started = time.monotonic()
    figures = Figures()
    with ThreadPoolExecutor() as threads:
        list(threads.map(figures.count, damaged_files(originals, folder, files, seed)))
    decoding.WORKERS.close()
    counts = figures.outcomes
    return {
        "fault": "damaged pictures",
        "tried": files,
        "survived": counts["read"] + counts["recorded"],
        "lost": len(figures.escaped),
        **{name: counts[name] for name in ("read", "recorded", "crashed", "hung", "out_of_memory")},
        "escaped": figures.escaped,
        "peak_worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "seconds": round(time.monotonic() - started),
    }


def damaged_files(originals: Path, folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Write damaged files, and yield each."""
    pillow_heif.register_heif_opener()
    random_ = random.Random(seed)
    sources = [file.path for file in Walk([originals])]
    random_.shuffle(sources)
    good: list[bytes] = []
    for number in range(count):
        suffix = [*FORMATS][number % len(FORMATS)]
        if number % len(FORMATS) == 0:
            good = encoded(sources[number // len(FORMATS) % len(sources)])
        content = good[number % len(FORMATS)]
        file = folder / f"{number:05}.{suffix}"
        file.write_bytes(random_.choice(DAMAGES)(bytearray(content), random_, good))
        yield file


def encoded(path: str) -> list[bytes]:
    """Return a picture in each of the formats."""
    with PIL.Image.open(path) as opened:
        opened.thumbnail((SIDE, SIDE))
        picture = opened.convert("RGB")
    files = []
    for format_, mode, options in FORMATS.values():
        drawn = picture.convert("I" if mode == "I;16" else mode)
        if mode == "I;16":
            drawn = drawn.point(lambda value: 256 * value).convert(mode)
        exif = PIL.Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "Camera"
        more = dict(options)
        if "append_images" in more:
            more["append_images"] = [drawn] * more["append_images"]
        buffer = io.BytesIO()
        drawn.save(buffer, format_, **more, **({} if format_ in {"BMP", "GIF"} else {"exif": exif}))
        files.append(buffer.getvalue())
    return files


def _truncated(content: bytearray, random_: random.Random, _: list[bytes]) -> bytes:
    return bytes(content[: random_.randrange(len(content))])


def _flipped(content: bytearray, random_: random.Random, _: list[bytes]) -> bytes:
    for _number in range(random_.randrange(1, 40)):
        content[_place(content, random_)] ^= 1 << random_.randrange(8)
    return bytes(content)


def _overwritten(content: bytearray, random_: random.Random, _: list[bytes]) -> bytes:
    start, length = _place(content, random_), random_.randrange(1, 64)
    content[start : start + length] = random_.choice([b"\0", b"\xff", b"\x7f"]) * length
    return bytes(content)


def _spliced(content: bytearray, random_: random.Random, others: list[bytes]) -> bytes:
    other = random_.choice(others)
    start, end = sorted(random_.randrange(len(other)) for _ in range(2))
    place = _place(content, random_)
    content[place : place + random_.choice([0, end - start])] = other[start:end]
    return bytes(content)


def _cut(content: bytearray, random_: random.Random, _: list[bytes]) -> bytes:
    start = _place(content, random_)
    del content[start : start + random_.randrange(1, 2000)]
    return bytes(content)


def _place(content: bytearray, random_: random.Random) -> int:
    """Return a place to damage; half are in the header, where decoders branch."""
    return random_.randrange(min(len(content), random_.choice([600, len(content)])))


DAMAGES: list[Callable[[bytearray, random.Random, list[bytes]], bytes]] = [
    _truncated,
    _flipped,
    _overwritten,
    _spliced,
    _cut,
]


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--files", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
