"""What the tests need of the machine, and what the workers of one run share on it."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest


def program(*names: str, install: str) -> str:
    """Return the path of the first of these programs that is installed.

    Where none is, the test cannot run; see `lacks`.

    Args:
        names: the program's names, in order of preference.
        install: the package that has it.

    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacks(f"{names[0]} is not installed. Run: apt-get install {install}")
    return found


def lacks(what: str) -> NoReturn:
    """Skip the test for want of something. Under CI=true, fail it: a gate leaves nothing out."""
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def once_per_run(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that `make` fills for the first worker; the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own folder lies in the run's
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = base / f"{name}.partial"
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder
