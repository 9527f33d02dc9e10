"""Every command of the README runs unchanged."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import machine
import pytest
from acceptance.conftest import PROJECT, code_blocks
from servers import free_port, initialise, listening
from support import picture

README = (PROJECT / "README.md").read_text()
# The page's own block leaves its server running, and asks it at once.
SERVING = """
trap 'kill $!' EXIT
curl() { command curl -s --fail-with-body --retry 60 --retry-delay 1 --retry-connrefused "$@"; }
"""
EXAMPLE_URL = "postgresql://user:password@localhost:5432/database"


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """What the README supposes: some photos, captions, weights."""
    (tmp_path / "photos").mkdir()
    for number in range(8):
        picture(number).save(tmp_path / f"photos/{number}.jpg")
    picture(50).save(tmp_path / "photos/cat.jpg")
    picture(51).save(tmp_path / "photos/dog.jpg")
    (tmp_path / "captions.csv").write_text("file,caption\ncat.jpg,a cat\n")
    shutil.copy(weights, tmp_path / "weights.safetensors")
    return tmp_path


@pytest.fixture
def curl() -> str:
    return machine.program("curl", install="curl")


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[str]:
    with listening(initialise(tmp_path / "own/postgres", 18)) as url:
        yield url


@pytest.mark.slow
def test_every_command(
    curl: str, folder: Path, environment: dict[str, str], data_dir: Path, own_postgres: str
) -> None:
    port = free_port()
    variables = {**environment, "VECSEARCH_DATA_DIR": str(data_dir), "VECSEARCH_PORT": str(port)}

    def output(*command: str) -> str:
        finished = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, f"{command}{finished.stdout}{finished.stderr}"
        return finished.stdout

    install, test, *rest = code_blocks(README, "sh")
    assert install.count("\n") == test.count("\n") == 1
    assert install.endswith("vecsearch demo\n")
    assert test.endswith("pytest\n")
    assert len(rest) == 12
    for block in rest:
        script = block.replace(EXAMPLE_URL, own_postgres).replace(
            "127.0.0.1:8000", f"127.0.0.1:{port}"
        )
        if "vecsearch serve &" in block:
            script = SERVING + script
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, block + finished.stdout + finished.stderr
    assert (folder / "sheet.png").exists()
    # The collection exists by now, and knows its encoder.
    (python,) = code_blocks(README, "python")
    (sql,) = code_blocks(README, "sql")
    first, *others = output("python", "-c", python).splitlines()
    assert first == f"1 {folder}/photos/cat.jpg 0.0"
    assert len(others) == 4
    assert (
        output("vecsearch", "sql", sql, "-f", "paths").splitlines()[0] == f"{folder}/photos/cat.jpg"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "expected"), [((), 0.98), (("--train",), 0.8)])
def test_the_demo(
    tmp_path: Path,
    environment: dict[str, str],
    data_dir: Path,
    arguments: tuple[str, ...],
    expected: float,
) -> None:
    def demo(folder: Path) -> "subprocess.CompletedProcess[str]":
        folder.mkdir()
        return subprocess.run(
            ["vecsearch", "demo", *arguments, "--data-dir", str(data_dir), "--format", "csv"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    finished = demo(tmp_path / "one")
    assert ("Training an autoencoder" in finished.stderr) == bool(arguments)
    assert ('--text "lighthouse": 10 of the 10 nearest' in finished.stderr) != bool(arguments)
    assert "clock/05.png and clock/05 enlarged.jpg" in finished.stderr
    header, *rows = [line.split(",") for line in finished.stdout.splitlines()]
    assert header == ["query", "family", "same_family", "of"]
    assert len(rows) >= 10
    assert sum(int(row[2]) for row in rows) >= expected * sum(int(row[3]) for row in rows)
    assert (tmp_path / "one/vecsearch-demo/contact-sheet.png").exists()
    if not arguments:
        # In another folder, each picture has a copy that is not of this demo.
        again = demo(tmp_path / "other").stderr
        assert re.findall("Near-duplicates: .*", again) == re.findall(
            "Near-duplicates: .*", finished.stderr
        )
