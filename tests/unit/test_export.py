"""Encoders that run from an export: as torch embeds, kept whole, refused if they differ."""

import copy
import json
import logging
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import save_weights
from torch import nn

from vecsearch.config import Runtime
from vecsearch.encoders import base, registry
from vecsearch.encoders.autoencoder import model
from vecsearch.encoders.autoencoder.model import Architecture, Autoencoder
from vecsearch.encoders.base import Encoder
from vecsearch.encoders.network import Network, TorchEncoder
from vecsearch.encoders.openvino import choice, export
from vecsearch.encoders.openvino.cache import META, MODEL, TENSORS
from vecsearch.encoders.openvino.engine import EngineEncoder
from vecsearch.errors import EncoderError, InvalidInput


@pytest.fixture(scope="module")
def kept_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the small model's export."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def torch_encoder(kept_at: Path, small_model: str, weights: Path) -> TorchEncoder:
    encoder = registry.load(small_model, weights, device="cpu")
    choice.quickest(encoder, on(kept_at)).embed(pictures(encoder, 3))
    return encoder


@pytest.fixture
def runtime(kept_at: Path, torch_encoder: TorchEncoder, tmp_path: Path) -> Runtime:
    """With a cache of the test's own, in which the small model's export is."""
    shutil.copytree(kept_at, tmp_path / "cache")
    return on(tmp_path / "cache")


def on(cache: Path, engine: str = "auto") -> Runtime:
    return Runtime("cpu", engine, cache)


def pictures(encoder: Encoder, count: int, seed: int = 0) -> NDArray[np.uint8]:
    _, height, width = encoder.identity.preprocessing["input_size"]
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return blocks.repeat(-(-height // 8), 1).repeat(-(-width // 8), 2)[:, :height, :width]


def kept(encoder: Encoder, runtime: Runtime) -> EngineEncoder | None:
    return choice.kept(encoder.identity, encoder.weights, runtime)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def entry(runtime: Runtime) -> Path:
    [folder] = (runtime.cache_dir / "encoders").iterdir()
    return folder


def test_an_export_embeds_as_torch_does_in_batches_of_any_size(
    torch_encoder: TorchEncoder, runtime: Runtime
) -> None:
    engine = kept(torch_encoder, runtime)
    assert engine is not None
    assert engine.identity == torch_encoder.identity
    assert (engine.dimensions, engine.layer_shape) == (96, (96,))
    assert engine.preprocessing == torch_encoder.preprocessing
    for count in (1, 2, 3, 7, 33):
        batch = pictures(torch_encoder, count, seed=count)
        wanted = torch_encoder.embed(batch)
        assert np.ptp(wanted, axis=1).min() > 0.01
        np.testing.assert_allclose(engine.embed(batch), wanted, rtol=1e-4, atol=1e-5)


def test_it_is_safe_to_call_by_as_many_threads_as_it_says(
    torch_encoder: TorchEncoder, runtime: Runtime
) -> None:
    engine = kept(torch_encoder, runtime)
    assert engine is not None
    threads = engine.concurrency + 1
    batches = [pictures(engine, 5, seed) for seed in range(threads)]
    wanted = [engine.embed(batch) for batch in batches]
    start = threading.Barrier(threads)
    wrong: list[int] = []

    def embed(number: int) -> None:
        start.wait()
        same = [np.array_equal(engine.embed(batches[number]), wanted[number]) for _ in range(20)]
        wrong.extend(number for right in same if not right)

    workers = [threading.Thread(target=embed, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("model", "layer"),
    [("test_resnet.r160_in1k", "layer2"), ("test_vit", "norm")],
    ids=["a map", "tokens"],
)
def test_layers_are_exported_too(tmp_path: Path, model: str, layer: str) -> None:
    file = save_weights(tmp_path / "w.safetensors", model)
    assert_exports(registry.load(f"{model}.{layer}", file, device="cpu"), tmp_path / "cache")


def test_an_autoencoder_is_exported_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "own.safetensors"
    model.save(Autoencoder(Architecture.for_size(16, 32)), file)
    assert_exports(registry.load(str(file), None, device="cpu"), tmp_path / "cache")


def assert_exports(encoder: TorchEncoder, cache: Path) -> None:
    runtime = on(cache)
    batch = pictures(encoder, 2)
    # Insisting, it would not go on with torch.
    first = choice.quickest(encoder, replace(runtime, engine="openvino"))
    again = kept(encoder, runtime)
    assert again is None
    embedded = first.embed(batch)
    again = kept(encoder, runtime)
    assert again is not None
    assert (again.dimensions, again.layer_shape) == (encoder.dimensions, encoder.layer_shape)
    np.testing.assert_array_equal(again.embed(batch), embedded)
    np.testing.assert_allclose(embedded, encoder.embed(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "damage", ["no meta", "half of meta", "another identity", "one byte", "half", "no model"]
)
def test_what_is_damaged_is_made_anew(
    torch_encoder: TorchEncoder, runtime: Runtime, damage: str
) -> None:
    place = entry(runtime)
    meta, tensors = place / META, place / TENSORS
    match damage:
        case "no meta":
            meta.unlink()
        case "half of meta":
            meta.write_text(meta.read_text()[:200])
        case "another identity":
            meta.write_text(meta.read_text().replace('"pooled"', '"fc"'))
        case "one byte":
            content = bytearray(tensors.read_bytes())
            content[1000] ^= 1
            tensors.write_bytes(content)
        case "half":
            tensors.write_bytes(tensors.read_bytes()[: tensors.stat().st_size // 2])
        case "no model":
            (place / MODEL).unlink()
    assert kept(torch_encoder, runtime) is None
    batch = pictures(torch_encoder, 2)
    made = choice.quickest(torch_encoder, runtime).embed(batch)
    np.testing.assert_allclose(made, torch_encoder.embed(batch), rtol=1e-4, atol=1e-5)
    assert kept(torch_encoder, runtime) is not None
    assert entry(runtime) == place, "something is left beside it"


def test_two_processes_that_export_at_once_do_not_disturb_each_other(
    torch_encoder: TorchEncoder, small_model: str, weights: Path, tmp_path: Path
) -> None:
    program = f"""
import numpy as np
from pathlib import Path
from vecsearch.encoders import base, registry
from vecsearch.config import Runtime
runtime = Runtime("cpu", "openvino", Path({str(tmp_path)!r}))
encoder = registry.quickest({small_model!r}, {str(weights)!r}, runtime)
print("ready", flush=True)
input()
encoder.embed(np.zeros((2, 160, 160, 3), np.uint8))
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in running:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    assert kept(torch_encoder, on(tmp_path)) is not None
    entry(on(tmp_path))


class Wrong(Network):
    """A network whose embeddings are a little off."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        right = super().forward(pixels)
        return right + torch.arange(right.shape[1]) * right.std() * 1e-3


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that were exported; all of them come out a little wrong."""
    really, seen = export.export, list[Any]()

    def wrong(network: Network, height: int, width: int, folder: Path) -> None:
        seen.append(network)
        other = copy.deepcopy(network)
        other.__class__ = Wrong
        really(other, height, width, folder)

    monkeypatch.setattr(export, "export", wrong)
    return seen


def test_an_export_that_differs_is_refused_said_and_remembered(
    torch_encoder: TorchEncoder,
    exports: list[Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    batch = pictures(torch_encoder, 2)
    wanted = torch_encoder.embed(batch)
    for times in (1, 2):
        caplog.clear()
        encoder = choice.quickest(torch_encoder, on(tmp_path))
        np.testing.assert_array_equal(encoder.embed(batch), wanted)
        [said] = messages(caplog)
        assert "agrees with torch to a cosine of 0.99" in said, times
        assert said.endswith("torch embeds, slower.")
    assert len(exports) == 1
    place = entry(on(tmp_path))
    assert [file.name for file in place.iterdir()] == [META]
    assert 0.9 < json.loads((place / META).read_text())["least_cosine"] < 0.99999
    assert kept(torch_encoder, on(tmp_path)) is None
    with pytest.raises(EncoderError, match="Leave --engine out"):
        choice.quickest(torch_encoder, on(tmp_path, "openvino"))


def test_an_export_that_cannot_be_made_leaves_the_work_to_torch(
    torch_encoder: TorchEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("an operation is not known.\nA long story.")

    monkeypatch.setattr(export, "export", fails)
    batch = pictures(torch_encoder, 2)
    embedded = choice.quickest(torch_encoder, on(tmp_path)).embed(batch)
    np.testing.assert_array_equal(embedded, torch_encoder.embed(batch))
    [said] = messages(caplog)
    assert "cannot be made (an operation is not known). torch embeds" in said


@pytest.mark.parametrize("when", ["no folder", "no space"])
def test_where_nothing_can_be_kept_torch_goes_on(
    torch_encoder: TorchEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    cache = tmp_path / "cache"
    if when == "no folder":
        cache.write_text("a file")
    else:
        real = Path.write_text

        def full(file: Path, *arguments: Any, **options: Any) -> int:
            if file.name == META:
                raise OSError(28, "No space left on device")
            return real(file, *arguments, **options)

        monkeypatch.setattr(Path, "write_text", full)
    batch = pictures(torch_encoder, 2)
    encoder = choice.quickest(torch_encoder, on(cache))
    for _ in range(2):
        np.testing.assert_array_equal(encoder.embed(batch), torch_encoder.embed(batch))
    [said] = messages(caplog)
    reason = "Not a directory" if when == "no folder" else "No space left on device"
    assert reason in said
    assert "VECSEARCH_CACHE_DIR" in said
    assert not list(cache.glob("encoders/.partial*"))
    with pytest.raises(EncoderError, match="cannot be kept"):
        choice.quickest(torch_encoder, on(cache, "openvino")).embed(batch)


def test_few_pictures_are_made_eight_for_the_check() -> None:
    one = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
    eight = export.telling(one)
    assert eight.shape == (8, 2, 3, 3)
    assert len(np.unique(eight, axis=0)) == 8
    many = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 3), np.uint8)
    np.testing.assert_array_equal(export.telling(many), many[:8])


def test_torch_that_is_asked_for_is_torch(torch_encoder: TorchEncoder, runtime: Runtime) -> None:
    on_torch = replace(runtime, engine="torch")
    assert kept(torch_encoder, on_torch) is None
    assert choice.quickest(torch_encoder, on_torch) is torch_encoder


def test_openvino_that_is_not_there_is_an_error_only_if_it_is_asked_for(
    torch_encoder: TorchEncoder, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "available", lambda: False)
    assert choice.quickest(torch_encoder, runtime) is torch_encoder
    with pytest.raises(InvalidInput, match="OpenVINO is not installed"):
        choice.quickest(torch_encoder, replace(runtime, engine="openvino"))


def test_openvino_on_another_device_is_refused(runtime: Runtime) -> None:
    with pytest.raises(InvalidInput, match="not on cuda"):
        choice.kept(
            base.Identity("timm", "m", "pooled", "0" * 64, {}),
            base.Weights(None, None),
            replace(runtime, device="cuda", engine="openvino"),
        )


def test_a_torch_model_is_dropped_once_its_export_serves(
    small_model: str, weights: Path, runtime: Runtime
) -> None:
    import gc
    import weakref

    encoder = registry.load(small_model, weights, device="cpu")
    shutil.rmtree(runtime.cache_dir)
    network: weakref.ref[nn.Module] = weakref.ref(encoder.network)
    quick = choice.quickest(encoder, runtime)
    del encoder
    gc.collect()
    assert network() is not None
    quick.embed(pictures(quick, 2))
    gc.collect()
    assert network() is None


def test_a_collection_s_kept_encoder_needs_no_weights_and_no_torch(
    torch_encoder: TorchEncoder, runtime: Runtime
) -> None:
    program = f"""
import json, sys
from pathlib import Path
import numpy as np
from vecsearch.encoders import base, registry
from vecsearch.config import Runtime
encoder = registry.for_collection(
    "images",
    base.Identity(**json.loads({json.dumps(vars(torch_encoder.identity))!r})),
    base.Weights("/nowhere/gone.safetensors", "0" * 64),
    model=None,
    weights=None,
    runtime=Runtime("cpu", "auto", Path({str(runtime.cache_dir)!r})),
)
assert encoder.embed(np.zeros((2, 160, 160, 3), np.uint8)).shape == (2, 96)
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "openvino" in loaded
    assert not loaded & {
        "torch",
        "timm",
        "torchvision",
        "safetensors",
        "huggingface_hub",
        "openvino_telemetry",
    }
