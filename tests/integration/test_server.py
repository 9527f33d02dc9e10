"""The embedded server: who starts it, who stops it, and where it may live."""

import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from server_support import HOLDER, holder, is_running, kill, postmaster, scalar
from servers import initialise

from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable
from vecsearch.library import Library
from vecsearch.postgres.embedded import launching, server


def test_a_lease_starts_the_server_and_its_end_stops_it(data_dir: Path) -> None:
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT current_database()") == "vecsearch"
        assert is_running(data_dir)
    assert not is_running(data_dir)
    with pytest.raises(psycopg.OperationalError):
        scalar(url, "SELECT 1")


def test_a_start_that_is_interrupted_leaves_no_server(data_dir: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), server.lease(data_dir, meanwhile=interrupt):
        pass
    # Where it was not stopped, its files do not name it yet.
    assert not launching.is_alive(data_dir / "postgres")
    with holder(data_dir):
        first = postmaster(data_dir)
        with pytest.raises(KeyboardInterrupt), server.lease(data_dir, meanwhile=interrupt):
            pass
        assert postmaster(data_dir) == first


def test_what_was_written_is_there_the_next_time(data_dir: Path) -> None:
    with server.lease(data_dir) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT answer FROM kept") == 42


def test_processes_share_a_server_and_the_last_one_out_stops_it(data_dir: Path) -> None:
    with holder(data_dir):
        first = postmaster(data_dir)
        with server.lease(data_dir) as url:
            assert postmaster(data_dir) == first
            assert scalar(url, "SELECT 1") == 1
        assert postmaster(data_dir) == first
        with server.lease(data_dir):
            with server.lease(data_dir):
                pass
            assert postmaster(data_dir) == first
    assert not is_running(data_dir)


def test_processes_that_start_at_once_share_a_server(data_dir: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(data_dir), ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == ["ready\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert not is_running(data_dir)


def test_a_server_that_is_to_stay_stays_until_it_is_stopped(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True) as url:
        pass
    assert scalar(url, "SELECT 1") == 1
    with server.lease(data_dir):
        pass
    assert is_running(data_dir)
    assert server.stop(data_dir)
    assert not is_running(data_dir)
    assert server.stop(data_dir)


def test_a_stop_while_it_is_used_waits_for_the_last_user(data_dir: Path) -> None:
    with holder(data_dir, keep=True):
        assert not server.stop(data_dir)
        assert is_running(data_dir)
    assert not is_running(data_dir)


def test_stopping_where_there_is_nothing_makes_nothing(data_dir: Path) -> None:
    assert server.stop(data_dir)
    assert not data_dir.exists()


def test_after_a_killed_process_the_next_lease_works_and_stops_the_server(data_dir: Path) -> None:
    with holder(data_dir) as process:
        process.kill()
        process.wait()
    assert is_running(data_dir)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
    assert not is_running(data_dir)


def test_after_a_killed_server_the_next_lease_recovers_what_was_committed(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        kill(data_dir, signal.SIGQUIT)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT answer FROM kept") == 42


@pytest.mark.parametrize(
    "name", ["deep/" * 40 + "end", "two words", "it's", "100% ünï", "semi;colon & (paren) #1 ?x=1"]
)
def test_a_data_folder_may_have_any_path(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    assert len(str(data_dir)) > 107 or not name.startswith("deep")
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        library.upgrade()
        assert library.collections() == []
        with server.lease(data_dir) as url:
            assert scalar(url, "SELECT 1") == 1
    assert not is_running(data_dir)


@pytest.mark.parametrize(
    "name", ["com,ma", "dol$lar", 'quo"te', "back\\slash", "tick`s", "new\nline"]
)
def test_a_path_that_postgres_cannot_quote_is_refused(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(DatabaseUnavailable, match="Choose another with --data-dir"),
        server.lease(tmp_path / name),
    ):
        pass
    assert not (tmp_path / name).exists()


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        with (
            pytest.raises(DatabaseUnavailable, match="Cannot use the data folder"),
            server.lease(place),
        ):
            pass
        assert server.stop(place)


def test_a_folder_of_another_major_version_is_opened_with_that(data_dir: Path) -> None:
    initialise(data_dir / "postgres", 16)
    with server.lease(data_dir) as url:
        assert str(scalar(url, "SHOW server_version")).startswith("16.")
    assert not is_running(data_dir)


def test_any_client_finds_the_tables_without_their_schema(data_dir: Path) -> None:
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        library.upgrade()
        assert scalar(library.url, "SHOW search_path") == "vecsearch, public"
        assert scalar(library.url, "SELECT count(*) FROM collections") == 0
        assert library.status().embedded


def test_memory_is_sized_to_the_machine_unless_the_user_says_otherwise(data_dir: Path) -> None:
    with server.lease(data_dir) as url:
        for name in ("shared_buffers", "maintenance_work_mem"):
            statement = f"SELECT sourcefile FROM pg_settings WHERE name = '{name}'"
            assert str(scalar(url, statement)).endswith("vecsearch.conf")
        assert scalar(url, "SHOW jit") == "off"
        # And it is on no network.
        assert scalar(url, "SHOW listen_addresses") == ""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET shared_buffers = '96MB'")
            connection.execute("ALTER DATABASE vecsearch SET search_path = public")
    with server.lease(data_dir) as url:
        assert scalar(url, "SHOW shared_buffers") == "96MB"
        assert scalar(url, "SHOW search_path") == "public"
