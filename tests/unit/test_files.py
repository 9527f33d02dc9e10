"""Result files are written whole or not at all, and slow files are waited for with a word."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole
from vecsearch.ingest import formats
from vecsearch.search.questions.pictures import Picture


def test_a_name_of_the_greatest_length_is_written(tmp_path: Path) -> None:
    file = tmp_path / ("é" * 125 + ".csv")
    require_writable(file)
    with written_whole(file) as partial:
        partial.write_text("whole")
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [(file.name, "whole")]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / ("é" * 200)
    with pytest.raises(InvalidInput, match="cannot be written"):
        require_writable(file)
    with pytest.raises(InvalidInput, match="cannot be written"), written_whole(file) as partial:
        partial.write_text("whole")
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_a_process_do_not_share_a_partial_file(tmp_path: Path) -> None:
    file = tmp_path / "sheet.html"
    with written_whole(file) as one, written_whole(file) as other:
        assert one.parent == other.parent == tmp_path
        one.write_text("one")
        other.write_text("other")
    assert file.read_text() == "one"


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "mine.partial").touch()
    (tmp_path / ".9-other.partial").touch()
    writing = """
import os, signal, sys
from pathlib import Path
from vecsearch.files import written_whole
with written_whole(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", writing, tmp_path / "e.csv"], check=False)
        assert len(list(tmp_path.iterdir())) == 3
    with written_whole(tmp_path / "e.csv") as partial:
        partial.write_text("whole")
        with written_whole(tmp_path / "other.csv") as other:
            other.write_text("other")
        assert partial.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".9-other.partial",
        "e.csv",
        "mine.partial",
        "other.csv",
    ]


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    link.symlink_to(file)
    with written_whole(link) as partial:
        partial.write_text("after")
    assert (link.is_symlink(), file.read_text()) == (True, "after")


def test_a_pipe_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    # As any user but root finds /dev.
    monkeypatch.setattr(os, "access", lambda path, _: not Path(path).is_dir())
    reading, writing = os.pipe()
    file = Path(f"/dev/fd/{writing}")
    require_writable(file)
    with written_whole(file) as target:
        target.write_text("whole")
    os.close(writing)
    assert os.read(reading, 10) == b"whole"
    os.close(reading)


class Writer(logging.Handler):
    """Writes to a pipe as soon as somebody has said that they wait for it."""

    def __init__(self, pipe: Path, content: bytes) -> None:
        super().__init__()
        self.said: list[str] = []
        self.has_said = threading.Event()
        self._pipe = pipe
        self._content = content
        threading.Thread(target=self._write, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.has_said.set()

    def _write(self) -> None:
        self.has_said.wait(30)  # without a word, the test fails rather than hangs
        self._pipe.write_bytes(self._content)


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("vecsearch.files.SAY_AFTER_S", 0.05)
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    return path


@contextmanager
def written_once_waited_for(pipe: Path, content: bytes) -> Iterator[None]:
    writer, logger = Writer(pipe, content), logging.getLogger("vecsearch.files")
    logger.addHandler(writer)
    try:
        yield
    finally:
        logger.removeHandler(writer)
    assert writer.said == [f"Waiting for the file {pipe}."]


def test_a_picture_in_a_pipe_is_waited_for_with_a_word(pipe: Path) -> None:
    with written_once_waited_for(pipe, b"a picture"):
        assert Picture.read(pipe).content == b"a picture"


def test_embeddings_in_a_pipe_are_waited_for_with_a_word(pipe: Path) -> None:
    with written_once_waited_for(pipe, b"a.png,1,2\n"), formats.open_file(pipe) as contents:
        assert [block.paths for block in contents.blocks] == [["a.png"]]
