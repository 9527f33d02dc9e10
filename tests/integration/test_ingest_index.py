"""The index of a new collection is built once its rows are there, and is there on every path."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from support import PixelEncoder, citus, every_server, ingest

from vecsearch.config import Settings
from vecsearch.encoders import base
from vecsearch.errors import EncoderError, InvalidInput
from vecsearch.ingest import choose
from vecsearch.ingest.summary import Progress
from vecsearch.library import Library
from vecsearch.postgres import catalog, database

pytestmark = citus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def index_of(library: Library) -> str:
    [status] = library.collections()
    return status.index


@every_server
@pytest.mark.parametrize("method", [None, "hnsw", "none"])
def test_a_new_collection_gets_the_index_it_is_told(
    library: Library, photos: Path, small_model: str, weights: Path, method: str | None
) -> None:
    steps: list[Progress] = []
    library.collection().ingest(
        photos / "cats",
        model=small_model,
        weights=weights,
        index=method,
        on_progress=steps.append,
    )
    assert index_of(library) == (method or "hnsw")
    assert steps[-1].summary.added == 6
    assert library.collection().ingest(photos, index=method).added == 6
    assert index_of(library) == (method or "hnsw")
    other = "none" if method != "none" else "hnsw"
    with pytest.raises(InvalidInput, match="vecsearch index create"):
        library.collection().ingest(photos, index=other)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"precision": "bogus"}, r"Unknown precision 'bogus'\. Use fp32 or int8"),
        ({"index": "bogus"}, r"Unknown index method 'bogus'\. Use hnsw"),
    ],
)
def test_an_unknown_option_is_refused_before_anything_is_made(
    empty_database_url: str, tmp_path: Path, photos: Path, option: dict[str, Any], message: str
) -> None:
    settings = Settings.load(database_url=empty_database_url, data_dir=tmp_path / "unused")
    with Library.open(settings) as library:
        with pytest.raises(InvalidInput, match=message):
            library.collection().ingest(photos, **option)
        (tmp_path / "e.csv").write_text("a.png,1,2\n")
        if "index" in option:
            with pytest.raises(InvalidInput, match=message):
                library.collection().import_file(tmp_path / "e.csv", **option)
        with library.engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT to_regclass('vecsearch.collections')")) is None


def test_a_weights_file_that_is_named_is_hashed_once(
    library: Library,
    photos: Path,
    small_model: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library.collection().ingest(photos, model=small_model, weights=weights)
    hashed = []
    file_sha256 = base.file_sha256

    def counted(path: str | Path) -> str:
        hashed.append(path)
        return file_sha256(path)

    monkeypatch.setattr(base, "file_sha256", counted)
    moved = shutil.copy(weights, photos.parent / "moved.safetensors")
    library.collection().ingest(photos, weights=moved)
    assert hashed == [moved]
    with catalog.reading(library.engine, "images") as (_, stored):
        assert stored.weights.source == str(moved)


def test_rows_of_a_first_run_that_was_cut_off_are_indexed_by_the_next(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.ingest.run.CHUNK_SIZE", 3)

    class CutOff(PixelEncoder):
        def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
            if len(self.embedded) >= 6:
                raise EncoderError("Cut off.")
            return super().embed(batch)

    with pytest.raises(EncoderError, match=r"Cut off\."):
        ingest(library.engine, [photos], CutOff())
    with database.reading(library.engine) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM images")) == 6
    assert index_of(library) == "none"
    ingest(library.engine, [photos], PixelEncoder())
    monkeypatch.setattr(choose, "encoder", lambda *_, **__: (PixelEncoder(), []))
    assert library.collection().ingest([photos]).unchanged == 12
    assert index_of(library) == "hnsw"
