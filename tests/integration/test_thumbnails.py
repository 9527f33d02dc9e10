"""Thumbnails: made at ingest, one a content, and shown when the originals are gone."""

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image
from support import (
    PixelEncoder,
    counts,
    every_server,
    ingest,
    never_loaded,
    once,
    picture,
    scalar,
    write,
)
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.errors import DatabaseError
from vecsearch.imaging import decode, pictures, reading, scan
from vecsearch.ingest import classify, writes
from vecsearch.ingest.summary import Progress
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.postgres import thumbnails as queries
from vecsearch.postgres.rows import image_id


def kept(library: Library) -> set[str]:
    """Return the SHA-256 of every thumbnail."""
    with database.reading(library.engine) as connection:
        return set(connection.scalars(sa.text("SELECT sha256 FROM vecsearch_internal.thumbnails")))


def hashes(folder: Path) -> set[str]:
    """Return the SHA-256 of every file under a folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {reading.bytes_sha256(file.read_bytes()) for file in files}


@pytest.fixture
def ingested(library: Library, photos: Path) -> Library:
    ingest(library.engine, [photos], PixelEncoder())
    assert len(kept(library)) == 12
    return library


@every_server
def test_each_row_has_the_thumbnail_of_its_file(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    files = [folder / "small.png", folder / "large.png"]
    picture(1, (64, 48)).save(files[0])
    picture(2, (100, 1_000)).save(files[1])
    ingest(library.engine, [folder], PixelEncoder())
    ids = [image_id(str(file)) for file in files]
    found = library.collection().thumbnails([*ids, image_id("/not/there.png")])
    sizes = []
    for id_ in ids:
        image = decode.decode(found[id_], "a thumbnail", max_pixels=10**6)
        assert isinstance(image, decode.Image)
        sizes.append(image.pixels.size)
    assert sizes == [(64, 48), (32, 320)]
    assert found.keys() == set(ids)
    with database.reading(library.engine) as connection:
        table = catalog.get_collection(connection, "images").table
        digest = reading.bytes_sha256(files[0].read_bytes())
        assert queries.get(connection, table, ids[0]) == (digest, found[ids[0]])
        assert queries.get(connection, table, image_id("/not/there.png")) is None
        stored = connection.execute(
            sa.text(
                "SELECT width, height, length(image) FROM vecsearch_internal.thumbnails"
                " ORDER BY width"
            )
        ).all()
    assert stored == [(32, 320, len(found[ids[1]])), (64, 48, len(found[ids[0]]))]
    storage = "SELECT attstorage FROM pg_attribute WHERE attname = 'image'"
    storage += " AND attrelid = 'vecsearch_internal.thumbnails'::regclass"
    assert scalar(library, storage) == "e"


@pytest.mark.usefixtures("small_chunks")
def test_copies_collections_and_moves_share_one(library: Library, photos: Path) -> None:
    for number in range(5):
        shutil.copy(photos / "cats" / "01.png", photos / f"copy {number}.png")
    ingest(library.engine, [photos], PixelEncoder())
    before = kept(library)
    assert before == hashes(photos)
    assert len(before) == 12
    ingest(library.engine, [photos], PixelEncoder(), collection="others")
    renamed = photos.rename(photos.with_name("renamed"))
    assert counts(ingest(library.engine, [renamed], never_loaded())) == {"moved": 17}
    assert kept(library) == before
    ids = [image_id(str(file)) for file in renamed.rglob("*.png")]
    assert len(library.collection().thumbnails(ids)) == 17
    assert library.collection("others").thumbnails(ids) == {}


@pytest.mark.usefixtures("small_chunks")
def test_rows_from_before_get_theirs_and_nothing_else_is_done(
    ingested: Library, photos: Path
) -> None:
    write(ingested, "DELETE FROM vecsearch_internal.thumbnails")
    rows = "SELECT array_agg((images, xmin) ORDER BY id)::text FROM images"
    before = scalar(ingested, rows)
    summary = ingest(ingested.engine, [photos], never_loaded(), dry_run=True)
    assert counts(summary) == {"unchanged": 12}
    assert kept(ingested) == set()
    progress: list[Progress] = []
    summary = ingest(ingested.engine, [photos], never_loaded(), progress=progress)
    assert counts(summary) == {"unchanged": 12}
    assert progress[-1].total == 12
    assert summary.notes == ()
    assert kept(ingested) == hashes(photos)
    assert scalar(ingested, rows) == before
    ingest(ingested.engine, [photos], never_loaded(), progress=progress)
    assert progress[-1].total == 0


def test_a_content_with_more_rows_than_are_looked_up_is_unchanged_all_the_same(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "MAXIMUM_COPIES", 2)
    for number in range(5):
        picture(1).save(tmp_path / f"{number}.png")
    ingest(library.engine, [tmp_path], PixelEncoder())
    write(library, "DELETE FROM vecsearch_internal.thumbnails")
    assert counts(ingest(library.engine, [tmp_path], never_loaded())) == {"unchanged": 5}
    assert len(kept(library)) == 1


@pytest.mark.usefixtures("small_chunks")
def test_files_that_moved_or_were_copied_meanwhile_get_theirs_in_the_same_run(
    ingested: Library, photos: Path
) -> None:
    write(ingested, "DELETE FROM vecsearch_internal.thumbnails")
    shutil.copy(photos / "cats" / "01.png", photos / "copy.png")
    (photos / "dogs").rename(photos / "wolves")
    summary = ingest(ingested.engine, [photos], never_loaded())
    assert counts(summary) == {"copied": 1, "moved": 6, "unchanged": 6}
    assert kept(ingested) == hashes(photos)


def test_where_none_can_be_made_the_row_stays_and_a_note_says_so(
    ingested: Library, photos: Path
) -> None:
    write(ingested, "DELETE FROM vecsearch_internal.thumbnails")
    summary = ingest(ingested.engine, [photos], never_loaded(), max_pixels=10)
    assert counts(summary) == {"unchanged": 12}
    (note,) = summary.notes
    assert note.startswith("No thumbnail could be made of 12 stored images. The first is ")
    assert ingested.collection().errors() == []
    ingest(ingested.engine, [photos], never_loaded())
    assert len(kept(ingested)) == 12


def test_what_no_collection_holds_goes_with_a_prune_or_an_update(
    ingested: Library, photos: Path
) -> None:
    ingest(ingested.engine, [photos / "cats"], PixelEncoder(), collection="cats")
    cat, dog, changed = photos / "cats" / "01.png", photos / "dogs" / "00.png", photos / "dogs"
    in_both, gone = (reading.bytes_sha256(file.read_bytes()) for file in (cat, dog))
    cat.unlink()
    dog.unlink()
    done = ingest(ingested.engine, [photos], PixelEncoder())
    assert counts(done) == {"unchanged": 10, "gone": 2}
    assert {in_both, gone} <= kept(ingested)
    ingest(ingested.engine, [photos], PixelEncoder(), prune=True)
    assert kept(ingested) == hashes(photos) | {in_both}
    picture(99).save(changed / "02.png")
    assert ingest(ingested.engine, [photos], PixelEncoder()).updated == 1
    assert kept(ingested) == hashes(photos) | {in_both}
    summary = ingest(
        ingested.engine, [photos / "cats"], never_loaded(), prune=True, collection="cats"
    )
    assert counts(summary) == {"pruned": 1, "unchanged": 5}
    assert kept(ingested) == hashes(photos)


def test_nothing_is_deleted_beside_a_chunk_that_is_being_written(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []
    write_files = writes.write_files

    def sweep() -> None:
        with database.writing(library.engine) as connection:
            connection.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
            queries.delete_orphans(connection)

    def written(*arguments: Any) -> None:
        write_files(*arguments)
        with pytest.raises(DatabaseError, match="lock timeout") as caught:
            sweep()
        refused.append(caught)

    monkeypatch.setattr(writes, "write_files", written)
    ingest(library.engine, [photos], PixelEncoder())
    (photos / "dogs").rename(photos / "wolves")
    ingest(library.engine, [photos], never_loaded())
    assert len(refused) == 2
    sweep()
    assert kept(library) == hashes(photos)


def test_an_import_makes_them_of_the_pictures_at_hand(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "imported.csv"
    cat, dog = photos / "cats" / "01.png", photos / "dogs" / "00.png"
    file.write_text(f"path,e0,e1\n{cat},1,2\n{dog},1,3\n/not/there.png,2,2\n")
    library.collection().import_file(file)
    assert kept(library) == {reading.bytes_sha256(each.read_bytes()) for each in (cat, dog)}
    picture(99).save(cat)
    library.collection().import_file(file)
    assert kept(library) == {reading.bytes_sha256(each.read_bytes()) for each in (cat, dog)}


def test_an_import_draws_the_thumbnails_of_pictures_that_are_there(
    library: Library, tmp_path: Path
) -> None:
    file = tmp_path / "large.jpg"
    picture(1, (3600, 2400)).save(file)
    (tmp_path / "imported.csv").write_text(f"{file},1,2\n")
    library.collection().import_file(tmp_path / "imported.csv")
    assert scalar(library, "SELECT (width, height)::text FROM images") == "(3600,2400)"
    assert kept(library) == {reading.bytes_sha256(file.read_bytes())}


def test_an_import_that_tells_contents_without_pictures_leaves_them_to_an_ingest(
    ingested: Library, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "export.npz"
    ingested.collection().export_file(file)
    write(ingested, "DELETE FROM vecsearch_internal.thumbnails")
    ingested.collection("imported").import_file(file)
    assert kept(ingested) == set()
    summary = ingest(ingested.engine, [photos], never_loaded(), collection="imported")
    assert counts(summary) == {"unchanged": 12}
    assert kept(ingested) == hashes(photos)


@once
def test_pages_and_sheets_need_no_originals(
    ingested: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(ingested.engine, [photos], PixelEncoder(), collection="others")
    target = image_id(str(photos / "cats" / "01.png"))
    shutil.rmtree(photos)
    drawn: list[object] = []
    make = pictures.make

    def noted(*arguments: Any, **options: Any) -> object:
        drawn.append(make(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(pictures, "make", noted)

    def run(*arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, [*words, "--database-url", ingested.url])
        assert done.exit_code == 0, done.output

    page, sheet, both = (tmp_path / name for name in ("page.html", "sheet.png", "both.png"))
    run("query", "--id", target, "-k", 5, "--html", page, "--plot", sheet)
    assert page.read_text().count('src="data:image/jpeg;base64,') == 6
    assert "cannot be read" not in page.read_text()
    assert str(photos / "cats" / "01.png") in page.read_text().replace("<wbr>", "")
    assert len(drawn) == 6
    run("compare", "images", "others", "-k", 3, "--plot", both)
    assert len(drawn) == 6 + 6 * 7
    assert not [item for item in drawn if isinstance(item, scan.Unreadable)]
    assert sheet.stat().st_size
    assert both.stat().st_size


def test_sql_gives_them_as_data_uris(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    with database.reading(library.engine) as connection:
        uris = "SELECT vecsearch.thumbnail(sha256), image FROM vecsearch_internal.thumbnails"
        for uri, image in connection.execute(sa.text(uris)):
            assert uri == f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    webp = Image.new("RGB", (8, 8))
    buffer = io.BytesIO()
    webp.save(buffer, "WEBP")
    write(
        library, "UPDATE vecsearch_internal.thumbnails SET image = :image", image=buffer.getvalue()
    )
    uri = scalar(library, "SELECT vecsearch.thumbnail(sha256) FROM images LIMIT 1")
    assert uri.startswith("data:image/webp;base64,")
    assert scalar(library, "SELECT vecsearch.thumbnail('none')") is None
