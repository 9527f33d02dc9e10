"""Near-duplicates in real collections, by the index and without it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from support import (
    Corpus,
    PixelEncoder,
    citus,
    clustered,
    every_server,
    ingest,
    make_corpus,
    once,
    write,
)
from typer.testing import CliRunner

from vecsearch.analysis.duplicates import pairs
from vecsearch.analysis.duplicates.groups import Duplicates
from vecsearch.cli import app
from vecsearch.errors import InvalidInput
from vecsearch.library import Library

pytestmark = citus

if TYPE_CHECKING:
    from numpy.typing import NDArray


def nudged(vectors: "NDArray[np.float64]", by: float, seed: int = 9) -> "NDArray[np.float64]":
    noise = np.random.default_rng(seed).normal(1, by, vectors.shape)
    return (vectors * noise).astype(np.float16).astype(np.float64)


def planted(library: Library, name: str = "images") -> Corpus:
    """Make 600 images, of which the last fifty are near the first fifty."""
    vectors = clustered(550, 64, seed=3)
    return make_corpus(library, name, np.vstack([vectors, nudged(vectors[:50], 0.03)]))


def groups(found: Duplicates) -> set[frozenset[UUID]]:
    members: dict[int, list[UUID]] = {}
    for image in found.images:
        members.setdefault(image.group, []).append(image.id)
    assert list(members) == list(range(1, len(members) + 1))
    return {frozenset(ids) for ids in members.values()}


def test_planted_copies_are_found_at_the_suggested_cut_off_and_next_to_nothing_else(
    library: Library,
) -> None:
    corpus = planted(library)
    found = groups(library.collection().duplicates())
    copies = {frozenset({corpus.ids[n], corpus.ids[550 + n]}) for n in range(50)}
    assert len(copies & found) >= 49
    assert len(found - copies) <= 3
    assert groups(library.collection().duplicates(exact=True)) == found


@every_server
@pytest.mark.parametrize("max_distance", [0.0005, 0.01, 0.02])
def test_within_a_cut_off_of_ones_own_groups_are_what_all_pairs_within_it_join(
    library: Library, max_distance: float
) -> None:
    corpus = planted(library)
    parents = np.arange(len(corpus))
    for number, vector in enumerate(corpus.vectors):
        for other in np.flatnonzero(corpus.distances(vector) <= max_distance):
            parents[parents == parents[other]] = parents[number]
    expected = {
        frozenset(corpus.ids[n] for n in np.flatnonzero(parents == parent)) for parent in parents
    }
    found = library.collection().duplicates(max_distance=max_distance)
    assert groups(found) == {ids for ids in expected if len(ids) > 1}
    rows = {image.id: corpus.vectors[corpus.ids.index(image.id)] for image in found.images}
    first: dict[int, UUID] = {}
    for image in found.images:
        target = rows[first.setdefault(image.group, image.id)]
        expected_distance = corpus.distances(target)[corpus.ids.index(image.id)]
        assert image.distance == pytest.approx(expected_distance, abs=1e-5)


@pytest.mark.parametrize(("max_distance", "same_as"), [(1e308, 2.0), (1e-320, 0.0), (3.0, 2.0)])
def test_a_cut_off_may_be_any_number(library: Library, max_distance: float, same_as: float) -> None:
    make_corpus(library, "images", clustered(100, 64, seed=3))
    found = library.collection().duplicates(max_distance=max_distance)
    assert groups(found) == groups(library.collection().duplicates(max_distance=same_as))


def test_hundreds_of_copies_are_one_group_whatever_their_bytes(library: Library) -> None:
    vectors = clustered(700, 64, seed=4)
    vectors[200:] = vectors[200]
    corpus = make_corpus(library, "images", vectors)
    for options in ({}, {"exact": True}, {"max_distance": 0.0}, {"max_distance": 0.001}):
        found = library.collection().duplicates(**options)
        assert frozenset(corpus.ids[200:]) in groups(found)
        assert not found.split


def test_files_of_equal_content_are_one_group_where_the_index_misses_them(
    library: Library,
) -> None:
    corpus = make_corpus(library, "images", clustered(60, 64, seed=5))
    write(library, "UPDATE images SET sha256 = 'same' WHERE width >= 20")
    assert frozenset(corpus.ids[20:]) in groups(library.collection().duplicates())


@pytest.mark.parametrize("exact", [False, True])
def test_two_bunches_too_large_to_see_past_are_one_group_or_said_to_be_split(
    library: Library, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    # Each image's nearest are all in its own bunch; the bunches are within the cut-off.
    vectors = clustered(100, 64, seed=6)
    bunches = [nudged(np.repeat(vectors[:1], 40, axis=0), 0.002, seed) for seed in (1, 2)]
    bunches[1] *= np.random.default_rng(3).normal(1, 0.05, 64)
    bunches[1] = bunches[1].astype(np.float16).astype(np.float64)
    corpus = make_corpus(library, "images", np.vstack([*bunches, vectors[1:]]))
    assert max(corpus.distances(corpus.vectors[0])[:40]) < 1e-4
    assert 3e-4 < min(corpus.distances(corpus.vectors[0])[40:80]) < 2e-3
    found = library.collection().duplicates(max_distance=0.003, exact=exact)
    assert frozenset(corpus.ids[:80]) in groups(found)
    assert not found.split
    monkeypatch.setattr(pairs, "MORE_NEIGHBOURS", 30)
    found = library.collection().duplicates(max_distance=0.003, exact=exact)
    assert frozenset(corpus.ids[:40]) in groups(found)
    assert found.split


@once
@pytest.mark.parametrize("options", [{}, {"max_distance": 0.001}])
def test_an_image_that_no_path_in_the_index_leads_to_is_found_all_the_same(
    library: Library, options: dict[str, Any]
) -> None:
    corpus = make_corpus(library, "images", clustered(300, 64, seed=10))
    lost = UUID(int=1)
    ready = "UPDATE pg_index SET indisready = :ready WHERE indexrelid = 'images_embedding_hnsw'"
    write(library, f"{ready}::regclass", ready=False)
    write(
        library,
        "INSERT INTO images (id, path, label, embedding)"
        " SELECT :lost, '/lost.png', label, embedding FROM images WHERE id = :id",
        lost=lost,
        id=corpus.ids[0],
    )
    write(library, f"{ready}::regclass", ready=True)
    assert frozenset({lost, corpus.ids[0]}) in groups(library.collection().duplicates(**options))


@once
def test_a_collection_without_an_index_and_tiny_ones_are_compared_in_full(
    library: Library,
) -> None:
    vectors = clustered(30, 4_001, seed=7)
    vectors[-1] = nudged(vectors[:1], 0.01)[0]
    wide = make_corpus(library, "wide", vectors)
    assert groups(library.collection("wide").duplicates()) == {
        frozenset({wide.ids[0], wide.ids[-1]})
    }
    for rows in (0, 1, 2, 3):
        make_corpus(library, f"tiny_{rows}", clustered(rows, 8, seed=8))
        assert library.collection(f"tiny_{rows}").duplicates().images == []


@once
def test_rules_order_a_group_and_say_what_could_go(library: Library, tmp_path: Path) -> None:
    vectors = np.repeat(clustered(1, 8, seed=0), 4, axis=0)
    corpus = make_corpus(library, "images", vectors)
    facts = [(5, 9, None), (9, 9, "2001-01-01"), (9, 5, "2002-01-01"), (1, 1, "1999-01-01")]
    for image_id, (width, height, taken_at) in zip(corpus.ids, facts, strict=True):
        file = tmp_path / f"{image_id}.png"
        file.touch()
        write(
            library,
            "UPDATE images SET path = :path, width = :width, height = :height, file_size = :width,"
            " taken_at = CAST(:taken_at AS timestamp) WHERE id = :id",
            id=image_id, path=str(file), width=width, height=height, taken_at=taken_at,
        )  # fmt: skip

    def order(order: str | None = None, keep: str | None = None) -> list[int]:
        return [
            corpus.ids.index(image.id)
            for image in library.collection().duplicates(order=order, keep=keep).images
        ]

    # The first was last modified in 2026.
    assert order() == order(order="oldest") == [3, 1, 2, 0]
    assert order(keep="newest") == [0, 2, 1, 3]
    assert order(order="largest") == [1, 2, 0, 3]
    paths = [image.path for image in library.collection().duplicates(keep="path").images]
    assert paths == sorted(paths)
    found = library.collection().duplicates(order="oldest", keep="largest").images
    assert [image.could_go for image in found] == [True, False, True, True]
    assert {image.could_go for image in library.collection().duplicates().images} == {None}
    for options in ({"keep": "best"}, {"order": "best"}, {"max_distance": float("nan")}):
        with pytest.raises(InvalidInput):
            library.collection().duplicates(**options)


def test_two_that_are_no_duplicates_are_remembered_by_id_or_path(library: Library) -> None:
    corpus = planted(library)
    path = library.collection().image(corpus.ids[550]).path
    before = groups(library.collection().duplicates())
    assert library.collection().not_duplicates(str(corpus.ids[0]), path)
    assert not library.collection().not_duplicates(corpus.ids[550], corpus.ids[0])
    assert before - groups(library.collection().duplicates()) == {
        frozenset({corpus.ids[0], corpus.ids[550]})
    }
    planted(library, "another")
    assert groups(library.collection("another").duplicates()) == before
    for one, other in ((path, path), (path, "/nowhere.png"), (str(UUID(int=1)), path)):
        with pytest.raises(InvalidInput):
            library.collection().not_duplicates(one, other)


@once
def test_the_command_prints_what_could_go_and_deletes_nothing(
    library: Library, photos: Path
) -> None:
    copy = photos / "dogs" / "copy.png"
    copy.write_bytes((photos / "cats" / "01.png").read_bytes())
    ingest(library.engine, [photos], PixelEncoder())

    def run(*options: str) -> tuple[str, str]:
        done = CliRunner().invoke(app, ["duplicates", "--database-url", library.url, *options])
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    out, err = run("--keep", "path", "-f", "paths")
    assert out == f"{copy}\n"
    assert "Two images count as duplicates below a distance of about 0." in err
    assert "Nothing is deleted" in err
    out, err = run("--max-distance", "0", "-f", "json")
    assert [row["path"] for row in json.loads(out)] == [str(photos / "cats" / "01.png"), str(copy)]
    assert "count as duplicates" not in err
    pair = ("--not", str(copy), str(photos / "cats" / "01.png"))
    assert run(*pair)[1].startswith("Recorded")
    assert run(*pair)[1].startswith("Already recorded")
    assert run("-f", "paths") == ("", run("-f", "paths")[1])
    assert copy.exists()
    assert library.status().collections[0].images == 13
