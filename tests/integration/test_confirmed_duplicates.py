"""Near-duplicates as the packaged network and the stored thumbnails see them."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import PIL.Image
import pytest
from PIL import ImageEnhance, ImageOps
from support import PixelEncoder, citus, ingest, once, write
from typer.testing import CliRunner
from web_support import client

from vecsearch.analysis.duplicates.groups import Duplicates
from vecsearch.cli import app
from vecsearch.demo.scenes import SCENES
from vecsearch.encoders import registry
from vecsearch.encoders.base import PACKAGED_MODEL, Encoder
from vecsearch.library import Library
from vecsearch.vocabulary import MAX_DIFFERENCE

pytestmark = [citus, once]
# Ten pictures of each: for any, there are nine others of its subject.
SUBJECTS = ("lighthouse", "umbrella", "daisy", "city")


KINDS: dict[str, Callable[[PIL.Image.Image], PIL.Image.Image]] = {
    "half": lambda picture: picture.resize((160, 160)),
    "cropped": lambda picture: picture.crop((32, 16, 320, 304)),
    "recompressed": lambda picture: picture,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "greyscale": lambda picture: picture.convert("L"),
    "mirrored": ImageOps.mirror,
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return registry.load(PACKAGED_MODEL, None, device="cpu")


@pytest.fixture
def variants(library: Library, tmp_path: Path, encoder: Encoder) -> dict[str, str]:
    """Ingest the subjects, and a variant of each kind; return each variant's original."""
    originals = {}
    for number in range(10):
        for subject in SUBJECTS:
            file = tmp_path / subject / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            SCENES[subject](Random(f"{subject} {number}")).save(file)
    for number, kind in enumerate(KINDS):
        source = tmp_path / SUBJECTS[number % 4] / f"{number}.png"
        with PIL.Image.open(source) as opened:
            changed = KINDS[kind](opened.convert("RGB"))
        copy = tmp_path / "variants" / f"{kind}.jpg"
        copy.parent.mkdir(exist_ok=True)
        changed.save(copy, quality=30 if kind == "recompressed" else 90)
        originals[str(copy)] = str(source)
    ingest(library.engine, [tmp_path], encoder)
    return originals


def groups(found: Duplicates) -> set[frozenset[str]]:
    members: dict[int, set[str]] = {}
    for image in found.images:
        members.setdefault(image.group, set()).add(image.path)
    return {frozenset(paths) for paths in members.values()}


def numbers(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["group"], row["id"], row["distance"], row["difference"]) for row in rows]


def test_variants_are_found_and_no_other_picture_of_their_subjects(
    library: Library, variants: dict[str, str]
) -> None:
    pairs = {frozenset(pair) for pair in variants.items()}
    mirrored = {pair for pair in pairs if any("mirrored" in path for path in pair)}
    found = library.collection().duplicates()
    assert groups(found) == pairs - mirrored
    assert groups(library.collection().duplicates(mirrored=True)) == pairs
    assert all(image.difference is not None for image in found.images)
    assert max(image.difference or 0 for image in found.images) <= MAX_DIFFERENCE
    # Within a cut-off that takes all, thumbnails decide; or nothing but the cut-off does.
    confirmed = library.collection().duplicates(max_distance=2, max_difference=0.07)
    assert groups(confirmed) == pairs - mirrored
    everything = library.collection().duplicates(max_distance=2, max_difference=2)
    assert {len(paths) for paths in groups(everything)} == {47}


def test_every_door_shows_both_distances_and_says_what_was_not_confirmed(
    library: Library, variants: dict[str, str]
) -> None:
    words = ["duplicates", "--mirrored", "--database-url", library.url]

    def run(*options: str) -> tuple[list[dict[str, Any]], str]:
        done = CliRunner().invoke(app, [*words, *options, "-f", "json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), done.stderr

    rows, said = run()
    assert len(rows) == 14
    assert all(0 <= row["difference"] <= MAX_DIFFERENCE for row in rows)
    assert f"if their thumbnails differ by at most {MAX_DIFFERENCE}" in said
    assert "no thumbnail" not in said
    api = client(library)
    answer = api.get("/api/collections/images/duplicates", params={"mirrored": True}).json()
    assert numbers(answer["images"]) == numbers(rows)
    assert answer["unconfirmed"] == 0
    page = api.get("/duplicates", params={"mirrored": "true"}).text
    assert page.count("difference of thumbnails 0.0") == 14
    assert 'name="mirrored" type="checkbox" value="true" checked' in page
    # Without thumbnails, embeddings decide: a stricter cut-off, and a note.
    first = library.collection().image(rows[0]["id"])
    write(
        library,
        "DELETE FROM vecsearch_internal.thumbnails AS t USING images WHERE t.sha256 = images.sha256"
        " AND images.id = :first",
        first=first.id,
    )
    rows, said = run()
    assert {row["difference"] for row in rows if row["id"] == str(first.id)} <= {None}
    assert "1 image has no thumbnail" in said
    answer = api.get("/api/collections/images/duplicates", params={"mirrored": True}).json()
    assert (numbers(answer["images"]), answer["unconfirmed"]) == (numbers(rows), 1)
    assert answer["max_distance_alone"] < answer["max_distance"]
    assert "1 image has no thumbnail" in api.get("/duplicates").text
    # What changed since it was last asked is seen.
    one, other = next(iter(variants.items()))
    library.collection().not_duplicates(one, other)
    write(library, "DELETE FROM images WHERE path LIKE '%/variants/greyscale.jpg'")
    fewer = api.get("/api/collections/images/duplicates", params={"mirrored": True}).json()
    gone = {one, other, *next(pair for pair in variants.items() if "greyscale" in pair[0])}
    assert {row["path"] for row in rows} - {row["path"] for row in fewer["images"]} == gone


@once
def test_pictures_of_one_colour_are_told_apart_by_their_brightness(
    library: Library, tmp_path: Path
) -> None:
    # Their embeddings have one direction.
    for name, level in {"dark": 10, "light": 240, "lighter": 245}.items():
        PIL.Image.new("RGB", (64, 48), (level, level, level)).save(tmp_path / f"{name}.png")
    ingest(library.engine, [tmp_path], PixelEncoder())
    found = library.collection().duplicates(max_distance=0.1)
    assert sorted(Path(each.path).stem for each in found.images) == ["light", "lighter"]
    assert found.unconfirmed == 0
