"""A share that stops answering: mounted with FUSE, and skipped where that is not possible."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from reliability.share import PIECE, SLOW_S, Manner, Shared, mounted
from support import PixelEncoder, counts, ingest, png

from vecsearch.imaging import stalls
from vecsearch.imaging.scan import GIVEN_UP
from vecsearch.ingest.stages.pipeline import KEPT_BYTES
from vecsearch.library import Library

NO_ANSWER = "It did not answer within 2 s."


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for the share than users do."""
    monkeypatch.setattr(stalls, "STALL_S", 2)


@contextmanager
def shared(folder: Path, files: Mapping[str, Shared], *, listed: bool = True) -> Iterator[None]:
    """Mount a share, or skip the test."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as resources:
        try:
            resources.enter_context(mounted(folder, files, listed=listed))
        except OSError as error:
            pytest.skip(f"FUSE cannot be mounted: {error}")
        yield


def stored(library: Library) -> set[str]:
    with library.sql("SELECT path FROM images") as (_, rows, _):
        return {path for (path,) in rows}


def reasons(library: Library) -> dict[str, str]:
    return {error.path: error.error for error in library.collection().errors()}


def test_a_prune_deletes_nothing_under_a_folder_whose_listing_stalls(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    files = {f"{seed}.png": Shared(png(seed)) for seed in range(20, 23)}
    with shared(share, files):
        ingest(library.engine, [photos, share], PixelEncoder())
    before = stored(library)
    gone = photos / "cats" / "01.png"
    gone.unlink()
    with shared(share, files, listed=False):
        summary = ingest(library.engine, [photos, share], PixelEncoder(), prune=True)
        assert reasons(library) == {str(share): NO_ANSWER}
    assert (summary.pruned, summary.failed) == (1, 1)
    assert stored(library) == before - {str(gone)}
    with shared(share, files):
        ingest(library.engine, [photos, share], PixelEncoder(), prune=True)
    assert reasons(library) == {}


def test_files_that_stall_are_recorded_and_the_others_stored(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    files = {f"{seed}.png": Shared(png(seed)) for seed in range(20, 26)}
    files["22.png"] = Shared(png(22), Manner.STALLED)
    with shared(share, files):
        summary = ingest(library.engine, [share, photos], PixelEncoder())
    assert counts(summary) == {"added": 17, "failed": 1}
    assert reasons(library) == {str(share / "22.png"): NO_ANSWER}


def test_a_file_that_arrives_slowly_is_waited_for(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    # Beyond what is kept, so that it is read for its hash, and then to be decoded.
    content = png(20) + bytes(2 * KEPT_BYTES)
    assert SLOW_S * len(content) / PIECE > stalls.STALL_S + 1
    with shared(share, {"20.png": Shared(content, Manner.SLOW)}):
        assert counts(ingest(library.engine, [share], PixelEncoder())) == {"added": 1}


def test_a_share_on_which_many_files_stall_is_given_up(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    stalled = [f"{seed}.png" for seed in range(20, 40)]
    files = {name: Shared(png(int(name[:2])), Manner.STALLED) for name in stalled}
    with shared(share, {**files, "90.png": Shared(png(90))}):
        summary = ingest(library.engine, [share, photos], PixelEncoder())
        found = reasons(library)
    assert counts(summary) == {"added": 12, "failed": 21}
    waited = [path for path, reason in found.items() if reason == NO_ANSWER]
    # Each reading thread may have begun one more.
    most = stalls.MOST_STALLS + (os.cpu_count() or 1) - 1
    assert stalls.MOST_STALLS <= len(waited) <= min(most, 20)
    assert set(found.values()) == {NO_ANSWER, GIVEN_UP}
    assert found[str(share / "90.png")] == GIVEN_UP
