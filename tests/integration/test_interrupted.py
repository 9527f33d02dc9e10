"""Ctrl-C: while the command line loads, and while the server stops."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from support import clustered, make_corpus, once, run_command

from vecsearch.errors import ClusterUnavailable
from vecsearch.ingest.folders import Ingesting
from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library

pytestmark = once
COMMAND = [sys.executable, "-m", "vecsearch"]


def test_ctrl_c_while_loading_shows_no_traceback(tmp_path: Path) -> None:
    interrupting = "import os, signal; os.kill(os.getpid(), signal.SIGINT); import nothing"
    (tmp_path / "typer.py").write_text(interrupting)
    done = subprocess.run(
        [*COMMAND, "status"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_a_second_ctrl_c_stops_at_once(library: Library) -> None:
    words = [*COMMAND, "serve", "--port", "0", "--all-users", "--database-url", library.url]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            found = re.fullmatch(r"Serving http://(.*):(\d+)/ until Ctrl-C\.\n", said)
            assert found is not None, said
            address = found[1], int(found[2])
            with socket.create_connection(address) as waiting:
                head = "POST / HTTP/1.1\r\nHost: {}:{}\r\nOrigin: http://{}:{}\r\n"
                head += "Expect: 100-continue\r\nContent-Length: 9\r\n"
                head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                waiting.sendall(head.format(*address, *address).encode())
                # The request is being answered.
                assert waiting.recv(4_096).startswith(b"HTTP/1.1 100")
                process.send_signal(signal.SIGINT)
                while _is_listening(address):
                    pass
                process.send_signal(signal.SIGINT)
                assert (process.stderr.read(), process.wait()) == ("Stopped.\n", 0)
        finally:
            process.kill()


def test_ctrl_c_during_an_ingest_says_at_once_what_happens(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        # At once, in this thread; os.kill may reach another thread, and this one later.
        signal.raise_signal(signal.SIGINT)

    for name, kept in (
        ("images", "Nothing was stored; run the same command to start again."),
        ("birds", "Every finished batch is kept; run the same command to continue."),
    ):
        monkeypatch.setattr("vecsearch.ingest.folders.ingest", interrupt)
        if name == "birds":
            make_corpus(library, name, clustered(1, 4, seed=0))
        code, out, err = run_command(library, "ingest", "photos", "-c", name)
        assert (code, out) == (130, "")
        assert err == f"Stopping.\nInterrupted. {kept}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture(params=["SIGINT", "SIGTERM", "SIGHUP"])
def interrupting(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that interrupts, as all of them do in a command."""
    chosen = signal.Signals[request.param]
    usual = signal.signal(chosen, signal.default_int_handler)
    yield chosen
    assert signal.signal(chosen, usual) is signal.default_int_handler


def test_ctrl_c_stops_an_ingest_where_python_or_ray_loses_it(
    library: Library, monkeypatch: pytest.MonkeyPatch, interrupting: signal.Signals
) -> None:
    def dropped(wanted: Ingesting) -> None:
        wanted.on_progress(Progress(0, 2, Summary()))
        with suppress(KeyboardInterrupt):
            signal.raise_signal(interrupting)
        wanted.on_progress(Progress(1, 2, Summary()))
        pytest.fail("it went on")

    def replaced(_: Ingesting) -> None:
        try:
            signal.raise_signal(interrupting)
        except KeyboardInterrupt:
            raise ClusterUnavailable("A worker ended.") from None

    def asked(_: Ingesting) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(interrupting)
        raise typer.Abort

    for lose, error in (dropped, ""), (replaced, "error: A worker ended.\n"), (asked, ""):
        monkeypatch.setattr(
            "vecsearch.ingest.folders.ingest", lambda *words, lose=lose: lose(words[-1])
        )
        code, out, err = run_command(library, "ingest", "photos")
        assert (code, out) == (130, "")
        assert err.startswith(f"Stopping.\n{error}Interrupted. Nothing was stored;")


def test_an_error_without_ctrl_c_is_an_error(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ClusterUnavailable("A worker ended.")

    monkeypatch.setattr("vecsearch.ingest.folders.ingest", fail)
    assert run_command(library, "ingest", "photos") == (1, "", "error: A worker ended.\n")


def _is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except OSError:
        return False
    return True
