"""What the tests of the embedded server share."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from vecsearch.postgres.embedded import folder
from vecsearch.postgres.embedded import postmaster as servers

HOLDER = """
import sys
from pathlib import Path
from vecsearch.postgres.embedded import server

with server.lease(Path(sys.argv[1]), keep_running=sys.argv[2] == "keep"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def is_running(data_dir: Path) -> bool:
    return (data_dir / "postgres" / "postmaster.pid").exists()


def postmaster(data_dir: Path) -> int:
    found = servers.find(folder.postgres(data_dir))
    assert found is not None
    return found.pid


def kill(data_dir: Path, number: int = signal.SIGKILL) -> None:
    """Kill the server, and wait until its process has ended."""
    os.kill(postmaster(data_dir), number)
    while servers.find(folder.postgres(data_dir)):
        pass


def scalar(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        ((value,),) = connection.execute(statement.encode()).fetchall()
        return value


@contextmanager
def holder(data_dir: Path, *, keep: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds a lease until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir), "keep" if keep else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() in {0, -signal.SIGKILL}
