"""Databases that cannot be used, and what a user is told."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from servers import Handle, free_port, initialise, listening
from support import every_server, once

from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable, ExtensionMissing, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres.embedded import programs

pytestmark = every_server


def status(url: str) -> object:
    with Library.open(Settings.load(database_url=url)) as library:
        return library.status()


def unavailable(url: str) -> str:
    """Check that nothing can be done with this URL and return what is said of it, a sentence."""
    with pytest.raises(DatabaseUnavailable) as caught:
        status(url)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("Cannot use the database: ")
    assert message.endswith(
        "Check that it is running and that --database-url or VECSEARCH_DATABASE_URL is right."
    )
    return message


def test_a_port_where_nothing_listens_is_unavailable() -> None:
    message = unavailable(f"postgresql://user:s3cret@127.0.0.1:{free_port()}/db")
    assert "refused" in message
    assert "s3cret" not in message


def test_a_host_that_does_not_exist_is_unavailable() -> None:
    assert "s3cret" not in unavailable("postgresql://user:s3cret@no-such-host.invalid/db")


def test_a_socket_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    unavailable(f"postgresql:///db?host={tmp_path}")


def test_a_database_that_does_not_exist_is_unavailable(server_url: str) -> None:
    url = sa.make_url(server_url).set(database="nowhere")
    assert '"nowhere" does not exist' in unavailable(url.render_as_string(hide_password=False))


@pytest.fixture
def scram_url(server_url: str) -> Iterator[sa.URL]:
    """The server's URL for a role that must give its password, s3cret."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 's3cret'")
        ((file,),) = connection.execute("SHOW hba_file").fetchall()
        # As root, the server reaches its folder by an open file of its own.
        hba = Path(file.replace("/proc/self/", f"/proc/{connection.info.backend_pid}/"))
        before = hba.read_text()
        rules = "local all guarded scram-sha-256\nhost all guarded all scram-sha-256\n"
        hba.write_text(rules + before)
        connection.execute("SELECT pg_reload_conf()")
        try:
            # Until the postmaster has read it, which only a refusal tells.
            url = sa.make_url(server_url).set(username="guarded")
            while can_connect(url):
                pass
            yield url
        finally:
            hba.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("DROP ROLE guarded")


def can_connect(url: sa.URL) -> bool:
    try:
        psycopg.connect(url.render_as_string(hide_password=False)).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_wrong_password_is_told_and_not_shown(scram_url: sa.URL) -> None:
    right = scram_url.set(password="s3cret")
    status(right.render_as_string(hide_password=False))
    wrong = scram_url.set(password="wr0ng")
    message = unavailable(wrong.render_as_string(hide_password=False))
    assert "password authentication failed" in message
    assert "wr0ng" not in message


def test_a_status_does_not_show_the_password(scram_url: sa.URL) -> None:
    url = scram_url.set(password="s3cret")
    assert "s3cret" not in repr(status(url.render_as_string(hide_password=False)))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/db",
        "mysql://user:s3cret/s3cret@host/db",
        "mysql://user:s3cret:s3cret@host/db",
        "mysql://user:s3cret@s3cret@host/db",
        "postgresql://user:s3cret@host:port/db",
        "postgresql+nodriver//user:s3cret@host",
        "user:s3cret@host/db",
        "s3cret",
        "//s3cret",
    ],
)
def test_what_is_no_postgres_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidInput, match="postgresql://user:password@host") as caught:
        status(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"]
)
def test_every_way_to_write_a_postgres_url_works(server_url: str, scheme: str) -> None:
    _, _, rest = server_url.partition("://")
    status(f"{scheme}://{rest}")


def test_connections_that_died_between_two_commands_are_replaced(
    library: Library, server_url: str
) -> None:
    assert library.collections() == []
    with psycopg.connect(server_url) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            [library.engine.url.database],
        ).fetchall()
    assert ended == [(True,)]
    assert library.collections() == []


LOSING = """
import contextlib, sys
from vecsearch.postgres import database
with database.open_engine(sys.argv[1]).connect() as connection, contextlib.suppress(Exception):
    driver = database.driver_connection(connection)
    driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
print("lost")
"""


@once
def test_a_lost_connection_is_our_error_alone(library: Library) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSING, library.url], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("lost\n", "")


def without_pgvector(folder: Path) -> Handle:
    """Return the handle of a new server whose installation lacks pgvector."""
    folder.chmod(0o755)
    binaries = programs.program("postgres").parent
    package = binaries.parent.parent
    copy = folder / package.name / binaries.parent.name
    shutil.copytree(binaries.parent, copy, symlinks=True)
    # The wheel's shared libraries, which its programs find by their own place.
    for libraries in package.parent.glob(f"{package.name}.libs"):
        (folder / libraries.name).symlink_to(libraries)
    (control,) = copy.rglob("vector.control")
    control.unlink()
    return initialise(
        folder / "postgres", programs.POSTGRES_VERSION, copy / binaries.name / "postgres"
    )


def test_a_server_without_pgvector_says_how_to_get_it(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.touch()
    with (
        # Not tmp_path: as root, the server runs as somebody else, who cannot enter that.
        tempfile.TemporaryDirectory() as folder,
        listening(without_pgvector(Path(folder))) as url,
        Library.open(Settings.load(database_url=url)) as library,
    ):
        for refused in (library.upgrade, lambda: library.collection().ingest([picture])):
            with pytest.raises(ExtensionMissing, match="https://github"):
                refused()
        assert library.collections() == []
        assert library.status().pgvector is None
