"""What commands say when they have done something, and what they refuse at once."""

import json
from pathlib import Path

import pytest
from support import (
    Corpus,
    PixelEncoder,
    clustered,
    draw_photos,
    ingest,
    make_corpus,
    once,
    picture,
    run_command,
)

from vecsearch.library import Library

pytestmark = once


@pytest.fixture
def photos(library: Library, tmp_path: Path) -> Path:
    folder = draw_photos(tmp_path / "photos")
    ingest(library.engine, [folder], PixelEncoder())
    return folder


def test_index_commands_say_what_there_is(library: Library, photos: Path) -> None:
    code, out, err = run_command(library, "index", "create", "--method", "compact", "--dims", "8")
    assert (code, out) == (0, "")
    assert "Built the index compact of images: 12 images, " in err
    code, out, err = run_command(library, "index", "drop")
    assert (code, err) == (0, "Every search of images now compares all 12 images.\n")


def test_a_stored_image_is_named_by_its_path(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photos / "dogs" / "00.png"
    code, out, _ = run_command(library, "query", "--id", file, "--format", "paths")
    assert (code, out.splitlines()[0]) == (0, str(file))
    monkeypatch.chdir(photos)
    file.unlink()
    code, out, _ = run_command(library, "query", "--id", "dogs/00.png", "--not-id", "cats/01.png")
    assert code == 0
    code, _, err = run_command(library, "query", "--id", "dogs/99.png")
    assert code == 1
    assert f"has no image {photos}/dogs/99.png. Name one by its path or its id." in err


def test_a_device_of_no_kind_is_refused_though_nothing_is_embedded(
    library: Library, photos: Path
) -> None:
    file = photos / "dogs" / "00.png"
    code, _, err = run_command(library, "query", file, "--device", "foo")
    assert code == 1
    assert "There is no device 'foo'. Use --device auto, cpu or cuda." in err


@pytest.mark.parametrize("words", [["ingest"], ["forget", "--existing"]])
def test_what_a_dry_run_prints_says_so(library: Library, photos: Path, words: list[str]) -> None:
    code, out, _ = run_command(library, *words, photos, "--dry-run", "--format", "json")
    assert (code, json.loads(out)["dry_run"]) == (0, True)


def test_eval_says_what_its_numbers_cannot(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for number in range(6):
        file = folder / f"folder {number}" / "one.png"
        file.parent.mkdir(parents=True)
        picture(number).save(file)
    ingest(library.engine, [folder], PixelEncoder())
    library.collection().ensure_index()
    code, out, err = run_command(library, "eval", "images", "--format", "table")
    assert code == 0
    assert "Every image has a label of its own, so precision is meaningless." in err
    # Rows of settings of an index that no search uses would say nothing.
    assert "ef search" not in out
    assert "0.0%" not in out
    assert "At this size a search for the 10 nearest compares all images, and is exact." in out


def test_serve_refuses_a_collection_that_is_not_there(library: Library, photos: Path) -> None:
    code, _, err = run_command(library, "serve", "-c", "nosuch", "--port", "0")
    assert code == 1
    assert "There is no collection 'nosuch'. Collections: images." in err


@pytest.mark.parametrize(
    "words",
    [
        ["query", "--id", "x", "-c"],
        ["export", "e.csv", "-c"],
        ["undo", "-c"],
        ["drop", "--yes"],
        ["rename", "{}", "other"],
    ],
    ids=lambda words: words[0],
)
def test_a_collection_that_is_not_there_is_not_to_be_created(
    library: Library, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def said(name: str) -> str:
        named = [word.format(name) for word in words]
        code, out, err = run_command(library, *named, *([] if named != words else [name]))
        assert (code, out) == (1, "")
        return err.removeprefix("error: ").rstrip()

    create = "vecsearch ingest FOLDER --collection nope"
    assert said("nope") == f"There is no collection 'nope', nor any other. Create it: {create}"
    for name in ("images", "birds"):
        make_corpus(library, name, clustered(2, 4, seed=0))
    assert said("nope") == "There is no collection 'nope'. Collections: birds, images."
    assert said("imagse") == (
        "There is no collection 'imagse'. Did you mean 'images'? Collections: birds, images."
    )


def test_columns_that_share_a_name_are_printed(corpus: Corpus) -> None:
    words = ["sql", "SELECT count(*), count(label) FROM images", "--format", "json"]
    code, out, _ = run_command(corpus.library, *words)
    assert (code, json.loads(out)) == (0, [{"count": len(corpus), "count_2": len(corpus)}])
