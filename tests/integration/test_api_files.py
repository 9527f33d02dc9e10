"""Thumbnails and originals over HTTP: what was ingested, and no other file."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support import once
from web_support import NOTHING, Known

from vecsearch.imaging import decode, reading, thumbnails
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = once


def test_thumbnails(api: TestClient, known: list[Known], library: Library) -> None:
    address = f"/api/collections/images/images/{known[2].id}/thumbnail"
    answer = api.get(address)
    assert answer.headers["content-type"] == thumbnails.MEDIA_TYPE
    small = decode.decode(answer.content, "it", max_pixels=10**6)
    assert isinstance(small, decode.Image)
    assert small.pixels.size == (known[2].width, known[2].height)
    tag = answer.headers["etag"]
    assert tag == f'"{reading.bytes_sha256(known[2].path.read_bytes())}"'
    for same in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = api.get(address, headers={"If-None-Match": same})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert api.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    # It stays when the file goes.
    known[2].path.unlink()
    assert api.get(address).status_code == 200
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("DELETE FROM vecsearch_internal.thumbnails"))
    missing = api.get(address)
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        # Its folder has a space in its name.
        f"{known[2].path} has no thumbnail. Run: vecsearch ingest '{known[2].path}'",
    )
    nothing = api.get(f"/api/collections/images/images/{NOTHING}/thumbnail")
    assert "has no image" in nothing.json()["detail"]


def test_a_file_is_served_as_it_was_ingested(api: TestClient, known: list[Known]) -> None:
    answer = api.get(f"/api/collections/images/images/{known[0].id}/file")
    assert answer.status_code == 200
    assert answer.content == known[0].path.read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "instead", ["changed", "same size", "link", "folder", "pipe", "device", "gone", "unreadable"]
)
def test_no_other_file_is_served(
    api: TestClient, known: list[Known], tmp_path: Path, instead: str
) -> None:
    path = known[0].path
    content = path.read_bytes()
    path.unlink()
    match instead:
        case "changed":
            path.write_bytes(content + b"!")
        case "same size":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "link":
            secret = tmp_path / "secret"
            secret.write_bytes(b"s" * len(content))
            path.symlink_to(secret)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "unreadable":
            path.symlink_to(path)
    answer = api.get(f"/api/collections/images/images/{known[0].id}/file")
    assert answer.status_code == 404
    assert str(path) in answer.json()["detail"]
    # A link to the same bytes is as good as the file.
    if instead == "link":
        path.unlink()
        (tmp_path / "moved.png").write_bytes(content)
        path.symlink_to(tmp_path / "moved.png")
        assert api.get(f"/api/collections/images/images/{known[0].id}/file").content == content


def test_a_row_without_its_file_names_no_other(
    api: TestClient, known: list[Known], library: Library
) -> None:
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("UPDATE images SET path = '/etc/passwd', sha256 = NULL"))
    answer = api.get(f"/api/collections/images/images/{known[0].id}/file")
    assert (answer.status_code, "imported without" in answer.json()["detail"]) == (404, True)
