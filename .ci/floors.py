"""Test vecsearch with every dependency at the lowest version that pyproject.toml allows.

    python .ci/floors.py [VENV]

Makes a virtual environment (default: a temporary one), lets uv install the lowest version of every
direct dependency, and fails if a floor cannot be installed or a test fails. It downloads several GB
(torch's wheels of Linux contain CUDA), so it runs when a floor changes, not with every change.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

PROJECT = Path(__file__).parents[1]
# Tools whose version is no promise to users. uv may take newer ones of these.
TOOLS = {"mypy", "ruff"}
TESTS = ("tests/unit", *(f"tests/integration/test_{name}.py" for name in (
    "database", "migrate", "ingest", "ingest_metadata", "query_answers", "sql", "transfer", "api",
)))  # fmt: skip


def floors() -> dict[str, str]:
    """Return the lowest version that pyproject.toml allows of each dependency."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def numbers(version: str) -> list[int]:
    """Return a version's numbers without the zeros at its end: 2.0 and 2.0.0 are one version."""
    found = [int(number) for number in re.findall(r"\d+", version.split("+", maxsplit=1)[0])]
    while found and not found[-1]:
        found.pop()
    return found


def main(folder: Path) -> int:
    """Install the floors into a folder, and return the tests' exit status."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    install = "-m uv pip install --resolution lowest-direct --quiet".split()
    subprocess.run([python, *install, "--python", python, f"{PROJECT}[test]"], check=True)
    listing = subprocess.check_output(
        [python, "-m", "pip", "list", "--format", "freeze"], text=True
    )
    installed = dict(line.lower().split("==") for line in listing.splitlines() if "==" in line)
    too_low = [
        f"{name}>={floor}: the lowest that can be installed with the others is {installed[name]}"
        for name, floor in floors().items()
        if name not in TOOLS and numbers(installed[name]) != numbers(floor)
    ]
    # Old versions warn of what newer Pythons drop; the tests with new versions watch warnings.
    pytest = [python, "-m", "pytest", "--servers", "one", "-o", "filterwarnings=default", *TESTS]
    environment = {**os.environ, "PYTHONPATH": ""}
    status = subprocess.run(pytest, cwd=PROJECT, env=environment, check=False).returncode
    print(*too_low, sep="\n")
    return int(bool(status or too_low))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory(prefix="vecsearch-floors-") as temporary:
        sys.exit(main(Path(temporary)))
