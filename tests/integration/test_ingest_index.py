"""The index of a new collection is built once its rows are there, and is there on every path."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from support import PixelEncoder, every_server, ingest

from vecsearch.errors import EncoderError, InvalidInput
from vecsearch.ingest import choose
from vecsearch.ingest.run import Progress
from vecsearch.library import Library
from vecsearch.postgres import database

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
