"""Videos: each is a folder of its key frames, read by workers; and what is wrong with some."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PixelEncoder, counts, ingest, once, picture, run_command, scalar
from video_support import BLUE, CREATED, GREEN, RED, film, plain, seconds

from vecsearch.errors import InvalidInput
from vecsearch.imaging import formats
from vecsearch.imaging.processes.pool import Pool
from vecsearch.imaging.sources import containers, videos
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

pytestmark = once
COLOURS = [RED, GREEN, BLUE]
CRASHING = """
import os, signal
from vecsearch.imaging import worker
from vecsearch.imaging.processes import child

CRASH = {crash}

def main():
    child.serve(job)

def job(channel, message):
    if CRASH.items() <= message[0].items():
        os.kill(os.getpid(), signal.SIGSEGV)
    worker._do(channel, message)
"""


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    said = {"creation_time": CREATED}
    return film(tmp_path / "holiday.mp4", seconds(COLOURS), between=3, metadata=said)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What workers are asked about videos, in order."""
    found: list[str] = []
    pool = Pool("vecsearch.imaging.worker", 2)
    plainly = pool.ask

    def noting(fields: dict[str, Any], *args: Any, **options: Any) -> Any:
        found.append(fields["do"])
        return plainly(fields, *args, **options)

    monkeypatch.setattr(pool, "ask", noting)
    monkeypatch.setattr(videos, "WORKERS", pool)
    yield found
    pool.close()


def paths(library: Library) -> list[str]:
    with library.sql("SELECT path FROM images ORDER BY path") as (_, rows, _):
        return [row[0] for row in rows]


def errors(library: Library) -> dict[str, str]:
    with library.sql("SELECT path, error FROM ingest_errors ORDER BY 1") as (_, rows, _):
        return {row[0]: row[1] for row in rows}


def test_a_video_is_a_folder_of_its_key_frames(
    library: Library, holiday: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counts(ingest(library.engine, [holiday], PixelEncoder())) == {"added": 3}
    names = [f"video://{holiday}/00:00:0{second}.000" for second in range(3)]
    assert paths(library) == names
    with library.sql(
        "SELECT id, format, width, height, label, taken_at::text FROM images ORDER BY path"
    ) as (_, rows, _):
        assert [*rows] == [
            (image_id(name), "VIDEO", 160, 96, "holiday.mp4", f"2024-05-06 07:08:{9 + second:02}")
            for second, name in enumerate(names)
        ]
    # All ways to name it are the same; what is known is listed, and not decoded again.
    asked.clear()
    monkeypatch.chdir(holiday.parent)
    for path in (holiday.name, f"VIDEO://{holiday}/", f"video://{holiday.name}", str(holiday)):
        assert counts(ingest(library.engine, [path], PixelEncoder())) == {"unchanged": 3}
    assert counts(ingest(library.engine, [names[1]], PixelEncoder())) == {"unchanged": 1}
    assert set(asked) <= {"frames"}


def test_a_frame_is_asked_for(library: Library, holiday: Path) -> None:
    ingest(library.engine, [holiday], PixelEncoder())
    url = f"video://{holiday}/00:00:01.000"
    for words in ([url], ["--id", url]):
        code, out, _ = run_command(library, "query", *words, "-k", "1", "--format", "paths")
        assert (code, out) == (0, f"{url}\n")
    assert library.collection().thumbnail(image_id(url)) is not None
    for name, reason in {"00:00:01.001": "It has no such key frame.", "x": "No such file."}.items():
        code, out, err = run_command(library, "query", f"video://{holiday}/{name}")
        assert (code, out) == (1, "")
        assert f"{holiday}/{name} cannot be read: {reason}" in err
    code, _, err = run_command(library, "query", holiday)
    assert code == 1
    assert f"{holiday} is a video. Ingest it, or name a picture in it: {url[:-12]}…" in err


def test_what_changes_is_noticed(library: Library, holiday: Path) -> None:
    ingest(library.engine, [holiday], PixelEncoder())
    moved = holiday.rename(holiday.with_name("moved.mp4"))
    assert counts(ingest(library.engine, [moved], PixelEncoder())) == {"moved": 3}
    film(moved, seconds([RED, BLUE]))
    os.utime(moved, ns=(0, 1_700_000_000_000_000_000))
    found = counts(ingest(library.engine, [moved], PixelEncoder()))
    assert found == {"updated": 2, "gone": 1}
    found = counts(ingest(library.engine, [moved], PixelEncoder(), prune=True))
    assert found == {"unchanged": 2, "pruned": 1}
    moved.unlink()
    code, _, err = run_command(library, "ingest", moved, "--prune", "--yes")
    assert code == 1
    assert "has 2 rows from it" in err
    assert run_command(library, "forget", moved, "--yes", "--format", "table")[:2] == (
        0,
        "deleted 2 rows, 0 errors\n",
    )


def test_a_video_that_cannot_be_read_keeps_no_other_from_that(
    library: Library, holiday: Path
) -> None:
    ingest(library.engine, [holiday], PixelEncoder())
    folder = holiday.parent
    (folder / "garbage.mov").write_bytes(b"garbage")
    film(folder / "sound.mp4", [], sound=True)
    good = film(folder / "good.mkv", seconds([RED]))
    holiday.write_bytes(holiday.read_bytes()[:900])
    named = [folder / "garbage.mov", folder / "sound.mp4", holiday, good]
    found = ingest(library.engine, named, PixelEncoder(), prune=True)
    # What was stored of a video that is damaged now stays.
    assert counts(found) == {"added": 1, "failed": 3}
    assert scalar(library, "SELECT count(*) FROM images") == 4
    reason = (
        "It is damaged, or no video that can be read: Invalid data found when processing input."
    )
    assert errors(library) == {
        f"video://{folder}/garbage.mov": reason,
        f"video://{holiday}": reason,
        f"video://{folder}/sound.mp4": "It has no pictures, only sound.",
    }


@pytest.mark.parametrize(
    ("crash", "added", "failed"),
    [
        ({"do": "frames"}, 1, "video://{holiday}"),
        ({"do": "frame", "ms": 1_000}, 3, "video://{holiday}/00:00:01.000"),
    ],
    ids=["listing", "decoding"],
)
def test_a_crash_costs_the_video_or_the_frame(
    library: Library,
    holiday: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crash: dict[str, Any],
    added: int,
    failed: str,
) -> None:
    good = film(holiday.with_name("good.mkv"), seconds([RED]))
    (tmp_path / "crashing.py").write_text(CRASHING.format(crash={**crash, "path": str(holiday)}))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    crashing = Pool("crashing", 2)
    monkeypatch.setattr(videos, "WORKERS", crashing)
    found = ingest(library.engine, [holiday, good], PixelEncoder())
    crashing.close()
    assert counts(found) == {"added": added, "failed": 1}
    reason = "It crashed the process that read it (SIGSEGV)."
    assert errors(library) == {failed.format(holiday=holiday): reason}
    monkeypatch.undo()
    again = ingest(library.engine, [holiday, good], PixelEncoder())
    assert counts(again) == {"added": 4 - added, "unchanged": added}
    assert errors(library) == {}


def test_limits_of_pictures_hold_for_frames(library: Library, holiday: Path) -> None:
    found = ingest(library.engine, [holiday], PixelEncoder(), max_pixels=1_000)
    assert counts(found) == {"failed": 3}
    assert set(errors(library).values()) == {
        "It has 0 million pixels; the limit is 0 million (--max-pixels)."
    }


def test_frames_are_duplicates_and_never_files(library: Library, holiday: Path) -> None:
    copy = holiday.with_name("copy.mp4")
    copy.write_bytes(holiday.read_bytes())
    assert counts(ingest(library.engine, [holiday, copy], PixelEncoder())) == {
        "added": 3,
        "copied": 3,
    }
    before = holiday.read_bytes(), copy.read_bytes()
    words = ("duplicates", "--apply", "trash", "--keep", "largest", "--max-distance", "0.0001")
    _, out, err = run_command(library, *words, "--yes", "--format", "ndjson")
    assert "It is no file of its own: it is behind a URL, in an archive or in a video." in out + err
    assert (holiday.read_bytes(), copy.read_bytes()) == before
    assert scalar(library, "SELECT count(*) FROM images") == 6


def test_in_a_folder_they_are_counted_and_not_entered(library: Library, holiday: Path) -> None:
    film(holiday.with_name("other.MOV"), seconds([RED]), codec="mjpeg")
    with zipfile.ZipFile(holiday.with_name("a.zip"), "w"):
        pass
    holiday.with_name("notes.txt").touch()
    picture(1).save(holiday.with_name("1.png"))
    found = ingest(library.engine, [holiday.parent], PixelEncoder())
    assert counts(found) == {"added": 1}
    assert found.notes == (
        "Skipped 1 file without an image suffix.",
        "Skipped 1 zip archive and 2 videos: name them to ingest their pictures.",
    )


def test_without_the_package_its_extra_is_named(
    library: Library, holiday: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library.engine, [holiday], PixelEncoder())
    containers._open.cache_clear()  # noqa: SLF001 - as in another process
    monkeypatch.setattr(formats, "is_installed", lambda package: package != "av")
    monkeypatch.setattr(videos, "is_installed", lambda package: package != "av")
    with pytest.raises(InvalidInput, match=r"Videos need a package: .*vecsearch\[video\]"):
        ingest(library.engine, [holiday], PixelEncoder())
    # Its pictures are still there, as far as anybody can tell.
    assert counts(ingest(library.engine, [holiday.parent], PixelEncoder(), prune=True)) == {}
    assert scalar(library, "SELECT count(*) FROM images") == 3


@pytest.mark.parametrize(
    ("path", "reason"),
    [("video://a.txt", "It names no file that ends in .mp4, "), ("b.mp4", "does not exist")],
)
def test_what_is_no_video_is_a_sentence(library: Library, path: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        ingest(library.engine, [path], PixelEncoder())


def test_folders_may_be_named_as_videos(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "trip.mov" / "a.mp4.d"
    folder.mkdir(parents=True)
    video = film(folder / "b.mp4", seconds([RED]))
    assert counts(ingest(library.engine, [video], PixelEncoder())) == {"added": 1}
    assert counts(ingest(library.engine, [tmp_path / "trip.mov"], PixelEncoder())) == {}
    assert counts(ingest(library.engine, [video], PixelEncoder(), prune=True)) == {"unchanged": 1}


def test_a_long_video_keeps_its_order(library: Library, tmp_path: Path) -> None:
    at = [0, 59_999, 3_600_000, 36_000_000]
    video = film(tmp_path / "a.mkv", [(ms, plain(RED)) for ms in at])
    found = ingest(library.engine, [video], PixelEncoder())
    assert found.added + found.copied == len(at)
    names = ["00:00:00.000", "00:00:59.999", "01:00:00.000", "10:00:00.000"]
    assert paths(library) == [f"video://{video}/{name}" for name in names]
