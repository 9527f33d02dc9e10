"""Odd worlds: long and odd paths, folders and files that change during a run, clocks that jump."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import PixelEncoder, citus, counts, ingest, picture, png, run_command, scalar

from vecsearch.library import Library

pytestmark = citus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def deep(folder: Path, length: int) -> Path:
    """Make folders below a folder until paths have a length; return the last one."""
    here = os.open(folder, os.O_RDONLY)
    while (left := length - len(os.fsencode(folder))) > 1:
        name = "x" * min(left - 1, 200)
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, folder = below, folder / name
    os.close(here)
    return folder


def test_paths_as_long_as_they_may_be_are_ingested_and_recorded(
    library: Library, tmp_path: Path
) -> None:
    folder = deep(tmp_path, 4_000)
    (folder / "1.png").write_bytes(png(1))
    (folder / "new\nline \x1b[31m.png").write_bytes(png(2))
    (folder / "broken.png").write_text("not a picture")
    for expected in ({"added": 2, "failed": 1}, {"unchanged": 2, "failed": 1}):
        assert counts(ingest(library.engine, [tmp_path], PixelEncoder(), prune=True)) == expected
    assert len(str(folder)) == 4_000
    assert [error.path for error in library.collection().errors()] == [str(folder / "broken.png")]
    assert library.query(folder / "1.png", k=1).hits[0].path == str(folder / "1.png")
    for file in folder.iterdir():
        file.unlink()
    code, _, err = run_command(library, "forget", tmp_path, "--yes")
    assert (code, err) == (0, "")
    assert scalar(library, "SELECT count(*) FROM images") == 0
    assert library.collection().errors() == []


def test_a_folder_that_moves_while_it_is_walked_loses_nothing(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    listed = os.scandir

    def moving(path: str) -> object:
        if path == str(photos / "cats"):
            (photos / "dogs").rename(photos / "wolves")
            monkeypatch.setattr(os, "scandir", listed)
        return listed(path)

    monkeypatch.setattr(os, "scandir", moving)
    summary = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert counts(summary) == {"unchanged": 6, "failed": 1}
    assert scalar(library, "SELECT count(*) FROM images") == 12
    again = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert counts(again) == {"unchanged": 6, "moved": 6}
    assert library.collection().errors() == []


class Meanwhile(PixelEncoder):
    """Does something when it embeds for the first time."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do: Callable[[], object] | None = do

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        if self.do is not None:
            self.do()
            self.do = None
        return super().embed(batch)


@pytest.mark.usefixtures("small_chunks")
def test_files_that_change_between_the_walk_and_the_read_heal(
    library: Library, photos: Path
) -> None:
    files = sorted((photos / "dogs").iterdir())

    def change() -> None:
        files[-1].unlink()
        files[-2].write_bytes(b"half")
        files[-3].write_bytes(png(90))
        files[-4].rename(photos / "dogs" / "aa.png")

    ingest(library.engine, [photos], Meanwhile(change), prune=True)
    files[-2].write_bytes(png(91))
    summary = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert summary.failed == 0
    with library.sql("SELECT path FROM images ORDER BY path") as (_, rows, _):
        assert [path for (path,) in rows] == sorted(map(str, photos.glob("*/*")))
    for file in photos.glob("*/*"):
        (hit,) = library.query(file, k=1).hits
        assert hit.path == str(file)
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"unchanged": 11}
    assert library.collection().errors() == []


def test_clocks_that_go_backwards_hide_no_change(library: Library, photos: Path) -> None:
    file = photos / "cats" / "01.png"
    # The first year, the last one, and one that the database cannot hold.
    for number, seconds in enumerate((4_000_000_000, 1_000_000_000, 0, -3_000_000_000, 2**33)):
        picture(100 + number).save(file)
        os.utime(file, (seconds, seconds))
        assert ingest(library.engine, [photos], PixelEncoder()).failed == 0
        (hit,) = library.query(file, k=1).hits
        assert (hit.path, hit.distance) == (str(file), 0.0)
        assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"unchanged": 12}
