"""Files that somebody else made run nothing: not weights, not state, not what a hub gave."""

import ast
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vecsearch
from vecsearch.encoders import registry
from vecsearch.encoders.sentences import source
from vecsearch.errors import WeightsUnavailable

RUNS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "multiprocessing"}
PACKAGE = Path(vecsearch.__file__).parent


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            yield str(file.relative_to(PACKAGE)), node


def test_nothing_imports_what_runs_what_it_reads() -> None:
    found = set()
    for file, node in nodes():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found |= {(file, name) for name in names if name.partition(".")[0] in RUNS}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {(file, node.func.id)} & {(file, "eval"), (file, "exec"), (file, "compile")}
    assert not found


def test_what_loads_tensors_and_arrays_says_that_nothing_may_run() -> None:
    safe = {
        "torch.load": ("weights_only", True),
        "timm.models.load_state_dict": ("weights_only", True),
        "np.load": ("allow_pickle", False),
        "np.save": ("allow_pickle", False),
        "np.savez": ("allow_pickle", False),
    }
    calls = [
        (file, name, {option.arg: ast.unparse(option.value) for option in node.keywords})
        for file, node in nodes()
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in safe
    ]
    assert len(calls) >= 3
    for file, name, options in calls:
        option, value = safe[name]
        assert options.get(option) == str(value), f"{file}: {name}"


def test_a_pickle_from_the_hub_is_not_run(
    small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    repository = tmp_path / "hub" / f"models--timm--{small_model}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for save in ("torch", "pickle"):
        file = snapshot / "pytorch_model.bin"
        if save == "torch":
            torch.save({"conv1.weight": Trap()}, file)
        else:
            file.write_bytes(pickle.dumps({"conv1.weight": Trap()}, protocol=2))
        with pytest.raises(WeightsUnavailable, match=r"cannot be downloaded: .*weights_only"):
            registry.load(small_model, None, device="cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("where", ["module", "activation", "nonsense"])
def test_a_sentence_encoder_may_not_name_code(tmp_path: Path, where: str) -> None:
    mine = Path(shutil.copytree(source.find(None).folder, tmp_path / "mine"))
    if where == "activation":
        (mine / "2_Dense").mkdir()
        (mine / "2_Dense/config.json").write_text('{"activation_function": "antigravity.geohash"}')
    else:
        strange = [{"type": "antigravity.geohash"}] if where == "module" else {"type": 1}
        (mine / "modules.json").write_text(json.dumps(strange))
    said = "can be read" if where == "nonsense" else "asks to run 'antigravity.geohash'"
    with pytest.raises(WeightsUnavailable, match=said):
        source.find(mine)
