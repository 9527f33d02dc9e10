"""Fixtures that more than one kind of test uses."""

import atexit
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from servers import CITUS_VARIABLE, SETS
from support import draw_photos, save_weights

# Nothing of the developer's own environment may leak into a test.
if "PYTEST_XDIST_WORKER" not in os.environ:
    for name in [
        name for name in os.environ if name.startswith("VECSEARCH_") and name != CITUS_VARIABLE
    ]:
        del os.environ[name]
    # Nor may anything of a test get into the developer's cache. Workers share one.
    os.environ["VECSEARCH_CACHE_DIR"] = tempfile.mkdtemp(prefix="vecsearch-cache-")
    atexit.register(shutil.rmtree, os.environ["VECSEARCH_CACHE_DIR"], ignore_errors=True)

# Databases are made and dropped by the thousand: in memory, where there is plenty of it.
MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it get names of their own
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 8 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# A run in a script's background ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run beside each other; threads of one torch that wait for a busy core cost it tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Small enough to embed a picture in milliseconds, and a real timm model all the same.
SMALL_MODEL = "test_resnet.r160_in1k"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        choices=SETS,
        default="marked",
        help="Kinds of Postgres server for integration tests: one (embedded-18), marked (all of"
        " them for tests marked every_server), or all (for every test but those marked once).",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each thing that tests needed and did not find."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    )
    for reason, tests in reasons.items():
        counted = "1 test" if tests == 1 else f"{tests} tests"
        terminalreporter.write_line(f"{counted} left out: {reason}", yellow=True)


@pytest.fixture(scope="session")
def small_model() -> str:
    return SMALL_MODEL


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights of the small model."""
    return save_weights(tmp_path_factory.mktemp("weights") / "small.safetensors", SMALL_MODEL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve pictures, six in each of two folders."""
    return draw_photos(tmp_path / "photos")
