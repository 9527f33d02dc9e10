"""What `undo` brings back, wherever it was and whatever has changed meanwhile."""

from pathlib import Path

import pytest
from support import check_vectors, once, scalar, versions
from tidy_support import applied, fill, use_trash_of

from vecsearch.library import Library
from vecsearch.search.query import Query

pytestmark = once


def test_rows_come_back_to_an_index_that_was_built_meanwhile(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_trash_of(tmp_path / "data", monkeypatch)
    fill(library, tmp_path / "photos", compact=True)
    ids = "SELECT array_agg(id ORDER BY id) FROM images"
    before = scalar(library, ids)
    done = applied(library, "trash", tmp_path)
    library.collection().set_ranking("compact", dims=6)
    library.collection().tidy.undo()
    assert scalar(library, ids) == before
    copy = done[0]
    nearest = library.collection().ask(Query(id=copy.kept, k=3)).hits
    assert copy.id in {hit.id for hit in nearest}
    (version,) = versions(library)
    check_vectors(library.engine, version)
