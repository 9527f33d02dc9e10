"""Measure how many near-duplicates `vecsearch duplicates` finds, and what it takes for one wrongly.

For each seed and each kind of change, variants of some of a folder's pictures are ingested with the
originals; a variant is found if it is in its original's group. Two pictures in one group that come
from different originals are a false pair, unless a file of --same lists both originals on one line:
a person looked at them and found one picture. Prints a row per kind, the seeds summed.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from common import MAX_PIXELS
from PIL import Image, ImageEnhance, ImageOps

from vecsearch.analysis.duplicates.groups import Duplicates
from vecsearch.config import Settings
from vecsearch.imaging.decode import decode
from vecsearch.imaging.scan import Unreadable
from vecsearch.library import Library

Picture = Image.Image
CROP = 0.9
JPEG = 90
RECOMPRESSED = 30
MODEL = "tf_efficientnet_lite0"


def crop(picture: Picture, chance: random.Random) -> Picture:
    """Return a part of the picture, `CROP` as wide and as high."""
    width, height = round(CROP * picture.width), round(CROP * picture.height)
    left, top = chance.randint(0, picture.width - width), chance.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


KINDS: dict[str, Callable[[Picture, random.Random], Picture]] = {
    "resized to half": lambda picture, _: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped to 90 %": crop,
    "JPEG quality 30": lambda picture, _: picture,
    "brightened 1.3": lambda picture, _: ImageEnhance.Brightness(picture).enhance(1.3),
    "darkened 0.7": lambda picture, _: ImageEnhance.Brightness(picture).enhance(0.7),
    "greyscale": lambda picture, _: picture.convert("L"),
    "mirrored": lambda picture, _: ImageOps.mirror(picture),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights", type=Path, help="a file; default: the package or the hub")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the embedded database, kept for another run"
    )
    parser.add_argument("--variants", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--same", type=Path, help="originals that show one picture, a line each")
    parser.add_argument("--mirrored", action="store_true", help="look for mirrored pictures, too")
    parser.add_argument("--max-distance", type=float)
    options = parser.parse_args()
    asked = {"max_distance": options.max_distance}
    if options.mirrored:
        asked["mirrored"] = True
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = options.data_dir or Path(temporary) / "data"
        with Library.open(Settings.load(data_dir=data_dir)) as library:
            library.collection().ingest(
                options.images, model=options.model, weights=options.weights
            )
            bench = Bench(library, options.images.absolute(), options.same, asked)
            found = library.collection().duplicates(**asked)
            among = bench.together(found)
            listed = sum(bench.is_same(*pair) for pair in among)
            print(f"{len(bench.originals)} originals; cut-off about {found.typical:.3g}.")
            print(f"Among them: {listed} pairs that are listed, {len(among) - listed} others.")
            print(
                f"{'':18}found of {options.variants}, by seed{'':4}   found  false pairs, by seed"
            )
            for kind in KINDS:
                results = [
                    bench.measure(Path(temporary), kind, options.variants, seed)
                    for seed in range(options.seeds)
                ]
                counts = " ".join(f"{found:4}" for found, _ in results)
                false = " ".join(f"{wrong:4}" for _, wrong in results)
                share = sum(found for found, _ in results) / options.variants / options.seeds
                print(f"{kind:18}{counts:27}  {share:6.1%}  {false}", flush=True)


class Bench:
    """Originals in a library, and what is known about them."""

    def __init__(
        self, library: Library, images: Path, same: Path | None, asked: dict[str, Any]
    ) -> None:
        self.library = library
        self.asked = asked
        self.originals = sorted(str(file) for file in images.rglob("*") if file.is_file())
        self.number = {path: number for number, path in enumerate(self.originals)}
        if same:
            for line in same.read_text().splitlines():
                one, *others = (self.number[str(images / name)] for name in line.split())
                self.number.update((self.originals[other], one) for other in others)

    def is_same(self, one: str, other: str) -> bool:
        """Return whether two files are of the same original."""
        return self.number[one] == self.number[other]

    def measure(self, temporary: Path, kind: str, variants: int, seed: int) -> tuple[int, int]:
        """Make variants, count those that are found, and the false pairs; remove the variants."""
        chance = random.Random(seed)  # noqa: S311 - seeded, to be repeated
        folder = temporary / f"{kind}-{seed}"
        folder.mkdir()
        made = {}
        for number, source in enumerate(chance.sample(self.originals, variants)):
            file = folder / f"{number}.jpg"
            decoded = decode(Path(source).read_bytes(), source, max_pixels=MAX_PIXELS)
            assert not isinstance(decoded, Unreadable)  # noqa: S101 - the folder is of pictures
            changed = KINDS[kind](decoded.pixels, chance)
            changed.save(file, quality=RECOMPRESSED if kind.startswith("JPEG") else JPEG)
            made[str(file)] = source
            self.number[str(file)] = self.number[source]
        self.library.collection().ingest(folder)
        pairs = self.together(self.library.collection().duplicates(**self.asked))
        for path in made:
            Path(path).unlink()
        self.library.collection().ingest(folder, prune=True, confirm=lambda _: True)
        found = sum(frozenset(pair) in pairs for pair in made.items())
        return found, sum(not self.is_same(*pair) for pair in pairs)

    @staticmethod
    def together(found: Duplicates) -> set[frozenset[str]]:
        """Return the pairs of paths in the same group."""
        groups: dict[int, list[str]] = {}
        for image in found.images:
            groups.setdefault(image.group, []).append(image.path)
        return {frozenset(pair) for paths in groups.values() for pair in combinations(paths, 2)}


if __name__ == "__main__":
    main()
