"""Ad hoc SQL: read-only unless asked, one statement, errors with a caret."""

import json
from datetime import date
from typing import Any

import pytest
from support import PixelEncoder, every_server, ingest, once
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.errors import DatabaseError, DatabaseUnavailable, InvalidInput
from vecsearch.library import Library

pytestmark = every_server


@pytest.fixture
def filled(library: Library, photos: Any) -> Library:
    ingest(library.engine, [photos], PixelEncoder())
    return library


def run(library: Library, statement: str, *, write: bool = False) -> Any:
    with library.sql(statement, write=write) as (columns, rows, summary):
        return columns, list(rows), summary


def test_a_statement_gives_columns_rows_and_a_summary(filled: Library) -> None:
    columns, rows, summary = run(
        filled, "SELECT label, count(*) AS pictures FROM images GROUP BY label ORDER BY 1"
    )
    assert columns == ["label", "pictures"]
    assert rows == [("cats", 6), ("dogs", 6)]
    assert summary == "SELECT 2"
    assert run(filled, "SELECT '100%' AS \"a%b\", ':x' AS c, '%s' AS d;") == (
        ["a%b", "c", "d"],
        [("100%", ":x", "%s")],
        "SELECT 1",
    )


@once
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM images",
        "SET TRANSACTION READ WRITE",
        "UPDATE images SET label = 'x'",
        "CREATE TABLE mine (n int)",
        "DROP TABLE images",
        "WITH gone AS (DELETE FROM images RETURNING id) SELECT count(*) FROM gone",
        "DO $$ BEGIN DELETE FROM vecsearch.images; END $$",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; DELETE FROM vecsearch.images; END $$",
        "DO $$ BEGIN COMMIT; DELETE FROM vecsearch.images; END $$",
        "DO $$ BEGIN SET LOCAL transaction_read_only = off; DELETE FROM vecsearch.images; END $$",
    ],
)
def test_reading_refuses_to_write(filled: Library, statement: str) -> None:
    with pytest.raises(DatabaseError):
        run(filled, statement)
    assert run(filled, "SELECT count(*) FROM images WHERE label <> 'x'")[1] == [(12,)]


@pytest.mark.parametrize("statement", ["COMMIT", "SET search_path = ''"])
def test_one_statement_leaves_nothing_for_the_next(filled: Library, statement: str) -> None:
    run(filled, statement)
    with pytest.raises(DatabaseError, match=r"read-only|permission denied"):
        run(filled, "DELETE FROM images")
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]


def test_writing_is_committed_when_it_is_asked_for(filled: Library) -> None:
    _, rows, summary = run(filled, "DELETE FROM images WHERE label = 'cats'", write=True)
    assert (rows, summary) == ([], "DELETE 6")
    assert run(filled, "SELECT count(*) FROM images")[1] == [(6,)]
    columns, rows, _ = run(
        filled, "UPDATE images SET label = 'x' WHERE label = 'dogs' RETURNING label", write=True
    )
    assert (columns, rows) == (["label"], [("x",)] * 6)


def test_writing_that_fails_writes_nothing(filled: Library) -> None:
    with pytest.raises(DatabaseError, match="division by zero"):
        run(filled, "UPDATE images SET width = 1 / (width - width)", write=True)
    with (
        pytest.raises(KeyError),
        filled.sql("DELETE FROM images", write=True),
    ):
        raise KeyError
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]


@pytest.mark.parametrize("write", [False, True])
def test_two_statements_are_refused(filled: Library, *, write: bool) -> None:
    with pytest.raises(DatabaseError, match="One statement at a time"):
        run(filled, "SELECT 1; DELETE FROM images", write=write)
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]


def test_an_error_points_at_its_place(filled: Library) -> None:
    with pytest.raises(DatabaseError) as caught:
        run(filled, "SELECT label\nFROM images\nWHERE lable = 'cats'")
    assert str(caught.value) == (
        'column "lable" does not exist\n'
        "  WHERE lable = 'cats'\n"
        "        ^\n"
        'Hint: Perhaps you meant to reference the column "images.label".'
    )


def test_columns_of_one_name_are_numbered(filled: Library) -> None:
    columns, rows, _ = run(
        filled, "SELECT count(*), count(label), 7 AS count_2, 8 AS x FROM images"
    )
    assert columns == ["count", "count_3", "count_2", "x"]
    assert rows == [(12, 12, 7, 8)]


def test_an_embedding_can_be_selected(filled: Library) -> None:
    _, rows, _ = run(filled, "SELECT embedding FROM images LIMIT 1")
    assert len(rows) == 1
    _, rows, _ = run(filled, "SELECT vector_dims(embedding) FROM images LIMIT 1")
    assert rows == [(48,)]


@once
@pytest.mark.parametrize("statement", ["COPY (SELECT 1) TO STDOUT", "COPY images FROM STDIN"])
def test_copying_through_the_client_is_no_lost_connection(filled: Library, statement: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        run(filled, statement, write=True)
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]


@once
@pytest.mark.parametrize("statement", ["", " ", ";", "-- nothing", "/* nothing */ ;"])
def test_no_statement_is_refused(filled: Library, statement: str) -> None:
    with pytest.raises(InvalidInput, match=r"no statement\. Write one, such as: vecsearch sql"):
        run(filled, statement)


@once
@pytest.mark.parametrize("comment", ["-- a comment", "--a comment", "--\n", "-- a = b"])
def test_a_comment_is_no_option(filled: Library, comment: str) -> None:
    there = ["--database-url", filled.url]
    words = ["sql", f"{comment}\nSELECT 1 AS n", "--format", "csv", *there]
    assert CliRunner().invoke(app, words).stdout == "n\n1\n"
    done = CliRunner().invoke(app, ["sql", comment, *there])
    assert (done.exit_code, "There is no statement." in done.stderr) == (1, True)


@once
@pytest.mark.parametrize("word", ["--wirte", "--wirte=a b"])
def test_an_unknown_option_is_no_statement(word: str) -> None:
    done = CliRunner().invoke(app, ["sql", word])
    assert (done.exit_code, "No such option" in done.stderr) == (2, True)


@once
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::timestamptz", "-infinity"),
        ("'infinity'::timestamp", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("'12000-03-04'::date", "12000-03-04"),
        ("'12000-03-04 05:06'::timestamp", "12000-03-04 05:06:00"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'24:00'::time", "24:00:00"),
        ("'9999999 years'::interval", "9999999 years"),
        ("'-infinity'::interval", "-infinity"),
        ("'03:04'::interval", "3:04:00"),
        ("'2024-03-04'::date", "2024-03-04"),
    ],
)
@pytest.mark.parametrize("format_", ["table", "json", "csv"])
def test_a_time_that_python_lacks_is_printed(
    filled: Library, value: str, text: str, format_: str
) -> None:
    words = ["sql", f"SELECT {value} AS at", "--format", format_, "--database-url", filled.url]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    match format_:
        case "json":
            assert json.loads(done.stdout) == [{"at": text}]
        case "csv":
            assert done.stdout == f"at\n{text}\n"
        case _:
            assert done.stdout.split("\n")[-2].strip() == text


def test_times_that_python_lacks_are_in_arrays_and_ranges(filled: Library) -> None:
    text = "SELECT '{infinity,2024-03-04}'::date[] AS a, '[2024-03-04,infinity)'::daterange AS b"
    [(array, range_)] = run(filled, text)[1]
    assert array == ["infinity", date(2024, 3, 4)]
    assert (range_.lower, range_.upper) == (date(2024, 3, 4), "infinity")


def test_a_parameter_is_no_lost_connection(filled: Library) -> None:
    with pytest.raises(DatabaseError, match="parameters") as caught:
        run(filled, "SELECT $1")
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]
