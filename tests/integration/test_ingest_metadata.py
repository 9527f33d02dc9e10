"""Metadata files: which line is for which image."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import PixelEncoder, citus, counts, ingest, once

from vecsearch.errors import InvalidInput
from vecsearch.library import Library

pytestmark = citus


def metadata(library: Library) -> dict[str, Any]:
    """Return the metadata of each image that has any, by its name."""
    with library.sql("SELECT path, metadata FROM images WHERE metadata <> '{}'") as (_, rows, _):
        return {Path(path).name: value for path, value in rows}


def set_from(library: Library, photos: Path, text: str, suffix: str = ".jsonl") -> tuple[str, ...]:
    """Ingest with a metadata file and return the notes."""
    file = photos.with_name(f"records{suffix}")
    file.write_text(text)
    return ingest(library.engine, [photos], PixelEncoder(), metadata_file=file).notes


def record(key: object, **values: object) -> str:
    return json.dumps({"path": str(key), **values}) + "\n"


def test_a_line_is_for_a_path_a_path_below_a_root_or_a_name(library: Library, photos: Path) -> None:
    notes = set_from(
        library,
        photos,
        record(photos / "cats" / "01.png", by="path")
        + record("cats/03.png", by="relative")
        + record("00.png", by="name")
        + record("dogs/01.png", by="nothing")
        + record(photos.parent / "cats" / "01.png", by="nothing"),
    )
    assert metadata(library) == {
        "01.png": {"by": "path"},
        "03.png": {"by": "relative"},
        "00.png": {"by": "name"},
    }
    assert notes == (
        "Set the metadata of 3 images.",
        "2 lines of records.jsonl matched no image. The first is line 4, `dogs/01.png`.",
    )
    assert set_from(library, photos, "\n" + record("cat9.jpg"))[1:] == (
        "1 line of records.jsonl matched no image: line 2, `cat9.jpg`.",
    )


def test_a_relative_key_is_also_a_path_below_the_working_folder(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos / "cats")
    set_from(library, photos, record("01.png", by="path"))
    assert metadata(library) == {"01.png": {"by": "path"}}


@pytest.mark.parametrize("reverse", [False, True])
def test_the_more_exact_key_wins_wherever_its_line_is(
    library: Library,
    photos: Path,
    reverse: bool,
) -> None:
    lines = [
        record(photos / "cats" / "01.png", by="path"),
        record("cats/01.png", by="relative"),
        record("01.png", by="name"),
        record("cats/03.png", by="relative"),
        record("03.png", by="name"),
    ]
    set_from(library, photos, "".join(reversed(lines) if reverse else lines))
    assert metadata(library) == {"01.png": {"by": "path"}, "03.png": {"by": "relative"}}


def test_of_two_lines_for_one_image_the_last_wins(library: Library, photos: Path) -> None:
    set_from(library, photos, record("01.png", turn=1) + record("01.png", turn=2))
    assert metadata(library) == {"01.png": {"turn": 2}}


def test_unchanged_images_get_metadata_and_what_is_the_same_is_not_counted(
    library: Library, photos: Path
) -> None:
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 12}
    for changed in (2, 0):
        text = record("01.png", cat=True) + record("03.png", cat=True)
        assert set_from(library, photos, text) == (f"Set the metadata of {changed} images.",)
    assert set_from(library, photos, record("01.png", cat=False) + record("03.png", cat=True)) == (
        "Set the metadata of 1 image.",
    )
    assert metadata(library) == {"01.png": {"cat": False}, "03.png": {"cat": True}}


def test_images_without_a_line_keep_what_they_had(library: Library, photos: Path) -> None:
    set_from(library, photos, record("01.png", kept=True))
    set_from(library, photos, record("03.png", new=True))
    assert metadata(library) == {"01.png": {"kept": True}, "03.png": {"new": True}}


def test_csv_values_are_text_and_json_values_keep_their_types(
    library: Library, photos: Path
) -> None:
    set_from(library, photos, "file,n,empty\n01.png,1,\n", ".csv")
    set_from(library, photos, record("03.png", n=1, list=[1, None], text="ünï \\ \" ' %s"))
    assert metadata(library) == {
        "01.png": {"n": "1"},
        "03.png": {"n": 1, "list": [1, None], "text": "ünï \\ \" ' %s"},
    }


@once
@pytest.mark.parametrize(
    ("text", "suffix", "line"),
    [
        ('{"path": "01.png"}\n{"path": ', ".jsonl", "line 2"),
        ('{"path": "01.png"}\n\n["01.png"]\n', ".jsonl", "line 3"),
        ('{"path": "01.png"}\n{"cat": true}\n', ".jsonl", "line 2"),
        ("path,cat\n01.png,1\n03.png,1,2\n", ".csv", "line 3"),
        ("path,cat\n01.png,1\n,1\n", ".csv", "line 3"),
        # What JSON's readers let through and Postgres does not.
        ('{"path": "01.png", "score": NaN}\n', ".jsonl", "line 1"),
        ('{"path": "01.png", "score": [1, {"a": -Infinity}]}\n', ".jsonl", "line 1"),
        ('{"path": "01.png", "score": 1e999}\n', ".jsonl", "line 1"),
        ('{"path": "01.png", "text": "\\u0000"}\n', ".jsonl", "line 1"),
        ('{"path": "01.png", "text": "\\ud83d"}\n', ".jsonl", "line 1"),
        ('{"path": "\\ud83d.png"}\n', ".jsonl", "line 1"),
        ("path,cat\n01.png,a\0b\n", ".csv", "line 2"),
        ("path,cat\n01\0.png,a\n", ".csv", "line 2"),
    ],
)
def test_a_line_that_cannot_be_used_stops_the_run_before_anything_is_written(
    library: Library, photos: Path, text: str, suffix: str, line: str
) -> None:
    with pytest.raises(InvalidInput, match=line):
        set_from(library, photos, text, suffix)
    assert library.collections() == []


def test_a_metadata_file_that_is_not_there_stops_the_run(library: Library, photos: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        library.collection().ingest([photos], metadata=photos / "none.csv")
    assert library.collections() == []
