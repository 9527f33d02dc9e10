"""Which model of open_clip a name or a file means, its weights, and its identity."""

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from clip_support import load, of_collection, save_clip, texts_of

from vecsearch.encoders import hub, registry
from vecsearch.encoders.base import Weights
from vecsearch.encoders.network import TorchEncoder
from vecsearch.encoders.open_clip import names
from vecsearch.errors import (
    EncoderError,
    EncoderMismatch,
    UnknownModel,
    WeightsMismatch,
    WeightsUnavailable,
)

TEXTS = ["a red circle", "two dogs"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_clip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def encoder(files: tuple[Path, Path]) -> TorchEncoder:
    return load(files)


def test_the_identity_covers_both_towers_and_the_architecture(
    encoder: TorchEncoder, files: tuple[Path, Path], tmp_path: Path
) -> None:
    own = encoder.identity
    assert (own.backend, own.layer) == ("open_clip", "pooled")
    assert own.name.startswith("open_clip:small@")
    tensors = safetensors.torch.load_file(files[1])
    for name in ("ln_final.bias", "visual.ln_post.bias"):
        other = tmp_path / f"{name}.safetensors"
        safetensors.torch.save_file(tensors | {name: tensors[name] + 1}, other)
        assert load((files[0], other)).identity.weights_sha256 != own.weights_sha256
        with pytest.raises(EncoderMismatch, match="with other weights"):
            of_collection(encoder, weights=other)
    # The same tensors fit another activation.
    config = json.loads(files[0].read_text())
    config["model_cfg"]["quick_gelu"] = True
    (tmp_path / "small.json").write_text(json.dumps(config))
    changed = load((tmp_path / "small.json", files[1])).identity
    assert changed.weights_sha256 == own.weights_sha256
    assert changed.name != own.name
    with pytest.raises(EncoderMismatch, match="made by open_clip:small@"):
        of_collection(encoder, model=f"open_clip:{tmp_path}/small.json")


def test_a_collection_needs_the_weights_and_not_the_config(
    encoder: TorchEncoder, files: tuple[Path, Path], tmp_path: Path
) -> None:
    for model in (encoder.identity.name, f"open_clip:{files[0]}"):
        assert of_collection(encoder, model=model).identity == encoder.identity
    config, weights = save_clip(tmp_path / "small")
    gone = load((config, weights))
    config.unlink()
    np.testing.assert_array_equal(
        texts_of(of_collection(gone), TEXTS), texts_of(of_collection(encoder), TEXTS)
    )
    weights.unlink()
    with pytest.raises(WeightsUnavailable, match="which is gone"):
        texts_of(of_collection(gone), TEXTS)


@pytest.mark.parametrize("form", ["state dict", "checkpoint", "data parallel"])
def test_weights_are_read_as_training_leaves_them(
    encoder: TorchEncoder, files: tuple[Path, Path], tmp_path: Path, form: str
) -> None:
    tensors: dict[str, Any] = safetensors.torch.load_file(files[1])
    if form == "data parallel":
        tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    if form != "state dict":
        tensors = {"epoch": 3, "name": "run", "state_dict": tensors, "optimizer": {"step": 1}}
    torch.save(tensors, tmp_path / "weights.pt")
    assert load((files[0], tmp_path / "weights.pt")).identity == encoder.identity


def test_a_pickle_is_not_run(files: tuple[Path, Path], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"state_dict": Trap()}))
    torch.save({"ln_final.bias": Trap()}, tmp_path / "other.pt")
    for file in ("trap.pt", "other.pt"):
        with pytest.raises(WeightsUnavailable, match="cannot be read as weights"):
            load((files[0], tmp_path / file))
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, wider = save_clip(tmp_path, embed_dim=64)
    with pytest.raises(WeightsMismatch, match=r"open_clip:small@\w+: tensors 2 of another shape"):
        load((files[0], wider))


def test_weights_of_the_other_layout_are_renamed(
    encoder: TorchEncoder, files: tuple[Path, Path], tmp_path: Path
) -> None:
    config, _ = save_clip(tmp_path, custom_text=True)
    renamed = of_collection(load((config, files[1])))
    np.testing.assert_allclose(
        texts_of(renamed, TEXTS), texts_of(of_collection(encoder), TEXTS), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B32", "no model 'ViT-B32'. Did you mean 'ViT-B-32'"),
        ("nothing like it", "See open_clip.list_models"),
        ("ViT-B-32/laion", r"no weights 'laion' of ViT-B-32. Its tags: openai, laion400m_e31"),
        ("ViT-B-32/openai", "Name the model that has it: open_clip:ViT-B-32-quickgelu/openai"),
        ("gone.json", "gone.json cannot be read as a config"),
    ],
)
def test_a_name_that_open_clip_lacks_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(UnknownModel, match=sentence):
        registry.load(f"open_clip:{name}", None, device="cpu")


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON", '{"model_cfg": {"embed_dim": 1}}'])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UnknownModel, match="a config of open_clip"):
        names.parse(f"open_clip:{tmp_path}/model.json")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"text_cfg": {"hf_tokenizer_name": "bert"}}, "a tokenizer of the model hub"),
        ({"text_cfg": {"vocab_size": 32_000}}, "a tokenizer of the model hub"),
        ({"vision_cfg": {"depth": 3}}, "open_clip cannot build .*'depth'"),
    ],
)
def test_what_vecsearch_cannot_run_is_refused(
    files: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    config = json.loads(files[0].read_text())
    config["model_cfg"] |= changes
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=sentence):
        load((tmp_path / "model.json", files[1]))


def test_pictures_that_would_be_padded_are_refused(tmp_path: Path) -> None:
    files = save_clip(tmp_path, preprocessing={"resize_mode": "longest"})
    with pytest.raises(EncoderError, match="resizes pictures by 'longest'"):
        load(files)


def test_without_the_extra_it_is_named(
    encoder: TorchEncoder, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = of_collection(encoder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EncoderError, match=r"pip install 'vecsearch\[clip\]'"):
        load(files)
    with pytest.raises(EncoderError, match=r"pip install 'vecsearch\[clip\]'"):
        texts_of(lazy, TEXTS)


class TestWeightsOfTheHub:
    """A tag that open_clip would know, whose files are as the hub's client keeps them."""

    @pytest.fixture
    def tagged(
        self, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> str:
        from huggingface_hub import constants
        from open_clip import factory, pretrained

        config = json.loads(files[0].read_text())["model_cfg"]
        entry = {"hf_hub": "someone/small/", "mean": (0.5, 0.5, 0.5), "resize_mode": "squash"}
        monkeypatch.setitem(vars(factory)["_MODEL_CONFIGS"], "Small", config)
        monkeypatch.setitem(vars(pretrained)["_PRETRAINED"], "Small", {"seeded": entry})
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        return "open_clip:Small/seeded"

    def test_are_read_from_the_cache(
        self, tagged: str, files: tuple[Path, Path], encoder: TorchEncoder, tmp_path: Path
    ) -> None:
        snapshot = tmp_path / "models--someone--small/snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (tmp_path / "models--someone--small/refs").mkdir()
        (tmp_path / "models--someone--small/refs/main").write_text("0" * 40)
        (snapshot / "open_clip_model.safetensors").write_bytes(files[1].read_bytes())
        found = registry.load(tagged, None, device="cpu")
        assert found.weights == Weights(None, None)
        assert found.identity.name == tagged
        assert found.identity.weights_sha256 == encoder.identity.weights_sha256
        assert found.identity.preprocessing["mean"] == [0.5, 0.5, 0.5]
        assert found.identity.preprocessing["crop_mode"] == "squash"
        assert of_collection(found).identity == found.identity
        by_file = registry.load(tagged, files[1], device="cpu")
        assert by_file.identity == found.identity

    def test_are_asked_for_in_a_sentence(self, tagged: str) -> None:
        with pytest.raises(
            WeightsUnavailable, match=r"HF_HUB_OFFLINE is set\. Pass a weights file"
        ):
            registry.load(tagged, None, device="cpu")
        with pytest.raises(WeightsUnavailable, match="open_clip:Small/TAG, TAG being seeded"):
            registry.load("open_clip:Small", None, device="cpu")
        assert hub.cached("someone/small", ["open_clip_model.safetensors"]) is None
