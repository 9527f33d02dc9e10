"""Measure how many near-duplicates `vecsearch duplicates` finds with the cut-off it chooses.

Some of a folder's pictures are resized, recompressed or brightened, the variants are ingested with
the originals, and the groups are compared with the known pairs. Prints one line per seed.
"""

import argparse
import random
import tempfile
from itertools import combinations
from pathlib import Path

import PIL.Image
import PIL.ImageEnhance

from vecsearch.config import Settings
from vecsearch.library import Library

KINDS = ("resized", "recompressed", "brightened")


def variant(source: Path, kind: str, chance: random.Random, file: Path) -> None:
    """Save a picture with one kind of change."""
    with PIL.Image.open(source) as opened:
        picture = opened.convert("RGB")
    quality = 90
    if kind == "resized":
        scale = chance.uniform(0.4, 0.9)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    elif kind == "recompressed":
        quality = chance.randint(30, 70)
    else:
        picture = PIL.ImageEnhance.Brightness(picture).enhance(chance.uniform(1.05, 1.2))
    picture.save(file, quality=quality)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", type=Path, help="ResNet50's weights; default: the model hub")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the embedded database, kept for another run"
    )
    parser.add_argument("--variants", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = options.data_dir or Path(temporary) / "data"
        with Library.open(Settings.load(data_dir=data_dir)) as library:
            library.collection().ingest(options.images, weights=options.weights)
            print(f"Among the originals: {len(together(library))} pairs.")
            print("seed  " + "  ".join(f"{kind:>16}" for kind in KINDS) + "   found  other pairs")
            for seed in range(options.seeds):
                folder = Path(temporary) / f"variants-{seed}"
                print(f"{seed:4}  {measure(library, options, folder, seed)}", flush=True)


def measure(library: Library, options: argparse.Namespace, folder: Path, seed: int) -> str:
    """Make variants, find groups, and remove the variants."""
    chance = random.Random(seed)  # noqa: S311 - seeded, to be repeated
    folder.mkdir()
    originals = sorted(path for path in options.images.absolute().rglob("*") if path.is_file())
    pairs: dict[frozenset[str], str] = {}
    for number, source in enumerate(chance.sample(originals, options.variants)):
        kind = KINDS[number % len(KINDS)]
        file = folder / f"{number}.jpg"
        variant(source, kind, chance, file)
        pairs[frozenset((str(source), str(file)))] = kind
    library.collection().ingest(folder)
    joined = together(library)
    for file in folder.iterdir():
        file.unlink()
    library.collection().ingest(folder, prune=True)
    counts = [
        f"{sum(pair in joined for pair in pairs if pairs[pair] == kind):9} of"
        f" {sum(found == kind for found in pairs.values()):3}"
        for kind in KINDS
    ]
    found = sum(pair in joined for pair in pairs)
    return f"{'  '.join(counts)}  {found:6}  {len(joined) - found:11}"


def together(library: Library) -> set[frozenset[str]]:
    """Return the pairs of paths in the same group."""
    groups: dict[int, list[str]] = {}
    for image in library.collection().duplicates().images:
        groups.setdefault(image.group, []).append(image.path)
    return {frozenset(pair) for paths in groups.values() for pair in combinations(paths, 2)}


if __name__ == "__main__":
    main()
