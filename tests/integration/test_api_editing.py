"""What the page does to duplicates, over a real database and real files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient
from support import once
from tidy_support import fill, in_tables, on_disk, use_trash_of
from web_support import LOCAL, client

from vecsearch.library import Library
from vecsearch.web.app import create_app
from vecsearch.web.site import KEPT, SESSION, Options

pytestmark = once


@pytest.fixture
def photos(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three groups of an original, a copy of its file and a small one, and three others."""
    use_trash_of(tmp_path / "data", monkeypatch)
    return fill(library, tmp_path / "photos")


@pytest.fixture
def page(library: Library, photos: Path) -> Iterator[TestClient]:
    """The page of a server that may edit; it searches by sessions that only read, as `serve`."""
    reading = Library.open(library.settings, session=SESSION)
    app = create_app(reading, Options("images"), library)
    with reading:
        yield TestClient(app, base_url=LOCAL, follow_redirects=False)


def ids(library: Library, photos: Path, *names: str) -> list[str]:
    found = {row.path: str(row.id) for row in library.collection().browse(limit=100)}
    return [found[str(photos / name)] for name in names]


def post(page: TestClient, address: str, status: int = 200, **fields: Any) -> str:
    answer = page.post(address, data=fields)
    assert answer.status_code == status, answer.text
    return answer.text


def hidden(text: str) -> dict[str, Any]:
    """Return the fields of the form of a page that asks."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', text):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("action", ["trash", "hardlink", "symlink"])
def test_what_is_selected_goes_once_it_is_confirmed_and_comes_back(
    library: Library, photos: Path, page: TestClient, action: str
) -> None:
    files, rows = on_disk(photos), in_tables(library)
    # The rule would keep the largest; what is selected counts.
    gone = ids(library, photos, "kept/000.png", "copies/001 copy.png")
    asked = post(page, "/duplicates?keep=largest", action=action, gone=gone)
    assert "2 files" in asked
    assert "others" not in asked
    assert on_disk(photos) == files
    fields = hidden(asked)
    assert set(fields["gone"]) == set(gone)
    done = post(page, "/duplicates?keep=largest", **fields)
    for name in ("kept/000.png", "copies/001 copy.png"):
        file = photos / name
        if action == "trash":
            assert not file.exists()
        else:
            assert file.is_symlink() or file.stat().st_nlink == 2
    assert (photos / "copies/000 copy.png").read_bytes() == files[str(photos / "kept/000.png")][0]
    assert (photos / "small/000.png").exists()
    assert ">Undo</button>" in done
    address = re.findall(r'action="([^"]+)"', done)[0].replace("&amp;", "&")
    assert urlsplit(address).path == "/duplicates/undo"
    assert "Brought 2 files back" in post(page, address, **hidden(done))
    assert on_disk(photos) == files
    assert in_tables(library) == rows


def test_what_was_shown_is_done_though_the_collection_changed(
    library: Library, photos: Path, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("copies/000 copy.png", "copies/001 copy.png", "copies/002 copy.png")
    fields = hidden(post(page, "/duplicates", action="trash", gone=ids(library, photos, *names)))
    # Since then, somebody said that one is no duplicate, and one file has changed.
    kept, copy = ids(library, photos, "kept/000.png", names[0])
    library.collection().not_duplicates(kept, copy)
    changed = b"changed since"
    (photos / names[1]).write_bytes(changed)

    def find(*_: object, **__: object) -> None:
        pytest.fail("duplicates are computed anew")

    monkeypatch.setattr("vecsearch.analysis.duplicates.groups.find", find)
    done = post(page, "/duplicates", **fields)
    assert "Sent 2 files to the trash" in done
    assert [(photos / name).exists() for name in names] == [False, True, False]
    assert (photos / names[1]).read_bytes() == changed


def test_a_list_is_confirmed_once_and_on_its_own_collection(
    library: Library, photos: Path, page: TestClient
) -> None:
    files = on_disk(photos)
    asked: dict[str, Any] = {"action": "trash", "gone": ids(library, photos, "copies/000 copy.png")}
    fields = hidden(post(page, "/duplicates", **asked))
    shown = post(page, "/duplicates", **fields | {"plan": "x"})
    assert "Nothing was done yet, as this list had expired" in shown
    # Nine later lists: the first is no longer kept.
    for _ in range(KEPT + 1):
        post(page, "/duplicates", **asked)
    assert "had expired" in post(page, "/duplicates", **fields)
    assert on_disk(photos) == files
    library.collection("images").rename("others")
    fields = hidden(post(page, "/duplicates?collection=others", **asked))
    library.collection("others").rename("images")
    assert "had expired" in post(page, "/duplicates", **fields)
    assert on_disk(photos) == files
    fields = hidden(post(page, "/duplicates", **asked))
    assert "Sent 1 file to the trash" in post(page, "/duplicates", **fields)
    assert "without a duplicate now" in post(page, "/duplicates", 400, **fields)


def test_the_last_one_of_a_group_stays(library: Library, photos: Path, page: TestClient) -> None:
    files = on_disk(photos)
    group = ids(library, photos, "kept/000.png", "copies/000 copy.png", "small/000.png")
    refused = post(page, "/duplicates", 400, action="trash", gone=group, plan="x")
    assert "All 3 images of a group are selected" in refused
    lone = ids(library, photos, "others/000.png")
    assert "without a duplicate now" in post(
        page, "/duplicates", 400, action="trash", gone=lone, plan="x"
    )
    # A copy of other bytes is no link.
    small = ids(library, photos, "small/000.png")
    assert "There is nothing to do" in post(page, "/duplicates", action="hardlink", gone=small)
    for fields in ({}, {"gone": "x"}, {"gone": group[:1], "action": "move"}):
        post(page, "/duplicates", 422, **{"action": "trash", **fields})
    assert on_disk(photos) == files


def test_what_are_no_duplicates_is_recorded(
    library: Library, photos: Path, page: TestClient
) -> None:
    group = ids(library, photos, "kept/000.png", "copies/000 copy.png", "small/000.png")
    answer = page.post("/duplicates/apart", data={"image": group[2], "other": group})
    assert answer.status_code == 303
    left = {str(row.id) for row in library.collection().duplicates().images}
    assert group[2] not in left
    assert left >= set(group[:2])


def test_a_server_that_only_reads_does_nothing(library: Library, photos: Path) -> None:
    files = on_disk(photos)
    reading = client(library)
    gone = ids(library, photos, "copies/000 copy.png")
    for path, fields in (
        ("/duplicates", {"action": "trash", "gone": gone, "plan": "x"}),
        ("/duplicates/undo", {"run": 1}),
        ("/duplicates/apart", {"image": gone, "other": gone}),
    ):
        assert "This server only reads" in post(reading, path, 403, **fields)
    assert "Select" not in reading.get("/duplicates").text
    assert on_disk(photos) == files


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_act(
    library: Library, photos: Path, page: TestClient, site: str
) -> None:
    files = on_disk(photos)
    fields = {
        "action": "trash",
        "gone": ids(library, photos, "copies/000 copy.png"),
        "plan": "x",
    }
    answer = page.post("/duplicates", data=fields, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403
    assert on_disk(photos) == files
