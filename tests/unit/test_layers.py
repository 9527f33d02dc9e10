"""Layers of timm models: what becomes of their output."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from support import PixelEncoder, normalised, save_weights
from timm.models.vgg import VGG
from torch import nn
from torch.nn.functional import conv2d, relu

from vecsearch.encoders import registry
from vecsearch.encoders.base import Encoder, Weights, averaging
from vecsearch.encoders.network import full_precision
from vecsearch.encoders.timm.model import TimmEncoder
from vecsearch.errors import EncoderError, WeightsMismatch

HUB = Weights(None, None)


def loaded(module: nn.Module, layer: str) -> TimmEncoder:
    return TimmEncoder(module, "model", layer, HUB, torch.device("cpu"))


def seeded(model: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(model, pretrained=False, **options).eval()


def pictures(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3, size, size, 3), np.uint8)


def assert_embeds(
    encoder: Encoder, inputs: NDArray[np.uint8], expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with torch.inference_mode():
        wanted = expected(normalised(inputs, encoder)).numpy()
    assert wanted.shape == (len(inputs), encoder.dimensions)
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(encoder.embed(inputs), wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def vgg() -> Any:
    """A VGG in all but width."""
    torch.manual_seed(0)
    module = VGG([8, "M", 8, "M", 8, "M", 8, "M", 8, "M"], num_classes=0, mlp_ratio=0.01)
    return module.eval()


@pytest.fixture(scope="module")
def resnet(small_model: str, weights: Path) -> Any:
    module = timm.create_model(small_model, pretrained=False)
    module.load_state_dict(safetensors.torch.load_file(weights))
    return module.eval()


@pytest.fixture(scope="module")
def layer2(small_model: str, weights: Path) -> Encoder:
    return registry.load(f"{small_model}.layer2", weights, device="cpu")


def test_fc1_and_fc2_are_a_vgg_s_fully_connected_layers_after_relu(vgg: Any) -> None:
    def fc1(inputs: torch.Tensor) -> torch.Tensor:
        layer = vgg.pre_logits.fc1
        return relu(conv2d(vgg.features(inputs), layer.weight, layer.bias))

    def fc2(inputs: torch.Tensor) -> torch.Tensor:
        layer = vgg.pre_logits.fc2
        return relu(conv2d(fc1(inputs), layer.weight, layer.bias))

    first, second = loaded(vgg, "fc1"), loaded(vgg, "pooled")
    assert (first.layer_shape, second.layer_shape) == ((40, 1, 1), (4096,))
    assert_embeds(first, pictures(224), lambda inputs: fc1(inputs).flatten(1))
    assert_embeds(second, pictures(224), lambda inputs: fc2(inputs).flatten(1))


@pytest.mark.parametrize("layer", ["features.0", "pre_logits.fc1"])
def test_an_activation_in_place_does_not_reach_the_layer_before_it(vgg: Any, layer: str) -> None:
    assert loaded(vgg, layer).embed(pictures(224)).min() < 0


def test_a_map_is_averaged_over_height_and_width(
    layer2: Encoder, resnet: Any, small_model: str
) -> None:
    def expected(inputs: torch.Tensor) -> Any:
        stem = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(inputs))))
        return resnet.layer2(resnet.layer1(stem)).mean((2, 3))

    assert layer2.identity.name == f"{small_model}.layer2"
    assert layer2.layer_shape == (48, 20, 20)
    assert_embeds(layer2, pictures(160), expected)


def test_a_map_with_its_channels_last_is_averaged_over_height_and_width_too() -> None:
    module = seeded("test_mambaout")
    stage = loaded(module, "stages.0")
    assert stage.layer_shape == (40, 40, 16)
    assert_embeds(
        stage, pictures(160), lambda inputs: module.stages[0](module.stem(inputs)).mean((1, 2))
    )


def test_a_layer_s_own_order_of_axes_counts_not_its_model_s() -> None:
    mambaout, convnext = seeded("test_mambaout"), seeded("test_convnext")
    first = loaded(mambaout, "stem.conv1")
    assert_embeds(first, pictures(160), lambda inputs: mambaout.stem.conv1(inputs).mean((2, 3)))
    linear = loaded(convnext, "stages.0.blocks.0.mlp.fc1")
    assert linear.layer_shape[0] == linear.layer_shape[1] != linear.layer_shape[2]
    assert linear.dimensions == linear.layer_shape[2]


class Cube(nn.Module):
    """A model with a map as deep as it is wide."""

    def __init__(self, output_fmt: str) -> None:
        super().__init__()
        self.output_fmt = output_fmt
        self.cube = nn.Unflatten(1, (2, 2, 2))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.cube(inputs.flatten(1)[:, :8] * self.scale)


@pytest.mark.parametrize(("output_fmt", "axes"), [("NCHW", (2, 3)), ("NHWC", (1, 2))])
def test_a_map_as_deep_as_it_is_wide_is_in_its_model_s_format(
    output_fmt: str, axes: tuple[int, int]
) -> None:
    assert_embeds(
        loaded(Cube(output_fmt), "cube"),
        pictures(224),
        lambda inputs: inputs.flatten(1)[:, :8].reshape(-1, 2, 2, 2).mean(axes),
    )


def test_tokens_are_averaged_and_a_vector_is_taken_as_it_is() -> None:
    module = seeded("test_vit")
    tokens, vector = loaded(module, "norm"), loaded(module, "head")
    assert (tokens.layer_shape, vector.layer_shape) == ((101, 64), (1000,))
    assert_embeds(tokens, pictures(160), lambda inputs: module.forward_features(inputs).mean(1))
    assert_embeds(vector, pictures(160), module)


def test_the_classifier_is_a_layer_and_needs_its_weights(
    resnet: Any, small_model: str, weights: Path, tmp_path: Path
) -> None:
    encoder = registry.load(f"{small_model}.fc", weights, device="cpu")
    assert encoder.dimensions == 1000
    assert_embeds(encoder, pictures(160), resnet)
    state = safetensors.torch.load_file(weights)
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    safetensors.torch.save_file(headless, tmp_path / "headless.safetensors")
    with pytest.raises(WeightsMismatch, match=r"2 missing \(fc\.bias\)"):
        registry.load(f"{small_model}.fc", tmp_path / "headless.safetensors", device="cpu")
    registry.load(f"{small_model}.layer4", tmp_path / "headless.safetensors", device="cpu")


def test_what_holds_the_classifier_keeps_it(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "w.safetensors", "test_efficientnet")
    nested = save_weights(tmp_path / "nested.safetensors", "test_byobnet")
    assert registry.load("test_efficientnet.classifier", file, device="cpu").dimensions == 1000
    assert registry.load("test_byobnet.head", nested, device="cpu").dimensions == 1000
    assert registry.load("test_byobnet.head.fc", nested, device="cpu").dimensions == 1000


class Pair(nn.Module):
    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs, inputs


class Odd(nn.Module):
    """A model whose layers cannot be made vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.twice = nn.ReLU()
        self.idle = nn.ReLU()
        self.windows = nn.Flatten(0, 1)
        self.number = nn.Identity()
        self.shared = nn.Linear(4, 4)
        self.attention = nn.Unflatten(1, (3, 28, 112))
        self.video = nn.Unflatten(1, (3, 2, 2, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.flatten(1)
        self.pair(self.twice(self.twice(inputs)))
        self.attention(flat[:, : 3 * 28 * 112])
        self.video(flat[:, :24])
        self.number(flat.mean())
        self.shared(torch.ones(1, 4))
        self.windows(inputs)
        return flat


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        ("pair", "a tuple"),
        ("twice", "2 outputs"),
        ("idle", "nothing"),
        ("number", "a number"),
        ("windows", "6 × 224 × 224"),
        ("shared", "1 × 4"),
        ("attention", "2 × 3 × 28 × 112"),
        ("video", "2 × 3 × 2 × 2 × 2"),
    ],
)
def test_a_layer_that_gives_no_vector_a_picture_is_refused_with_what_it_gives(
    layer: str, given: str
) -> None:
    with pytest.raises(EncoderError, match=f"^Layer {layer} of model gives {given} for 2 pictures"):
        loaded(Odd(), layer)


def test_the_heads_of_attention_are_no_map() -> None:
    with pytest.raises(EncoderError, match="gives 2 × 2 × 101 × 32 for 2 pictures"):
        loaded(seeded("test_vit"), "blocks.0.attn.q_norm")


class Meeting(nn.Module):
    """A model in which two threads would meet, were they let in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.company = threading.Barrier(2)

    def forward(self, inputs: torch.Tensor) -> Any:
        with suppress(threading.BrokenBarrierError):
            self.company.wait(timeout=0.2)
        return self.layer(inputs.mean((2, 3)))


def test_threads_that_share_an_encoder_get_their_own_pictures_embeddings() -> None:
    module = Meeting()
    encoder = loaded(module, "layer")
    module.company.reset()
    batches = [pictures(224, seed) for seed in range(2)]
    found: dict[int, NDArray[np.float32]] = {}

    def embed(number: int) -> None:
        found[number] = encoder.embed(batches[number])

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, batch in enumerate(batches):
        np.testing.assert_allclose(
            found[number], normalised(batch).mean((2, 3)), rtol=1e-4, atol=1e-5
        )


def test_what_is_averaged_is_said(vgg: Any) -> None:
    assert averaging(loaded(vgg, "features.3")) == (
        "Layer features.3 of model gives 8 × 112 × 112, averaged to 8 numbers."
    )
    assert averaging(loaded(vgg, "fc1")) is None
    assert averaging(loaded(vgg, "pooled")) is None
    assert averaging(PixelEncoder()) is None


def test_a_file_may_hold_the_head_that_inception_is_trained_with(tmp_path: Path) -> None:
    file = save_weights(tmp_path / "w.safetensors", "test_resnet.r160_in1k")
    plain = registry.load("test_resnet.r160_in1k", file, device="cpu")
    tensors = safetensors.torch.load_file(file) | {"AuxLogits.fc.bias": torch.ones(3)}
    safetensors.torch.save_file(tensors, file)
    assert registry.load("test_resnet.r160_in1k", file, device="cpu").identity == plain.identity


@pytest.fixture
def rounding() -> Iterator[None]:
    """A process that lets CUDA round to TF32 and to bfloat16."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", False)
    matmul.allow_tf32, cudnn.allow_tf32 = before


def roundings() -> tuple[bool, bool, bool]:
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return *tf32, torch.is_autocast_enabled("cuda")


def test_cuda_computes_in_float32_and_leaves_the_process_as_it_was(
    rounding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    class Noting(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(roundings())
            return inputs.mean((2, 3))

    encoder = loaded(Noting(), "pooled")
    wanted = encoder.embed(pictures(224))
    assert seen[-1] == (True, True, True)
    # As on a device, of which there is none here.
    encoder.device = torch.device("cuda")
    monkeypatch.setattr(encoder, "_on_device", torch.from_numpy)
    np.testing.assert_array_equal(encoder.embed(pictures(224)), wanted)
    assert seen[-1] == (False, False, False)
    assert roundings() == (True, True, True)


def test_the_precision_is_put_back_when_a_network_fails(rounding: None) -> None:
    def fail() -> None:
        with full_precision():
            assert roundings() == (False, False, False)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert roundings() == (True, True, True)


def test_two_encoders_do_not_change_each_other_s_precision(rounding: None) -> None:
    inside, may_leave = threading.Event(), threading.Event()
    cudnn = torch.backends.cudnn

    def first() -> None:
        with full_precision():
            inside.set()
            assert may_leave.wait(60)

    def second() -> bool:
        with full_precision():
            return cudnn.allow_tf32

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(first)]
        assert inside.wait(60)
        found = pool.submit(second)
        may_leave.set()
        running[0].result(60)
        assert not found.result(60)
    assert cudnn.allow_tf32
