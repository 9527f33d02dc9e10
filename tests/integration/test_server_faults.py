"""The embedded server killed, suspended or taken for another process; initdb killed; locks held."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from server_support import HOLDER, is_running, kill, postmaster, scalar

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import contents, folder, launching, locks, server
from vecsearch.postgres.embedded import postmaster as servers
from vecsearch.postgres.embedded.credentials import Credentials
from vecsearch.postgres.embedded.launching import Launched

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


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launched]:
    """The servers that are launched from now on."""
    found: list[Launched] = []
    real = launching.launch

    def launch(*arguments: Any) -> Launched:
        found.append(real(*arguments))
        return found[-1]

    monkeypatch.setattr(launching, "launch", launch)
    return found


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name
)
def test_a_server_that_is_ended_while_it_starts_is_started_again(
    data_dir: Path,
    launched: list[Launched],
    number: signal.Signals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with server.lease(data_dir, keep_running=True) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    # So that its next start takes a while.
    kill(data_dir)

    def end() -> None:
        while not servers.find(folder.postgres(data_dir)):
            assert launched[-1].process.poll() is None
        kill(data_dir, number)

    with server.lease(data_dir, meanwhile=end) as url:
        assert scalar(url, "SELECT answer FROM kept") == 42
    assert "The database ended while it started (postgres ended with s" in caplog.text


@pytest.mark.parametrize("step", ["prepare", "read_all", "_connected"])
def test_a_server_that_ends_while_it_is_prepared_is_started_again(
    data_dir: Path, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with server.lease(data_dir):
        pass
    real = getattr(contents, step)
    ends = iter([signal.SIGKILL, signal.SIGQUIT])

    def ending(*arguments: Any, **options: Any) -> Any:
        number = next(ends, None)
        if number and step == "_connected":
            # It is this process alone that ends.
            connection = real(*arguments, **options)
            os.kill(connection.info.backend_pid, signal.SIGTERM)
            return connection
        if number:
            kill(data_dir, number)
            if step == "read_all":
                return [Credentials("reader", is_writer=False, password="", verifier="")]
        return real(*arguments, **options)

    monkeypatch.setattr(contents, step, ending)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
    assert caplog.text.count("The database ended while it started") == 2


def test_a_server_that_is_ended_each_time_is_given_up(
    data_dir: Path, launched: list[Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.lease(data_dir):
        pass
    launched.clear()
    real = launching.launch

    def killed(*arguments: Any) -> Launched:
        found = real(*arguments)
        found.process.kill()
        return found

    said = "does not start: postgres ended with signal 9"
    with monkeypatch.context() as patched:
        patched.setattr(launching, "launch", killed)
        with pytest.raises(DatabaseUnavailable, match=said), server.lease(data_dir):
            pass
    assert len(launched) >= server.STARTS
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1


def test_an_error_of_its_own_ends_a_start_at_once(data_dir: Path, launched: list[Launched]) -> None:
    with server.lease(data_dir):
        pass
    launched.clear()
    with (data_dir / "postgres/postgresql.conf").open("a") as settings:
        settings.write("nonsense = 1\n")
    said = "does not start: .*configuration file.*contains errors"
    with pytest.raises(DatabaseUnavailable, match=said), server.lease(data_dir):
        pass
    assert len(launched) == 1


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


def test_the_scratch_server_of_a_killed_command_ends_with_the_next(data_dir: Path) -> None:
    program = HOLDER.replace("server.lease(", "server.scratch(").replace(
        ', keep_running=sys.argv[2] == "keep"', ""
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [left] = data_dir.glob("scratch-*")
        pid = postmaster(left)
        with server.scratch(data_dir) as url:
            assert scalar(url, "SELECT 1") == 1
        # That of a command that lives is left alone.
        assert is_running(left)
        process.kill()
    assert is_running(left)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT 1") == 1
        assert not [*data_dir.glob("scratch-*")]
    with suppress(psutil.NoSuchProcess):
        # Nobody may have asked yet how it ended.
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
