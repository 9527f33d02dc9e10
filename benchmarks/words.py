"""Measure what `query --text` finds: names of classes, broader words, and phrases.

    python benchmarks/words.py caltech101 imagenet

The first folder has pictures of Caltech 101 in a folder for each category; the second has pictures
named after their ImageNet class, such as n02099601_golden_retriever.JPEG, one of each. All are
ingested into one collection. Words of a class should find its one picture; broader words and
phrases, all pictures of what they mean. Categories that the folder lacks are left out.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from common import ROUNDS, K, conditions

from vecsearch.collection import Collection
from vecsearch.config import Settings
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.library import Library
from vecsearch.search.query import Answer

# What each word means among the pictures: classes of ImageNet, and categories of Caltech 101.
DOGS = """Maltese_dog Scottish_deerhound Bedlington_terrier Irish_terrier Norwich_terrier
Lakeland_terrier golden_retriever clumber miniature_pinscher Bernese_mountain_dog Great_Dane
keeshond toy_poodle"""
BROADER = {
    "dog": DOGS,
    "terrier": "Bedlington_terrier Irish_terrier Norwich_terrier Lakeland_terrier",
    "bird": "cock black_stork bustard flamingo",
    "fish": "goldfish electric_ray rock_beauty bass sea_horse",
    "lizard": "common_iguana agama",
    "snake": "hognose_snake sidewinder",
    "turtle": "box_turtle hawksbill",
    "monkey": "guenon",
    "antelope": "impala gerenuk",
    "crustacean": "crayfish crab",
    "musical instrument": "bassoon French_horn grand_piano mandolin saxophone",
    "vehicle": "convertible forklift go-kart minivan passenger_car mountain_bike",
    "car": "convertible minivan passenger_car",
    "furniture": "china_cabinet entertainment_center folding_chair four-poster rocking_chair chair",
    "chair": "folding_chair rocking_chair chair",
    "telephone": "cellphone",
    "vegetable": "head_cabbage broccoli artichoke cardoon corn",
    "mountain": "alp volcano",
}
# By category of Caltech 101; ImageNet has no class for most of them.
PHRASES = {
    "bass": ["a freshwater fish held by an angler", "game fish"],
    "cannon": ["old artillery", "a gun on wheels"],
    "ceiling_fan": ["a fan that hangs from the ceiling"],
    "cellphone": ["a mobile phone", "a handset to make calls with"],
    "chair": ["wooden chair", "a seat for one person"],
    "cougar_body": ["a big wild cat of the mountains"],
    "crab": ["sea creature with claws"],
    "crocodile": ["a large reptile with big teeth"],
    "dolphin": ["dolphin"],
    "flamingo": ["pink bird on long legs"],
    "gerenuk": ["a slender antelope of Africa"],
    "grand_piano": ["a piano on a concert stage"],
    "hawksbill": ["a turtle that swims in the sea"],
    "headphone": ["something to listen to music with", "headset"],
    "hedgehog": ["a small animal with spines"],
    "inline_skate": ["shoes with wheels"],
    "laptop": ["a portable computer"],
    "mandolin": ["a small guitar"],
    "menorah": ["Jewish candlestick", "candles"],
    "octopus": ["octopus"],
    "pagoda": ["Buddhist temple", "a temple in Japan"],
    "pyramid": ["tombs of the pharaohs in Egypt", "ancient Egyptian monument in the desert"],
    "rhino": ["a big grey animal with a horn", "African animal with a horn on its nose"],
    "saxophone": ["brass wind instrument of jazz"],
    "sea_horse": ["a tiny upright fish", "seahorse"],
    "starfish": ["five arms, on the sea floor"],
    "stop_sign": ["red traffic sign", "road sign at a crossing"],
    "strawberry": ["red fruit"],
    "umbrella": ["protection from the rain"],
    "water_lilly": ["pink flower on a pond"],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("categories", type=Path)
    parser.add_argument("classes", type=Path)
    parser.add_argument("--model", default=PACKAGED_MODEL)
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the embedded database, kept for another run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = options.data_dir or Path(temporary)
        with Library.open(Settings.load(data_dir=data_dir)) as library:
            images = library.collection()
            images.ingest([options.categories, options.classes], model=options.model)
            print(f"{conditions()}, {options.model}, {images.status().images:,} pictures")
            for part in (names, broader, phrases, times):
                print("\n".join(["", *part(images, options.classes)]), flush=True)


def shown(path: str) -> str:
    """Return what a picture shows: its ImageNet class, or its folder's category."""
    found = re.fullmatch(r"n\d+_(.+)", Path(path).stem)
    return found[1] if found else Path(path).parent.name


def names(images: Collection, classes: Path) -> Iterator[str]:
    """Yield how often the nearest image is the one picture of the class that was named."""
    ranks, indexed = [], 0
    files = sorted(file for file in classes.iterdir() if file.suffix == ".JPEG")
    for file in files:
        name = shown(str(file)).replace("_", " ")
        answer = images.query(text=name, k=5)
        indexed += answer.uses_index
        ranks += [hit.rank for hit in answer if hit.path == str(file.absolute())]
    count = len(files)
    first, five = ranks.count(1) / count, len(ranks) / count
    yield f"Names of {count} classes: R@1 {first:.3f}, R@5 {five:.3f}"
    yield f"  {indexed} of them by the index, as the planner chose"


def broader(images: Collection, _: Path) -> Iterator[str]:
    """Yield the average precision of words that several classes are kinds of."""
    rows = images.status().images
    yield "Broader word         concepts  pictures  average precision"
    scores = []
    for word, kinds in BROADER.items():
        wanted = set(kinds.split())
        answer = images.query(text=word, k=rows)
        relevant = [shown(hit.path) in wanted for hit in answer]
        scores.append(average_precision(relevant))
        yield f"{word:20} {len(answer.concepts):8}  {sum(relevant):8}  {scores[-1]:17.3f}"
    yield f"{'mean':40} {statistics.mean(scores):17.3f}"


def average_precision(relevant: list[bool]) -> float:
    """Return the mean of the precisions at each relevant hit."""
    found = [rank for rank, is_relevant in enumerate(relevant, start=1) if is_relevant]
    return statistics.mean(number / rank for number, rank in enumerate(found, start=1))


def phrases(images: Collection, _: Path) -> Iterator[str]:
    """Yield how many of the ten nearest images a phrase means."""
    labels = {label.label for label in images.labels(1_000)}
    yield "Of ten  phrase"
    counts = []
    for category in sorted(PHRASES.keys() & labels):
        for phrase in PHRASES[category]:
            answer = images.query(text=phrase, k=K)
            counts.append(sum(hit.label == category for hit in answer))
            yield f"{counts[-1]:6}  {phrase} ({category}). {answer.meaning}"
    yield f"P@{K} of {len(counts)} phrases: {statistics.mean(counts) / K:.3f}"


def times(images: Collection, _: Path) -> Iterator[str]:
    """Yield the time of answers that need no, one and several concepts, and of phrases."""
    yield "Median time of an answer, in ms"
    for text in ("golden retriever", "terrier", "dog", "of large size", "a shop that sells shoes"):
        answer, taken = timed(images, text)
        yield f"{taken:6.1f}  {text} ({len(answer.concepts)} concepts)"


def timed(images: Collection, text: str) -> tuple[Answer, float]:
    """Return an answer, and the median of the milliseconds that it took."""
    answer, seconds = images.query(text=text), []
    for _ in range(ROUNDS):
        started = perf_counter()
        images.query(text=text)
        seconds.append(perf_counter() - started)
    return answer, 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
