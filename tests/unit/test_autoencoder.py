"""Training an encoder of one's own, and using its file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from support import picture

from vecsearch import encoders
from vecsearch.config import Settings
from vecsearch.encoders import autoencoder
from vecsearch.encoders.autoencoder import Architecture, Autoencoder, Epoch
from vecsearch.errors import InvalidInput, WeightsMismatch, WeightsUnavailable
from vecsearch.library import Library

PICTURES = 6


def train(output: Path, count: int = PICTURES, **options: Any) -> Iterator[Epoch]:
    drawn = (picture(seed) for seed in range(count))
    options = {"epochs": 2, "device": "cpu", **options}
    return autoencoder.train(drawn, count, output, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trained") / "own.safetensors"
    list(train(file))
    return file


def test_the_same_seed_and_pictures_give_the_same_file(trained: Path, tmp_path: Path) -> None:
    list(train(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == trained.read_bytes()


def test_another_seed_gives_another_encoder(trained: Path, tmp_path: Path) -> None:
    list(train(tmp_path / "other.safetensors", epochs=1, seed=1))
    other = encoders.load(str(tmp_path / "other.safetensors"), None, device="cpu")
    assert other.identity != encoders.load(str(trained), None, device="cpu").identity


def test_training_lowers_the_loss_and_reports_each_epoch_and_batch(tmp_path: Path) -> None:
    batches: list[tuple[int, int]] = []
    output = tmp_path / "own.safetensors"
    results = list(
        train(output, epochs=2, on_batch=lambda epoch, count: batches.append((epoch, count)))
    )
    assert [(result.epoch, result.epochs) for result in results] == [(1, 2), (2, 2)]
    assert results[-1].training_loss < results[0].training_loss
    # A fifth is held out.
    assert batches == [(1, PICTURES - 1), (2, PICTURES - 1)]


def reconstruction_loss(file: Path, rows: "np.typing.NDArray[np.int64]") -> float:
    """Return the loss of a saved file on some of the pictures."""
    model = Autoencoder(Architecture())
    model.load_state_dict(safetensors.torch.load_file(file))
    encoder = encoders.load(str(file), None, device="cpu")
    batch = torch.from_numpy(np.stack([encoder.prepare(picture(int(row))) for row in rows]))
    with torch.inference_mode():
        return torch.nn.functional.mse_loss(model(batch), batch).item()


def test_the_file_is_the_epoch_with_the_least_validation_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate this large overshoots, so that the last epoch is not the best."""
    monkeypatch.setattr(autoencoder, "LEARNING_RATE", 0.05)
    file = tmp_path / "own.safetensors"
    before = b""
    least = float("inf")
    results: list[Epoch] = []
    for result in train(file, epochs=3):
        results.append(result)
        assert result.best == (result.validation_loss < least)
        assert result.best == (file.read_bytes() != before)
        least = min(least, result.validation_loss)
        before = file.read_bytes()
    assert {result.best for result in results} == {True, False}, "not a test of anything"
    held_out = np.random.default_rng(0).permutation(PICTURES)[: PICTURES // 5]
    assert reconstruction_loss(file, held_out) == pytest.approx(least, rel=1e-4)


def test_only_the_finished_file_is_left(trained: Path) -> None:
    assert [file.name for file in trained.parent.iterdir()] == [trained.name]


@pytest.mark.parametrize("latent", [1, 16, 40])
def test_a_file_loads_as_an_encoder_of_its_latent_dimensions(tmp_path: Path, latent: int) -> None:
    file = tmp_path / "own.safetensors"
    list(train(file, epochs=1, latent=latent))
    encoder = encoders.load(str(file), None, device="cpu")
    assert (encoder.identity.model, encoder.identity.layer) == ("autoencoder", "latent")
    assert encoder.weights == encoders.Weights(str(file), encoders.file_sha256(file))
    inputs = np.stack([encoder.prepare(picture(seed)) for seed in range(3)])
    assert inputs.shape == (3, 3, 256, 256)
    assert inputs.dtype == np.float32
    assert 0 <= inputs.min() <= inputs.max() <= 1
    together = encoder.embed(inputs)
    assert together.shape == (3, encoder.dimensions) == (3, latent)
    alone = np.concatenate([encoder.embed(one[None]) for one in inputs])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_channels_stay_in_their_order() -> None:
    encoder = autoencoder.AutoencoderEncoder(
        Autoencoder(Architecture()), encoders.Weights(None, None), torch.device("cpu")
    )
    prepared = encoder.prepare(PIL.Image.new("RGB", (9, 5), (255, 51, 0)))
    np.testing.assert_allclose(prepared[:, 100, 100], [1.0, 0.2, 0.0], rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_pictures_are_refused_and_nothing_is_written(tmp_path: Path, count: int) -> None:
    with pytest.raises(InvalidInput, match=f"{count} pictures are too few"):
        list(train(tmp_path / "own.safetensors", count))
    assert list(tmp_path.iterdir()) == []


def test_five_pictures_are_enough(tmp_path: Path) -> None:
    assert len(list(train(tmp_path / "own.safetensors", 5, epochs=1))) == 1


@pytest.mark.parametrize(
    "options", [{"latent": 0}, {"epochs": 0}, {"seed": -1}, {"seed": 2**64}], ids=str
)
def test_a_nonsensical_number_is_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        list(train(tmp_path / "own.safetensors", **options))


def test_the_caller_s_randomness_goes_on_as_if_nothing_had_been_trained(tmp_path: Path) -> None:
    torch.manual_seed(42)
    expected = torch.rand(3)
    torch.manual_seed(42)
    drawn = [torch.rand(1)]
    # Between the epochs, too, the caller may draw.
    drawn += [torch.rand(1) for _ in train(tmp_path / "own.safetensors", epochs=1)]
    drawn.append(torch.rand(1))
    assert torch.cat(drawn).tolist() == expected.tolist()


def test_the_caller_s_randomness_has_no_part_in_the_training(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    for _ in train(tmp_path / "own.safetensors"):
        torch.rand(100)
    assert (tmp_path / "own.safetensors").read_bytes() == trained.read_bytes()


def test_weights_of_a_timm_model_are_no_model_file(weights: Path) -> None:
    with pytest.raises(WeightsMismatch, match="--model NAME --weights FILE"):
        encoders.load(str(weights), None, device="cpu")


@pytest.mark.parametrize("architecture", [None, "no JSON", "[]", '{"latent": 16}', '{"depth": 3}'])
def test_a_file_whose_architecture_makes_no_sense_is_refused(
    trained: Path, tmp_path: Path, architecture: str | None
) -> None:
    file = tmp_path / "odd.safetensors"
    notes = {} if architecture is None else {"vecsearch_autoencoder": architecture}
    safetensors.torch.save_file(safetensors.torch.load_file(trained), file, metadata=notes)
    with pytest.raises(WeightsMismatch, match="not an autoencoder that vecsearch has trained"):
        encoders.load(str(file), None, device="cpu")


def test_a_model_file_that_is_gone_or_broken_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"gone\.safetensors does not exist"):
        encoders.load(str(tmp_path / "gone.safetensors"), None, device="cpu")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(trained.read_bytes()[:5000])
    with pytest.raises(WeightsUnavailable, match="cannot be read as a model file"):
        encoders.load(str(broken), None, device="cpu")


def test_the_library_trains_on_a_folder_and_tells_what_it_left_out(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "broken.png").write_bytes(b"not a picture")
    left_out: list[str] = []
    output = tmp_path / "own.safetensors"
    results = Library.train_autoencoder(
        [photos],
        output,
        settings=Settings.load(device="cpu"),
        on_unreadable=lambda item: left_out.append(item.path),
        epochs=1,
    )
    assert len(list(results)) == 1
    assert left_out == [str(photos / "broken.png")]
    assert encoders.load(str(output), None, device="cpu").dimensions == 16


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("own.pth", r"does not end in \.safetensors"),
        ("own", r"does not end in \.safetensors"),
        ("gone/own.safetensors", r"cannot be written to"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    photos: Path, tmp_path: Path, output: str, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        Library.train_autoencoder([photos], tmp_path / output)
