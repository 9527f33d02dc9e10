"""The reader: what a BI tool on this machine can see of the embedded database, and cannot do."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from servers import free_port, initialise, listening
from support import Corpus, clustered, make_corpus

from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres.embedded import access, programs, reader, server

DOCUMENT = (Path(__file__).parents[2] / "docs/sql.md").read_text()
ROWS = 300


@pytest.fixture(scope="module", params=[18, 16])
def corpus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    """A collection in an embedded database that listens on a port."""
    data_dir = tmp_path_factory.mktemp("reader") / "data"
    initialise(data_dir / "postgres", request.param)
    server.set_port(data_dir, free_port())
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        # Before there are any tables: what comes later is the reader's, too.
        reader.prepare(library.engine, data_dir)
        library.upgrade()
        yield make_corpus(library, "images", clustered(ROWS, 64, seed=3))


@pytest.fixture
def address(corpus: Corpus) -> reader.Address:
    return reader.prepare(corpus.library.engine, corpus.library.settings.data_dir)


@pytest.fixture
def bi_tool(address: reader.Address) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(address.url, autocommit=True) as connection:
        yield connection


def run(data_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vecsearch", "db", *arguments, "--data-dir", str(data_dir)],
        check=False,
        capture_output=True,
        text=True,
    )


def answers(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


def test_it_reads_tables_views_and_functions_by_their_short_names(
    corpus: Corpus, bi_tool: psycopg.Connection[Any]
) -> None:
    for table in ("images", "images_view"):
        assert bi_tool.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (ROWS,)
    assert bi_tool.execute("SELECT name FROM collections").fetchone() == ("images",)
    found = bi_tool.execute("SELECT id FROM images_search(%s, 5)", [str(corpus.ids[9])])
    assert found.fetchone() == (corpus.ids[9],)
    found = bi_tool.execute(
        "SELECT id FROM images_distances(%s) ORDER BY distance LIMIT 200", [corpus.ids[9]]
    )
    assert found.rowcount == 200
    (distance,) = bi_tool.execute(
        "SELECT chi2_distance(embedding, embedding) FROM images LIMIT 1"
    ).fetchall()
    assert distance == (0,)


def test_an_answer_from_the_index_is_not_short(bi_tool: psycopg.Connection[Any]) -> None:
    bi_tool.execute("SET enable_seqscan = off")
    statement = (
        "SELECT id FROM images ORDER BY embedding <=> (SELECT embedding FROM images LIMIT 1)"
    )
    plan = bi_tool.execute(f"EXPLAIN {statement} LIMIT 200".encode()).fetchall()
    assert "images_embedding_hnsw" in str(plan)
    assert len(bi_tool.execute(f"{statement} LIMIT 200".encode()).fetchall()) == 200


def test_it_reads_a_collection_that_is_made_later(
    corpus: Corpus, bi_tool: psycopg.Connection[Any]
) -> None:
    make_corpus(corpus.library, "later", clustered(20, 8, seed=0))
    for source in ("later", "later_view"):
        assert bi_tool.execute(f"SELECT count(*) FROM {source}".encode()).fetchone() == (20,)


def test_pandas_reads_by_its_url_over_sqlalchemy(address: reader.Address) -> None:
    engine = sa.create_engine(address.url.replace("postgresql:", "postgresql+psycopg:"))
    frame = pd.read_sql("SELECT label, count(*) AS images FROM images GROUP BY label", engine)
    engine.dispose()
    assert list(frame.columns) == ["label", "images"]
    assert frame["images"].sum() == ROWS


def test_psql_reads_by_its_url(address: reader.Address) -> None:
    psql = [str(programs.program("psql")), address.url, "-Atc", "SELECT count(*) FROM images"]
    assert subprocess.check_output(psql, text=True) == f"{ROWS}\n"


CHANGES = (
    "INSERT INTO collections SELECT * FROM collections",
    "UPDATE images SET label = 'x'",
    "DELETE FROM images",
    "TRUNCATE images",
    "DROP TABLE images",
    "ALTER TABLE images ADD COLUMN x int",
    "CREATE TABLE mine (x int)",
    "CREATE TABLE public.mine (x int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION vecsearch.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE other SUPERUSER",
    "COPY images FROM STDIN",
)
SERVER_FILES = (
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "COPY images FROM '/etc/passwd'",
    "COPY images TO '/tmp/stolen'",
    "COPY images TO PROGRAM 'id'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT * FROM pg_authid",
    "ALTER SYSTEM SET jit = on",
    "ALTER ROLE vecsearch_reader SUPERUSER",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
)

# What would outlast its query, or keep others from working.
LEFT_BEHIND = (
    "CREATE TEMP TABLE mine (x int)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
    "LOCK TABLE images IN ROW SHARE MODE",
    "SELECT id FROM images FOR KEY SHARE",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_logical_emit_message(false, 'x', 'y')",
    "CREATE TEMP VIEW mine AS SELECT 1",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "CHECKPOINT",
)


@pytest.mark.parametrize("statement", LEFT_BEHIND)
def test_it_takes_no_locks_and_leaves_nothing_behind(
    address: reader.Address, statement: str
) -> None:
    with psycopg.connect(address.url) as connection:
        connection.execute("SET TRANSACTION READ WRITE")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize("statement", CHANGES)
def test_it_changes_nothing(bi_tool: psycopg.Connection[Any], statement: str) -> None:
    refused = (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege)
    with pytest.raises(refused):
        bi_tool.execute(statement.encode())
    # The setting keeps it from mistakes; that it has no right to is what keeps the data.
    bi_tool.execute("SET default_transaction_read_only = off")
    with pytest.raises(errors.InsufficientPrivilege):
        bi_tool.execute(statement.encode())


def test_by_itself_it_does_not_even_begin_to_write(bi_tool: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.ReadOnlySqlTransaction):
        bi_tool.execute("CREATE TEMP TABLE mine (x int)")


@pytest.mark.parametrize("statement", SERVER_FILES)
def test_it_reaches_neither_files_nor_programs_nor_other_roles(
    bi_tool: psycopg.Connection[Any], statement: str
) -> None:
    bi_tool.execute("SET default_transaction_read_only = off")
    with pytest.raises(errors.InsufficientPrivilege):
        bi_tool.execute(statement.encode())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"password": ""}, "no password supplied"),
        ({"user": "postgres"}, "no pg_hba.conf entry"),
        ({"user": "postgres", "dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"user": "postgres", "replication": "true"}, "no pg_hba.conf entry"),
        ({"dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"host": "127.0.0.2"}, "refused"),
        ({"host": "::1"}, "refused|Cannot assign|not supported"),
    ],
)
def test_nobody_else_enters_by_tcp(
    address: reader.Address, change: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    with pytest.raises(psycopg.OperationalError, match=reason):
        psycopg.connect(address.url, **change)  # type: ignore[arg-type]  # of many types


def test_a_password_that_was_changed_from_inside_is_set_right(
    corpus: Corpus, address: reader.Address
) -> None:
    with psycopg.connect(address.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER ROLE vecsearch_reader PASSWORD 'other'")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(address.url)
    again = reader.prepare(corpus.library.engine, corpus.library.settings.data_dir)
    assert again == address
    psycopg.connect(address.url).close()


def test_its_password_is_the_owners_alone_and_is_not_shown(
    corpus: Corpus, address: reader.Address
) -> None:
    file = corpus.library.settings.data_dir / "roles/vecsearch_reader.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["password"] == address.password
    assert len(address.password) >= 32
    assert address.password not in repr(address)


def test_the_command_prints_what_to_paste_and_a_port_outlives_a_stop(data_dir: Path) -> None:
    port = free_port()
    started = run(data_dir, "start", "--port", str(port))
    assert (started.returncode, started.stdout) == (0, "")
    assert f"127.0.0.1:{port}" in started.stderr
    printed = run(data_dir, "url", "--reader").stdout
    password = json.loads((data_dir / "roles/vecsearch_reader.json").read_text())["password"]
    assert printed == f"postgresql://vecsearch_reader:{password}@127.0.0.1:{port}/vecsearch\n"
    with psycopg.connect(printed.strip()) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("vecsearch, public",)
    assert run(data_dir, "stop").returncode == 0
    assert not answers(port)
    jdbc = run(data_dir, "url", "--reader", "--jdbc").stdout
    assert jdbc == (
        f"jdbc:postgresql://127.0.0.1:{port}/vecsearch?user=vecsearch_reader&password={password}"
        "&currentSchema=vecsearch,public\n"
    )
    psycopg.connect(printed.strip()).close()
    # The owner's own way in goes on as before, and says where its socket is.
    with psycopg.connect(run(data_dir, "url").stdout.strip()) as connection:
        assert connection.info.user == "postgres"
    assert run(data_dir, "start", "--no-port").returncode == 0
    assert not answers(port)
    refused = run(data_dir, "url", "--reader")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "vecsearch db start --port" in refused.stderr


def test_a_running_server_gets_a_port_when_nobody_uses_it(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    port = free_port()
    with (
        server.lease(data_dir),
        pytest.raises(DatabaseUnavailable, match="Stop `vecsearch serve`"),
    ):
        server.set_port(data_dir, port)
    assert access.port(data_dir) is None
    server.set_port(data_dir, port)
    assert answers(port)
    with server.lease(data_dir) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        # To say again what is so disturbs nobody.
        server.set_port(data_dir, port)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_port_that_is_taken_is_refused_and_leaves_the_server_as_it_was(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True) as url, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        refused = run(data_dir, "start", "--port", str(taken))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"port {taken} of 127.0.0.1: Address already in use. Choose" in refused.stderr
        psycopg.connect(url).close()
    assert access.port(data_dir) is None
    with server.lease(data_dir) as url:
        psycopg.connect(url).close()


def test_a_remembered_port_that_is_taken_later_is_said_and_can_be_given_up(data_dir: Path) -> None:
    port = free_port()
    server.set_port(data_dir, port)
    assert server.stop(data_dir)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with (
            pytest.raises(DatabaseUnavailable, match="none with `vecsearch db start --no-port`"),
            server.lease(data_dir),
        ):
            pass
        server.set_port(data_dir, None)
        with server.lease(data_dir) as url:
            psycopg.connect(url).close()


def test_a_port_with_which_the_server_does_not_start_is_forgotten(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = free_port(), free_port()
    server.set_port(data_dir, first)
    monkeypatch.setattr(access, "require_free", lambda _: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", second))
        other.listen()
        with pytest.raises(DatabaseUnavailable, match="does not start"):
            server.set_port(data_dir, other.getsockname()[1])
    assert access.port(data_dir) == first
    with server.lease(data_dir):
        assert answers(first)


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "--port", "0"),
        ("start", "--port", "65536"),
        ("start", "--port", "5433", "--no-port"),
        ("url", "--jdbc"),
    ],
    ids=" ".join,
)
def test_arguments_that_do_not_fit_are_wrong_usage(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = run(tmp_path / "data", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "data").exists()


def test_without_a_port_there_is_no_reader_and_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="vecsearch db start --port"):
        reader.require_port(tmp_path)
    done = run(tmp_path / "data", "url", "--reader")
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "data").exists()


def test_on_ones_own_postgres_the_documents_statements_make_a_reader(tmp_path: Path) -> None:
    (section,) = re.findall(r"^## Connecting\n(.*?)^## ", DOCUMENT, re.MULTILINE | re.DOTALL)
    (statements,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    with listening(initialise(tmp_path / "postgres", 18)) as url:
        refused = run(tmp_path / "data", "url", "--reader", "--database-url", url)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "docs/sql.md" in refused.stderr
        with Library.open(Settings.load(database_url=url)) as library:
            library.upgrade()
            make_corpus(library, "images", clustered(20, 8, seed=0))
            with psycopg.connect(url) as connection:
                connection.execute(statements.encode())
            make_corpus(library, "later", clustered(20, 8, seed=0))
        own = url.replace("postgres@", "analyst@")
        with psycopg.connect(own, autocommit=True) as connection:
            for name in ("images", "later"):
                assert connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone() == (
                    20,
                )
            connection.execute("SET default_transaction_read_only = off")
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("DELETE FROM images")
