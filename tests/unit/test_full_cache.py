"""A cache that was full when an encoder was exported refuses nothing for good."""

import logging
import resource
from pathlib import Path

import numpy as np
import pytest

from vecsearch.config import Runtime
from vecsearch.encoders import registry
from vecsearch.encoders.openvino import choice
from vecsearch.encoders.openvino.cache import MODEL, TENSORS


def test_what_could_not_be_written_is_exported_when_there_is_room(
    small_model: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    encoder = registry.load(small_model, weights, device="cpu")
    height, width = encoder.preprocessing.input_size
    batch = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    wanted = encoder.embed(batch)
    whole, full = (Runtime("cpu", "auto", tmp_path / name) for name in ("whole", "full"))
    choice.quickest(encoder, whole).embed(batch)
    (entry,) = (whole.cache_dir / "encoders").iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name in (MODEL, TENSORS):
        for share in (0.0, 0.5, 0.999):
            exporting = choice.quickest(encoder, full)
            size = int((entry / name).stat().st_size * share)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            try:
                embedded = exporting.embed(batch)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            np.testing.assert_array_equal(embedded, wanted)
            assert "cannot be kept" in caplog.messages[-1]
            assert choice.kept(encoder.identity, encoder.weights, full) is None
    choice.quickest(encoder, full).embed(batch)
    assert choice.kept(encoder.identity, encoder.weights, full) is not None
