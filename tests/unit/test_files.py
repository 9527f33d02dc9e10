"""Result files are written whole or not at all, whatever they are called and wherever they go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole


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
