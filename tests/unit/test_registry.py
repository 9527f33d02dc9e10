"""Which encoder a collection, a name or an older identity gets, and when it is loaded."""

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ON_TORCH, PixelEncoder, picture, save_weights

from vecsearch.encoders import registry
from vecsearch.encoders.base import Encoder, Identity, LazyEncoder, Weights
from vecsearch.encoders.timm.family import TimmFamily
from vecsearch.errors import (
    EncoderError,
    EncoderMismatch,
    WeightsMismatch,
    WeightsUnavailable,
)


@pytest.fixture(scope="module")
def encoder(small_model: str, weights: Path) -> Encoder:
    return registry.load(small_model, weights, device="cpu")


def test_a_lazy_encoder_loads_when_used_and_once_for_all_threads() -> None:
    threads = 8
    start = threading.Barrier(threads)
    company = threading.Barrier(2)
    loads: list[int] = []
    answers: list[int] = []

    def load() -> Encoder:
        loads.append(1)
        # Were a second thread let in, it would come while the first one waits for it here.
        with suppress(threading.BrokenBarrierError):
            company.wait(timeout=0.2)
        return PixelEncoder()

    lazy = LazyEncoder(load)
    assert loads == []

    def use() -> None:
        start.wait()
        answers.append(lazy.dimensions)

    workers = [threading.Thread(target=use) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert answers == [48] * threads
    assert lazy.identity == PixelEncoder.identity
    assert lazy.weights == PixelEncoder.weights
    assert lazy.preprocessing == PixelEncoder.preprocessing
    prepared = lazy.preprocessing.prepare(picture(1))
    np.testing.assert_array_equal(prepared, PixelEncoder().preprocessing.prepare(picture(1)))
    np.testing.assert_array_equal(lazy.embed(prepared[None]), prepared.reshape(1, -1))
    assert loads == [1]


def test_a_lazy_encoder_that_failed_does_not_try_again() -> None:
    tries: list[int] = []

    def load() -> Encoder:
        tries.append(1)
        raise WeightsUnavailable("They are gone.")

    lazy = LazyEncoder(load)
    for _ in range(3):
        with pytest.raises(WeightsUnavailable, match="gone"):
            _ = lazy.identity
    assert tries == [1]


class TestTheEncoderOfACollection:
    """What `for_collection` says to the model and weights that a command names."""

    @staticmethod
    def of_collection(
        identity: Identity, stored: Weights, model: str | None = None, file: Path | None = None
    ) -> Encoder:
        return registry.for_collection(
            "images", identity, stored, model=model, weights=file, runtime=ON_TORCH
        )

    def test_named_by_nobody_it_is_the_stored_one(self, encoder: Encoder) -> None:
        again = self.of_collection(encoder.identity, encoder.weights)
        assert again.identity == encoder.identity

    def test_its_own_short_name_is_no_other_model(self, encoder: Encoder, small_model: str) -> None:
        for name in (small_model, small_model.partition(".")[0]):
            again = self.of_collection(encoder.identity, encoder.weights, model=name)
            assert again.identity == encoder.identity

    def test_another_model_is_refused_at_once(self, encoder: Encoder) -> None:
        with pytest.raises(EncoderMismatch, match=r"made by test_resnet.*resnet50\.tv_in1k"):
            self.of_collection(encoder.identity, encoder.weights, model="resnet50")

    def test_a_moved_file_is_asked_for_only_when_it_is_needed(
        self, encoder: Encoder, tmp_path: Path
    ) -> None:
        gone = Weights(str(tmp_path / "gone.safetensors"), "0" * 64)
        lazy = self.of_collection(encoder.identity, gone)
        with pytest.raises(WeightsUnavailable, match=r"which is gone\. Name the file's new place"):
            _ = lazy.identity

    def test_its_new_place_can_be_named(
        self, encoder: Encoder, weights: Path, tmp_path: Path
    ) -> None:
        gone = Weights(str(tmp_path / "gone.safetensors"), "0" * 64)
        moved = self.of_collection(encoder.identity, gone, file=weights)
        assert moved.identity == encoder.identity

    def test_a_file_that_is_not_the_recorded_one_is_loaded_once(
        self,
        encoder: Encoder,
        small_model: str,
        weights: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        loads = []
        load = TimmFamily.load_stored

        def counted(*arguments: Any, **options: Any) -> Any:
            loads.append(1)
            return load(*arguments, **options)

        monkeypatch.setattr(TimmFamily, "load_stored", counted)
        state = registry.load(small_model, weights, device="cpu").network.model.state_dict()
        file = tmp_path / "same.pth"
        torch.save(state, file)
        same = self.of_collection(encoder.identity, encoder.weights, file=file)
        assert same.identity == encoder.identity
        assert same.weights == Weights.of_file(file)
        assert loads == [1]

    def test_a_file_that_changed_in_its_place_is_refused(
        self, encoder: Encoder, small_model: str, tmp_path: Path
    ) -> None:
        file = save_weights(tmp_path / "small.safetensors", small_model, seed=1)
        lazy = self.of_collection(encoder.identity, Weights(str(file), "0" * 64))
        with pytest.raises(WeightsMismatch, match="has changed since collection 'images'"):
            _ = lazy.identity

    def test_another_file_that_is_named_is_refused_at_once(
        self, encoder: Encoder, small_model: str, tmp_path: Path
    ) -> None:
        file = save_weights(tmp_path / "small.safetensors", small_model, seed=1)
        with pytest.raises(EncoderMismatch, match="with other weights, so"):
            self.of_collection(encoder.identity, encoder.weights, file=file)


@pytest.mark.parametrize(
    ("model", "sha256", "backend"),
    [
        ("resnet50.tv_in1k", "0" * 64, "timm"),
        ("autoencoder", "0" * 64, "autoencoder"),
        ("unknown", None, "unknown"),
    ],
)
def test_an_identity_of_an_older_file_has_its_backend(
    model: str, sha256: str | None, backend: str
) -> None:
    fields: dict[str, Any] = {
        "model": model,
        "layer": "pooled",
        "weights_sha256": sha256,
        "preprocessing": {},
    }
    found = Identity.from_json(fields)
    assert found == Identity(backend, model, "pooled", sha256, {})
    assert Identity.from_json(vars(found)) == found


def test_a_family_of_a_newer_vecsearch_is_refused_in_one_sentence() -> None:
    stored = Identity("clip", "vit", "pooled", "0" * 64, {})
    with pytest.raises(EncoderError, match=r"Unknown encoder family 'clip'.*Upgrade vecsearch"):
        registry.family_of(stored)


def test_each_family_has_a_name_of_its_own_and_the_last_takes_what_is_left() -> None:
    names = [family.backend for family in registry.FAMILIES]
    assert names == ["open_clip", "autoencoder", "timm"]
    assert registry.family_named("open_clip:./mine.json").backend == "open_clip"
    assert registry.family_named("./mine.safetensors").backend == "autoencoder"
    assert registry.family_named("resnet50").backend == "timm"
