"""The embedded server killed, suspended or taken for another process; initdb killed; locks held."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from server_support import HOLDER, is_running, kill, postmaster, scalar

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import locks, server

FLOCK = """
import fcntl, sys
with open(sys.argv[1], "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def zombie() -> int:
    """Return the number of a process that has ended, and that nobody asks about."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    while "zombie" not in Path(f"/proc/{pid}/status").read_text():
        pass
    return pid


PID_FILES: dict[str, Callable[[str], str]] = {
    "of a dead process": lambda text: text.replace(text.split("\n")[0], str(dead()), 1),
    "of a zombie": lambda text: text.replace(text.split("\n")[0], str(zombie()), 1),
    "of this very process": lambda text: text.replace(text.split("\n")[0], str(os.getpid()), 1),
    "of the first process": lambda text: text.replace(text.split("\n")[0], "1", 1),
    "half written": lambda text: text[: len(text) // 3],
    "empty": lambda _: "",
    "garbage": lambda _: "\udcff\x00 not a number\n" * 9,
}


def test_a_killed_server_is_replaced_at_once_and_nobody_else_is_signalled(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    file = data_dir / "postgres/postmaster.pid"
    for what, changed in PID_FILES.items():
        kill(data_dir)
        text = changed(file.read_text())
        file.write_text(text, errors="surrogateescape")
        (data_dir / "postgres/.s.PGSQL.5432.lock").write_text(text, errors="surrogateescape")
        # A signal for this process would be Ctrl-C.
        assert server.stop(data_dir), what
        with server.lease(data_dir, keep_running=True) as url:
            assert scalar(url, "SELECT answer FROM kept") == 42, what


def test_children_of_a_killed_server_are_waited_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vecsearch.postgres.embedded.launching.SAY_AFTER_S", 0.1)
    with server.lease(data_dir, keep_running=True) as url:
        connection = psycopg.connect(url)
        orphan = connection.info.backend_pid
        os.kill(orphan, signal.SIGSTOP)
        kill(data_dir)
        found: list[str] = []

        def again() -> None:
            with server.lease(data_dir) as url:
                found.append(url)

        thread = threading.Thread(target=again)
        thread.start()
        try:
            while "still at work" not in caplog.text:
                assert thread.is_alive()
                time.sleep(0.01)
            assert str(orphan) in caplog.text
            assert not found
        finally:
            os.kill(orphan, signal.SIGCONT)
            thread.join()
        assert found == [url]
        connection.close()
    server.stop(data_dir)


@pytest.mark.parametrize("who", ["the one that stops it", "the next that starts it"])
def test_a_server_that_does_not_end_is_ended_at_once(
    who: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vecsearch.postgres.embedded.launching.STOP_TIMEOUT_S", 0.5)
    with server.lease(data_dir, keep_running=True) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    stuck = psycopg.connect(url)
    os.kill(stuck.info.backend_pid, signal.SIGSTOP)
    if who == "the one that stops it":
        assert server.stop(data_dir)
    else:
        os.kill(postmaster(data_dir), signal.SIGINT)
        while "stopping" not in (data_dir / "postgres/postmaster.pid").read_text():
            assert is_running(data_dir)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT answer FROM kept") == 42
    assert "it ends at once now" in caplog.text
    stuck.close()


def test_a_suspended_server_is_named(data_dir: Path) -> None:
    with server.lease(data_dir, keep_running=True):
        pass
    pid = postmaster(data_dir)
    os.kill(pid, signal.SIGSTOP)
    try:
        with (
            pytest.raises(DatabaseUnavailable, match=f"suspended.*kill -CONT {pid}"),
            server.lease(data_dir),
        ):
            pass
        with pytest.raises(DatabaseUnavailable, match=f"suspended.*kill -CONT {pid}"):
            server.stop(data_dir)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert server.stop(data_dir)


@pytest.mark.parametrize("name", ["start.lock", "users.lock"])
def test_who_holds_a_lock_is_said_and_the_wait_is_bounded(
    data_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "SAY_AFTER_S", 0.1)
    monkeypatch.setattr(locks, "PATIENCE_S", 0.3)
    data_dir.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", FLOCK, str(data_dir / name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        named = f"process {process.pid} \\({sys.executable} -c"
        with pytest.raises(DatabaseUnavailable, match=named), server.lease(data_dir):
            pass
        assert f"Waiting for process {process.pid} (" in caplog.text
        process.communicate()


def test_after_a_killed_initdb_the_first_try_works(data_dir: Path) -> None:
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(data_dir), ""])
        while not any(data_dir.glob("postgres.partial-*/base")):
            assert process.poll() is None
        # Its children go on.
        process.kill()
        process.wait()
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
    assert not is_running(data_dir)
    while any(data_dir.glob("postgres.partial-*")):
        with server.lease(data_dir):
            pass
