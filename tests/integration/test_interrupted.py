"""Ctrl-C: while the command line loads, and while the server stops."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support import clustered, make_corpus, once, run_command

from vecsearch.errors import ClusterUnavailable
from vecsearch.library import Library

pytestmark = once
COMMAND = [sys.executable, "-m", "vecsearch"]
# A command line whose ingest gets a signal: in a process of its own, so that its end is seen, and a
# signal that nothing handles ends no other test.
INTERRUPTED = """
import signal, sys
from contextlib import suppress

import typer

from vecsearch import cli
from vecsearch.errors import ClusterUnavailable
from vecsearch.ingest import folders
from vecsearch.ingest.summary import Progress, Summary

number, manner = signal.Signals[sys.argv.pop(1)], sys.argv.pop(1)

def raised(*_):
    signal.raise_signal(number)

def dropped(store, name, wanted):
    wanted.on_progress(Progress(0, 2, Summary()))
    with suppress(KeyboardInterrupt):
        raised()
    wanted.on_progress(Progress(1, 2, Summary()))
    sys.exit("It went on.")

def replaced(*_):
    try:
        raised()
    except KeyboardInterrupt:
        raise ClusterUnavailable("A worker ended.") from None

def asked(*_):
    with suppress(KeyboardInterrupt):
        raised()
    raise typer.Abort

folders.ingest = globals()[manner]
signal.signal(number, signal.default_int_handler)  # nohup ignores SIGHUP
status = cli.main()
if signal.getsignal(number) is not signal.default_int_handler:
    sys.exit("The handler stayed.")
sys.exit(status)
"""


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


@pytest.mark.parametrize("name", ["images", "birds"])
def test_ctrl_c_during_an_ingest_says_at_once_what_happens(library: Library, name: str) -> None:
    make_corpus(library, "birds", clustered(1, 4, seed=0))
    kept = {
        "images": "Nothing was stored; run the same command to start again.",
        "birds": "Every finished batch is kept; run the same command to continue.",
    }
    said = f"Stopping.\nInterrupted. {kept[name]}\n"
    assert interrupted(library, "SIGINT", "raised", "-c", name) == (130, "", said)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_stops_an_ingest_where_python_or_ray_loses_it(library: Library, number: str) -> None:
    errors = {"dropped": "", "replaced": "error: A worker ended.\n", "asked": ""}
    for manner, error in errors.items():
        code, out, err = interrupted(library, number, manner)
        assert (code, out) == (130, "")
        assert err.startswith(f"Stopping.\n{error}Interrupted. Nothing was stored;")


def test_an_error_without_ctrl_c_is_an_error(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ClusterUnavailable("A worker ended.")

    monkeypatch.setattr("vecsearch.ingest.folders.ingest", fail)
    assert run_command(library, "ingest", "photos") == (1, "", "error: A worker ended.\n")


def interrupted(library: Library, number: str, manner: str, *options: str) -> tuple[int, str, str]:
    """Run an ingest that is interrupted; return its exit status, stdout and stderr."""
    ingest = ["ingest", "photos", *options, "--database-url", library.url]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, number, manner, *ingest],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except OSError:
        return False
    return True
