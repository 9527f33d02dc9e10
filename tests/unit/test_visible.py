"""What strangers named reaches a terminal as text, and a pipe as it is."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsearch import cli
from vecsearch.cli import command
from vecsearch.errors import InvalidInput
from vecsearch.render.rows import Format, write_rows
from vecsearch.render.visible import visible

# Clears the screen, writes the clipboard, and reverses what is read.
NAME = "a\x1b[2J\x1b]52;c;eA==\x07\x9b31m\u202egnp.exe\r\t\x7fé\u2028\U000e0041\u200b"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\u2028\u2029]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(out: io.StringIO, name: str, format_: Format) -> str:
    write_rows(out, [(name,)], format_, ["path"])
    return out.getvalue()


def test_what_a_terminal_obeys_is_escaped_and_all_else_is_left() -> None:
    shown = visible(NAME)
    assert not OBEYED.search(shown)
    assert shown.startswith(r"a\x1b[2J\x1b]52;c;eA==\x07\x9b31m\u202egnp.exe\r\t\x7fé\u2028")
    for text in ("plain", "été 日本語 עברית", "👩\u200d🔬", "two\nlines"):
        assert visible(text) == text
    assert visible("two\nlines", keep="") == r"two\nlines"
    assert visible("not UTF-8: \udcff, \ud800") == r"not UTF-8: \xff, \ud800"


@pytest.mark.parametrize("format_", Format)
def test_no_format_hands_a_name_to_a_terminal(format_: Format) -> None:
    shown = written(Terminal(), NAME, format_)
    # A table's own codes of colour begin and end a line of it.
    own = "\x1b\\[[0-9;]*m" if format_ is Format.table else "\0" if format_ is Format.paths0 else ""
    assert not OBEYED.search(re.sub(own, "", shown) if own else shown)
    assert "exe" in shown


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_pipe_gets_what_is_stored(name: str) -> None:
    assert json.loads(written(io.StringIO(), name, Format.ndjson)) == {"path": name}
    assert json.loads(written(Terminal(), name, Format.json)) == [{"path": name}]
    assert written(io.StringIO(), name.replace("\0", ""), Format.paths0) == (
        name.replace("\0", "") + "\0"
    )
    if "\n" in name:
        with pytest.raises(InvalidInput, match="xargs -0"):
            written(io.StringIO(), name, Format.paths)
    else:
        assert written(io.StringIO(), name, Format.paths) == f"{name}\n"


def test_csv_in_a_pipe_reads_back() -> None:
    assert list(csv.reader(io.StringIO(written(io.StringIO(), NAME, Format.csv), newline=""))) == [
        ["path"],
        [NAME],
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["ingest", f"--{NAME}"],
        ["status", "--data-dir", f"~{NAME}"],
        ["status", "--data-dir", f"~{NAME}", "--debug"],
    ],
    ids=["usage", "error", "traceback"],
)
def test_what_a_command_says_about_a_name_is_shown(words: list[str]) -> None:
    leader, follower = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "vecsearch", *words],
        stderr=follower,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    os.close(follower)
    said = b""
    while True:
        try:
            said += os.read(leader, 65_536)
        except OSError:  # its end, on Linux
            break
    os.close(leader)
    text = said.decode().replace("\r\n", "\n")
    assert r"a\x1b[2J" in text
    assert not OBEYED.search(text)


def test_nothing_prints_past_what_makes_it_visible() -> None:
    modules = [file for file in Path(cli.__file__).parent.glob("*.py") if file.name != "command.py"]
    printing = re.compile(r"typer\.(echo|secho)|\bprint\(|sys\.std(out|err)\.write")
    found = {file.name: printing.findall(file.read_text()) for file in modules}
    assert {name for name, uses in found.items() if uses} <= {"progress.py"}


@pytest.mark.parametrize("listed", ["a.png\nb c.png\n", "a.png\r\nb c.png", "a.png\0b c.png\0"])
def test_a_list_of_paths_ends_each_with_a_newline_or_nul(
    listed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    assert command.expand_stdin(["x", "-"]) == ["x", "a.png", "b c.png"]
