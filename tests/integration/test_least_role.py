"""What reads on the embedded database, reads as a role that can do nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import clustered, make_corpus

from vecsearch.config import Settings
from vecsearch.errors import DatabaseBusy, DatabaseError, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres.embedded import access, server
from vecsearch.postgres.sessions.settings import READING_LIMITS

ROWS = 60


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    data_dir = tmp_path_factory.mktemp("least") / "data"
    with Library.open(Settings.load(data_dir=data_dir)) as opened:
        opened.upgrade()
        make_corpus(opened, "images", clustered(ROWS, 16, seed=3))
        yield opened


def reading(library: Library, statement: str) -> list[tuple[Any, ...]]:
    with library.sql(statement) as (_, rows, _):
        return list(rows)


# Each of these is the whole of a statement.
ATTACKS = [
    "COPY (SELECT 1) TO PROGRAM 'touch {file}'",
    "/**/COPY (SELECT 1) TO PROGRAM 'touch {file}'",
    "COPY (SELECT 1) TO '{file}'",
    "DO $$BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''touch {file}'''; END$$",
    "DO $$BEGIN SET LOCAL ROLE postgres; COPY (SELECT 1) TO '{file}'; END$$",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER SYSTEM SET archive_command = 'touch {file}'",
    "ALTER ROLE vecsearch_local SUPERUSER",
    "CREATE TEMP TABLE filling AS SELECT 1",
    "LOAD 'auto_explain'",
    "DELETE FROM images",
    "DROP SCHEMA vecsearch CASCADE",
    "LOCK TABLE images IN ACCESS EXCLUSIVE MODE",
]
# Each of these is true or false, or fails.
CONDITIONS = [
    "pg_read_file('/etc/passwd') <> ''",
    "pg_read_binary_file('{file}') IS NULL",
    "pg_ls_dir('/') IS NULL",
    "lo_import('/etc/passwd') > 0",
    "lo_from_bytea(0, 'x') > 0",
    "(SELECT pg_terminate_backend(pid) FROM pg_stat_activity LIMIT 1)",
    "pg_create_physical_replication_slot('mine') IS NOT NULL",
    "pg_advisory_lock(1) IS NULL",
    "pg_reload_conf()",
    "pg_switch_wal() IS NULL",
    "pg_logical_emit_message(false, 'a', 'b') IS NULL",
    "query_to_xml('COPY (SELECT 1) TO PROGRAM ''touch {file}''', true, false, '') IS NULL",
    "(SELECT passwd FROM pg_shadow LIMIT 1) IS NULL",
    "set_config('role', 'postgres', true) = 'postgres'",
]


@pytest.mark.parametrize("attack", [*ATTACKS, *(f"SELECT 1 WHERE {one}" for one in CONDITIONS)])
def test_a_statement_reaches_nothing_but_the_tables(
    library: Library, tmp_path: Path, attack: str
) -> None:
    file = tmp_path / "made"
    with pytest.raises(DatabaseError):
        reading(library, attack.format(file=file))
    assert not file.exists()
    assert reading(library, "SELECT count(*) FROM images") == [(ROWS,)]


DOORS: dict[str, Callable[[Library, str], object]] = {
    "query": lambda library, where: library.query(id=reading_id(library), where=where),
    "tags": lambda library, where: library.collection().tags.listed(where=where),
}


def reading_id(library: Library) -> Any:
    return reading(library, "SELECT id FROM images LIMIT 1")[0][0]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_reaches_nothing_but_the_tables(
    library: Library, tmp_path: Path, door: str, condition: str
) -> None:
    file = tmp_path / "made"
    with pytest.raises(DatabaseError):
        DOORS[door](library, condition.format(file=file))
    assert not file.exists()
    assert reading(library, "SELECT count(*) FROM images") == [(ROWS,)]


def test_whoever_reads_is_no_superuser_and_writes_nothing(library: Library) -> None:
    found = reading(
        library,
        "SELECT current_user, session_user, rolsuper OR rolcreaterole OR rolcreatedb OR"
        " rolreplication OR rolbypassrls, current_setting('transaction_read_only'),"
        " (SELECT count(*) FROM pg_class WHERE relnamespace = 'vecsearch'::regnamespace"
        " AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))"
        " FROM pg_roles WHERE rolname = current_user",
    )
    assert found == [(access.LOCAL, access.LOCAL, False, "on", 0)]


def test_it_reads_whatever_is_made_later(library: Library) -> None:
    with library.sql("CREATE TABLE vecsearch.mine AS SELECT 1 AS n", write=True):
        pass
    make_corpus(library, "later", clustered(5, 16, seed=4))
    assert reading(library, "SELECT n FROM mine") == [(1,)]
    assert reading(library, "SELECT count(*) FROM later") == [(5,)]
    library.collection("later").drop()


def test_a_schema_that_was_dropped_and_made_again_is_readable(tmp_path: Path) -> None:
    with Library.open(Settings.load(data_dir=tmp_path / "data")) as library:
        for _ in range(2):
            library.upgrade()
            assert library.collections() == []
            with library.sql("DROP SCHEMA vecsearch, vecsearch_internal CASCADE", write=True):
                pass


def test_a_statement_has_its_time(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(DatabaseBusy, match="--timeout"),
        library.sql("SELECT pg_sleep(600)", timeout=0.05),
    ):
        pass
    monkeypatch.setitem(READING_LIMITS, "statement_timeout", "50ms")
    with pytest.raises(DatabaseBusy) as stopped:
        reading(library, "SELECT pg_sleep(600)")
    assert "vecsearch" not in stopped.value.sentence, "visitors of the page have no terminal"
    for door in DOORS.values():
        with pytest.raises(DatabaseBusy):
            door(library, "pg_sleep(600) IS NOT NULL")


def test_writing_is_the_owners(library: Library) -> None:
    with library.sql("SELECT session_user", write=True) as (_, rows, _):
        assert list(rows) == [("postgres",)]


def test_the_command_cannot_be_talked_into_more(library: Library, tmp_path: Path) -> None:
    file = tmp_path / "made"
    said = subprocess.run(
        [
            *(sys.executable, "-m", "vecsearch", "sql", f"/**/COPY (SELECT 1) TO '{file}'"),
            *("--data-dir", str(library.settings.data_dir)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout, file.exists()) == (1, "", False)
    assert said.stderr.startswith("error: permission denied to COPY to a file\n")
    assert said.stderr.rstrip().endswith("can only read the tables.")


def test_a_folder_of_an_older_version_gets_the_role(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        library.upgrade()
        make_corpus(library, "images", clustered(5, 16, seed=4))
    with server.lease(data_dir) as url, psycopg.connect(url) as connection:
        connection.execute(f"DROP OWNED BY {access.LOCAL}; DROP ROLE {access.LOCAL}".encode())
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        assert reading(library, "SELECT count(*) FROM images") == [(5,)]


def test_a_role_that_was_changed_is_restored(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with server.lease(data_dir) as url, psycopg.connect(url) as connection:
        connection.execute(f"ALTER ROLE {access.LOCAL} SUPERUSER".encode())
        connection.execute(f"ALTER ROLE {access.LOCAL} RESET lock_timeout".encode())
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        assert reading(library, "SHOW lock_timeout") == [("30s",)]
        assert reading(library, "SHOW is_superuser") == [("off",)]


def test_a_server_of_ones_own_is_read_by_the_readers_url(library: Library) -> None:
    settings = Settings.load(database_url=library.url, reader_url=access.as_local(library.url))
    with Library.open(settings) as own:
        assert reading(own, "SELECT session_user") == [(access.LOCAL,)]
    with Library.open(Settings.load(database_url=library.url)) as own:
        assert reading(own, "SELECT session_user") == [("postgres",)]
    with pytest.raises(InvalidInput, match="VECSEARCH_READER_URL"):
        Settings.load(reader_url="postgresql://localhost/x", environ={})


def test_superusers_who_read_are_told(library: Library) -> None:
    assert library.status().advice is None
    with Library.open(Settings.load(database_url=library.url)) as own:
        assert "superuser" in str(json.dumps(own.status().advice))
