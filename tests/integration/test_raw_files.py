"""RAW files at every door: in folders, archives and pipes; and without the package for them."""

import zipfile
from pathlib import Path

import pytest
from raw_support import dng, jpeg
from support import PixelEncoder, counts, ingest, once, picture, run_command, scalar
from web_support import ask, client

from vecsearch.errors import InvalidInput
from vecsearch.imaging import decode, formats
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id
from vecsearch.search.questions.pictures import Picture
from vecsearch.web.uploads import Uploads

pytestmark = once
SKIPPED = "Skipped 2 RAW files. RAW files need a package: pip install 'vecsearch[raw]'"


@pytest.fixture
def shoot(tmp_path: Path) -> Path:
    """Make a folder of two RAW files and a PNG."""
    folder = tmp_path / "shoot"
    folder.mkdir()
    (folder / "1.DNG").write_bytes(dng(jpeg(picture(1, (320, 240)))))
    (folder / "2.nef").write_bytes(dng(jpeg(picture(2, (320, 240))), orientation=6))
    picture(3).save(folder / "3.png")
    return folder


def test_raw_files_are_ingested_from_folders_and_archives(library: Library, shoot: Path) -> None:
    assert counts(ingest(library.engine, [shoot], PixelEncoder())) == {"added": 3}
    with library.sql(
        "SELECT format, width, height, taken_at::text, exif->>'Model', latitude FROM images"
        " WHERE format = 'RAW' ORDER BY path"
    ) as (_, rows, _):
        about = ("2024-05-06 07:08:09", "Camera 1", -33.5)
        assert [*rows] == [("RAW", 320, 240, *about), ("RAW", 240, 320, *about)]
    album = shoot.parent / "album.zip"
    with zipfile.ZipFile(album, "w") as made:
        made.write(shoot / "1.DNG", "a/1.DNG")
    assert counts(ingest(library.engine, [album], PixelEncoder())) == {"copied": 1}


def test_a_raw_file_is_searched_for_without_its_name(library: Library, shoot: Path) -> None:
    ingest(library.engine, [shoot], PixelEncoder())
    given = (shoot / "2.nef").read_bytes()
    words = ("query", "-", "-k", "1", "--format", "paths")
    code, out, _ = run_command(library, *words, input=given)
    assert (code, out) == (0, f"{shoot / '2.nef'}\n")


def test_a_raw_file_is_uploaded_and_sent(library: Library, shoot: Path) -> None:
    ingest(library.engine, [shoot], PixelEncoder())
    content = (shoot / "2.nef").read_bytes()
    api = client(library)
    assert ask(api, image=content, k=1)["hits"][0]["path"] == str(shoot / "2.nef")
    address = f"/api/collections/images/images/{image_id(str(shoot / '2.nef'))}/file"
    answer = api.get(address)
    assert (answer.headers["content-type"], answer.content) == ("image/x-dcraw", content)


def test_an_upload_without_a_suffix_is_kept_with_its_preview(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", 10**6, 10**6)
    kept = Picture(dng(jpeg(picture(1, (320, 240))), orientation=6))
    uploads.keep(kept)
    thumbnail = decode.decode(uploads.thumbnail(kept.sha256), "it", max_pixels=10**6)
    assert isinstance(thumbnail, decode.Image)
    assert thumbnail.pixels.size == (240, 320)


def test_without_the_package_folders_are_ingested_and_names_refused(
    library: Library, shoot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(library.engine, [shoot / "1.DNG"], PixelEncoder())
    monkeypatch.setattr(formats, "is_installed", lambda package: package != "rawpy")
    found = ingest(library.engine, [shoot], PixelEncoder(), prune=True)
    # What was ingested before is still there.
    assert counts(found) == {"added": 1}
    assert found.notes == (SKIPPED,)
    assert scalar(library, "SELECT count(*) FROM images") == 2
    album = shoot.parent / "album.zip"
    with zipfile.ZipFile(album, "w") as made:
        made.write(shoot / "1.DNG", "1.DNG")
        made.write(shoot / "2.nef", "2.nef")
    assert ingest(library.engine, [album], PixelEncoder()).notes == (SKIPPED,)
    for path in (shoot / "2.nef", f"zip://{album}/2.nef"):
        with pytest.raises(InvalidInput, match=r"2\.nef cannot be read\. .*vecsearch\[raw\]"):
            ingest(library.engine, [path], PixelEncoder())
    folder = shoot / "folder.dng"
    folder.mkdir()
    picture(4).save(folder / "4.png")
    assert counts(ingest(library.engine, [folder], PixelEncoder())) == {"added": 1}
