"""Training an autoencoder: what is kept, when it stops, how it goes on."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from support import picture

from vecsearch.config import Settings
from vecsearch.encoders import registry
from vecsearch.encoders.autoencoder import training
from vecsearch.encoders.autoencoder.checkpoint import checkpoint_file
from vecsearch.encoders.autoencoder.model import squashing, to_input
from vecsearch.encoders.autoencoder.training import Options, Training, choose_image_size
from vecsearch.errors import InvalidInput
from vecsearch.library import Library

PICTURES = 12


def train(
    output: Path,
    count: int = PICTURES,
    *,
    first: int = 0,
    sides: Iterable[int] = (),
    **options: Any,
) -> Training:
    drawn = [picture(seed) for seed in range(first, first + count)]
    options = {"epochs": 2, "image_size": 32, "device": "cpu", **options}
    return Training(
        lambda size: map(squashing(size).prepare, drawn), sides, output, Options(**options)
    )


def interrupt(output: Path, after: int, **options: Any) -> None:
    """Train, and be interrupted in the middle of the epoch that comes next."""

    def on_batch(epoch: int, _: int) -> None:
        if epoch > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(train(output, on_batch=on_batch, **options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("trained") / "own.safetensors"
    list(train(file))
    return file


def test_the_same_seed_and_pictures_give_the_same_file(trained: Path, tmp_path: Path) -> None:
    list(train(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == trained.read_bytes()


def test_another_seed_gives_another_encoder(trained: Path, tmp_path: Path) -> None:
    list(train(tmp_path / "other.safetensors", seed=1))
    other = registry.load(str(tmp_path / "other.safetensors"), None, device="cpu")
    assert other.identity != registry.load(str(trained), None, device="cpu").identity


def test_training_lowers_the_loss_and_reports_each_epoch_and_batch(tmp_path: Path) -> None:
    batches: list[tuple[int, int]] = []
    output = tmp_path / "own.safetensors"
    results = list(train(output, on_batch=lambda epoch, count: batches.append((epoch, count))))
    assert [result.epoch for result in results] == [1, 2]
    assert results[-1].training_loss < results[0].training_loss
    # A fifth is held out.
    assert batches == [(1, PICTURES - 2), (2, PICTURES - 2)]


@pytest.fixture
def overshooting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a learning rate so large that some epochs are no better than those before."""
    monkeypatch.setattr(training, "LEARNING_RATE", 0.02)


def test_the_file_is_the_epoch_with_the_least_validation_loss(
    overshooting: None, tmp_path: Path
) -> None:
    file = tmp_path / "own.safetensors"
    running = train(file, epochs=6, patience=0)
    results = list(running)
    least = min(result.validation_loss for result in results)
    assert results[-1].validation_loss > least, "not a test of anything"
    kept = max(result.epoch for result in results if result.best)
    assert results[kept - 1].validation_loss == least
    list(train(tmp_path / "shorter.safetensors", epochs=kept, patience=0))
    assert file.read_bytes() == (tmp_path / "shorter.safetensors").read_bytes()
    originals, drawn = running.reconstructions(PICTURES)
    error = np.square(to_input(drawn) - to_input(originals)).mean()
    assert error == pytest.approx(least, rel=0.02)


def test_an_epoch_is_best_if_none_before_had_a_validation_loss_as_low(
    overshooting: None, tmp_path: Path
) -> None:
    least = float("inf")
    results = list(train(tmp_path / "own.safetensors", epochs=6, patience=0))
    for result in results:
        assert result.best == (result.validation_loss < least)
        least = min(least, result.validation_loss)
    assert {result.best for result in results} == {True, False}, "not a test of anything"


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_after_that_many_epochs_without_a_better_one(
    overshooting: None, tmp_path: Path, patience: int
) -> None:
    best = [
        result.best for result in train(tmp_path / "a.safetensors", epochs=40, patience=patience)
    ]
    assert len(best) < 40
    assert best[-patience - 1 :] == [True] + [False] * patience
    worse = "".join(" " if better else "x" for better in best[:-1])
    assert "x" * patience not in worse
    patient = train(tmp_path / "b.safetensors", epochs=len(best) + 1, patience=0)
    assert len(list(patient)) == len(best) + 1


def test_reconstructions_are_of_held_out_pictures(tmp_path: Path) -> None:
    running = train(tmp_path / "own.safetensors")
    list(running)
    originals, drawn = running.reconstructions(PICTURES)
    assert originals.shape == drawn.shape == (2, 32, 32, 3)
    assert originals.dtype == drawn.dtype == np.uint8
    held_out = np.random.default_rng(0).permutation(PICTURES)[:2]
    bilinear = PIL.Image.Resampling.BILINEAR
    for row, original in zip(held_out, originals, strict=True):
        expected = np.asarray(picture(int(row)).resize((32, 32), bilinear))
        np.testing.assert_array_equal(original, expected)
    assert len(running.reconstructions(1)[0]) == 1


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([32], 32),
        ([32, 33, 33], 64),
        ([8, 9, 5000], 32),
        ([100, 128, 129], 128),
        ([129], 256),
        ([4000, 3000], 256),
    ],
    ids=str,
)
def test_the_image_size_is_the_least_that_is_not_below_the_median_side(
    sides: list[int], expected: int
) -> None:
    assert choose_image_size(sides) == expected


def test_the_pictures_decide_the_image_size_unless_it_is_given(tmp_path: Path) -> None:
    chosen = {}
    for name, image_size in {"own": None, "given": 32}.items():
        file = tmp_path / f"{name}.safetensors"
        list(train(file, epochs=1, sides=[60] * PICTURES, image_size=image_size))
        encoder = registry.load(str(file), None, device="cpu")
        chosen[name] = encoder.identity.preprocessing["input_size"]
    assert chosen == {"own": [3, 64, 64], "given": [3, 32, 32]}


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_training_gives_what_an_uninterrupted_one_does(
    overshooting: None, tmp_path: Path, after: int
) -> None:
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    expected = list(train(whole, epochs=4))
    assert {epoch.best for epoch in expected} == {True, False}, "not a test of what is kept"
    interrupt(resumed, after, epochs=4)
    assert not resumed.exists()
    assert list(train(resumed, epochs=4, resume=True)) == expected
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_resumed_training_may_be_interrupted_again_and_prolonged(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    expected = list(train(whole, epochs=4))
    interrupt(resumed, 1, epochs=2)
    interrupt(resumed, 2, epochs=3, resume=True)
    assert list(train(resumed, epochs=4, resume=True)) == expected
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_resumed_training_goes_as_far_as_was_planned_when_it_began(tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    interrupt(output, 1, epochs=4)
    resumed = train(output, epochs=None, resume=True)
    assert len(list(resumed)) == resumed.planned == 4


def test_a_training_interrupted_after_its_last_epoch_still_gets_its_file(
    trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "own.safetensors"
    assert len(list(islice(train(output), 2))) == 2
    assert not output.exists()
    assert len(list(train(output, resume=True))) == 2
    assert output.read_bytes() == trained.read_bytes()


def test_only_the_finished_file_is_left(trained: Path, tmp_path: Path) -> None:
    assert [file.name for file in trained.parent.iterdir()] == [trained.name]
    interrupt(tmp_path / "own.safetensors", 1)
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors.checkpoint"]
    list(train(tmp_path / "own.safetensors", resume=True))
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"latent": 8}, "was made with latent 16, not latent 8"),
        ({"seed": 1, "latent": 8}, "latent 16 and seed 0, not latent 8 and seed 1"),
        ({"image_size": 64}, "image size 32 and .*, not image size 64 and "),
        ({"first": 1}, "was made from other pictures"),
        ({"count": PICTURES + 1}, "was made from other pictures"),
        ({"count": 4}, "was made from other pictures"),
        ({"epochs": 1}, r"already has 2 epochs\. Give --epochs 2 or more"),
    ],
    ids=str,
)
def test_another_training_is_not_resumed_and_what_differs_is_said(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    output = tmp_path / "own.safetensors"
    interrupt(output, 2, epochs=3)
    before = checkpoint_file(output).read_bytes()
    with pytest.raises(InvalidInput, match=complaint):
        list(train(output, **{"epochs": 3, "resume": True, **options}))
    assert checkpoint_file(output).read_bytes() == before


def test_what_lies_in_the_way_is_refused_with_the_ways_on(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    with pytest.raises(InvalidInput, match=r"no checkpoint .* Omit --resume"):
        train(output, resume=True)
    interrupt(output, 1)
    with pytest.raises(InvalidInput, match=r"Continue it with --resume, or delete it"):
        train(output)
    for resume in (False, True):
        with pytest.raises(InvalidInput, match=r"Choose another --output, or delete it"):
            train(trained, resume=resume)


@pytest.mark.parametrize("damage", ["cut", "another file"])
def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path, damage: str) -> None:
    output = tmp_path / "own.safetensors"
    interrupt(output, 1)
    checkpoint = checkpoint_file(output)
    content = checkpoint.read_bytes()[:-1] if damage == "cut" else trained.read_bytes()
    checkpoint.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"cannot be read as a checkpoint.* Delete it"):
        list(train(output, resume=True))


def test_a_training_that_diverges_is_said_and_writes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEARNING_RATE", float("inf"))
    with pytest.raises(InvalidInput, match="No epoch had a finite loss"):
        list(train(tmp_path / "own.safetensors"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_pictures_are_refused_and_nothing_is_written(tmp_path: Path, count: int) -> None:
    with pytest.raises(InvalidInput, match=f"{count} pictures are too few"):
        list(train(tmp_path / "own.safetensors", count))
    assert list(tmp_path.iterdir()) == []


def test_five_pictures_are_enough(tmp_path: Path) -> None:
    assert len(list(train(tmp_path / "own.safetensors", 5, epochs=1))) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"latent": 0},
        {"epochs": 0},
        {"seed": -1},
        {"seed": 2**64},
        {"patience": -1},
        {"image_size": 100},
        {"image_size": 0},
    ],
    ids=str,
)
def test_a_nonsensical_number_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        train(tmp_path / "own.safetensors", **options)


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
    assert [epoch.epoch for epoch in results] == [1]
    assert left_out == [str(photos / "broken.png")]
    encoder = registry.load(str(output), None, device="cpu")
    assert encoder.dimensions == 16
    # The pictures are 64 by 48.
    assert encoder.identity.preprocessing["input_size"] == [3, 64, 64]


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("own.pth", r"does not end in \.safetensors"),
        ("own", r"does not end in \.safetensors"),
        ("gone/own.safetensors", r"does not exist\. Create it"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_read(
    photos: Path, tmp_path: Path, output: str, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        Library.train_autoencoder([photos], tmp_path / output)
