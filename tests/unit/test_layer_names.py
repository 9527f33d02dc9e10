"""Names of timm models with a tag, a layer or both, and a collection's own among them."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import timm
from support import ON_TORCH
from torch import nn

from vecsearch.encoders import registry
from vecsearch.encoders.base import Encoder, Identity, Weights
from vecsearch.encoders.timm import names
from vecsearch.encoders.timm.names import parse
from vecsearch.errors import EncoderMismatch, UnknownModel


@pytest.fixture(scope="module")
def layer2(small_model: str, weights: Path) -> Encoder:
    return registry.load(f"{small_model}.layer2", weights, device="cpu")


@pytest.mark.parametrize(
    ("name", "model", "layer"),
    [
        ("vgg16", "vgg16.tv_in1k", "pooled"),
        ("vgg16.tv_in1k", "vgg16.tv_in1k", "pooled"),
        ("vgg16.pooled", "vgg16.tv_in1k", "pooled"),
        ("vgg16.fc2", "vgg16.tv_in1k", "pooled"),
        ("vgg16.tv_in1k.fc2", "vgg16.tv_in1k", "pooled"),
        ("vgg16.fc1", "vgg16.tv_in1k", "fc1"),
        ("vgg16.tv_in1k.fc1", "vgg16.tv_in1k", "fc1"),
        ("vgg16.pre_logits.act1", "vgg16.tv_in1k", "fc1"),
        ("vgg16.pre_logits.fc1", "vgg16.tv_in1k", "pre_logits.fc1"),
        ("vgg16.features.28", "vgg16.tv_in1k", "features.28"),
        ("vgg16.head.fc", "vgg16.tv_in1k", "head.fc"),
        ("resnet50.layer3", "resnet50.tv_in1k", "layer3"),
        ("resnet50.a1_in1k.layer3", "resnet50.a1_in1k", "layer3"),
        ("resnet18.layer4.0.conv2", "resnet18.a1_in1k", "layer4.0.conv2"),
        ("inception_v3.tf_in1k.Mixed_6e", "inception_v3.tf_in1k", "Mixed_6e"),
        (
            "vit_base_patch16_224.blocks.11",
            "vit_base_patch16_224.augreg2_in21k_ft_in1k",
            "blocks.11",
        ),
        (
            "swin_tiny_patch4_window7_224.layers.1",
            "swin_tiny_patch4_window7_224.ms_in1k",
            "layers.1",
        ),
        ("test_mambaout.stages.1", "test_mambaout", "stages.1"),
    ],
)
def test_a_name_is_a_model_its_tag_and_its_layer(name: str, model: str, layer: str) -> None:
    assert parse(name) == (model, layer)


def test_a_name_without_a_layer_builds_no_model_and_with_one_none_with_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[str] = []
    create = timm.create_model

    def spy(*arguments: Any, **options: Any) -> nn.Module:
        module: nn.Module = create(*arguments, **options)
        devices.extend({tensor.device.type for tensor in module.parameters()})
        return module

    monkeypatch.setattr(timm, "create_model", spy)
    for name in ("resnet50", "vgg16"):
        parse(name)
    assert devices == []
    parse("vgg16.fc1")
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet50.layer5", r"no layer 'layer5'\. Its tags: .*tv_in1k.*\. Layers near .*layer4"),
        ("resnet50.tv_in1k.layer5", r"no layer 'layer5'\. Its tags: .*Layers near .*layer4"),
        ("resnet50.fc1", r"no layer 'fc1'\. .*Layers near that: .*fc"),
        ("vgg16.fc3", r"no layer 'fc3'\. Its tags: tv_in1k\. Layers near that: .*fc1"),
        ("vgg16.qqqq", r"Its layers: pooled, features, pre_logits, head, fc1, fc2\.$"),
        ("test_mambaout.qqqq", r"Its tags: none\. Its layers: pooled, stem, stages, head\.$"),
        ("vgg61.fc1", r"no model 'vgg61'\. Did you mean 'vgg"),
    ],
)
def test_a_layer_that_is_not_there_brings_tags_and_layers_that_are(name: str, hint: str) -> None:
    with pytest.raises(UnknownModel, match=hint):
        parse(name)


def test_a_name_of_a_tag_and_a_layer_both_is_refused_with_both_spellings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timm, "list_pretrained", lambda _: ["test_resnet.layer1"])
    spellings = r"Say test_resnet\.layer1\.pooled or test_resnet\.r160_in1k\.layer1\."
    with pytest.raises(UnknownModel, match=spellings):
        parse("test_resnet.layer1")
    assert parse("test_resnet.layer1.pooled") == ("test_resnet.layer1", "pooled")


@pytest.mark.parametrize(
    ("model", "layer", "name"),
    [
        ("vgg16.tv_in1k", "fc1", "vgg16.tv_in1k.fc1"),
        ("vgg16.tv_in1k", "pooled", "vgg16.tv_in1k"),
        ("autoencoder", "latent", "autoencoder"),
    ],
)
def test_an_identity_s_name_has_the_layer_unless_the_model_means_it(
    model: str, layer: str, name: str
) -> None:
    assert Identity("timm", model, layer, "0" * 64, {}).name == name


class TestTheLayerOfACollection:
    """What `for_collection` says to a layer that a command names."""

    @staticmethod
    def of_collection(stored: Encoder, model: str | None) -> Encoder:
        return registry.for_collection(
            "images", stored.identity, stored.weights, model=model, weights=None, runtime=ON_TORCH
        )

    @pytest.mark.parametrize("model", [None, "test_resnet.layer2", "test_resnet.r160_in1k.layer2"])
    def test_named_or_not_its_own_layer_is_loaded(self, layer2: Encoder, model: str | None) -> None:
        again = self.of_collection(layer2, model)
        inputs = np.random.default_rng(0).integers(0, 256, (2, 160, 160, 3), np.uint8)
        assert again.identity == layer2.identity
        assert again.layer_shape == layer2.layer_shape
        np.testing.assert_array_equal(again.embed(inputs), layer2.embed(inputs))

    @pytest.mark.parametrize(
        ("model", "layer"),
        [
            ("resnet50", "pooled"),
            ("resnet50.tv_in1k", "pooled"),
            ("resnet50.layer2", "layer2"),
            ("resnet50.tv_in1k.layer2", "layer2"),
        ],
    )
    def test_its_own_name_is_known_without_timm(
        self, monkeypatch: pytest.MonkeyPatch, model: str, layer: str
    ) -> None:
        def never(name: str) -> NoReturn:
            raise AssertionError(name)

        monkeypatch.setattr(names, "parse", never)
        stored = Identity("timm", "resnet50.tv_in1k", layer, "0" * 64, {})
        registry.for_collection(
            "images", stored, Weights(None, None), model=model, weights=None, runtime=ON_TORCH
        )

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("test_resnet", "test_resnet.r160_in1k"),
            ("test_resnet.r160_in1k", "test_resnet.r160_in1k"),
            ("test_resnet.layer3", "test_resnet.r160_in1k.layer3"),
            ("resnet50.layer2", "resnet50.tv_in1k.layer2"),
        ],
    )
    def test_another_layer_is_refused_and_both_are_named(
        self, layer2: Encoder, model: str, name: str
    ) -> None:
        with pytest.raises(EncoderMismatch) as caught:
            self.of_collection(layer2, model)
        assert "was made by test_resnet.r160_in1k.layer2," in str(caught.value)
        assert f"vectors of {name} cannot" in str(caught.value)
