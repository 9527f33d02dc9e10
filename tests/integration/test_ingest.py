import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from support import picture

from vecsearch.library import Library


def counts(summary: object) -> dict[str, int]:
    return {name: count for name, count in asdict(summary).items() if count}  # type: ignore[call-overload]


@pytest.fixture
def ingested(library: Library, photos: Path, small_model: str, weights: Path) -> Library:
    summary = library.ingest([photos], model=small_model, weights=weights)
    assert counts(summary) == {"added": 12}
    return library


def test_a_second_run_changes_nothing(ingested: Library, photos: Path) -> None:
    assert counts(ingested.ingest([photos])) == {"unchanged": 12}


def test_a_renamed_folder_moves_its_rows(ingested: Library, photos: Path) -> None:
    renamed = photos.rename(photos.with_name("pictures"))
    assert counts(ingested.ingest([renamed])) == {"moved": 12}
    assert counts(ingested.ingest([renamed])) == {"unchanged": 12}


def test_changed_deleted_and_copied(ingested: Library, photos: Path) -> None:
    picture(99).save(photos / "dogs" / "00.png")
    (photos / "dogs" / "02.png").unlink()
    shutil.copy(photos / "cats" / "01.png", photos / "cats" / "copy.png")
    summary = ingested.ingest([photos], prune=True)
    assert counts(summary) == {"updated": 1, "pruned": 1, "copied": 1, "unchanged": 10}
