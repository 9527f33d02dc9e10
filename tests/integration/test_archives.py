"""Pictures in zip archives: read like a folder, and what is wrong with some of them."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PixelEncoder, counts, ingest, once, picture, png, run_command, scalar

from vecsearch.errors import InvalidInput
from vecsearch.imaging.sources import archives
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

pytestmark = once
ENCRYPTED = 1


def pack(archive: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as made:
        for name, content in files.items():
            made.writestr(zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10)), content, compression)
    return archive


def pack_folder(archive: Path, folder: Path) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return pack(archive, {str(file.relative_to(folder)): file.read_bytes() for file in files})


def errors(library: Library) -> dict[str, str]:
    with library.sql("SELECT path, error FROM ingest_errors ORDER BY 1") as (_, rows, _):
        return {row[0]: row[1] for row in rows}


def test_an_archive_is_a_folder(
    library: Library, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    album = pack_folder(tmp_path / "Album 100%.ZIP", photos)
    assert counts(ingest(library.engine, [album], PixelEncoder())) == {"added": 12}
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"copied": 12}
    with library.sql(
        "SELECT count(*) FROM images AS there JOIN images AS here"
        f" ON here.path = replace(there.path, 'zip://{album}', '{photos}')"
        " AND here.sha256 = there.sha256 AND here.label = there.label"
        " AND here.file_size = there.file_size AND here.embedding = there.embedding"
        " WHERE there.path LIKE 'zip:%'"
    ) as (_, rows, _):
        assert [*rows] == [(12,)]
    inside = f"zip://{album}/cats/03.png"
    assert scalar(library, f"SELECT id FROM images WHERE path = '{inside}'") == image_id(inside)
    told = scalar(library, f"SELECT modified_at::text FROM images WHERE path = '{inside}'")
    assert told.startswith("2024-05-06 07:08:10")
    # All ways to name it are the same; what is known is not opened again.
    monkeypatch.setattr(archives.Archive, "cat_file", None)
    monkeypatch.chdir(tmp_path)
    for path in (album.name, f"ZIP://{album}/", f"zip://{album.name}", str(album)):
        assert counts(ingest(library.engine, [path], PixelEncoder())) == {"unchanged": 12}
    assert counts(ingest(library.engine, [f"zip://{album}/cats"], PixelEncoder())) == {
        "unchanged": 6
    }


def test_a_picture_in_an_archive_is_asked_for(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    album = pack_folder(tmp_path / "album.zip", photos)
    ingest(library.engine, [album], PixelEncoder())
    url = f"zip://{album}/cats/03.png"
    code, out, _ = run_command(library, "query", url, "-k", "1", "--format", "paths")
    assert (code, out) == (0, f"{url}\n")
    code, out, err = run_command(library, "query", f"zip://{album}/cats/no.png")
    assert (code, out) == (1, "")
    assert f"{album}/cats/no.png cannot be read: No such file." in err


def test_what_changes_in_an_archive_is_noticed(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    album = tmp_path / "album.zip"
    pack(album, {f"{number}.png": png(number) for number in range(4)})
    ingest(library.engine, [album], PixelEncoder())
    pack(album, {"0.png": png(0), "1.png": png(91), "moved/2.png": png(2)})
    found = counts(ingest(library.engine, [album], PixelEncoder()))
    assert found == {"unchanged": 1, "updated": 1, "moved": 1, "gone": 1}
    found = counts(ingest(library.engine, [album], PixelEncoder(), prune=True))
    assert found == {"unchanged": 3, "pruned": 1}
    assert scalar(library, "SELECT count(*) FROM images") == 3
    # An archive that is gone takes no row with it, until that is asked for.
    album.unlink()
    code, _, err = run_command(library, "ingest", album, "--prune", "--yes")
    assert code == 1
    assert "has 3 rows from it" in err
    assert run_command(library, "forget", album, "--yes", "--format", "table")[:2] == (
        0,
        "deleted 3 rows, 0 errors\n",
    )


def test_an_archive_is_opened_once(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {f"{number % 7}/{number}.png": png(number) for number in range(100)}
    opened: list[str] = []
    plain = archives.Archive.__init__

    def counting(self: archives.Archive, path: str) -> None:
        opened.append(path)
        plain(self, path)

    monkeypatch.setattr(archives.Archive, "__init__", counting)
    album = pack(tmp_path / "album.zip", content)
    assert counts(ingest(library.engine, [album], PixelEncoder())) == {"added": 100}
    assert opened == [str(album)]


@pytest.mark.parametrize("name", ["../../x.png", "/etc/x.png", "a/./x.png", "a//x.png", "1.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_leads_out_or_comes_twice_is_left_out(
    library: Library, tmp_path: Path, name: str
) -> None:
    album = pack(tmp_path / "album.zip", {"1.png": png(1)})
    with zipfile.ZipFile(album, "a") as more:
        more.writestr(name, png(2))
    found = ingest(library.engine, [album], PixelEncoder())
    assert counts(found) == {"added": 1, "failed": 1}
    assert errors(library) == {
        f"zip://{album}": f"{name!r} is left out: its name leads out of the archive, or is there "
        "twice. Pack the archive again."
    }
    with library.sql("SELECT path FROM images") as (_, rows, _):
        assert [*rows] == [(f"zip://{album}/1.png",)]


def bomb() -> bytes:
    content = io.BytesIO()
    picture(1).resize((9_000, 9_000)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: pack(path, {"1.png": b"\0" * 60_000_000}), "MB; the limit is"),
        (lambda path: pack(path, {"1.png": bomb()}), "It has 81 million pixels; the limit is"),
        (lambda path: pack(path, {"1.png": png(1)}, zipfile.ZIP_BZIP2), "compression is not supp"),
        (lambda path: encrypt(pack(path, {"1.png": png(1)})), "It is encrypted with a password."),
        (lambda path: spoil(pack(path, {"1.png": png(1)})), "Bad CRC-32 for file '1.png'."),
    ],
    ids=["bomb", "pixels", "bzip2", "password", "damaged"],
)
def test_a_picture_that_cannot_be_unpacked_is_an_error(
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Any],
    reason: str,
) -> None:
    monkeypatch.setattr("vecsearch.imaging.reading.MOST_BYTES", 50_000_000)
    album = tmp_path / "album.zip"
    make(album)
    with zipfile.ZipFile(album, "a") as more:
        more.writestr("good.png", png(5))
    found = ingest(library.engine, [album], PixelEncoder(), max_pixels=1_000_000)
    assert counts(found) == {"added": 1, "failed": 1}
    [(path, error)] = errors(library).items()
    assert path == f"zip://{album}/1.png"
    assert reason in error


def encrypt(album: Path) -> None:
    """Mark the one file of an archive as encrypted."""
    content = bytearray(album.read_bytes())
    content[6] |= ENCRYPTED
    content[content.index(b"PK\1\2") + 8] |= ENCRYPTED
    album.write_bytes(content)


def spoil(album: Path) -> None:
    """Change the checksum of the one file of an archive."""
    content = bytearray(album.read_bytes())
    content[content.index(b"PK\1\2") + 16] ^= 1
    album.write_bytes(content)


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("a.zip", b"", "It is damaged, or no zip archive."),
        ("a.zip", b"PK\3\4 and no more", "It is damaged, or no zip archive."),
        ("zip://a.tar", b"PK", "It names no file that ends in .zip."),
        ("b.zip", None, "does not exist"),
        ("zip://a.zip/none", pack, "does not exist"),
    ],
)
def test_what_is_no_archive_is_a_sentence(
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    content: Any,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is pack:
        pack(tmp_path / "a.zip", {"1.png": png(1)})
    elif content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InvalidInput, match=reason):
        ingest(library.engine, [path], PixelEncoder())


def test_a_folder_that_is_named_so_is_a_folder(library: Library, tmp_path: Path) -> None:
    (tmp_path / "x.zip").mkdir()
    picture(1).save(tmp_path / "x.zip" / "1.png")
    assert counts(ingest(library.engine, [tmp_path / "x.zip"], PixelEncoder())) == {"added": 1}
    assert scalar(library, "SELECT path FROM images") == str(tmp_path / "x.zip" / "1.png")
