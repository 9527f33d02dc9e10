"""How often a query goes to the server and back."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import Corpus, PixelEncoder, ingest

from vecsearch.library import Library
from vecsearch.postgres import database


@contextmanager
def traced(library: Library, file: Path) -> Iterator[list[str]]:
    """Yield what the library's one pooled connection sends, which is there at the end."""
    sent: list[str] = []
    with library.reader.connect() as connection:
        driver = database.driver_connection(connection)
    with file.open("w") as trace:
        driver.pgconn.trace(trace.fileno())
        try:
            yield sent
        finally:
            driver.pgconn.untrace()
    sent += re.findall(r"\tF\t\d+\t(\w+.*)", file.read_text())


def waits(sent: list[str]) -> int:
    """Return how often an answer is waited for: after each Sync, and each simple Query."""
    return sum(message.startswith(("Sync", "Query")) for message in sent)


@pytest.mark.parametrize("options", [{}, {"k": 100}, {"max_distance": 2.0, "k": 10}])
def test_a_stored_image_is_asked_by_in_two_round_trips(
    corpus: Corpus, tmp_path: Path, options: dict[str, Any]
) -> None:
    for position in range(3):
        corpus.library.query(id=corpus.ids[position], **options)
    with traced(corpus.library, tmp_path / "trace") as sent:
        answer = corpus.library.query(id=corpus.ids[3], **options)
    assert len(answer.hits) == options.get("k", 10)
    assert waits(sent) == 2
    # What was prepared serves again; only these may be parsed anew.
    parsed = {message.split('"')[3][:6] for message in sent if message.startswith("Parse")}
    assert parsed <= {"BEGIN ", "COMMIT"}


def test_a_stored_picture_is_too(library: Library, photos: Path, tmp_path: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    file = photos / "cats" / "01.png"
    library.query(file, k=5)
    with traced(library, tmp_path / "trace") as sent:
        assert library.query(file, k=5).hits[0].path == str(file)
    assert waits(sent) == 2


def test_what_is_not_read_is_not_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    answer = corpus.library.query(id=corpus.ids[0])
    with traced(corpus.library, tmp_path / "trace") as sent:
        assert answer.sql.startswith("BEGIN;")
    assert sent == []
    with traced(corpus.library, tmp_path / "trace") as sent:
        assert answer.uses_index
        assert "Index Scan" in answer.plan
    assert sum("EXPLAIN" in message for message in sent) == 1
    assert waits(sent) == 1


def test_the_tags_of_all_hits_take_one_round_trip(corpus: Corpus, tmp_path: Path) -> None:
    tags = corpus.library.collection().tags
    tags.of(corpus.ids[:30])
    with traced(corpus.library, tmp_path / "trace") as sent:
        tags.of(corpus.ids[:30])
    assert waits(sent) == 1
