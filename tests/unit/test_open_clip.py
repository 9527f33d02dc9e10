"""Models of open_clip: their embeddings are open_clip's own, of pictures and of sentences."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from clip_support import load, of_collection, save_clip, texts_of
from numpy.typing import NDArray
from support import ON_TORCH, picture

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.base import Identity, Weights
from vecsearch.encoders.network import TorchEncoder
from vecsearch.encoders.open_clip import tokens
from vecsearch.encoders.openvino import choice, export
from vecsearch.errors import (
    EncoderError,
    InvalidInput,
)
from vecsearch.imaging.preprocessing import Preprocessing

TEXTS = [
    "a red circle",
    "Two dogs, it's raining… & the café's closed on 24/12!",
    "日本の猫 🐶",
    "",
]
SIZES = [(64, 64), (200, 150), (90, 333), (31, 500), (63, 65)]
KINDS: dict[str, dict[str, Any]] = {
    "CLIP": {},
    "ResNet": {
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
    },
    "timm": {"custom_text": True, "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160}},
    "CoCa": {
        "custom_text": True,
        "vision_cfg": {
            "image_size": 64,
            "layers": 2,
            "width": 64,
            "head_width": 32,
            "patch_size": 16,
            "attentional_pool": True,
            "attn_pooler_queries": 16,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {
            "context_length": 31,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
            "embed_cls": True,
            "output_tokens": True,
        },
        "multimodal_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 31},
    },
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_clip(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def encoder(files: tuple[Path, Path]) -> TorchEncoder:
    return load(files)


def unit(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = embeddings.astype(np.float64)
    norms: NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / norms


def theirs(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return embeddings by open_clip alone, normalised: of pictures and of texts."""
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained_text=False)
    model.eval()
    inputs = torch.stack([transform(picture(seed, size)) for seed, size in enumerate(SIZES)])
    with torch.inference_mode():
        images = model.encode_image(inputs)
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS))
    return unit(images.numpy()), unit(texts.numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_embeddings_are_those_of_open_clip(tmp_path: Path, kind: str, engine: str) -> None:
    files = save_clip(tmp_path / "model", **KINDS[kind])
    images, texts = theirs(tmp_path / "model")
    runtime = Runtime("cpu", engine, tmp_path / "cache")
    encoder = of_collection(load(files), runtime)
    assert encoder.dimensions == images.shape[1]
    prepared = np.stack(
        [encoder.preprocessing.prepare(picture(seed, size)) for seed, size in enumerate(SIZES)]
    )
    for ours, wanted in (
        (encoder.embed(prepared), images),
        (texts_of(encoder, TEXTS), texts),
        (np.concatenate([texts_of(encoder, [text]) for text in TEXTS]), texts),
    ):
        assert np.ptp(wanted, axis=0).max() > 1e-3, "all the same"
        np.testing.assert_allclose(unit(ours), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        ({"resize_mode": "squash", "interpolation": "bilinear"}, 64),
        ({"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.25, 0.5, 0.75]}, [48, 64]),
        ({"interpolation": "bilinear"}, 64),
        ({"interpolation": "bilinear"}, [48, 64]),
        ({"interpolation": "random"}, 64),
    ],
)
def test_pictures_are_prepared_as_open_clip_does(
    tmp_path: Path, preprocessing: dict[str, Any], size: int | list[int]
) -> None:
    vision = {"image_size": size, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
    files = save_clip(tmp_path, preprocessing=preprocessing, vision_cfg=vision)
    model = open_clip.create_model(f"local-dir:{tmp_path}")
    transform = open_clip.image_transform(
        **{
            {"size": "image_size"}.get(key, key): value
            for key, value in model.visual.preprocess_cfg.items()
            if key != "mode"
        },
        is_train=False,
    )
    ours = Preprocessing.of(load(files).identity.preprocessing)
    for seed, (width, height) in enumerate(SIZES):
        prepared = torch.from_numpy(ours.prepare(picture(seed, (width, height))))
        mean, std = torch.tensor(ours.mean), torch.tensor(ours.std)
        normalised = ((prepared.float() / 255 - mean) / std).permute(2, 0, 1)
        wanted = transform(picture(seed, (width, height)))
        np.testing.assert_allclose(normalised.numpy(), wanted.numpy(), atol=1e-6)


def test_tokens_are_those_of_open_clip() -> None:
    wanted = open_clip.SimpleTokenizer(context_length=77)
    rng = np.random.default_rng(0)
    words = (
        "a Photo of the dog's it's we'll I'd they've can't 2024 42nd café NAÏVE Straße 日本語の猫 "
        "狗 🐶 👩‍👩‍👧 &amp; &lt;b&gt; !!! ... #1 _ snake_case ’s ½ ² ١٢٣ ﬁ İstanbul schÃ¶n "
        "supercalifragilistic"
    ).split()
    some = [
        rng.choice(["", " ", "\u00a0\n"]).join(rng.choice(words, rng.integers(0, 12)))
        for _ in range(300)
    ]
    fitting = [text for text in [*TEXTS, *some] if len(wanted.encode(text)) <= 75]
    assert len(fitting) > 250
    np.testing.assert_array_equal(
        tokens.tokenize(fitting, name="model", context=77), wanted(fitting).numpy()
    )


def test_a_text_that_does_not_fit_is_refused_before_anything_is_loaded(
    encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting, cut = "dog " * 30, "dog " * 31
    assert texts_of(of_collection(encoder), [fitting]).shape == (1, 48)
    lazy = of_collection(encoder)
    monkeypatch.setattr(registry, "_load_same", None)
    with pytest.raises(InvalidInput, match=r"reads 30 tokens.*and it has 31\. Shorten it"):
        texts_of(lazy, [cut])


def test_the_text_tower_is_exported_once_and_needs_no_torch_later(
    encoder: TorchEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime("cpu", "auto", tmp_path)
    first = texts_of(of_collection(encoder, runtime), TEXTS)
    monkeypatch.setattr(registry, "_load_same", None)
    np.testing.assert_array_equal(texts_of(of_collection(encoder, runtime), TEXTS), first)


def test_an_export_of_the_text_tower_that_differs_is_not_used(
    encoder: TorchEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(export, "LEAST_COSINE", 1.1)
    runtime = Runtime("cpu", "auto", tmp_path)
    wanted = texts_of(of_collection(encoder), TEXTS)
    for _ in range(2):
        caplog.clear()
        np.testing.assert_array_equal(texts_of(of_collection(encoder, runtime), TEXTS), wanted)
        [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert "1.1 is needed. torch embeds" in record.getMessage()
    insisting = of_collection(encoder, Runtime("cpu", "openvino", tmp_path))
    with pytest.raises(EncoderError, match="Leave --engine out"):
        texts_of(insisting, TEXTS)


def test_the_text_tower_does_not_keep_the_image_tower(encoder: TorchEncoder) -> None:
    kept = {name.split(".")[1] for name, _ in encoder.texts().tower.named_parameters()}
    assert "transformer" in kept
    assert "visual" not in kept
    assert encoder.embed(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 48)


def test_only_a_model_of_open_clip_reads_text(encoder: TorchEncoder) -> None:
    assert registry.reads_text(encoder.identity)
    for backend in ("timm", "autoencoder", "unknown", "of a newer vecsearch"):
        assert not registry.reads_text(Identity(backend, "m", "pooled", None, {}))
    timm = Identity("timm", "resnet50", "pooled", "0" * 64, {})
    lazy = registry.for_collection(
        "images", timm, Weights(None, None), model=None, weights=None, runtime=ON_TORCH
    )
    assert lazy.texts is None


def test_the_layer_of_a_cached_text_tower_is_its_own(encoder: TorchEncoder, tmp_path: Path) -> None:
    runtime = Runtime("cpu", "auto", tmp_path)
    lazy = of_collection(encoder, runtime)
    texts_of(lazy, TEXTS)
    assert choice.kept(encoder.identity, encoder.weights, runtime) is None
    lazy.embed(np.zeros((1, 64, 64, 3), np.uint8))
    assert choice.kept(encoder.identity, encoder.weights, runtime) is not None
