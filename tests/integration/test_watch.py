"""Folders that are watched: what comes, changes, moves and goes while the command runs."""

import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import counts, once, picture, run_command, scalar

from vecsearch.ingest import resuming
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

pytestmark = once
# A watcher that has not noticed after so long never will.
PATIENCE_S = 120.0


@dataclass
class Watcher:
    """A running `vecsearch watch`, and what it has said."""

    process: subprocess.Popen[bytes]
    said_in: Path

    def said(self) -> list[str]:
        """Return its lines, those of an ingest without the time."""
        lines = self.said_in.read_text().splitlines()
        return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in lines]

    def until(self, expected: Any, found: Callable[[], Any]) -> None:
        """Wait for what is found to be as expected."""
        deadline = time.monotonic() + PATIENCE_S
        while (now := found()) != expected:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, (now, self.said())
            time.sleep(0.05)

    def until_said(self, line: str) -> None:
        self.until(True, lambda: line in self.said())


@pytest.fixture
def watching(
    library: Library, small_model: str, weights: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Return what starts a watcher of a folder, which has ingested it once."""

    @contextmanager
    def start(folder: Path, *words: str) -> Iterator[Watcher]:
        command = [sys.executable, "-m", "vecsearch", "watch", str(folder), *words]
        command += ["--model", small_model, "--weights", str(weights)]
        command += ["--database-url", library.url]
        said_in = tmp_path / "said"
        with said_in.open("wb") as said, subprocess.Popen(command, stderr=said) as process:
            try:
                watcher = Watcher(process, said_in)
                watcher.until_said(f"Watching {folder} until Ctrl-C.")
                yield watcher
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE_S) == 0
                assert watcher.said()[-1] == "Stopped."
            finally:
                process.kill()

    return start


def test_rows_follow_the_files_of_a_folder(
    library: Library, watching: Callable[..., Any], photos: Path
) -> None:
    def rows(where: str) -> Any:
        return scalar(library, f"SELECT count(*) FROM images WHERE {where}")

    def errors() -> Any:
        return scalar(library, "SELECT count(*) FROM ingest_errors")

    with watching(photos, "--prune") as watcher:
        assert watcher.said()[0] == "12 added"
        assert re.match(r"\d\d:\d\d:\d\d  12 added\n", watcher.said_in.read_text())
        half, whole = photos / "cats" / "late.png", photos / "cats" / "99.png"
        picture(99, (300, 300)).save(whole)
        watcher.until(1, lambda: rows("path LIKE '%/cats/99.png'"))
        # A copy that is still being made is an error, until the rest comes.
        picture(98, (300, 300)).save(photos / "hidden.tmp", "PNG")
        content = (photos / "hidden.tmp").read_bytes()
        half.write_bytes(content[: len(content) // 2])
        watcher.until(1, errors)
        half.write_bytes(content)
        watcher.until(1, lambda: rows("path LIKE '%/cats/late.png'"))
        watcher.until(0, errors)
        # Its content changes.
        picture(97).save(whole)
        watcher.until(64, lambda: scalar(library, _width(whole)))
        # A folder moves, into one with odd characters.
        moved = photos / "été 100%"
        (photos / "cats").rename(moved)
        watcher.until(8, lambda: rows(f"path LIKE '{photos}/été 100\\%/%'"))
        assert (rows("true"), rows("path LIKE '%/cats/%'")) == (14, 0)
        watcher.until(True, lambda: any(line.startswith("8 moved") for line in watcher.said()))
        (moved / "99.png").unlink()
        watcher.until(13, lambda: rows("true"))
        # More than may be deleted unasked: that is said, and watching goes on.
        shutil.rmtree(moved)
        shutil.rmtree(photos / "dogs")
        watcher.until(True, lambda: any("needs a yes" in line for line in watcher.said()))
        assert rows("true") >= 6
        picture(96).save(photos / "new.png")
        watcher.until(1, lambda: rows("path LIKE '%/new.png'"))


def _width(file: Path) -> str:
    return f"SELECT width FROM images WHERE id = '{image_id(str(file))}'"


def test_rows_of_files_that_go_stay_without_prune(
    library: Library, watching: Callable[..., Any], photos: Path
) -> None:
    with watching(photos) as watcher:
        (photos / "cats" / "01.png").unlink()
        watcher.until_said("11 unchanged, 1 gone")
        hint = (
            f"The files of 1 row are gone. To delete these rows: vecsearch ingest --prune {photos}"
        )
        (photos / "readme.txt").write_text("no picture")
        (photos / ".hidden.png").write_bytes(b"no picture either")
        picture(50).save(photos / "50.png")
        watcher.until_said("1 added, 11 unchanged, 1 gone")
        assert watcher.said().count(hint) == 1
        # What is no picture makes no line of its own.
        summaries = [line for line in watcher.said() if "unchanged" in line]
        assert summaries == ["11 unchanged, 1 gone", "1 added, 11 unchanged, 1 gone"]
    assert scalar(library, "SELECT count(*) FROM images") == 13


def test_a_database_that_goes_away_between_two_changes_is_waited_for(
    library: Library, server_url: str, photos: Path, small_model: str, weights: Path
) -> None:
    def accept(accepting: bool) -> None:
        name = library.engine.url.database
        with psycopg.connect(server_url, autocommit=True) as connection:
            change = f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {accepting}"
            connection.execute(change.encode())

    class Back(logging.Handler):
        """Brings the database back as soon as somebody says that it is missed."""

        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            accept(True)

    said: list[str] = []
    handler, logger = Back(), logging.getLogger(resuming.__name__)
    logger.addHandler(handler)
    try:
        summaries = library.collection().watch(photos, model=small_model, weights=weights)
        assert counts(next(summaries)) == {"added": 12}
        library.engine.dispose()
        accept(False)
        picture(70).save(photos / "70.png")
        found = next(summaries)
    finally:
        logger.removeHandler(handler)
        accept(True)
    assert counts(found) == {"added": 1, "unchanged": 12}
    assert found.notes == ("The database was lost once during the run, which then went on.",)
    assert [line.endswith("Going on in 1 s.") for line in said] == [True]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("s3://bucket/photos", "only folders of this machine can be watched"),
        ("ZIP://x", "only folders of this machine can be watched"),
        ("nothing", "does not exist. Check the path."),
        ("photos/cats/01.png", "is a file, and only folders can be watched"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    code, out, err = run_command(library, "watch", path)
    assert (code, out) == (1, "")
    assert sentence in err
    assert err.count("\n") == 1
