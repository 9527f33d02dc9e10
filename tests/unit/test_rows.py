"""How rows and sizes are written."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from vecsearch.errors import InvalidInput
from vecsearch.render.rows import Format, write_object, write_rows

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    path: str
    distance: float
    at: datetime | None
    metadata: dict[str, Any]


ROWS = [
    Row("/photos/a.png", 0.123456789, WHEN, {"note": "été", "price": 12.5}),
    Row('/photos/b, "c"\n[red].png', 1.0, None, {}),
]
COLUMNS = ["path", "distance", "at", "metadata"]


def printed(rows: Sequence[Any], format_: Format, columns: Sequence[str], **more: Any) -> str:
    out = io.StringIO()
    write_rows(out, rows, format_, columns, **more)
    return out.getvalue()


def test_ndjson_is_one_object_a_line_and_reads_back() -> None:
    lines = printed(ROWS, Format.ndjson, COLUMNS).splitlines()
    assert len(lines) == len(ROWS)
    assert [json.loads(line) for line in lines] == [
        {
            "path": "/photos/a.png",
            "distance": 0.123456789,
            "at": "2024-05-06T07:08:09+00:00",
            "metadata": {"note": "été", "price": 12.5},
        },
        {"path": '/photos/b, "c"\n[red].png', "distance": 1.0, "at": None, "metadata": {}},
    ]


def test_json_is_one_array_that_says_what_ndjson_says() -> None:
    lines = printed(ROWS, Format.ndjson, COLUMNS).splitlines()
    assert json.loads(printed(ROWS, Format.json, COLUMNS)) == [json.loads(line) for line in lines]
    assert json.loads(printed([], Format.json, COLUMNS)) == []


@pytest.mark.parametrize("format_", [Format.json, Format.ndjson])
def test_numbers_that_json_does_not_have_are_null(format_: Format) -> None:
    """The cosine distance to a vector of zeros is NaN, and jq stops at a NaN."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    text = printed([(math.nan, -math.inf, [math.inf])], format_, ["a", "b", "c"])
    [row] = json.loads(f"[{text}]" if format_ is Format.ndjson else text, parse_constant=refuse)
    assert row == {"a": None, "b": None, "c": [None]}


def test_values_that_json_does_not_have_become_text() -> None:
    values = (UUID(int=1), b"\x01\xff", memoryview(b"\x02"), Decimal("1.10"), WHEN.date())
    row = json.loads(printed([values], Format.ndjson, list("abcde")))
    assert row == {
        "a": "00000000-0000-0000-0000-000000000001",
        "b": r"\x01ff",
        "c": r"\x02",
        "d": 1.1,
        "e": "2024-05-06",
    }


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(printed(ROWS, Format.csv, COLUMNS), newline="")))
    assert [row["path"] for row in rows] == [row.path for row in ROWS]
    assert [float(row["distance"]) for row in rows] == [row.distance for row in ROWS]
    assert [row["at"] for row in rows] == ["2024-05-06T07:08:09+00:00", ""]
    assert [json.loads(row["metadata"]) for row in rows] == [row.metadata for row in ROWS]


def test_csv_without_rows_still_names_its_columns() -> None:
    assert printed([], Format.csv, COLUMNS) == "path,distance,at,metadata\n"


@pytest.mark.parametrize("format_", [Format.json, Format.ndjson, Format.csv])
def test_what_was_not_done_says_so(format_: Format) -> None:
    assert "dry_run" not in printed(ROWS, format_, COLUMNS)
    told = printed(ROWS, format_, COLUMNS, dry_run=True)
    assert told.lower().count("true") == len(ROWS)
    out = io.StringIO()
    write_object(out, {"rows": 2}, format_, dry_run=True)
    assert "dry_run" in out.getvalue()
    assert "dry_run" not in printed(ROWS, Format.table, COLUMNS, dry_run=True)


def test_paths_are_alone_on_their_lines() -> None:
    assert printed(ROWS[:1], Format.paths, COLUMNS) == "/photos/a.png\n"
    assert printed([(1, "/b.png")], Format.paths, ["n", "path"]) == "/b.png\n"


@pytest.mark.parametrize("format_", [Format.paths, Format.paths0])
def test_paths_are_all_printed_or_none(format_: Format) -> None:
    out = io.StringIO()
    if format_ is Format.paths0:
        write_rows(out, ROWS, format_, COLUMNS)
        assert out.getvalue() == f"{ROWS[0].path}\0{ROWS[1].path}\0"
        return
    with pytest.raises(InvalidInput, match="line break"):
        write_rows(out, ROWS, format_, COLUMNS)
    assert out.getvalue() == ""


def test_paths_of_rows_that_have_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no path\. Use another --format\."):
        printed([(1,)], Format.paths, ["n"])


def test_a_table_shows_its_columns_and_takes_nothing_for_markup() -> None:
    rows = [("[red]a[/red].png", 0.123456, None), ("b.png", 1.5, 2)]
    header, _, row, _ = printed(rows, Format.table, ["path", "file_size", "n"]).splitlines()
    assert header.split() == ["path", "file", "size", "n"]
    assert row.split() == ["[red]a[/red].png", "0.12", "–"]


def test_a_table_can_leave_columns_out_and_an_empty_one_is_nothing() -> None:
    text = printed(ROWS[:1], Format.table, COLUMNS, table_columns=["distance"])
    assert "0.12" in text
    assert "a.png" not in text
    assert printed([], Format.table, COLUMNS) == ""


@pytest.mark.parametrize("format_", [Format.ndjson, Format.csv])
def test_rows_are_written_as_they_arrive(format_: Format) -> None:
    out = io.StringIO()

    def rows() -> Any:
        yield (1,)
        assert "1" in out.getvalue()
        yield (2,)

    write_rows(out, rows(), format_, ["n"])
    assert out.getvalue().count("\n") == (3 if format_ is Format.csv else 2)


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        (Format.json, '{\n  "added": 3,\n  "at": null\n}\n'),
        (Format.ndjson, '{"added": 3, "at": null}\n'),
        (Format.csv, "added,at\n3,\n"),
    ],
)
def test_one_object_in_each_format(format_: Format, expected: str) -> None:
    out = io.StringIO()
    write_object(out, {"added": 3, "at": None}, format_)
    assert out.getvalue() == expected
