"""Readers and writers by TCP: what they cannot hold up, and what each may do."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from servers import free_port
from support import Corpus, alembic_upgrade, clustered, make_corpus
from typer.testing import CliRunner, Result

from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.errors import DatabaseBusy, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import drop, migrate
from vecsearch.postgres.embedded import reader, role, server
from vecsearch.postgres.sessions import waits

ROWS = 200
OBSTINATE = (
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    data_dir = tmp_path_factory.mktemp("roles") / "data"
    server.set_port(data_dir, free_port())
    with Library.open(Settings.load(data_dir=data_dir)) as opened:
        opened.upgrade()
        yield opened


@pytest.fixture(scope="module")
def corpus(library: Library) -> Corpus:
    return make_corpus(library, "images", clustered(ROWS, 16, seed=3))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "PATIENCE_S", 0.1)
    monkeypatch.setattr(waits, "POLL_S", 0.02)


def address(library: Library, name: str, *, is_writer: bool = False) -> reader.Address:
    return reader.prepare(library.engine, library.settings.data_dir, name, is_writer=is_writer)


def run(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["db", "roles", *arguments, "--data-dir", str(data_dir)])


def connect(made: reader.Address, **options: Any) -> "psycopg.Connection[Any]":
    return psycopg.connect(made.url, autocommit=True, **options)


@contextmanager
def cursor_open(made: reader.Address, table: str) -> "Iterator[psycopg.Connection[Any]]":
    """Hold a snapshot and a lock on a table, with every timeout unset."""
    with connect(made) as connection:
        connection.execute(OBSTINATE)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute(f"DECLARE held CURSOR FOR SELECT * FROM {table}".encode())
        connection.execute("FETCH 1 FROM held")
        yield connection


def is_open(connection: "psycopg.Connection[Any]") -> bool:
    try:
        return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


@pytest.mark.usefixtures("corpus", "impatient")
def test_a_readers_open_cursor_holds_up_neither_a_build_nor_a_drop(library: Library) -> None:
    alice = address(library, "alice")
    make_corpus(library, "other", clustered(ROWS, 16, seed=4))
    with cursor_open(alice, "images") as held, psycopg.connect(library.url) as own:
        own.execute("SELECT 1")
        notes = library.collection("other").create_index("hnsw", m=8)
        assert notes == [
            "Ended 1 session of the reader 'alice': this command had waited for it for 0 seconds."
        ]
        assert not is_open(held)
        assert is_open(own)
    with cursor_open(alice, "other") as held:
        (note,) = library.collection("other").drop()
        assert "reader 'alice'" in note
        assert not is_open(held)


@pytest.mark.usefixtures("impatient")
def test_a_readers_open_cursor_does_not_hold_up_an_upgrade(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    server.set_port(data_dir, free_port())
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        with library.engine.begin() as connection:
            alembic_upgrade(connection, "0013")
        library.engine.dispose()
        # The next revision adds columns to this table.
        with cursor_open(address(library, "alice"), "collections") as held:
            (note,) = library.upgrade()
            assert "reader 'alice'" in note
            assert not is_open(held)


@pytest.mark.usefixtures("corpus", "impatient")
def test_a_writers_open_cursor_is_waited_for(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(library, "other", clustered(ROWS, 16, seed=4))
    monkeypatch.setattr(drop, "LOCK_TIMEOUT_S", 1)
    with cursor_open(address(library, "loader", is_writer=True), "other") as held:
        with pytest.raises(DatabaseBusy):
            library.collection("other").drop()
        assert is_open(held)
    assert library.collection("other").drop() == []


@pytest.mark.usefixtures("corpus")
def test_it_has_limits_of_which_it_cannot_unset_those_of_the_disk(library: Library) -> None:
    with connect(address(library, "alice")) as connection:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() != ("0",)
        for statement in (
            "SET temp_file_limit = -1",
            "SET log_min_messages = warning",
            "ALTER ROLE alice CONNECTION LIMIT 1000",
            "ALTER ROLE alice SET temp_file_limit = -1",
        ):
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.usefixtures("corpus")
def test_it_cannot_take_every_connection(library: Library) -> None:
    made = address(library, "alice")
    with ExitStack() as opened:
        for _ in range(role.CONNECTIONS):
            opened.enter_context(connect(made))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            connect(made)
        psycopg.connect(library.url).close()


@pytest.mark.usefixtures("corpus")
def test_what_it_changed_of_itself_is_restored_by_the_owners_next_command(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    made = address(library, "alice")
    data_dir = library.settings.data_dir
    with server.lease(data_dir):
        assert not caplog.records
    with connect(made) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER ROLE alice PASSWORD 'mine'")
        connection.execute("ALTER ROLE alice SET search_path = nowhere")
        connection.execute("ALTER ROLE alice IN DATABASE vecsearch SET statement_timeout = 0")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(made)
    held = psycopg.connect(made.url, password="mine")
    # A change that is not committed would make the owner's wait for it.
    held.execute("SET TRANSACTION READ WRITE")
    held.execute("ALTER ROLE alice PASSWORD 'another'")
    with caplog.at_level(logging.WARNING), server.lease(data_dir):
        assert "Restored the password and settings of alice" in caplog.text
    assert not is_open(held)
    with connect(made) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("vecsearch, public",)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5min",)


@pytest.mark.usefixtures("corpus")
def test_a_writer_owns_a_schema_and_reads_ours_and_readers_read_its_tables(
    library: Library,
) -> None:
    made = address(library, "loader", is_writer=True)
    assert made.jdbc.endswith("&currentSchema=loader,vecsearch,public")
    with connect(made) as connection:
        connection.execute("CREATE TEMP TABLE work AS SELECT id, path FROM images")
        connection.execute("CREATE TABLE made AS SELECT * FROM work")
        for statement in (
            "DELETE FROM images",
            "CREATE TABLE vecsearch.mine (x int)",
            "CREATE VIEW vecsearch.mine AS SELECT 1 AS x",
            "ALTER TABLE images ADD COLUMN x int",
            "SELECT pg_advisory_lock(1)",
            "SELECT lo_create(0)",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    with connect(address(library, "alice")) as connection:
        found = connection.execute("SELECT count(*) FROM loader.made").fetchone()
        assert found == (ROWS,)


@pytest.mark.usefixtures("corpus")
def test_roles_are_listed_and_dropped_and_what_a_writer_made_stays(library: Library) -> None:
    made = address(library, "temporary", is_writer=True)
    with connect(made) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        data_dir = library.settings.data_dir
        listed = run(data_dir, "--format", "csv").stdout
        assert "temporary,writer,1" in listed.splitlines()
        done = run(data_dir, "--drop", "temporary")
        assert (done.exit_code, "stays" in done.stderr) == (0, True)
        assert not is_open(connection)
    with pytest.raises(psycopg.OperationalError):
        connect(made)
    with library.sql("SELECT answer FROM temporary.kept") as (_, rows, _):
        assert list(rows) == [(42,)]
    with pytest.raises(InvalidInput, match="has a schema 'temporary' already"):
        address(library, "temporary", is_writer=True)
    assert address(library, "temporary").password != made.password
    assert run(data_dir, "--drop", "postgres").exit_code == 1


@pytest.mark.usefixtures("corpus")
def test_what_a_dropped_writer_left_gives_nobody_the_owners_rights(library: Library) -> None:
    with connect(address(library, "former", is_writer=True)) as connection:
        connection.execute("CREATE VIEW verifiers AS SELECT rolpassword FROM pg_authid")
        connection.execute("CREATE VIEW seen AS SELECT path FROM images")
        connection.execute(
            "CREATE FUNCTION is_superuser() RETURNS text LANGUAGE sql SECURITY DEFINER"
            " RETURN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
        )
    run(library.settings.data_dir, "--drop", "former")
    with connect(address(library, "alice")) as connection:
        assert connection.execute("SELECT former.is_superuser()").fetchone() == ("false",)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM former.verifiers")
        assert len(connection.execute("SELECT * FROM former.seen").fetchall()) == ROWS


@pytest.mark.parametrize("name", ["postgres", "vecsearch_readers", "pg_x", "Al", 'a"b', "a b", ""])
@pytest.mark.usefixtures("corpus")
def test_names_of_other_roles_and_names_that_need_quotes_are_refused(
    library: Library, name: str
) -> None:
    with pytest.raises(InvalidInput):
        address(library, name)


@pytest.mark.usefixtures("corpus")
def test_a_reader_does_not_become_a_writer(library: Library) -> None:
    address(library, "alice")
    with pytest.raises(InvalidInput, match="'alice' is a reader"):
        address(library, "alice", is_writer=True)


@pytest.mark.usefixtures("corpus")
def test_a_dump_is_restored_where_there_are_other_readers(library: Library, tmp_path: Path) -> None:
    address(library, "alice")
    library.dump(tmp_path / "dump")
    data_dir = tmp_path / "data"
    server.set_port(data_dir, free_port())
    with Library.open(Settings.load(data_dir=data_dir)) as other:
        made = address(other, "bob")
        other.restore(tmp_path / "dump")
        with connect(made) as connection:
            assert connection.execute("SELECT count(*) FROM images").fetchone() == (ROWS,)
            assert connection.execute("SELECT count(*) FROM images_view").fetchone() == (ROWS,)
        migrate.check(other.engine)


def test_a_cursor_over_all_rows_loses_none_though_the_index_serves_it(
    library: Library, corpus: Corpus
) -> None:
    many = make_corpus(library, "many", clustered(6_000, 16, seed=5))
    with connect(address(library, "alice")) as connection:
        connection.execute("SET enable_seqscan = off; SET enable_sort = off; BEGIN")
        statement = (
            "SELECT id FROM many ORDER BY embedding <=>"
            f" (SELECT embedding FROM many WHERE id = '{many.ids[0]}')"
        )
        plan = connection.execute(f"EXPLAIN {statement}".encode()).fetchall()
        assert "many_embedding_hnsw" in str(plan)
        connection.execute(f"DECLARE c CURSOR FOR {statement}".encode())
        assert len(connection.execute("FETCH ALL FROM c").fetchall()) == 6_000
    assert corpus.ids
