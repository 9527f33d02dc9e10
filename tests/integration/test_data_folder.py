"""The data folder: its user's alone, whoever else is on the machine; and folders that are none."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_support import HOLDER, scalar

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import configure, folder, initdb, programs, server

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


def modes(place: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.lstat().st_mode) for entry in place.iterdir()}


def below(place: Path) -> Iterator[Path]:
    for where, _, files in os.walk(place):
        yield Path(where)
        yield from (Path(where) / file for file in files)


def refusal(data_dir: Path) -> str:
    """Return why a data folder cannot be used: a sentence, and what to do."""
    with pytest.raises(DatabaseUnavailable) as caught, server.lease(data_dir):
        pass
    message = str(caught.value)
    assert ". " in message
    assert message.endswith(("VECSEARCH_DATA_DIR.", "--data-dir.", "new one."))
    return message


def test_no_other_user_gets_anywhere_and_nothing_above_is_opened(data_dir: Path) -> None:
    parent = data_dir.parent
    parent.chmod(0o700)
    before = {place: place.stat() for place in [parent, *parent.parents]}
    old = os.umask(0o000)
    try:
        with server.lease(data_dir, keep_running=True) as url:
            assert scalar(url, "SELECT 1") == 1
            assert scalar(url, "SHOW client_connection_check_interval") == "500ms"
            server.set_port(data_dir, None)
            found = [place for place in below(data_dir) if place.lstat().st_mode & 0o077]
            # The server's sockets and its lock files are in a folder that nobody can enter.
            assert {place.parent for place in found} <= {data_dir / "postgres"}
            owner = programs.account()
            database = (data_dir / "postgres").stat()
            assert (database.st_uid, stat.S_IMODE(database.st_mode)) == (owner.uid, 0o700)
    finally:
        os.umask(old)
    for place, was in before.items():
        now = place.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_an_open_folder_is_closed_unless_it_holds_something_else(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o755)
    for name in ("users.lock", "start.lock", "cookies.key"):
        (data_dir / name).touch()
        (data_dir / name).chmod(0o644)
    folder.prepare(data_dir)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert modes(data_dir) == dict.fromkeys(("users.lock", "start.lock", "cookies.key"), 0o600)
    (data_dir / "letters").touch()
    (data_dir / "letters").chmod(0o644)
    data_dir.chmod(0o755)
    folder.prepare(data_dir)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755
    assert modes(data_dir)["letters"] == 0o644
    data_dir.chmod(0o1777)
    assert "Other users can write" in refusal(data_dir)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o1777
    data_dir.chmod(0o700)


@needs_root
def test_a_folder_or_lock_of_another_user_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    os.chown(data_dir, NOBODY, NOBODY)
    data_dir.chmod(0o755)
    assert "belongs to the user 'nobody'" in refusal(data_dir)
    with pytest.raises(DatabaseUnavailable, match="belongs to"):
        server.stop(data_dir)
    assert not list(data_dir.iterdir())
    assert (data_dir.stat().st_uid, stat.S_IMODE(data_dir.stat().st_mode)) == (NOBODY, 0o755)
    os.chown(data_dir, 0, 0)
    (data_dir / "users.lock").touch()
    os.chown(data_dir / "users.lock", NOBODY, NOBODY)
    assert "not a file of this user's" in refusal(data_dir)
    (data_dir / "users.lock").unlink()


def test_a_link_in_place_of_a_lock_is_not_followed(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    target = tmp_path / "target"
    target.touch()
    target.chmod(0o644)
    (data_dir / "users.lock").symlink_to(target)
    refusal(data_dir)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    (data_dir / "users.lock").unlink()


def test_what_the_servers_user_puts_in_place_of_its_settings_is_not_read(tmp_path: Path) -> None:
    secret, database = tmp_path / "secret", tmp_path / "postgres"
    secret.write_text("theirs")
    database.mkdir()
    (database / "PG_VERSION").write_text("18\n")
    (database / "postgresql.conf").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        configure.write_files(database, programs.account())
    assert not any("theirs" in file.read_text() for file in database.glob("[!p]*"))
    assert (database / "postgresql.conf").is_symlink()


PIPES = ["postmaster.pid", "log", "postgresql.conf", "PG_VERSION", ".s.PGSQL.5432.lock"]


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_in_place_of_a_file_of_the_server_holds_up_nobody(data_dir: Path, name: str) -> None:
    with server.lease(data_dir):
        pass
    file = data_dir / "postgres" / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    # It ends by itself: the limit is for when it does not.
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, str(data_dir), ""],
        check=False,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    if name.endswith((".pid", ".lock")):
        assert done.returncode == 0
    else:
        assert (done.returncode, "DatabaseUnavailable" in done.stderr) == (1, True)
        assert name in done.stderr
        file.unlink()


def test_initdb_has_its_time(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(initdb, "TIMEOUT_S", 0.0)
        assert "has not ended after 0 seconds" in refusal(data_dir)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "missing or empty"),
        ("", "missing or empty"),
        ("eighteen\udcff\n", "names no version"),
        ("17\n", "PostgreSQL 17, run `vecsearch db dump FILE --database-url URL`"),
    ],
)
def test_a_folder_that_is_no_database_of_ours_is_refused(
    data_dir: Path, version: str | None, said: str
) -> None:
    (data_dir / "postgres/base").mkdir(parents=True)
    if version is not None:
        (data_dir / "postgres/PG_VERSION").write_text(version, errors="surrogateescape")
    assert said in refusal(data_dir)
    assert (data_dir / "postgres/base").is_dir()


def test_an_empty_folder_is_filled(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / os.fsdecode(b"caf\xe9")
    assert "is not UTF-8" in refusal(data_dir)
    assert not data_dir.exists()


def test_the_socket_of_a_deep_folder_is_out_of_reach_of_squatters(tmp_path: Path) -> None:
    data_dir = tmp_path / ("deep/" * 30)
    remembered = data_dir / "socket-folder"
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
        first = Path(remembered.read_text().strip())
        assert str(first) in url
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert first.stat().st_uid == programs.account().uid
    with server.lease(data_dir):
        assert Path(remembered.read_text().strip()) == first
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    owner = target.stat().st_uid
    first.rmdir()
    first.symlink_to(target)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
        second = Path(remembered.read_text().strip())
    assert second != first
    assert not list(target.iterdir())
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (owner, 0o755)
    first.unlink()
    second.chmod(0o755)
    with server.lease(data_dir):
        third = Path(remembered.read_text().strip())
    assert third not in {first, second}
    for left in (second, third):
        left.rmdir()


def test_a_useradd_that_does_not_end_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "useradd"
    stuck.write_text("#!/bin/sh\nexec /bin/sleep 3600\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(programs, "SYSTEM_USER", "nobody-has-this-name")
    monkeypatch.setattr(programs, "USERADD_S", 0.01)
    with pytest.raises(DatabaseUnavailable, match=r"useradd did not end within .* Create the"):
        programs.account()
