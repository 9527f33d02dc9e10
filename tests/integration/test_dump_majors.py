"""Collections move between data folders of the two embedded major versions, by the commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import initialise
from support import PixelEncoder, counts, ingest, once, store_concepts
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.library import Library

pytestmark = once
STORED = (
    "SELECT id, path, sha256, CAST(embedding AS text), metadata FROM images",
    "SELECT CAST(t AS text) FROM images_tags AS t",
    "SELECT CAST(t AS text) FROM vecsearch_internal.thumbnails AS t",
)


def opened(data_dir: Path) -> Library:
    return Library.open(Settings.load(data_dir=data_dir))


def stored(library: Library) -> list[list[Any]]:
    found = []
    for statement in STORED:
        with library.sql(statement) as (_, rows, _):
            found.append(sorted(rows, key=str))
    return found


def run(data_dir: Path, *words: str) -> None:
    done = CliRunner().invoke(app, ["db", *words, "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("old", "new"), [(16, 18), (18, 16)])
def test_a_data_folder_moves_to_the_other_version(
    photos: Path, tmp_path: Path, old: int, new: int
) -> None:
    folders = {major: tmp_path / str(major) for major in (old, new)}
    for major, data_dir in folders.items():
        initialise(data_dir / "postgres", major)
    with opened(folders[old]) as library:
        library.upgrade()
        store_concepts(library, ["dark", "bright"], np.eye(2, 48, dtype=np.float16), [0, 1])
        ingest(library.engine, [photos], PixelEncoder())
        before = stored(library)
        hits = library.query(photos / "cats/01.png", exact=True).hits
    assert [len(rows) > 0 for rows in before] == [True] * 3
    run(folders[old], "dump", str(tmp_path / "a.dump"))
    run(folders[new], "restore", str(tmp_path / "a.dump"))
    with opened(folders[new]) as library:
        with library.sql("SHOW server_version_num") as (_, rows, _):
            assert [int(number) // 10_000 for (number,) in rows] == [new]
        assert stored(library) == before
        assert library.query(photos / "cats/01.png", exact=True).hits == hits
        assert library.collection().index_status().index == "hnsw"
        assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"unchanged": 12}
