"""Import and export against a real database: what comes back, and that bad files leave nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from support import (
    Corpus,
    PixelEncoder,
    citus,
    clustered,
    every_server,
    ingest,
    once,
    picture,
    run_command,
    scalar,
)

from vecsearch.errors import EncoderMismatch, InvalidInput, WeightsUnavailable
from vecsearch.ingest import staging
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = citus

FORMATS = ["csv", "npz", "parquet"]
EVERYTHING = "SELECT string_agg(to_jsonb(t)::text, ' ' ORDER BY path) FROM (SELECT {} FROM {}) AS t"


def rows_of(library: Library, name: str, columns: str = "*") -> Any:
    return scalar(library, EVERYTHING.format(columns, name))


def write_npz(file: Path, paths: list[str], embeddings: Any) -> Path:
    np.savez(file, paths=np.array(paths), embeddings=np.asarray(embeddings, dtype=np.float32))
    return file


@pytest.fixture
def ingested(library: Library, photos: Path) -> Library:
    """A collection of twelve pictures with everything that a row can have."""
    ingest(library.engine, [photos], PixelEncoder())
    with database.writing(library.engine) as connection:
        connection.execute(
            sa.text(
                """UPDATE images SET metadata = '{"note": "é \\"1\\"", "n": [1, null]}',"""
                " exif = '{\"Make\": \"ü\"}', taken_at = '2020-02-29 12:34:56.789',"
                " latitude = 47.1, longitude = -8.5 WHERE path LIKE '%3.png'"
            )
        )
        connection.execute(sa.text("UPDATE collections SET default_metric = 'l1'"))
    return library


@every_server
@pytest.mark.parametrize("format_", ["npz", "parquet"])
def test_an_export_that_is_imported_is_the_same_collection(
    ingested: Library, tmp_path: Path, format_: str
) -> None:
    file = tmp_path / f"e.{format_}"
    assert ingested.collection().export_file(file) == 12
    done = ingested.collection("back").import_file(file)
    assert (done.added, done.updated, done.with_file) == (12, 0, 12)
    assert rows_of(ingested, "back") == rows_of(ingested, "images")
    register = "to_jsonb(c) - 'name' - 'created_at'"
    one, other = (
        scalar(ingested, f"SELECT {register} FROM collections AS c WHERE name = '{name}'")
        for name in ("images", "back")
    )
    assert one == other
    again = ingested.collection("back").import_file(file)
    assert (again.added, again.updated) == (0, 12)
    assert rows_of(ingested, "back") == rows_of(ingested, "images")


def test_a_csv_brings_paths_and_numbers_back_and_the_files_tell_the_rest(
    ingested: Library, tmp_path: Path
) -> None:
    assert ingested.collection().export_file(tmp_path / "e.csv") == 12
    done = ingested.collection("back").import_file(tmp_path / "e.csv", model="pixels")
    assert done.with_file == 12
    columns = (
        "id, path, sha256, width, height, format, file_size, modified_at, label, embedding::text"
    )
    assert rows_of(ingested, "back", columns) == rows_of(ingested, "images", columns)


def test_an_export_holds_few_rows_of_many_dimensions(
    ingested: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "block_rows", lambda dimensions: 240 // dimensions)
    steps: list[int] = []
    ingested.collection().export_file(
        tmp_path / "e.csv", on_progress=lambda _step, done, _total: steps.append(done)
    )
    assert steps == [5, 10, 12]


@once
@pytest.mark.parametrize("format_", ["npz", "parquet"])
def test_an_empty_collection_travels_like_any_other(
    ingested: Library, tmp_path: Path, format_: str
) -> None:
    with database.writing(ingested.engine) as connection:
        connection.execute(sa.text("DELETE FROM images"))
    file = tmp_path / f"e.{format_}"
    assert ingested.collection().export_file(file) == 0
    assert ingested.collection("back").import_file(file).added == 0
    assert [status.dimensions for status in ingested.collections()] == [48, 48]


@pytest.mark.parametrize("format_", FORMATS)
def test_an_imported_collection_is_indexed_and_searched_like_any_other(
    corpus: Corpus, library: Library, tmp_path: Path, format_: str
) -> None:
    file = tmp_path / f"e.{format_}"
    corpus.library.collection().export_file(file)
    library.collection("back").import_file(file)
    (status,) = library.collections()
    assert (status.images, status.index) == (len(corpus), "hnsw")
    query = corpus.ids[17]
    expected = corpus.library.query(id=query, k=20, exact=True)
    found = library.collection("back").query(id=query, k=20, exact=True)
    assert [(hit.path, hit.distance) for hit in found] == [
        (hit.path, hit.distance) for hit in expected
    ]


@once
def test_pictures_at_hand_are_found_by_their_content_and_others_are_rows_all_the_same(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "cats").mkdir()
    picture(1).save(tmp_path / "cats/one.png")
    (tmp_path / "broken.jpg").write_text("not a picture")
    file = write_npz(
        tmp_path / "e.npz",
        ["cats/one.png", "gone/two.png", "broken.jpg", "/elsewhere/three.png"],
        clustered(4, 8, seed=0),
    )
    done = library.collection().import_file(file, model="features of ours")
    assert (done.added, done.with_file) == (4, 1)
    answer = library.query(tmp_path / "cats/one.png")
    assert next(hit.distance for hit in answer) == 0
    assert next((hit.width, hit.label) for hit in answer) == (64, "cats")
    by_path = {hit.path: hit for hit in answer}
    assert by_path[f"{tmp_path}/gone/two.png"].width is None
    assert by_path[f"{tmp_path}/gone/two.png"].label == "gone"
    assert by_path["/elsewhere/three.png"].file_size is None
    (status,) = library.collections()
    assert (status.model, status.weights) == ("features of ours", "not known")
    picture(2).save(tmp_path / "new.png")
    with pytest.raises(WeightsUnavailable, match="which weights made its embeddings is not known"):
        library.query(tmp_path / "new.png")


@once
@pytest.mark.parametrize("collection", "imported stored excluded source order".split())
def test_an_import_goes_into_a_collection_of_any_name(
    library: Library, tmp_path: Path, collection: str
) -> None:
    file = write_npz(tmp_path / "e.npz", ["a.png", "b.png"], [[1.0], [2.0]])
    assert library.collection(collection).import_file(file).added == 2
    assert library.collection(collection).import_file(file).updated == 2


@once
def test_an_import_passes_on_the_notes_of_the_index_build(library: Library, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "e.npz", ["a.png", "b.png"], [[1.0], [2.0]])
    done = library.collection().import_file(file, index="compact")
    assert done.notes == tuple(library.collection().ensure_index())
    assert len(done.notes) == 1
    assert [*done.counts()] == ["added", "updated", "with_file", "model"]


@once
def test_paths_begin_where_root_says(library: Library, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "e.npz", ["a/../b.png"], [[1.0]])
    library.collection().import_file(file, root=tmp_path / "root")
    assert scalar(library, "SELECT path FROM images") == f"{tmp_path}/root/b.png"


@once
def test_with_its_weights_an_import_can_be_asked_about_new_pictures(
    library: Library, tmp_path: Path, small_model: str, weights: Path, photos: Path
) -> None:
    library.collection("ours").ingest([photos / "cats"], model=small_model, weights=weights)
    library.collection("ours").export_file(tmp_path / "e.csv")
    library.collection("theirs").import_file(tmp_path / "e.csv", model=small_model, weights=weights)
    for name in ("ours", "theirs"):
        hits = library.collection(name).query(photos / "dogs/00.png", k=6).hits
        assert len(hits) == 6
    library.collection("theirs").ingest([photos / "dogs"])
    assert scalar(library, "SELECT count(*) FROM theirs") == 12
    with pytest.raises(EncoderMismatch, match=r"e\.csv has embeddings of 96 dimensions; .* has"):
        library.collection("fc").import_file(
            tmp_path / "e.csv",
            model="test_vit.r160_in1k",
            weights=_vit_weights(tmp_path),
        )


@once
def test_an_export_of_unknown_weights_learns_them_from_whoever_imports_it(
    library: Library, tmp_path: Path, small_model: str, weights: Path, photos: Path
) -> None:
    library.collection("ours").ingest([photos / "cats"], model=small_model, weights=weights)
    library.collection("ours").export_file(tmp_path / "e.csv")
    _, _, err = run_command(library, "import", tmp_path / "e.csv", "-c", "unknown")
    assert "To name it: vecsearch drop unknown, and import it again with --model NAME" in err
    library.collection("unknown").export_file(tmp_path / "e.npz")
    library.collection("named").import_file(tmp_path / "e.npz", model="theirs")
    assert scalar(library, "SELECT model FROM collections WHERE name = 'named'") == "theirs"
    library.collection("known").import_file(tmp_path / "e.npz", model=small_model, weights=weights)
    assert library.collection("known").query(photos / "dogs/00.png").hits


def _vit_weights(folder: Path) -> Path:
    from support import save_weights

    return save_weights(folder / "vit.safetensors", "test_vit.r160_in1k")


@once
def test_other_embeddings_do_not_get_into_a_collection(ingested: Library, tmp_path: Path) -> None:
    before = rows_of(ingested, "images")
    foreign = write_npz(tmp_path / "foreign.npz", ["a.png"], np.ones((1, 48)))
    with pytest.raises(EncoderMismatch, match="made by unknown, those of collection 'images'"):
        ingested.collection().import_file(foreign)
    with pytest.raises(EncoderMismatch, match=r"made by pixels, .* other weights"):
        ingested.collection().import_file(foreign, model="pixels")
    narrow = write_npz(tmp_path / "narrow.npz", ["a.png"], np.ones((1, 47)))
    with pytest.raises(EncoderMismatch, match="47 dimensions; collection 'images' has 48"):
        ingested.collection().import_file(narrow)
    assert rows_of(ingested, "images") == before
    ingested.collection("new").import_file(foreign, model="theirs")
    more = write_npz(tmp_path / "more.npz", ["b.png"], np.ones((1, 48)))
    ingested.collection("new").import_file(more, model="theirs")
    assert scalar(ingested, "SELECT count(*) FROM new") == 2


@once
def test_a_row_that_was_there_keeps_what_the_file_does_not_tell(
    ingested: Library, tmp_path: Path, photos: Path
) -> None:
    ingested.collection().export_file(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as arrays:
        paths, vectors = arrays["paths"], arrays["embeddings"]
    ingested.collection("back").import_file(tmp_path / "e.npz")
    with database.writing(ingested.engine) as connection:
        connection.execute(
            sa.text("UPDATE collections SET backend = 'unknown', weights_sha256 = NULL")
        )
        connection.execute(
            sa.text(
                "UPDATE collections SET model = 'theirs', preprocessing = '{}', layer = 'pooled'"
            )
        )
    before = rows_of(ingested, "back", "path, metadata, exif, sha256, taken_at")
    for path in photos.rglob("*.png"):
        path.unlink()
    np.savez(tmp_path / "plain.npz", paths=paths, embeddings=vectors + 1)
    done = ingested.collection("back").import_file(tmp_path / "plain.npz", model="theirs")
    assert (done.added, done.updated, done.with_file) == (0, 12, 0)
    assert rows_of(ingested, "back", "path, metadata, exif, sha256, taken_at") == before
    assert rows_of(ingested, "back", "path, embedding::text") != rows_of(
        ingested, "images", "path, embedding::text"
    )


@once
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.png,1,2\nb.png,1\n", "line 2: expected 2 dimensions, found 1"),
        ("a.png,1,2\nb.png,nan,1\n", "line 2: number 1 is not a finite number"),
        (
            "a.png,1,2\nb.png,1,1\n./a.png,1,1\n",
            r"line 3: duplicate path .*/a\.png; first .* line 1",
        ),
        ("path,e0\n", "has no rows"),
        ("", "has no rows"),
    ],
)
@pytest.mark.parametrize("collection", ["images", "new"])
def test_of_a_bad_file_nothing_is_imported(
    library: Library, tmp_path: Path, lines: str, message: str, collection: str
) -> None:
    (tmp_path / "good.csv").write_text("g.png,1,2\n")
    library.collection().import_file(tmp_path / "good.csv")
    before = rows_of(library, "images")
    (tmp_path / "bad.csv").write_text(lines)
    with pytest.raises(InvalidInput, match=message):
        library.collection(collection).import_file(tmp_path / "bad.csv")
    assert rows_of(library, "images") == before
    assert [status.name for status in library.collections()] == ["images"]


@once
def test_a_fault_late_in_a_long_file_undoes_the_rows_before_it(
    library: Library, tmp_path: Path
) -> None:
    vectors = np.ones((3_500, 4))
    vectors[3_400, 2] = np.inf
    file = write_npz(tmp_path / "e.npz", [f"{number}.png" for number in range(3_500)], vectors)
    with pytest.raises(InvalidInput, match="row 3401: number 3 is not a finite number"):
        library.collection().import_file(file)
    assert library.collections() == []


@once
@pytest.mark.parametrize("told", [{}, {"identity": {"model": "m"}}, [], "text", 7])
def test_an_export_that_was_tampered_with_is_refused(
    ingested: Library, tmp_path: Path, told: Any
) -> None:
    import zipfile

    ingested.collection().export_file(tmp_path / "e.npz")
    with (
        zipfile.ZipFile(tmp_path / "e.npz") as old,
        zipfile.ZipFile(tmp_path / "f.npz", "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, json.dumps(told) if name == "collection.json" else content)
    with pytest.raises(InvalidInput, match="describes its encoder in a way"):
        ingested.collection("new").import_file(tmp_path / "f.npz")


@once
def test_a_database_that_is_empty_is_set_up_by_an_import(
    empty_database_url: str, tmp_path: Path
) -> None:
    from vecsearch.config import Settings

    file = write_npz(tmp_path / "e.npz", ["a.png"], [[1.0]])
    with Library.open(Settings.load(database_url=empty_database_url)) as library:
        assert library.collection().import_file(file).added == 1
