"""How rows, sizes and contact sheets are written."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import PIL.Image
import pytest
from support import picture

from vecsearch.errors import InvalidInput
from vecsearch.queries.nearest import Hit
from vecsearch.render import (
    CAPTION,
    MARGIN,
    TILE,
    Format,
    contact_sheet,
    human_bytes,
    save_picture,
    write_object,
    write_rows,
)

MAX_PIXELS = 1_000_000
WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
HEADER = 44


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


def test_paths_are_alone_on_their_lines() -> None:
    assert printed(ROWS[:1], Format.paths, COLUMNS) == "/photos/a.png\n"
    assert printed([(1, "/b.png")], Format.paths, ["n", "path"]) == "/b.png\n"


def test_paths_of_rows_that_have_none_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no path\. Use another --format\."):
        printed([(1,)], Format.paths, ["n"])


def test_a_table_shows_its_columns_and_takes_nothing_for_markup() -> None:
    text = printed([("[red]a[/red].png", 0.123456, None)], Format.table, ["path", "file_size", "n"])
    header, _, row = (line for line in text.splitlines() if line.strip())
    assert header.split() == ["path", "file", "size", "n"]
    assert row.split() == ["[red]a[/red].png", "0.1235", "–"]


def test_a_table_can_leave_columns_out_and_an_empty_one_is_nothing() -> None:
    text = printed(ROWS[:1], Format.table, COLUMNS, table_columns=["distance"])
    assert "0.1235" in text
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


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 kB"),
        (1536, "1.5 kB"),
        (5 * 1024**2, "5.0 MB"),
        (3 * 1024**3, "3.0 GB"),
        (2 * 1024**4, "2.0 TB"),
        (5000 * 1024**4, "5000.0 TB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert human_bytes(size) == words


def hit(rank: int, path: Path) -> Hit:
    return Hit(
        rank=rank,
        id=UUID(int=rank),
        path=str(path),
        distance=rank / 100,
        similarity=1 - rank / 100,
        label=path.parent.name,
        width=64,
        height=48,
        format="PNG",
        file_size=100,
        modified_at=WHEN,
        taken_at=None,
        latitude=None,
        longitude=None,
        metadata={},
    )


def sheet(query: Path | bytes, hits: list[Hit], title: str = "Nearest") -> PIL.Image.Image:
    return contact_sheet(query, hits, title=title, max_pixels=MAX_PIXELS)


def tile(drawn: PIL.Image.Image, column: int, row: int) -> PIL.Image.Image:
    x = MARGIN + column * (TILE + MARGIN)
    y = MARGIN + HEADER + row * (TILE + CAPTION + MARGIN)
    return drawn.crop((x, y, x + TILE, y + TILE))


def same(one: PIL.Image.Image, other: PIL.Image.Image) -> bool:
    return one.tobytes() == other.tobytes()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures 0 to 12, square, so that each fills its tile."""
    paths = [tmp_path / f"{number}.png" for number in range(13)]
    for number, path in enumerate(paths):
        picture(number, (64, 64)).save(path)
    return paths


@pytest.mark.parametrize(("hits", "columns", "rows"), [(0, 2, 1), (1, 2, 1), (5, 6, 1), (12, 6, 3)])
def test_a_sheet_shows_the_query_and_then_each_hit_in_its_place(
    files: list[Path], hits: int, columns: int, rows: int
) -> None:
    drawn = sheet(files[0], [hit(number, files[number]) for number in range(1, hits + 1)])
    assert drawn.size == (
        columns * (TILE + MARGIN) + MARGIN,
        rows * (TILE + CAPTION + MARGIN) + MARGIN + HEADER,
    )
    inside = (4, 4, TILE - 4, TILE - 4)  # the query has a frame
    for number in range(hits + 1):
        expected = picture(number, (64, 64)).resize((TILE, TILE))
        shown = tile(drawn, number % columns, number // columns)
        assert same(shown.crop(inside), expected.crop(inside)), number
    for number in range(hits + 1, columns * rows):
        shown = tile(drawn, number % columns, number // columns)
        assert shown.getextrema() == ((255, 255),) * 3


def test_a_query_given_as_bytes_is_drawn_like_its_file(files: list[Path]) -> None:
    from_file, from_bytes = sheet(files[0], []), sheet(files[0].read_bytes(), [])
    assert same(tile(from_file, 0, 0), tile(from_bytes, 0, 0))


@pytest.mark.parametrize("content", [None, b"not a picture"], ids=["missing", "broken"])
def test_a_hit_that_cannot_be_read_is_grey_and_the_others_are_drawn(
    files: list[Path], content: bytes | None
) -> None:
    if content is None:
        files[1].unlink()
    else:
        files[1].write_bytes(content)
    drawn = sheet(files[0], [hit(1, files[1]), hit(2, files[2])])
    grey = tile(drawn, 1, 0)
    assert grey.getpixel((2, 2)) == (0xD0, 0xD0, 0xD0)
    assert len(grey.getcolors() or []) > 1  # with the words that say so
    assert same(tile(drawn, 2, 0), picture(2, (64, 64)).resize((TILE, TILE)))


@pytest.mark.parametrize("size", [(400, 1), (1, 400), (30, 20)])
def test_a_tile_keeps_its_proportions(tmp_path: Path, size: tuple[int, int]) -> None:
    PIL.Image.new("RGB", size, "blue").save(tmp_path / "q.png")
    drawn = np.asarray(tile(sheet(tmp_path / "q.png", [hit(1, tmp_path / "q.png")]), 1, 0))
    blue = (drawn == (0, 0, 255)).all(axis=2)
    width, height = blue.any(axis=0).sum(), blue.any(axis=1).sum()
    assert max(width, height) == TILE
    expected = [max(1, round(side * TILE / max(size))) for side in size]
    assert [width, height] == expected


@pytest.mark.parametrize("title", ["long " * 100, "", "two\nlines"], ids=["long", "empty", "lines"])
def test_any_title_and_any_file_name_can_be_drawn(files: list[Path], title: str) -> None:
    odd = files[0].rename(files[0].with_name(f"{title[:50]}.png"))
    expected = sheet(files[1], [hit(1, files[2])]).size
    assert sheet(odd, [hit(1, odd)], title=title).size == expected


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp", ".pdf"])
def test_a_sheet_is_saved_in_the_format_its_suffix_names(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"sheet{suffix}"
    save_picture(picture(1), file)
    starts = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".webp": b"RIFF", ".pdf": b"%PDF"}
    assert file.read_bytes().startswith(starts[suffix.lower()])


def test_a_saved_png_is_the_picture(tmp_path: Path) -> None:
    save_picture(picture(1), tmp_path / "sheet.png")
    with PIL.Image.open(tmp_path / "sheet.png") as saved:
        assert same(saved.convert("RGB"), picture(1))


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.", "sheet.fli"])
def test_a_suffix_that_names_no_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"Use \.png\."):
        save_picture(picture(1), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        save_picture(picture(1), tmp_path / "gone" / "sheet.png")


@pytest.mark.parametrize("suffix", [".xbm", ".blp", ".grib", ".webp", ".gif", ".jpg"])
def test_what_a_format_cannot_hold_is_refused_and_the_old_file_stays(
    tmp_path: Path, suffix: str
) -> None:
    """A sheet of a thousand hits is taller than WebP, GIF and JPEG can be."""
    file = tmp_path / f"sheet{suffix}"
    file.write_bytes(b"old")
    with pytest.raises(InvalidInput, match="cannot be written"):
        save_picture(PIL.Image.new("RGB", (1, 70_000)), file)
    assert file.read_bytes() == b"old"
