"""The installed command, from the built wheel, run as a user runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from acceptance.browser import Album, Windows, browsing, draw, serving
from machine import once_per_run
from playwright.sync_api import Browser

Run = Callable[..., subprocess.CompletedProcess[str]]
PROJECT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def code_blocks(document: str, language: str) -> list[str]:
    """Return the code of a Markdown document in one language, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout is installed."""
    return once_per_run(tmp_path_factory, "wheel", install) / "site"


def install(folder: Path) -> None:
    """Build the wheel in a folder, and install it into `site` beside it."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(PROJECT)], check=True)
    (wheel,) = folder.glob("*.whl")
    site = str(folder / "site")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, str(wheel)], check=True)


@pytest.fixture(scope="session")
def environment(installed: Path) -> dict[str, str]:
    """An environment in which `vecsearch` is the command from the wheel."""
    return {
        **os.environ,
        "PYTHONPATH": str(installed),
        "PATH": os.pathsep.join(
            [str(installed / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        # A model that is not in the cache fails at once rather than by looking for the hub.
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


@contextmanager
def stopped_at_the_end(data_dir: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Yield a data folder, and stop its server afterwards."""
    yield data_dir
    subprocess.run(
        ["vecsearch", "db", "stop", "--data-dir", str(data_dir)],
        env=environment,
        check=False,
        capture_output=True,
    )


def runner(data_dir: Path, environment: dict[str, str], cwd: Path) -> Run:
    """Return a function that runs the command on a data folder.

    It returns what the command printed, and fails if the exit status is not `status`.
    """

    def run(
        *arguments: str | Path, status: int = 0, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        finished = subprocess.run(
            ["vecsearch", *map(str, arguments)],
            env={**environment, "VECSEARCH_DATA_DIR": str(data_dir), **variables},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            check=False,
        )
        result = subprocess.CompletedProcess(
            finished.args,
            finished.returncode,
            finished.stdout.decode(),
            finished.stderr.decode(),
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def data_dir(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A data folder of this test's own; its server is stopped at the end."""
    with stopped_at_the_end(tmp_path / "data", environment) as folder:
        yield folder


@pytest.fixture
def vecsearch(data_dir: Path, environment: dict[str, str], tmp_path: Path) -> Run:
    return runner(data_dir, environment, tmp_path)


@pytest.fixture
def no_torch(tmp_path: Path, installed: Path) -> dict[str, str]:
    """Variables under which importing torch or timm is an error."""
    folder = tmp_path / "no_torch"
    for name in ("torch", "timm", "torchvision"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('imported after all')")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{installed}"}


@pytest.fixture(scope="session")
def album(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    small_model: str,
    weights: Path,
) -> Iterator[Album]:
    """A server of the album; workers share its pictures, and each has a copy of its database."""

    def ingest(folder: Path) -> None:
        for collection, kind in (("images", "."), ("cats_only", "cats"), ("bare", "birds")):
            arguments = ("ingest", photos / kind, "--collection", collection)
            run = runner(folder / "data", environment, folder)
            run(*arguments, "--model", small_model, "--weights", weights)
        run("sql", "--write", "DELETE FROM bare")
        run("refresh", "map", "clusters")
        run("sql", "--write", "UPDATE cats_only SET latitude = 47.5, longitude = width / -10.0")

    # The rows name these pictures, so they lie where they will stay.
    photos = once_per_run(tmp_path_factory, "photos", draw)
    ingested = once_per_run(tmp_path_factory, "album", ingest)
    # As root, Postgres runs as another user, who must own the copies and may not enter what mktemp
    # makes.
    folder = ingested.with_name(f"album-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
    folder.mkdir()
    subprocess.run(["cp", "-a", ingested / "data", folder], check=True)
    settings = {**environment, "VECSEARCH_DATA_DIR": str(folder / "data"), "TZ": "UTC"}
    with serving(settings, "--max-upload", "1") as url:
        yield Album(photos, folder / "data", url)
    assert not (folder / "data/postgres/postmaster.pid").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def windows(browser: Browser, album: Album) -> Iterator[Windows]:
    windows = Windows(browser, album.url)
    yield windows
    windows.close()
