"""The embedded server's disk is full, or cannot be written to: it is said, and nothing is lost."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from server_support import kill, scalar

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import server

FULL = r"There is no space left on the disk of .*: \d+ MB are free\. Free at least \d+ MB"


@contextmanager
def filled(disk: Path, leave: int = 0) -> Iterator[None]:
    """Take what is free of a disk, less some bytes."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leave)
        yield
    finally:
        ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted, which takes root: {done.stderr.strip()}")
    try:
        yield place
    finally:
        server.stop(place / "data")
        subprocess.run(["umount", str(place)], check=True)


def refused(data_dir: Path, words: str = FULL) -> None:
    with pytest.raises(DatabaseUnavailable, match=words), server.lease(data_dir):
        pass


def test_a_full_disk_is_named_and_loses_nothing(disk: Path) -> None:
    data_dir = disk / "data"
    with filled(disk, 5 * 2**20):
        refused(data_dir)
        assert not any(data_dir.glob("postgres*"))
    with server.lease(data_dir, keep_running=True) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    for leave in (0, 100_000):
        # After a crash, as an ingest that fills the disk may end.
        kill(data_dir)
        with filled(disk, leave):
            try:
                with server.lease(data_dir, keep_running=True) as url:
                    pass  # what it has is enough
            except DatabaseUnavailable as error:
                assert re.match(FULL, str(error))  # noqa: PT017 - it need not fail
        with server.lease(data_dir, keep_running=True) as url:
            assert scalar(url, "SELECT answer FROM kept") == 42
    assert server.stop(data_dir)
    for options, words in (("remount,ro", "Read-only file system"), ("remount,rw", "")):
        subprocess.run(["mount", "-o", options, str(disk)], check=True)
        if words:
            refused(data_dir, words)
    with server.lease(data_dir) as url:
        assert scalar(url, "SELECT answer FROM kept") == 42
