"""Models of open_clip: their embeddings are open_clip's own, of pictures and of sentences."""

import importlib.util
import json
import logging
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from support import ON_TORCH, picture, save_clip

from vecsearch.config import Runtime
from vecsearch.encoders import hub, registry
from vecsearch.encoders.base import Identity, LazyEncoder, Weights
from vecsearch.encoders.network import TorchEncoder
from vecsearch.encoders.open_clip import names, tokens
from vecsearch.encoders.openvino import choice, export
from vecsearch.encoders.preprocessing import Preprocessing
from vecsearch.errors import (
    EncoderError,
    EncoderMismatch,
    InvalidInput,
    UnknownModel,
    WeightsMismatch,
    WeightsUnavailable,
)

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


def load(files: tuple[Path, Path]) -> TorchEncoder:
    return registry.load(f"open_clip:{files[0]}", files[1], device="cpu")


def of_collection(
    encoder: TorchEncoder, runtime: Runtime = ON_TORCH, **named: str | Path | None
) -> LazyEncoder:
    """Return the encoder as a collection has it, whose identity comes from JSON."""
    stored = Identity.from_json(json.loads(json.dumps(asdict(encoder.identity))))
    options = {"model": None, "weights": None} | named
    return registry.for_collection(
        "images",
        stored,
        encoder.weights,
        model=options["model"],  # type: ignore[arg-type]  # a name
        weights=options["weights"],
        runtime=runtime,
    )


def texts_of(encoder: LazyEncoder, texts: list[str]) -> NDArray[np.float32]:
    assert encoder.texts is not None
    return encoder.texts.embed_text(texts)


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
    prepared = np.stack([encoder.prepare(picture(seed, size)) for seed, size in enumerate(SIZES)])
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


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ViT-B32", "no model 'ViT-B32'. Did you mean ViT-B-32"),
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
