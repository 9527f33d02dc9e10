"""The file that `train autoencoder` writes, used as an encoder."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from support import picture

from vecsearch.encoders import base, registry
from vecsearch.encoders.autoencoder.model import Architecture, Autoencoder, AutoencoderEncoder
from vecsearch.encoders.autoencoder.model import save as save_model
from vecsearch.errors import WeightsMismatch, WeightsUnavailable


def save(file: Path, architecture: Architecture) -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Autoencoder(architecture)
    save_model(model, file)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("saved") / "own.safetensors"
    save(file, Architecture.for_size(16, 32))
    return file


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_every_image_size_is_halved_down_to_four_pixels(image_size: int) -> None:
    model = Autoencoder(Architecture.for_size(3, image_size))
    batch = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    # Up to the last convolution; what follows flattens.
    assert model.encoder[:-2](batch).shape[2:] == (4, 4)
    assert model(batch).shape == batch.shape


def test_a_file_of_the_first_version_still_gives_its_embeddings(tmp_path: Path) -> None:
    """Its metadata names no activation, and its halvings end at eight pixels."""
    fields = {"latent": 5, "image_size": 256, "channels": [16, 32, 64, 64, 64]}
    file = tmp_path / "first.safetensors"
    model = save(file, Architecture(5, 256, (16, 32, 64, 64, 64), "relu"))
    notes = {"vecsearch_autoencoder": json.dumps(fields)}
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, metadata=notes)
    encoder = registry.load(str(file), None, device="cpu")
    inputs = encoder.preprocessing.prepare(picture(1))[None]
    with torch.inference_mode():
        values = torch.from_numpy(inputs).permute(0, 3, 1, 2) / 255
        for layer in model.encoder:
            values = values.relu() if isinstance(layer, torch.nn.ReLU) else layer(values)
    np.testing.assert_array_equal(encoder.embed(inputs), values.numpy())
    assert any(isinstance(layer, torch.nn.ReLU) for layer in model.encoder)


@pytest.mark.parametrize("latent", [1, 16, 40])
def test_a_file_loads_as_an_encoder_of_its_latent_dimensions(tmp_path: Path, latent: int) -> None:
    file = tmp_path / "own.safetensors"
    save(file, Architecture.for_size(latent, 64))
    encoder = registry.load(str(file), None, device="cpu")
    assert (encoder.identity.model, encoder.identity.layer) == ("autoencoder", "latent")
    assert encoder.weights == base.Weights(str(file), base.file_sha256(file))
    inputs = np.stack([encoder.preprocessing.prepare(picture(seed)) for seed in range(3)])
    assert inputs.shape == (3, 64, 64, 3)
    assert inputs.dtype == np.uint8
    together = encoder.embed(inputs)
    assert together.shape == (3, encoder.dimensions) == (3, latent)
    alone = np.concatenate([encoder.embed(one[None]) for one in inputs])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_channels_stay_in_their_order() -> None:
    encoder = AutoencoderEncoder(
        Autoencoder(Architecture.for_size(16, 64)),
        base.Weights(None, None),
        torch.device("cpu"),
    )
    prepared = encoder.preprocessing.prepare(PIL.Image.new("RGB", (9, 5), (255, 51, 0)))
    np.testing.assert_array_equal(prepared[10, 20], [255, 51, 0])


def test_weights_of_a_timm_model_are_no_model_file(weights: Path) -> None:
    with pytest.raises(WeightsMismatch, match="--model NAME --weights FILE"):
        registry.load(str(weights), None, device="cpu")


@pytest.mark.parametrize("architecture", [None, "no JSON", "[]", '{"latent": 16}', '{"depth": 3}'])
def test_a_file_whose_architecture_makes_no_sense_is_refused(
    saved: Path, tmp_path: Path, architecture: str | None
) -> None:
    file = tmp_path / "odd.safetensors"
    notes = {} if architecture is None else {"vecsearch_autoencoder": architecture}
    safetensors.torch.save_file(safetensors.torch.load_file(saved), file, metadata=notes)
    with pytest.raises(WeightsMismatch, match="not an autoencoder that vecsearch has trained"):
        registry.load(str(file), None, device="cpu")


def test_a_model_file_that_is_gone_or_broken_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"gone\.safetensors does not exist"):
        registry.load(str(tmp_path / "gone.safetensors"), None, device="cpu")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(saved.read_bytes()[:5000])
    with pytest.raises(WeightsUnavailable, match="cannot be read as a model file"):
        registry.load(str(broken), None, device="cpu")
