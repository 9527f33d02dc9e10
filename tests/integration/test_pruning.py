"""Rows whose files are gone: what goes unasked, what needs a yes, and what is forgotten."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from support import (
    PixelEncoder,
    citus,
    counts,
    draw_photos,
    ingest,
    picture,
    run_command,
    scalar,
    write,
)

from vecsearch.errors import InvalidInput, NotConfirmed
from vecsearch.imaging.scan import Unreadable
from vecsearch.ingest import choose
from vecsearch.ingest.pruning import Gone, Root
from vecsearch.ingest.summary import PruneRefused
from vecsearch.ingest.writes import write_errors
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = citus


@pytest.fixture
def ingested(library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(choose, "encoder", lambda *_, **__: (PixelEncoder(), []))
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 12}
    return library


@pytest.mark.parametrize(
    ("stored", "gone", "asks"),
    [
        (1, 1, True),
        (5, 1, False),
        (11, 10, False),
        (12, 12, True),
        (110, 11, False),
        (109, 11, True),
    ],
)
def test_all_rows_or_more_than_a_tenth_and_than_ten_need_a_yes(
    stored: int, gone: int, asks: bool
) -> None:
    asked = Gone({}, [Root("/photos", stored, gone, False)]).question()
    assert (asked is not None) is asks
    assert asked is None or f"{gone} of the {stored} row" in asked


def test_a_root_that_was_emptied_is_pruned_only_with_a_yes(
    ingested: Library, photos: Path, tmp_path: Path
) -> None:
    metadata = "UPDATE images SET metadata = '{\"mine\": 1}'"
    write(ingested, metadata)
    aside = photos.rename(tmp_path / "aside")
    photos.mkdir()  # where a drive is no longer mounted
    beside = tmp_path / "beside"
    beside.mkdir()
    picture(50).save(beside / "new.png")
    code, out, err = run_command(ingested, "ingest", photos, beside, "--prune")
    assert code == 1
    assert json.loads(out)["gone"] == 12
    assert json.loads(out)["added"] == 1
    assert f"{photos} has no image files, and 12 rows under it are stored." in err
    assert (
        f"error: --prune would delete 12 of the 12 rows under {photos}: their files are gone. That "
        "needs a yes, so no row was deleted; everything else was done. If these files are gone for "
        "good, add --yes."
    ) in err
    assert scalar(ingested, "SELECT count(*) FROM images WHERE metadata <> '{}'") == 12
    asked: list[str] = []

    def no(sentence: str) -> bool:
        asked.append(sentence)
        return False

    with pytest.raises(PruneRefused) as caught:
        ingested.collection().ingest([photos], prune=True, confirm=no)
    assert len(asked) == 1
    assert caught.value.summary.gone == 12
    foretold = ingested.collection().ingest([photos], prune=True, dry_run=True)
    assert counts(foretold) == {"pruned": 12}
    # The drive is back, and nothing is lost.
    photos.rmdir()
    aside.rename(photos)
    assert counts(ingested.collection().ingest([photos], prune=True)) == {"unchanged": 12}
    assert scalar(ingested, "SELECT count(*) FROM images WHERE metadata <> '{}'") == 12
    shutil.rmtree(photos / "cats")
    code, out, err = run_command(ingested, "ingest", photos, "--prune")
    assert (code, json.loads(out)["pruned"]) == (0, 6)
    shutil.rmtree(photos / "dogs")
    code, out, err = run_command(ingested, "ingest", photos, "--prune", "--yes")
    assert (code, json.loads(out)["pruned"]) == (0, 6)
    assert scalar(ingested, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 1


def test_one_emptied_root_of_two_needs_a_yes(library: Library, tmp_path: Path) -> None:
    kept, lost = draw_photos(tmp_path / "kept"), tmp_path / "lost"
    lost.mkdir()
    picture(60).save(lost / "1.png")
    ingest(library.engine, [kept, lost], PixelEncoder())
    (lost / "1.png").unlink()
    summary = ingest(
        library.engine, [kept, lost], PixelEncoder(), prune=True, confirm=lambda _: False
    )
    assert counts(summary) == {"unchanged": 12, "gone": 1}


def test_a_folder_below_a_root_that_was_emptied_needs_a_yes(
    library: Library, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    first = draw_photos(kept / "00")
    for number in range(1, 12):
        shutil.copytree(first, kept / f"{number:02}")
    drive = kept / "drives" / "one"
    shutil.copytree(first, drive / "deep")
    few = shutil.copytree(first / "cats", kept / "few")
    assert ingest(library.engine, [kept], PixelEncoder()).failed == 0
    shutil.rmtree(few)
    asked: list[str] = []

    def answer(sentence: str, *, yes: bool) -> bool:
        asked.append(sentence)
        return yes

    def prune(*roots: Path, yes: bool = False) -> dict[str, int]:
        asked.clear()
        confirm = partial(answer, yes=yes)
        done = ingest(library.engine, roots, PixelEncoder(), prune=True, confirm=confirm)
        return {"gone": done.gone, "pruned": done.pruned}

    # A folder of few rows goes unasked.
    assert prune(kept) == {"gone": 0, "pruned": 6}
    assert asked == []
    shutil.rmtree(drive / "deep")
    assert prune(kept) == {"gone": 12, "pruned": 0}
    assert asked == [f"--prune would delete all 12 rows under {kept}/drives: their files are gone."]
    # Roots below a root are named for themselves.
    assert prune(kept, drive, kept / "drives") == {"gone": 12, "pruned": 0}
    both = f"12 of the 12 rows under {kept}/drives, and 12 of the 12 rows under {drive}"
    assert asked == [f"--prune would delete {both}: their files are gone."]
    # An image that is left shows that the drive is there.
    picture(70).save(drive / "new.png")
    assert prune(kept) == {"gone": 12, "pruned": 0}
    assert asked == [f"--prune would delete all 12 rows under {drive}/deep: their files are gone."]
    assert prune(kept, yes=True) == {"gone": 0, "pruned": 12}


def test_many_lost_folders_are_counted() -> None:
    lost = {f"/photos/{number}": 20 for number in range(5)}
    asked = Gone({}, [Root("/photos", 9_999, 100, False)], lost).question()
    assert asked == (
        "--prune would delete all 20 rows under /photos/0, and all 20 rows under /photos/1, "
        "and all 20 rows under /photos/2, and 40 rows under 2 other folders: their files are gone."
    )
    under = Gone({}, [Root("/photos", 100, 100, False)], lost).question()
    assert under == "--prune would delete 100 of the 100 rows under /photos: their files are gone."


def test_a_file_that_comes_back_while_it_is_asked_about_stays(
    library: Library, photos: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    aside = photos.rename(photos.with_name("aside"))
    photos.mkdir()

    def confirm(_question: str) -> bool:
        shutil.copytree(aside / "cats", photos / "cats")
        return True

    summary = ingest(library.engine, [photos], PixelEncoder(), prune=True, confirm=confirm)
    assert counts(summary) == {"pruned": 6, "gone": 6}


def test_a_file_that_comes_back_while_it_is_to_be_forgotten_stays(
    ingested: Library, photos: Path
) -> None:
    aside = photos.rename(photos.with_name("aside"))

    def confirm(_question: str) -> bool:
        shutil.copytree(aside / "cats", photos / "cats")
        return True

    assert ingested.collection().forget(photos, confirm=confirm).rows == 6
    assert scalar(ingested, "SELECT count(*) FROM images WHERE path LIKE '%/cats/%'") == 6
    assert ingested.collection().forget(photos, confirm=lambda _: True, existing=True).rows == 6


def test_a_file_whose_place_a_folder_took_is_gone(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    moved, deleted = photos / "cats" / "01.png", photos / "cats" / "03.png"
    held = moved.read_bytes()
    for place in (moved, deleted):
        place.unlink()
        place.mkdir()
    (moved / "01.png").write_bytes(held)
    summary = ingest(library.engine, [photos], PixelEncoder())
    assert counts(summary) == {"moved": 1, "unchanged": 10, "gone": 1}
    summary = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert counts(summary) == {"unchanged": 11, "pruned": 1}
    assert scalar(library, "SELECT count(*) FROM images") == 11


def test_what_is_gone_for_good_is_forgotten_and_nothing_else(
    ingested: Library, photos: Path, tmp_path: Path
) -> None:
    images = ingested.collection()
    copy = tmp_path / "copy.png"
    shutil.copy(photos / "cats" / "01.png", copy)
    other = draw_photos(tmp_path / "photos2")
    assert images.ingest([copy, other]).copied == 13
    broken = [Unreadable(str(path), "A reason.") for path in (photos / "x.png", other / "x.png")]
    with database.writing(ingested.engine) as connection:
        write_errors(connection, "images", broken, [])
    write(
        ingested,
        "INSERT INTO vecsearch_internal.tags SELECT 'images', id, 1, 'dark', 0, 1 FROM images",
    )

    code, _, err = run_command(ingested, "forget", photos, "--yes")
    assert code == 1
    assert f"12 of the 12 files of collection 'images' under {photos} still exist. " in err
    (photos / "cats" / "03.png").unlink()
    with pytest.raises(InvalidInput, match="11 of the 12 files"):
        images.forget(photos, confirm=lambda _: True)
    code, out, _ = run_command(ingested, "forget", photos, "--existing", "--dry-run")
    assert (code, json.loads(out)) == (0, {"rows": 12, "errors": 1, "dry_run": True})

    shutil.rmtree(photos)
    for prune in ([], ["--prune", "--yes"]):
        code, _, err = run_command(ingested, "ingest", photos, *prune)
        assert code == 1
        assert f"{photos} is gone, and the collection has 12 rows from it." in err
        assert err.endswith(f"if it is gone for good: vecsearch forget {photos}\n")
    code, _, err = run_command(ingested, "forget", photos)
    assert code == 1
    assert f"Forgetting 12 rows and 1 error under {photos} needs a yes." in err
    with pytest.raises(NotConfirmed):
        images.forget(photos)
    assert scalar(ingested, "SELECT count(*) FROM images") == 25
    code, out, _ = run_command(ingested, "forget", photos, "--yes", "--format", "table")
    assert (code, out) == (0, "deleted 12 rows, 1 error\n")
    assert scalar(ingested, "SELECT count(*) FROM images") == 13
    assert scalar(ingested, "SELECT count(*) FROM vecsearch_internal.tags") == 13
    assert [error.path for error in images.errors()] == [str(other / "x.png")]
    assert scalar(ingested, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 12
    # Thumbnails that a run which was killed left behind go, too.
    shutil.rmtree(other)
    images.forget([other], confirm=lambda _: True)
    assert scalar(ingested, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 1
    with pytest.raises(InvalidInput, match="'images' has nothing under"):
        images.forget(other, confirm=lambda _: True)


def test_a_terminal_is_asked(
    ingested: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.cli.command.is_terminal", lambda: True)
    for answer, expected in (("n\n", (1, 12)), ("y\n", (0, 0))):
        for file in photos.glob("*/*"):
            file.unlink()
        code, out, err = run_command(ingested, "ingest", photos, "--prune", input=answer)
        assert (code, json.loads(out.splitlines()[-1])["gone"]) == expected
        assert "12 of the 12 rows under" in err
        assert "Delete these rows? [y/N]" in err
