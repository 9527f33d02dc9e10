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
        assert err == f"Stopping after this batch.\nInterrupted. {kept}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except OSError:
        return False
    return True
