"""Encoders of timm models: where their weights come from, and what makes two of them the same."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from support import normalised, picture, save_weights

from vecsearch.encoders import base, registry
from vecsearch.encoders.base import Encoder, Weights
from vecsearch.encoders.timm.names import parse
from vecsearch.errors import (
    InvalidInput,
    UnknownModel,
    WeightsMismatch,
    WeightsUnavailable,
)


@pytest.fixture(scope="module")
def encoder(small_model: str, weights: Path) -> Encoder:
    return registry.load(small_model, weights, device="cpu")


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> NDArray[np.uint8]:
    return np.stack([encoder.preprocessing.prepare(picture(seed, (200, 170))) for seed in range(4)])


def tensors(weights: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(weights)


def test_an_encoder_says_what_it_is(encoder: Encoder, small_model: str, weights: Path) -> None:
    assert (encoder.identity.model, encoder.identity.layer) == (small_model, "pooled")
    assert encoder.identity.preprocessing["input_size"] == [3, 160, 160]
    assert encoder.weights == Weights(str(weights), base.file_sha256(weights))
    assert encoder.dimensions == 96
    assert encoder.preprocessing.input_size == (160, 160)


@pytest.mark.parametrize("wrapped", [False, True], ids=["state dict", "training checkpoint"])
def test_the_same_tensors_in_another_file_are_the_same_encoder(
    encoder: Encoder,
    inputs: NDArray[np.uint8],
    weights: Path,
    small_model: str,
    tmp_path: Path,
    *,
    wrapped: bool,
) -> None:
    state: Any = tensors(weights)
    if wrapped:
        parallel = {f"module.{name}": tensor for name, tensor in state.items()}
        state = {"epoch": 3, "state_dict": parallel}
    torch.save(state, tmp_path / "small.pth")
    other = registry.load(small_model, tmp_path / "small.pth", device="cpu")
    assert other.identity == encoder.identity
    assert other.weights != encoder.weights
    np.testing.assert_array_equal(other.embed(inputs), encoder.embed(inputs))


def test_other_tensors_are_another_encoder(
    encoder: Encoder, small_model: str, tmp_path: Path
) -> None:
    file = save_weights(tmp_path / "other.safetensors", small_model, seed=1)
    other = registry.load(small_model, file, device="cpu")
    assert other.identity.weights_sha256 != encoder.identity.weights_sha256
    assert replace(other.identity, weights_sha256="") == replace(
        encoder.identity, weights_sha256=""
    )


def test_one_changed_number_is_another_encoder(
    encoder: Encoder, weights: Path, small_model: str, tmp_path: Path
) -> None:
    state = tensors(weights)
    name = min(key for key in state if key.endswith("conv1.weight"))
    state[name].view(-1)[0] += 0.5
    safetensors.torch.save_file(state, tmp_path / "changed.safetensors")
    other = registry.load(small_model, tmp_path / "changed.safetensors", device="cpu")
    assert other.identity != encoder.identity


def test_the_classifier_is_no_part_of_the_encoder(
    encoder: Encoder, weights: Path, small_model: str, tmp_path: Path
) -> None:
    state = tensors(weights)
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    assert len(headless) < len(state)
    safetensors.torch.save_file(headless, tmp_path / "headless.safetensors")
    other = registry.load(small_model, tmp_path / "headless.safetensors", device="cpu")
    assert other.identity == encoder.identity


def test_the_embedding_is_timm_s_own_pooled_feature(
    encoder: Encoder, inputs: NDArray[np.uint8], weights: Path, small_model: str
) -> None:
    model: Any = timm.create_model(small_model, pretrained=False)
    model.load_state_dict(tensors(weights))
    model.eval()
    with torch.inference_mode():
        features = model.forward_head(
            model.forward_features(normalised(inputs, encoder)), pre_logits=True
        )
    embedded = encoder.embed(inputs)
    assert embedded.dtype == np.float32
    assert np.abs(embedded).max() > 0.01
    np.testing.assert_allclose(embedded, features.numpy(), rtol=1e-4, atol=1e-5)


def test_one_by_one_pictures_embed_as_they_do_in_a_batch(
    encoder: Encoder, inputs: NDArray[np.uint8]
) -> None:
    together = encoder.embed(inputs)
    alone = np.concatenate([encoder.embed(one[None]) for one in inputs])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    for one, other in pairwise(together):
        assert not np.allclose(one, other)


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(WeightsMismatch, match=r"weights of resnet18\.a1_in1k: tensors .* missing"):
        registry.load("resnet18", weights, device="cpu")


@pytest.mark.parametrize("change", ["missing", "unknown", "of another shape"])
def test_a_file_with_one_wrong_tensor_is_refused_by_its_name(
    weights: Path, small_model: str, tmp_path: Path, change: str
) -> None:
    state = tensors(weights)
    name = min(key for key in state if key.endswith("conv1.weight"))
    if change == "missing":
        del state[name]
    elif change == "unknown":
        state[name := "extra.weight"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(1)
    safetensors.torch.save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsMismatch) as caught:
        registry.load(small_model, tmp_path / "wrong.safetensors", device="cpu")
    assert f"1 {change} ({name})" in str(caught.value)


class CreatesAFile:
    """What an attacker would put into a weights file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_is_refused_and_what_it_would_do_is_not_done(
    small_model: str, tmp_path: Path, how: str
) -> None:
    created, file = tmp_path / "created", tmp_path / "evil.pth"
    content = {"conv1.weight": CreatesAFile(created)}
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
        pickle.loads(file.read_bytes())["conv1.weight"].close()  # noqa: S301 - our own pickle
        assert created.exists()  # so it would, if it were let
        created.unlink()
    with pytest.raises(WeightsUnavailable, match="cannot be read as weights"):
        registry.load(small_model, file, device="cpu")
    assert not created.exists()


@pytest.mark.parametrize(
    "content",
    [{"epoch": 3, "a": torch.zeros(1)}, {0: torch.zeros(1)}, [torch.zeros(1)], torch.zeros(1)],
    ids=["a number", "numbered tensors", "a list", "one tensor"],
)
def test_a_file_of_anything_but_named_tensors_is_refused(
    small_model: str, tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsUnavailable, match="plain tensors"):
        registry.load(small_model, tmp_path / "odd.pth", device="cpu")


@pytest.mark.parametrize("content", [b"", b"not weights at all"], ids=["empty", "garbage"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.npz", "w"])
def test_a_file_that_holds_no_weights_is_refused(
    small_model: str, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsUnavailable, match="cannot be read as weights"):
        registry.load(small_model, tmp_path / name, device="cpu")


def test_a_file_that_is_not_there_is_named(small_model: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"gone\.pth does not exist\. Check --weights\."):
        registry.load(small_model, tmp_path / "gone.pth", device="cpu")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("resnet50", "resnet50.tv_in1k"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
        ("resnet18", "resnet18.a1_in1k"),
        ("test_resnet", "test_resnet.r160_in1k"),
    ],
)
def test_a_model_s_full_name_has_the_tag_of_its_weights(short: str, full: str) -> None:
    assert parse(short) == (full, "pooled")


def test_an_unknown_model_brings_names_that_are_near() -> None:
    with pytest.raises(UnknownModel, match=r"no model 'resnet81'\. Did you mean '.*resnet"):
        parse("resnet81")


@pytest.mark.parametrize("name", ["qqqqqqqq", "", "."])
def test_a_model_that_is_near_to_nothing_is_refused_all_the_same(name: str) -> None:
    with pytest.raises(UnknownModel, match=r"timm\.list_models"):
        parse(name)


def test_an_unknown_tag_brings_the_tags_there_are() -> None:
    with pytest.raises(UnknownModel, match=r"no layer 'nope'\. Its tags: .*a1_in1k.*tv_in1k"):
        parse("resnet50.nope")


def test_a_device_that_is_not_there_is_refused(small_model: str, weights: Path) -> None:
    with pytest.raises(InvalidInput, match="no device 'abacus' here"):
        registry.load(small_model, weights, device="abacus")


def test_without_weights_and_offline_one_sentence_says_so_and_what_to_do(tmp_path: Path) -> None:
    program = """
from vecsearch import errors
from vecsearch.encoders import registry
try:
    registry.load("resnet18", None, device="cpu")
except errors.WeightsUnavailable as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.stderr == ""
    [line] = done.stdout.splitlines()
    assert line.startswith("The weights of resnet18.a1_in1k are not in the cache")
    assert "--weights FILE" in line
    assert "vecsearch train autoencoder" in line
