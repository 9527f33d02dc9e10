"""Ad hoc SQL: read-only unless asked, one statement, errors with a caret."""

from typing import Any

import pytest
from support import PixelEncoder, every_server, ingest, once

from vecsearch.errors import DatabaseError, DatabaseUnavailable
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


def test_two_columns_of_one_name_are_refused(filled: Library) -> None:
    with pytest.raises(DatabaseError, match="Two columns are named label"):
        run(filled, "SELECT a.label, b.label FROM images AS a, images AS b")


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
@pytest.mark.parametrize("statement", ["", " ", "-- nothing"])
def test_nothing_gives_nothing(filled: Library, statement: str) -> None:
    columns, rows, _ = run(filled, statement)
    assert (columns, rows) == ([], [])


def test_a_parameter_is_no_lost_connection(filled: Library) -> None:
    with pytest.raises(DatabaseError, match="parameters") as caught:
        run(filled, "SELECT $1")
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert run(filled, "SELECT count(*) FROM images")[1] == [(12,)]
