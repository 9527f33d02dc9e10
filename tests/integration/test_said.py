"""What commands say when they have done something, and what they refuse at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
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
    store_concepts,
)

from vecsearch.library import Library

pytestmark = once
COMMAND = [sys.executable, "-m", "vecsearch"]


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


@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["mcp"]], ids=lambda words: words[0])
def test_servers_refuse_a_collection_that_is_not_there(
    library: Library, photos: Path, words: list[str]
) -> None:
    code, out, err = run_command(library, *words, "-c", "nosuch")
    assert (code, out) == (1, "")
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


def test_a_search_of_an_empty_collection_says_how_to_fill_it(library: Library) -> None:
    corpus = make_corpus(library, "birds", clustered(1, 4, seed=0))
    words = ["query", "--id", corpus.ids[0], "-c", "birds"]
    code, out, err = run_command(library, *words, "--where", "false")
    assert (code, out, err) == (0, "", "No image matches.\n")
    library.collection("birds").forget("/corpus", existing=True, confirm=lambda _: True)
    sentence = "Collection 'birds' is empty. Add images: vecsearch ingest FOLDER --collection birds"
    store_concepts(library, ["crane"], np.ones((1, 4), np.float16), [0.0])
    code, out, err = run_command(library, "query", "--text", "crane", "-c", "birds")
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == sentence


def test_what_hits_should_be_unlike_is_no_question(library: Library) -> None:
    code, _, err = run_command(library, "query", "--not", "a.jpg")
    assert code == 2
    assert "--not says what hits should be unlike. Add what they should be like: an IMAGE" in err


def test_an_ingest_fails_if_all_that_is_named_fails(library: Library, tmp_path: Path) -> None:
    notes, empty = tmp_path / "notes.txt", tmp_path / "empty"
    notes.write_text("no picture")
    empty.mkdir()
    code, out, err = run_command(library, "ingest", notes, "-f", "json")
    assert (code, json.loads(out)["failed"]) == (1, 1)
    assert "vecsearch errors" in err
    assert run_command(library, "ingest", notes, "--dry-run")[0] == 0
    # Nothing to store is no failure.
    code, out, err = run_command(library, "ingest", empty, "-f", "json")
    assert (code, json.loads(out)["failed"]) == (0, 0)
    assert f"No image files in {empty}." in err.splitlines()
    assert library.collection_names() == []


def test_a_folder_with_rows_is_not_called_empty(library: Library, photos: Path) -> None:
    for file in photos.rglob("*.png"):
        file.unlink()
    (note,) = ingest(library.engine, [photos], PixelEncoder()).notes
    assert note.startswith(f"{photos} has no image files, and 12 rows under it are stored.")


def test_what_was_not_running_was_not_stopped(tmp_path: Path) -> None:
    stop = [*COMMAND, "db", "stop", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(stop, capture_output=True, text=True, check=True)
    assert done.stderr == "Nothing was running.\n"


@pytest.mark.parametrize(
    ("words", "variables", "blamed"),
    [(["-k", "x"], {}, False), ([], {"VECSEARCH_K": "x"}, True)],
    ids=["flag", "variable"],
)
def test_an_error_blames_a_variable_only_for_its_own_value(
    words: list[str], variables: dict[str, str], *, blamed: bool
) -> None:
    done = subprocess.run(
        [*COMMAND, "query", "a.jpg", *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert ("VECSEARCH_K" in done.stderr) == blamed
