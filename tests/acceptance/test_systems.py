"""Every command of docs/systems.md, run as it stands there.

The weights that its models load from the hub are seeded ones, put where the hub's client keeps
what it has downloaded.
"""

import json
import subprocess
from pathlib import Path

import pytest
from acceptance.conftest import PROJECT, Run, code_blocks
from support import hub_cache, picture

DOCUMENT = (PROJECT / "docs/systems.md").read_text()
MODELS = ("resnet50.tv_in1k", "vgg16.tv_in1k", "inception_v3.tv_in1k")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_cache(tmp_path_factory.mktemp("hub"), MODELS)


@pytest.fixture
def variables(environment: dict[str, str], data_dir: Path, hub: Path) -> dict[str, str]:
    return {**environment, "VECSEARCH_DATA_DIR": str(data_dir), "HF_HUB_CACHE": str(hub)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the document supposes: photos, in a folder for each kind."""
    for number in range(8):
        file = tmp_path / "photos" / ("cats" if number % 2 else "dogs") / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    return tmp_path


@pytest.mark.slow
def test_every_command(folder: Path, variables: dict[str, str], vecsearch: Run) -> None:
    printed = ""
    for block in code_blocks(DOCUMENT, "sh"):
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, block + finished.stdout + finished.stderr
        printed += finished.stdout + finished.stderr
    for sheet in "similar nearest training three side-by-side chi2".split():
        assert (folder / f"{sheet}.png").read_bytes().startswith(b"\x89PNG")
    assert "<img" in (folder / "similar.html").read_text()
    assert "Layer layer3 of resnet50.tv_in1k gives 1024 × 14 × 14" in printed
    # The SQL finds the picture itself first, and at no distance.
    for statement in code_blocks(DOCUMENT, "sql"):
        (first, *others) = vecsearch("sql", statement, "-f", "ndjson").stdout.splitlines()
        assert json.loads(first)["path"].endswith("/cats/1.jpg")
        assert json.loads(first)["distance"] == pytest.approx(0, abs=1e-3)
        assert len(others) == 4


def test_every_system_of_the_table_has_its_section() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| [")]
    assert len(rows) == 6
    anchors = {
        "".join(
            letter
            for letter in line.removeprefix("## ").lower()
            if letter.isalnum() or letter in " -"
        ).replace(" ", "-")
        for line in DOCUMENT.splitlines()
        if line.startswith("## ")
    }
    for row in rows:
        assert row.split("(#", 1)[1].split(")", 1)[0] in anchors, row
