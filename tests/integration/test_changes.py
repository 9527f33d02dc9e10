"""The feed of a collection's changes: nothing that is committed is missing from it."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from support import Corpus, PixelEncoder, clustered, every_server, ingest, make_corpus, write

from vecsearch.errors import DatabaseError
from vecsearch.library import Library
from vecsearch.postgres import database, rows

pytestmark = every_server


@pytest.fixture
def corpus(library: Library) -> Corpus:
    return make_corpus(library, "images", clustered(20, 8, seed=0))


class Follower:
    """A program that remembers the largest position, and reads on from there."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._position = 0

    def read(self) -> list[tuple[str, Any]]:
        """Return the kind and the id of each change since the last time."""
        with self._library.sql(
            "SELECT position, kind, id FROM images_changes"
            f" WHERE position > {self._position} ORDER BY position, number"
        ) as (_, found, _):
            new = list(found)
        if new:
            self._position = new[-1][0]
        return [(kind, id_) for _, kind, id_ in new]


@pytest.fixture
def follower(library: Library, corpus: Corpus) -> Follower:
    made = Follower(library)
    assert made.read() == [("reset", None), *(("added", id_) for id_ in corpus.ids)]
    return made


@pytest.fixture
def session(library: Library) -> Iterator[psycopg.Connection[Any]]:
    url = library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as opened:
        opened.execute("SET search_path = ''")
        opened.commit()
        yield opened
        opened.rollback()


DELETE = b"DELETE FROM vecsearch.images WHERE id = %s"


def test_a_transaction_that_commits_late_is_not_missed(
    corpus: Corpus, follower: Follower, session: psycopg.Connection[Any]
) -> None:
    early, late, other = corpus.ids[:3]
    session.execute(DELETE, [early])
    # Another transaction begins later, and commits earlier.
    write(corpus.library, "DELETE FROM images WHERE id = :id", id=late)
    seen = follower.read()
    session.execute(DELETE, [other])
    session.commit()
    seen += follower.read()
    assert sorted(seen) == sorted(("deleted", id_) for id_ in (early, late, other))
    assert follower.read() == []


def test_what_a_transaction_takes_back_is_not_in_it(
    corpus: Corpus, follower: Follower, session: psycopg.Connection[Any]
) -> None:
    session.execute(DELETE, [corpus.ids[0]])
    session.rollback()
    assert follower.read() == []


def test_each_kind_of_statement_is_in_it(corpus: Corpus, follower: Follower) -> None:
    library, ids = corpus.library, corpus.ids
    moved = uuid.UUID(int=7)
    changed = "UPDATE images SET embedding = (SELECT embedding FROM images WHERE id = :of)"
    write(library, f"{changed} WHERE id = :id", id=ids[0], of=ids[1])
    assert follower.read() == [("updated", ids[0])]
    write(library, "UPDATE images SET id = :new WHERE id = :id", id=ids[2], new=moved)
    assert sorted(follower.read()) == [("added", moved), ("deleted", ids[2])]
    write(
        library,
        "MERGE INTO images AS i USING (VALUES (CAST(:id AS uuid))) AS n (id) ON i.id = n.id"
        " WHEN MATCHED THEN DELETE",
        id=ids[3],
    )
    assert follower.read() == [("deleted", ids[3])]
    write(library, "UPDATE images SET label = 'else', path = path || '~', embedding = embedding")
    write(library, "DELETE FROM images WHERE false")
    assert follower.read() == []
    write(library, "TRUNCATE images")
    assert follower.read() == [("reset", None)]


def test_an_ingest_is_in_it(library: Library, photos: Path) -> None:
    follower = Follower(library)
    ingest(library.engine, [photos], PixelEncoder())
    (reset, *added) = follower.read()
    assert reset == ("reset", None)
    assert {kind for kind, _ in added} == {"added"}
    assert len(added) == 12
    ingest(library.engine, [photos], PixelEncoder())
    assert follower.read() == []
    next((photos / "cats").iterdir()).rename(photos / "moved.png")
    next((photos / "dogs").iterdir()).unlink()
    ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert sorted(kind for kind, _ in follower.read()) == ["added", "deleted", "deleted"]


def test_a_role_that_may_only_delete_images_is_in_it(corpus: Corpus, follower: Follower) -> None:
    role = f"deletes_in_{corpus.library.engine.url.database}"
    write(corpus.library, f"CREATE ROLE {role}")
    write(corpus.library, f"GRANT USAGE ON SCHEMA vecsearch TO {role}")
    write(corpus.library, f"GRANT SELECT, DELETE ON images TO {role}")
    with database.writing(corpus.library.engine) as connection:
        connection.execute(sa.text(f"SET LOCAL ROLE {role}"))
        connection.execute(sa.text("DELETE FROM images WHERE width = 3"))
    assert follower.read() == [("deleted", corpus.ids[3])]
    write(corpus.library, f"DROP OWNED BY {role}")
    write(corpus.library, f"DROP ROLE {role}")


def test_nobody_adds_to_it_from_a_table_of_their_own(corpus: Corpus, follower: Follower) -> None:
    library = corpus.library
    write(library, "CREATE SCHEMA own")
    write(library, "CREATE TABLE own.images (id uuid)")
    write(
        library,
        "CREATE TRIGGER adds AFTER INSERT ON own.images REFERENCING NEW TABLE AS arriving"
        " FOR EACH STATEMENT EXECUTE FUNCTION vecsearch_internal.record_changes()",
    )
    with pytest.raises(DatabaseError, match="only collections have a feed"):
        write(library, "INSERT INTO own.images VALUES (gen_random_uuid())")
    assert follower.read() == []


def test_on_another_server_positions_go_on(corpus: Corpus, follower: Follower) -> None:
    """A server's transactions are numbered from the beginning; a restored feed's are not."""
    library = corpus.library
    write(
        library,
        "UPDATE vecsearch_internal.changes"
        " SET position = position + 1000000000, transaction = transaction + 1000000000",
    )
    elsewhere = Follower(library)
    write(library, "DELETE FROM images WHERE width = 1")
    assert len(elsewhere.read()) == 22
    with database.writing(library.engine) as connection:
        for width in (2, 3):
            connection.execute(sa.text(f"DELETE FROM images WHERE width = {width}"))
    write(library, "DELETE FROM images WHERE width = 4")
    assert elsewhere.read() == [("deleted", id_) for id_ in corpus.ids[2:5]]


def test_old_changes_go_but_a_follower_can_tell(corpus: Corpus) -> None:
    library = corpus.library
    for width in range(4):
        write(library, f"DELETE FROM images WHERE width = {width}")
    older = "UPDATE vecsearch_internal.changes SET at = at - interval '31 days'"
    write(library, f"{older} WHERE kind <> 'deleted' OR id <> :id", id=corpus.ids[3])
    with database.writing(library.engine) as connection:
        rows.forget_old_changes(connection, "images")
    # The newest that is old stays: whoever followed the feed up to it has missed nothing.
    assert Follower(library).read() == [("deleted", corpus.ids[2]), ("deleted", corpus.ids[3])]
    write(library, older)
    with database.writing(library.engine) as connection:
        rows.forget_old_changes(connection, "images")
    assert Follower(library).read() == [("deleted", corpus.ids[3])]
