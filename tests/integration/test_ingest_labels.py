"""The labels that a run gives: to all its images, or by a regular expression."""

import os
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from support import PixelEncoder, citus, counts, once, picture
from support import ingest as ingest_with

from vecsearch.errors import InvalidInput
from vecsearch.ingest.annotations.labels import Labels
from vecsearch.ingest.summary import Summary
from vecsearch.library import Library
from vecsearch.postgres.columns import BY_NAME

pytestmark = citus
# What `photos` holds: six pictures in each of two folders.
FOLDERS = {"cats": 6, "dogs": 6}


def ingest(
    library: Library,
    *paths: Path,
    label: str | None = None,
    regex: str | None = None,
    **options: Any,
) -> Summary:
    labels = Labels.parse(label, regex)
    return ingest_with(library.engine, paths, PixelEncoder(), labels=labels, **options)


def labels(library: Library) -> dict[str, int]:
    with library.sql("SELECT label, count(*) FROM images GROUP BY 1 ORDER BY 1") as (_, rows, _):
        return dict(rows)


def label_of(library: Library, file: Path) -> str:
    with library.sql(f"SELECT label FROM images WHERE path = '{file}'") as (_, rows, _):
        ((label,),) = rows
    return str(label)


def test_all_images_of_a_run_get_its_label(library: Library, photos: Path) -> None:
    summary = ingest(library, photos / "cats", label="pets & co.")
    assert summary.notes == ()
    ingest(library, photos)
    assert labels(library) == {"dogs": 6, "pets & co.": 6}


def test_stored_images_get_the_label_and_a_run_says_how_many_changed(
    library: Library, photos: Path
) -> None:
    ingest(library, photos)
    ingest(library, photos / "cats" / "01.png", label="pets")
    (photos / "cats" / "03.png").touch()
    picture(90).save(photos / "cats" / "05.png")
    for dry_run, note in ((True, "Would change"), (False, "Changed")):
        before = labels(library)
        summary = ingest(library, photos / "cats", label="pets", dry_run=dry_run)
        assert summary.notes == (f"{note} the label of 5 stored images.",)
        assert counts(summary) == {"updated": 1, "unchanged": 5}
        assert (labels(library) == before) == dry_run
    assert labels(library) == {"dogs": 6, "pets": 6}
    assert ingest(library, photos / "cats", label="pets").notes == ()


def test_a_later_run_without_a_label_keeps_it_unless_the_image_has_moved(
    library: Library, photos: Path
) -> None:
    ingest(library, photos, label="pets")
    cats = photos / "cats"
    os.utime(cats / "01.png", (1, 1))
    picture(90).save(cats / "03.png")
    (cats / "05.png").rename(photos / "dogs" / "moved.png")
    shutil.copy(cats / "07.png", photos / "dogs" / "copied.png")
    # Two pictures that change places.
    (cats / "09.png").rename(cats / "kept")
    (cats / "11.png").rename(cats / "09.png")
    (cats / "kept").rename(cats / "11.png")
    assert counts(ingest(library, photos)) == {
        "unchanged": 8,
        "updated": 3,
        "moved": 1,
        "copied": 1,
    }
    assert labels(library) == {"dogs": 2, "pets": 11}
    (photos / "dogs" / "moved.png").rename(cats / "05.png")
    assert counts(ingest(library, photos, label="home"))["moved"] == 1
    assert label_of(library, cats / "05.png") == "home"


@pytest.mark.parametrize(
    ("regex", "found"),
    [
        (r"/(\w)\w+/\d\d\.png$", {"c": 6, "d": 6}),
        (r"(\d)(?P<label>\d)\.png$", {str(digit): 2 if digit < 2 else 1 for digit in range(10)}),
        (r"\d\d(?=\.png$)", {f"{number:02}": 1 for number in range(12)}),
        (r"/cats/(x?)", FOLDERS),  # an empty group
        (r"/cats/(x)?", FOLDERS),  # one that takes no part
        (r"(?i)CATS", FOLDERS),
        (r"([[a]|c)ats", {"c": 6, "dogs": 6}),  # of which Python warns
    ],
)
def test_a_regular_expression_finds_labels_in_paths(
    library: Library, photos: Path, regex: str, found: dict[str, int]
) -> None:
    ingest(library, photos, regex=regex)
    assert labels(library) == found


def test_paths_that_do_not_match_are_counted_once_and_get_their_folder(
    library: Library, photos: Path
) -> None:
    ingest(library, photos, label="pets")
    summary = ingest(library, photos, photos / "dogs" / "00.png", regex="/cats/(0[13])")
    unmatched = "10 paths did not match --label-regex, so the label is the folder's name. The first"
    assert summary.notes == (
        f"{unmatched} is {photos / 'cats' / '05.png'}",
        "Changed the label of 12 stored images.",
    )
    assert labels(library) == {"01": 1, "03": 1, "cats": 4, "dogs": 6}


def test_a_dry_run_into_nothing_counts_what_does_not_match(library: Library, photos: Path) -> None:
    (note,) = ingest(library, photos, regex="/cats/", dry_run=True).notes
    assert note.startswith("6 paths did not match")


@once
def test_the_path_of_a_picture_in_an_archive_is_its_location(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    with ZipFile(tmp_path / "album.zip", "w") as archive:
        for file in photos.glob("cats/*.png"):
            archive.write(file, f"rome/{file.name}")
    ingest(library, tmp_path / "album.zip", regex=r"^zip://.*/(\w+)\.zip/")
    assert labels(library) == {"album": 6}


@once
def test_an_import_of_plain_embeddings_keeps_labels(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    ingest(library, photos / "cats", label="pets", collection="pixels")
    file = tmp_path / "plain.csv"
    library.collection("pixels").export_file(file)
    images = library.collection()
    images.import_file(file, model="ours")
    assert labels(library) == {"cats": 6}
    statement = "UPDATE vecsearch.images SET label = 'pets' WHERE path NOT LIKE '%/01.png'"
    with library.sql(statement, write=True):
        pass
    images.import_file(file, model="ours")
    assert labels(library) == {"cats": 1, "pets": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "a", "label_regex": "b"}, "Give --label or --label-regex, not both."),
        ({"label": " "}, "The label ' ' is empty or cannot be stored"),
        ({"label": "a\0"}, "cannot be stored"),
        ({"label": "\udcff"}, "cannot be stored"),
        ({"label_regex": "("}, "is not a regular expression: missing \\), .* at position 0"),
        ({"label_regex": "(?P<label>a)(?P<label>b)"}, "is not a regular expression"),
        ({"label_regex": "(" * 10_000}, "is not a regular expression"),
    ],
)
def test_what_cannot_be_a_label_is_refused_before_anything_is_stored(
    library: Library, photos: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        library.collection().ingest(photos, **options)  # type: ignore[arg-type]  # as told
    assert library.collection_names() == []


def test_an_older_database_learns_what_a_label_may_be(library: Library, photos: Path) -> None:
    ingest(library, photos)
    places = ("images", "images_view")
    for statement in (
        *(f"COMMENT ON COLUMN vecsearch.{place}.label IS 'The folder'" for place in places),
        "UPDATE vecsearch.alembic_version SET version_num = '0022'",
    ):
        with library.sql(statement, write=True):
            pass
    library.upgrade()
    for place in places:
        said = (
            "SELECT col_description(attrelid, attnum) FROM pg_attribute"
            f" WHERE attrelid = 'vecsearch.{place}'::regclass AND attname = 'label'"
        )
        with library.sql(said) as (_, rows, _):
            assert [*rows] == [(BY_NAME["label"].comment,)]
