"""Test vecsearch with every dependency at the lowest version that pyproject.toml allows.

    python .ci/floors.py [VENV]

Makes a virtual environment (default: a temporary one), lets uv install exactly the lowest version
of every direct dependency, which fails if two floors exclude each other, and runs tests. It
downloads several GB (torch's wheels for Linux bring CUDA), so run it when a floor changes.
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


def main(folder: Path) -> int:
    """Install the floors into a folder, and return the tests' exit status."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
    constraints = folder / "floors.txt"
    constraints.write_text("".join(f"{name}=={floor}\n" for name, floor in floors().items()))
    install = [python, "-m", "uv", "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, "--constraints", str(constraints), f"{PROJECT}[test]"], check=True)
    # Old versions warn of what newer Pythons drop; the tests with new versions watch warnings.
    pytest = [python, "-m", "pytest", "--servers", "one", "-o", "filterwarnings=default", *TESTS]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(pytest, cwd=PROJECT, env=environment, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory(prefix="vecsearch-floors-") as temporary:
        sys.exit(main(Path(temporary)))
