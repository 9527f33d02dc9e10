"""`--metadata` files: what is read from them, and that a bad line is named."""

import os
from pathlib import Path
from typing import Any

import pytest

from vecsearch.errors import InvalidInput
from vecsearch.ingest.annotations.metadata import KEY_COLUMNS, read_records


def keys_and_metadata(file: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(record.key, record.metadata) for record in read_records(file)]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_csv_values_are_text_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    file = written(tmp_path, "m.csv", "path,price,note\ncats/1.png,12.50,\n2.png,,late\n")
    assert keys_and_metadata(file) == [
        ("cats/1.png", {"price": "12.50"}),
        ("2.png", {"note": "late"}),
    ]


def test_json_values_keep_their_types_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "m.jsonl",
        '{"file": "1.png", "price": 12.5, "tags": ["a", null], "sold": false}\n\n'
        '  \n{"file": "2.png"}',
    )
    assert keys_and_metadata(file) == [
        ("1.png", {"price": 12.5, "tags": ["a", None], "sold": False}),
        ("2.png", {}),
    ]


def test_a_record_brings_its_path_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, "m.csv", "path,a\ncats/1.png,x\n/elsewhere/2.png,y\n")
    assert [record.path for record in read_records(file)] == [
        str(tmp_path / "cats" / "1.png"),
        "/elsewhere/2.png",
    ]


@pytest.mark.parametrize("column", KEY_COLUMNS)
def test_each_key_column_names_the_image(tmp_path: Path, column: str) -> None:
    file = written(tmp_path, "m.csv", f"a,{column}\nx,1.png\n")
    assert keys_and_metadata(file) == [("1.png", {"a": "x"})]


def test_the_first_of_two_key_columns_names_the_image_and_the_other_is_data(tmp_path: Path) -> None:
    file = written(tmp_path, "m.csv", "image,path\nx,1.png\n")
    assert keys_and_metadata(file) == [("1.png", {"image": "x"})]


@pytest.mark.parametrize(
    ("name", "content"),
    [("m.csv", "path,a\r\n1.png,é\r\n"), ("m.jsonl", '{"path": "1.png", "a": "é"}\r\n')],
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(
    tmp_path: Path, name: str, content: str
) -> None:
    file = written(tmp_path, name, content.encode("utf-8-sig"))
    assert keys_and_metadata(file) == [("1.png", {"a": "é"})]


def test_quoted_commas_quotes_and_line_ends_are_part_of_the_value(tmp_path: Path) -> None:
    file = written(tmp_path, "M.CSV", 'path,a\n"1,2.png","say ""hi"",\nthere"\n')
    assert keys_and_metadata(file) == [("1,2.png", {"a": 'say "hi",\nthere'})]


@pytest.mark.parametrize("row", ["1.png", "1.png,x,y"], ids=["too few", "too many"])
def test_a_ragged_row_is_refused_by_its_line(tmp_path: Path, row: str) -> None:
    file = written(tmp_path, "m.csv", f'path,a\n0.png,"two\nlines"\n{row}\n')
    with pytest.raises(InvalidInput, match=r"m\.csv, line 4: the number of fields differs"):
        list(read_records(file))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"path": "1.png",', "not JSON"),
        ('["1.png"]', "not a JSON object"),
        ('{"price": 3}', "no column names the image"),
        ('{"path": "", "price": 3}', "no column names the image"),
        (r'{"path": "1.png", "a": "\u0000"}', "u0000"),
        # Postgres' jsonb has none of these, though Python reads and writes them.
        pytest.param('{"path": "1.png", "a": NaN}', "", id="NaN"),
        pytest.param('{"path": "1.png", "a": [-Infinity]}', "", id="Infinity"),
        pytest.param('{"path": "1.png", "a": 1e999}', "", id="a number without end"),
        pytest.param(r'{"path": "1.png", "a": {"\ud800": 1}}', "", id="half a character"),
        pytest.param(f'{{"path": "1.png", "a": {"[" * 99_999}', "", id="too deep"),
    ],
)
def test_a_bad_json_line_is_refused_by_its_number(
    tmp_path: Path, line: str, complaint: str
) -> None:
    file = written(tmp_path, "m.jsonl", f'{{"path": "0.png"}}\n\n{line}\n')
    with pytest.raises(InvalidInput, match=rf"m\.jsonl, line 3: .*{complaint}"):
        list(read_records(file))


def test_a_backslash_before_u0000_is_only_text(tmp_path: Path) -> None:
    file = written(tmp_path, "m.jsonl", r'{"path": "1.png", "a": "C:\\u0000"}')
    assert keys_and_metadata(file) == [("1.png", {"a": r"C:\u0000"})]


@pytest.mark.parametrize("row", ["1.png,a\0b", "1\0.png,a"])
def test_a_csv_line_with_a_zero_byte_is_refused_by_its_number(tmp_path: Path, row: str) -> None:
    file = written(tmp_path, "m.csv", f"path,a\n{row}\n")
    with pytest.raises(InvalidInput, match=r"m\.csv, line 2: "):
        list(read_records(file))


def test_a_csv_row_without_a_key_is_refused_by_its_line(tmp_path: Path) -> None:
    file = written(tmp_path, "m.csv", "path,a\n1.png,x\n,y\n")
    with pytest.raises(InvalidInput, match=r"line 3: .* one of: path, file, filename"):
        list(read_records(file))


def test_a_csv_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "m.csv", "path,a,a\n1.png,kept,lost\n")
    with pytest.raises(InvalidInput):
        list(read_records(file))


@pytest.mark.parametrize(
    "content",
    [b"path,a\n1.png,caf\xe9\n", b'path,a\n"1.png,x\n', b"path,a\n1.png," + b"x" * 200_000],
    ids=["not UTF-8", "an open quote", "an endless field"],
)
def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, "m.csv", content)
    with pytest.raises(InvalidInput, match=r"m\.csv cannot be read: "):
        list(read_records(file))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.csv cannot be read: "):
        list(read_records(tmp_path / "gone.csv"))


def test_a_pipe_is_refused_at_once_since_it_is_read_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(InvalidInput, match="not a regular file, and it is read twice"):
        next(read_records(pipe))
