"""The installed command, from the built wheel, run as a user runs it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
import pytest
from acceptance.browser import Album, Windows, browsing, draw, serving
from playwright.sync_api import Browser

Run = Callable[..., subprocess.CompletedProcess[str]]
PROJECT = Path(__file__).parents[2]


def code_blocks(document: str, language: str) -> list[str]:
    """Return the code of a Markdown document in one language, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel of this checkout is installed."""
    return machine.once_per_run(tmp_path_factory, "wheel", install) / "site"


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


@pytest.fixture
def data_dir(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """A data folder of this test's own; its server is stopped at the end."""
    folder = tmp_path / "data"
    yield folder
    subprocess.run(
        ["vecsearch", "db", "stop", "--data-dir", str(folder)],
        env=environment,
        check=False,
        capture_output=True,
    )


@pytest.fixture
def vecsearch(data_dir: Path, environment: dict[str, str], tmp_path: Path) -> Run:
    """Run the command and return what it printed; fail if the exit status is not `status`."""

    def run(
        *arguments: str | Path, status: int = 0, stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        finished = subprocess.run(
            ["vecsearch", *map(str, arguments)],
            env={**environment, "VECSEARCH_DATA_DIR": str(data_dir), **variables},
            cwd=tmp_path,
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
    folder = tmp_path_factory.mktemp("page")
    draw(folder / "photos")
    settings = {**environment, "VECSEARCH_DATA_DIR": str(folder / "data"), "TZ": "UTC"}

    def run(*arguments: str) -> None:
        subprocess.run(
            ["vecsearch", *arguments], env=settings, check=True, stdout=subprocess.DEVNULL
        )

    encoder = ("--model", small_model, "--weights", str(weights))
    for collection, kind in (("images", "."), ("cats_only", "cats"), ("bare", "birds")):
        run("ingest", str(folder / "photos" / kind), "--collection", collection, *encoder)
    run("sql", "--write", "DELETE FROM bare")
    with serving(settings, "--max-upload", "1") as url:
        yield Album(folder / "photos", url)
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
