"""Tables fit the terminal, and break neither headers nor paths."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from vecsearch.render import tables

HITS = [
    {
        "rank": rank,
        "distance": rank / 7,
        "similarity": 1 - rank / 7,
        "label": None,
        "path": f"/photos/holidays/2019/by the sea/camera {rank}/originals/IMG_{rank:04}.jpg",
    }
    for rank in range(1, 12)
]


def written(rows: Sequence[Mapping[str, Any]], width: int | None, **more: Any) -> list[str]:
    out = io.StringIO()
    tables.write(out, [dict(row) for row in rows], list(rows[0]), width=width, **more)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_hits_fit_eighty_columns_on_one_line_each() -> None:
    header, rule, *lines = written(HITS, 80)
    assert header.split() == ["rank", "distance", "similarity", "path"]
    assert set(rule) == {"─", " "} or set(rule) == {"─"}
    assert len(lines) == len(HITS)
    for row, line in zip(HITS, lines, strict=True):
        assert cell_len(line) <= 80
        assert line.endswith(f"IMG_{row['rank']:04}.jpg")
        assert f"/camera {row['rank']}/originals" in line
        assert "  /photos/…/" in line
    assert lines[0].split()[:3] == ["1", "0.14", "86%"]


def test_a_pipe_gets_whole_paths() -> None:
    assert [line.split("  ")[-1].strip() for line in written(HITS, None)[2:]] == [
        row["path"] for row in HITS
    ]


def test_paths_below_the_current_folder_are_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"path": str(tmp_path / "a" / "b.jpg")}, {"path": "/elsewhere/c.jpg"}]
    rows += [{"path": "s3://bucket/d.jpg"}]
    assert written(rows, 80)[2:] == ["a/b.jpg", "/elsewhere/c.jpg", "s3://bucket/d.jpg"]


def test_a_current_folder_that_is_gone_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert written([{"path": "/a/b.jpg"}], 80)[2:] == ["/a/b.jpg"]


def test_columns_without_values_are_left_out_unless_they_were_asked_for() -> None:
    rows: list[dict[str, Any]] = [{"name": name, "note": None, "tags": []} for name in "ab"]
    assert written(rows, 80)[0] == "name"
    assert written(rows, 80, hides_empty=False)[0].split() == ["name", "note", "tags"]
    assert written([{"name": None}], 80, hides_empty=False)[2:] == ["–"]


def test_sentences_wrap_at_words_before_anything_becomes_a_paragraph() -> None:
    rows = [{"path": "/a/b.jpg", "error": "the picture could not be decoded " * 4, "tries": 12_345}]
    header, _, *lines = written(rows, 60)
    assert header.split() == ["path", "error", "tries"]
    assert lines[0].startswith("/a/b.jpg")
    assert lines[0].endswith("12,345")
    assert len(lines) > 1
    assert all(word in "the picture could not be decoded" for word in lines[1].split())


def test_rows_that_do_not_fit_become_paragraphs() -> None:
    rows = [{f"column_{number}": "x" * 30 for number in range(6)} for _ in range(2)]
    lines = written(rows, 80)
    assert lines[0] == f"column 0  {'x' * 30}"
    assert lines[6] == ""
    assert len(lines) == 13


@pytest.mark.parametrize(
    ("path", "width", "short"),
    [
        ("/a/b.jpg", 20, "/a/b.jpg"),
        ("/holidays/2019/sea/a.jpg", 21, "/holidays/…/sea/a.jpg"),
        ("/holidays/2019/sea/a.jpg", 16, "…/2019/sea/a.jpg"),
        ("holidays/2019/sea/a.jpg", 20, "holidays/…/sea/a.jpg"),
        ("/holidays/2019/sea/a.jpg", 7, "…/a.jpg"),
        ("a-very-long-name-of-a-picture.jpg", 12, "a-very…e.jpg"),
        ("/x/海辺の写真の長い名前.jpg", 16, "海辺の写…前.jpg"),
        ("/x/海辺の写真の長い名前.jpg", 2, "…"),
    ],
)
def test_a_path_loses_its_middle(path: str, width: int, short: str) -> None:
    assert tables.shortened(path, width) == short
    assert cell_len(short) <= width


values = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=60), st.lists(st.text(max_size=5))
)


@given(
    st.lists(st.fixed_dictionaries({"path": st.text(max_size=90), "n": values, "text": values})),
    st.integers(20, 120),
)
def test_whatever_is_in_it_a_grid_is_no_wider(rows: list[dict[str, Any]], width: int) -> None:
    if not rows:
        return
    lines = written(rows, width)
    if len(lines) > 1 and "─" in lines[1] and set(lines[1]) <= {"─", " "}:
        assert all(cell_len(line) <= width for line in lines)
