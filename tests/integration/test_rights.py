"""Roles that may do less: what they can do, and what they are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from support import clustered, every_server, make_corpus, write

from vecsearch.config import Settings
from vecsearch.errors import (
    DatabaseError,
    ExtensionMissing,
)
from vecsearch.library import Library

pytestmark = every_server
READS = (
    "GRANT USAGE ON SCHEMA vecsearch",
    "GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch",
    "GRANT USAGE ON SCHEMA vecsearch_internal",
    "GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch_internal",
)


def role_url(library: Library, role: str) -> str:
    url = library.engine.url.set(drivername="postgresql", username=role)
    return url.render_as_string(hide_password=False)


@contextmanager
def as_role(library: Library, server_url: str, *grants: str) -> Iterator[Library]:
    """Open the same database as another role."""
    role = "analyst"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        for grant in grants:
            write(library, f"{grant} TO {role}")
        with Library.open(Settings.load(database_url=role_url(library, role))) as opened:
            yield opened
    finally:
        write(library, f"DROP OWNED BY {role}")
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP ROLE {role}".encode())


@pytest.mark.parametrize(
    ("own", "kept"),
    [("0", "5min"), ("2min", "2min"), ("90500ms", "90500ms"), ("2d", "5min"), ("50000", "50s")],
)
def test_a_stricter_time_limit_of_a_role_stays(
    library: Library, server_url: str, own: str, kept: str
) -> None:
    corpus = make_corpus(library, "images", clustered(50, 8, seed=0))
    shows = f"current_setting('statement_timeout') = '{kept}'"
    with as_role(library, server_url, *READS) as analyst:
        write(library, f"ALTER ROLE analyst SET statement_timeout = '{own}'")
        with analyst.sql("SHOW statement_timeout") as (_, rows, _):
            assert list(rows) == [(kept,)]
        # What is asked for counts, and after it the role's own again.
        with analyst.sql("SHOW statement_timeout", timeout=600) as (_, rows, _):
            assert list(rows) == [("10min",)]
        assert len(analyst.query(id=corpus.ids[0], k=20, where=shows).hits) == 20
        with analyst.sql("SHOW statement_timeout") as (_, rows, _):
            assert list(rows) == [(kept,)]


def test_an_analyst_who_may_only_read_can_search(library: Library, server_url: str) -> None:
    corpus = make_corpus(library, "images", clustered(50, 8, seed=0))
    with as_role(library, server_url, *READS) as analyst:
        assert len(analyst.query(id=corpus.ids[0], k=20, where="width < 40").hits) == 20
        assert len(analyst.query(id=corpus.ids[0], max_distance=2).hits) == 50
        assert [status.images for status in analyst.collections()] == [50]
        with (
            pytest.raises(DatabaseError, match="permission denied"),
            analyst.sql("DELETE FROM images", write=True),
        ):
            pass


def test_a_role_that_may_read_nothing_is_told(library: Library, server_url: str) -> None:
    with (
        as_role(library, server_url) as nobody,
        pytest.raises(DatabaseError, match="permission denied for schema vecsearch"),
    ):
        nobody.query(id="00000000-0000-0000-0000-000000000000")


def test_a_role_that_may_create_nothing_is_told(
    empty: Library, server_url: str, photos: Path
) -> None:
    with as_role(empty, server_url) as nobody:
        for refused in (nobody.upgrade, lambda: nobody.collection().ingest([photos])):
            with pytest.raises(DatabaseError, match="permission denied for database") as caught:
                refused()
            assert not isinstance(caught.value, ExtensionMissing)


def test_a_role_that_may_not_install_pgvector_is_told_whom_to_ask(
    empty: Library, server_url: str
) -> None:
    grant = f"GRANT CREATE ON DATABASE {empty.engine.url.database}"
    with (
        as_role(empty, server_url, grant) as nobody,
        pytest.raises(ExtensionMissing, match="administrator to run CREATE EXTENSION vector"),
    ):
        nobody.upgrade()


def test_an_extension_that_was_dropped_is_missed(library: Library) -> None:
    write(library, "DROP EXTENSION vector CASCADE")
    with pytest.raises(ExtensionMissing, match="pgvector"):
        library.collections()
