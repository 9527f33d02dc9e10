"""Files and folders that cannot be read, and embeddings that cannot be stored."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from support import PixelEncoder, citus, counts, ingest, once, picture

from vecsearch.encoders.base import LazyEncoder
from vecsearch.errors import InvalidInput
from vecsearch.imaging import pictures, reading
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import Unreadable
from vecsearch.library import Library

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [citus, pytest.mark.usefixtures("small_chunks")]


@pytest.fixture
def ingested(library: Library, photos: Path) -> Library:
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 12}
    return library


def reasons(library: Library) -> dict[str, str]:
    return {Path(error.path).name: error.error for error in library.collection().errors()}


def paths(library: Library) -> set[str]:
    with library.sql("SELECT path FROM images") as (_, rows, _):
        return {path for (path,) in rows}


def test_a_file_that_cannot_be_read_is_recorded_with_a_reason(
    library: Library, photos: Path
) -> None:
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("not a picture")
    (photos / "cut.png").write_bytes((photos / "cats" / "01.png").read_bytes()[:100])
    (photos / "dangling.png").symlink_to("nowhere")
    os.mkfifo(photos / "pipe.png")
    summary = ingest(library.engine, [photos], PixelEncoder())
    assert counts(summary) == {"added": 12, "failed": 5}
    recorded = reasons(library)
    assert recorded.pop("cut.png").startswith("The image is damaged: ")
    assert recorded == {
        "empty.png": "The file is empty.",
        "text.jpg": "Not an image, or an unsupported format.",
        "dangling.png": "It is a broken link.",
        "pipe.png": "It is not a regular file.",
    }


def test_an_error_is_forgotten_once_its_file_is_mended_or_gone(
    ingested: Library, photos: Path
) -> None:
    mended, gone = photos / "mended.png", photos / "gone.png"
    for file in (mended, gone):
        file.write_text("not a picture")
    (photos / "dangling.png").symlink_to("nowhere")
    assert ingest(ingested.engine, [photos], PixelEncoder()).failed == 3
    picture(50).save(mended)
    gone.unlink()
    (photos / "dangling.png").unlink()
    # Errors in other folders are not this run's business.
    assert ingest(ingested.engine, [photos / "cats"], PixelEncoder()).failed == 0
    assert len(ingested.collection().errors()) == 3
    assert counts(ingest(ingested.engine, [photos], PixelEncoder())) == {
        "added": 1,
        "unchanged": 12,
    }
    assert ingested.collection().errors() == []


def test_an_error_is_forgotten_when_the_file_is_what_it_was(
    ingested: Library, photos: Path
) -> None:
    file = photos / "cats" / "01.png"
    aside = file.rename(photos / "aside")
    file.write_text("half a down")
    assert ingest(ingested.engine, [photos], PixelEncoder()).failed == 1
    aside.rename(file)
    assert counts(ingest(ingested.engine, [photos], PixelEncoder())) == {"unchanged": 12}
    assert ingested.collection().errors() == []


def test_every_copy_of_an_unreadable_file_is_recorded(library: Library, photos: Path) -> None:
    for number in range(10):
        (photos / f"{number}.png").write_text("not a picture")
    encoder = PixelEncoder()
    assert counts(ingest(library.engine, [photos], encoder)) == {"added": 12, "failed": 10}
    assert len(library.collection().errors()) == 10
    (photos / "0.png").unlink()
    assert counts(ingest(library.engine, [photos], encoder)) == {"unchanged": 12, "failed": 9}
    assert len(library.collection().errors()) == 9


def test_only_unreadable_files_make_no_collection_and_load_no_encoder(
    library: Library, tmp_path: Path
) -> None:
    def load() -> PixelEncoder:
        raise AssertionError("the encoder was loaded")

    for number in range(10):
        (tmp_path / f"{number}.png").write_text(f"{number} is no picture")
    assert counts(ingest(library.engine, [tmp_path], LazyEncoder(load))) == {"failed": 10}
    assert library.collections() == []
    assert len(library.collection().errors()) == 10


def test_a_good_copy_of_what_a_broken_file_used_to_be_is_stored(
    ingested: Library, photos: Path
) -> None:
    broken = photos / "cats" / "01.png"
    # In the run's last batch, long after the broken file's.
    (photos / "zoo").mkdir()
    backup = Path(shutil.copy(broken, photos / "zoo"))
    for number in range(20, 30):
        picture(number).save(photos / "dogs" / f"{number}.png")
    broken.write_text("not a picture")
    for _ in range(2):
        assert ingest(ingested.engine, [photos], PixelEncoder()).failed == 1
        assert str(backup) in paths(ingested)
        assert set(reasons(ingested)) == {"01.png"}


def test_a_file_that_cannot_be_read_any_more_keeps_its_row(ingested: Library, photos: Path) -> None:
    (photos / "cats" / "01.png").write_text("half written")
    summary = ingest(ingested.engine, [photos], PixelEncoder(), prune=True)
    assert counts(summary) == {"unchanged": 11, "failed": 1}
    assert str(photos / "cats" / "01.png") in paths(ingested)
    (note,) = summary.notes
    assert note == "The files of 1 row cannot be read any more; the former content stays."
    (photos / "new.png").write_text("not a picture")
    ingest(ingested.engine, [photos], PixelEncoder())
    found = {Path(error.path).name: error.stored for error in ingested.collection().errors()}
    assert found == {"01.png": True, "new.png": False}


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody whom permissions hold back, even where the tests run as root."""

    def read(path: str, *, keep: int, max_pixels: int) -> Source | Unreadable:
        # Somebody else may not be allowed to start this interpreter as a worker.
        return reading.hashed(path, keep=keep, most=reading.most_bytes(max_pixels))

    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with patch.object(pictures, "read", read):
            yield
    finally:
        os.seteuid(user)


@pytest.fixture
def locked(library: Library) -> Iterator[Path]:
    """A folder of four pictures, all ingested; two are in a folder `locked` that now is."""
    # Not tmp_path, which only its owner can enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "locked").mkdir()
        for number in range(4):
            picture(number).save(folder / ("locked" if number % 2 else ".") / f"{number}.png")
        folder.chmod(0o755)
        assert counts(ingest(library.engine, [folder], PixelEncoder())) == {"added": 4}
        (folder / "locked").chmod(0)
        yield folder
        (folder / "locked").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_recorded_and_not_pruned(
    library: Library, locked: Path
) -> None:
    with unprivileged():
        summary = ingest(library.engine, [locked], PixelEncoder(), prune=True)
    assert counts(summary) == {"unchanged": 2, "failed": 1}
    assert reasons(library) == {"locked": "Permission denied."}
    assert len(paths(library)) == 4
    (locked / "locked").chmod(0o755)
    summary = ingest(library.engine, [locked], PixelEncoder(), prune=True)
    assert counts(summary) == {"unchanged": 4}
    assert library.collection().errors() == []


def test_a_copy_of_a_file_that_cannot_be_looked_at_is_no_move(
    library: Library, locked: Path
) -> None:
    picture(1).save(locked / "copy.png")
    with unprivileged():
        summary = ingest(library.engine, [locked], PixelEncoder(), prune=True)
    assert counts(summary) == {"copied": 1, "unchanged": 2, "failed": 1}
    assert len(paths(library)) == 5


def test_a_file_without_permission_is_recorded(library: Library, locked: Path) -> None:
    picture(9).save(locked / "secret.png")
    (locked / "secret.png").chmod(0)
    with unprivileged():
        assert ingest(library.engine, [locked], PixelEncoder()).failed == 2
    assert reasons(library)["secret.png"] == "Permission denied."


def test_a_name_that_is_not_unicode_is_recorded(library: Library, photos: Path) -> None:
    for folder in (os.fsencode(photos), os.fsencode(photos) + b"/caf\xe9"):
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - bytes
        with open(folder + b"/\xff.png", "wb") as file:  # noqa: PTH123 - bytes
            file.write(b"anything")
    summary = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert counts(summary) == {"added": 12, "failed": 2}
    assert {error.error for error in library.collection().errors()} == {
        "Its name is not valid UTF-8; rename it."
    }


def test_a_root_whose_name_is_not_unicode_is_refused(library: Library, photos: Path) -> None:
    root = os.fsencode(photos) + b"/caf\xe9"
    os.makedirs(root)  # noqa: PTH103 - bytes
    with pytest.raises(InvalidInput, match="not valid UTF-8"):
        library.collection().ingest([os.fsdecode(root)])


def test_a_folder_that_cannot_be_listed_may_have_any_name(library: Library, locked: Path) -> None:
    (locked / "locked").rename(os.fsdecode(os.fsencode(locked) + b"/caf\xe9"))
    try:
        with unprivileged():
            summary = ingest(library.engine, [locked], PixelEncoder())
    finally:
        Path(os.fsdecode(os.fsencode(locked) + b"/caf\xe9")).rename(locked / "locked")
    assert counts(summary) == {"unchanged": 2, "gone": 2, "failed": 1}
    assert set(reasons(library)) == {r"caf\xe9"}


class Spoilt(PixelEncoder):
    """Spoils the first embedding of each batch."""

    def __init__(self, spoil: "Callable[[NDArray[np.float32]], None]") -> None:
        super().__init__()
        self.spoil = spoil

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        embeddings = super().embed(batch)
        self.spoil(embeddings[0])
        return embeddings


@once
@pytest.mark.parametrize(
    ("value", "everywhere", "reason"),
    [
        (0.0, True, "The encoder's output is all zeros, which has no direction to compare."),
        (1e-8, True, "The encoder's output is all zeros, which has no direction to compare."),
        (np.nan, False, "The encoder's output has numbers that are not finite."),
        (-np.inf, False, "The encoder's output has numbers that are not finite."),
        (65_520, False, "The encoder's output is too large for half precision."),
        (-70_000, False, "The encoder's output is too large for half precision."),
    ],
)
def test_an_embedding_that_cannot_be_found_again_is_a_failure_of_its_file_alone(
    library: Library, photos: Path, value: float, everywhere: bool, reason: str
) -> None:
    def spoil(embedding: "NDArray[np.float32]") -> None:
        embedding[:] = value if everywhere else embedding
        embedding[7] = value

    summary = ingest(library.engine, [photos], Spoilt(spoil))
    assert counts(summary) == {"added": 8, "failed": 4}
    assert [error.error for error in library.collection().errors()] == [reason] * 4
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 4, "unchanged": 8}
    assert library.collection().errors() == []


def test_the_largest_and_the_smallest_half_precision_numbers_are_stored(
    library: Library, photos: Path
) -> None:
    def spoil(embedding: "NDArray[np.float32]") -> None:
        embedding[:] = 0
        embedding[:2] = (65_504, 6e-8)

    assert counts(ingest(library.engine, [photos], Spoilt(spoil))) == {"added": 12}
    hits = library.query(photos / "cats" / "01.png", k=12).hits
    assert [hit.distance == 0.0 for hit in hits] == [True] * 4 + [False] * 8
