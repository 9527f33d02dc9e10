"""Collections in int8: calibrated on their own pictures, and embedded by that model ever after."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import once, picture

from vecsearch.config import Settings
from vecsearch.errors import EncoderMismatch, InvalidInput, WeightsUnavailable
from vecsearch.library import Library
from vecsearch.postgres import catalog

pytestmark = once


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(24):
        picture(seed, (200, 180)).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture(autouse=True)
def _any_share_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is left in float32, whose search takes half a minute; tests/unit/test_mixed.py."""
    monkeypatch.setattr("vecsearch.encoders.openvino.mixed.LEAST_KEPT", 0.0)


def test_a_collection_is_calibrated_on_its_pictures_and_keeps_its_model(
    library: Library, many: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    summary = library.collection().ingest(
        [many], model=small_model, weights=weights, precision="int8"
    )
    assert any("of the 10 nearest that fp32 finds, measured on the 24" in n for n in summary.notes)
    assert any(re.search(r"; 0 of \d+ layers stay in fp32", n) for n in summary.notes)
    with catalog.reading(library.engine, "images") as (_, stored):
        precision = stored.identity.precision
        assert precision.startswith("int8-")
    weights_are_not_needed = replace(library.settings, cache_dir=tmp_path / "another machine's")
    new = tmp_path / "new.png"
    picture(99, (200, 180)).save(new)
    with Library.open(weights_are_not_needed) as other:
        assert len(other.query(new, k=5).hits) == 5
        other.collection().ingest([new])
        with pytest.raises(EncoderMismatch, match=precision):
            other.collection().ingest([new], precision="fp32")
    with catalog.reading(library.engine, "images") as (_, stored):
        assert stored.identity.precision == precision


def test_an_export_carries_the_precision(
    library: Library, many: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    library.collection().ingest([many], model=small_model, weights=weights, precision="int8")
    library.collection().export_file(tmp_path / "all.npz")
    library.collection("again").import_file(tmp_path / "all.npz")
    with (
        catalog.reading(library.engine, "images") as (_, first),
        catalog.reading(library.engine, "again") as (_, again),
    ):
        assert again.identity == first.identity
    with library.sql("DELETE FROM vecsearch_internal.quantized_models", write=True):
        pass
    new = tmp_path / "new.png"
    picture(99).save(new)
    elsewhere = replace(library.settings, cache_dir=tmp_path / "empty")
    with Library.open(elsewhere) as other, pytest.raises(WeightsUnavailable, match="int8-"):
        other.collection("again").query(new)


def test_what_int8_cannot_do_is_said(
    library: Library, photos: Path, small_model: str, weights: Path
) -> None:
    with pytest.raises(InvalidInput, match="12 pictures are too few"):
        library.collection().ingest([photos], model=small_model, weights=weights, precision="int8")
    assert library.collections() == []
    library.collection().ingest([photos], model=small_model, weights=weights)
    with pytest.raises(EncoderMismatch, match="made in fp32"):
        library.collection().ingest([photos], precision="int8")


def test_a_query_loads_no_more_than_it_needs(
    library: Library, photos: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    library.collection().ingest([photos], model=small_model, weights=weights)
    new = tmp_path / "new.png"
    picture(99).save(new)
    stored = loaded_by_query(library.settings, next(photos.rglob("*.png")))
    assert not stored & {"torch", "timm", "openvino", "huggingface_hub", "matplotlib", "fastapi"}
    fresh = loaded_by_query(library.settings, new)
    assert "openvino" in fresh
    assert not fresh & {"torch", "timm", "torchvision", "huggingface_hub", "safetensors"}
    assert not fresh & {"openvino_telemetry", "matplotlib", "fastapi", "alembic"}


def loaded_by_query(settings: Settings, image: Path) -> set[str]:
    program = f"""
import json, sys
from vecsearch.config import Settings
from vecsearch.library import Library
with Library.open(Settings.load(database_url={settings.database_url!r})) as library:
    assert len(library.query({str(image)!r}, k=3).hits) == 3
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}
