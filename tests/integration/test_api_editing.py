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
WORDS = {
    "trash": "Sent 2 files to the trash.",
    "hardlink": "Replaced 2 files by hard links.",
    "symlink": "Replaced 2 files by symbolic links.",
}


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


def act(page: TestClient, address: str, **fields: Any) -> tuple[str, str]:
    """Post a form that is redirected; return the address and the text of where that leads."""
    answer = page.post(address, data=fields)
    assert answer.status_code == 303, answer.text
    there = answer.headers["location"].partition("#")[0]
    shown = page.get(there)
    assert shown.status_code == 200, shown.text
    # Whoever reloads or shares it sees the same.
    assert page.get(there).text == shown.text
    return there, shown.text


def form(text: str) -> str:
    """Return where the first form of a page is sent."""
    found = re.search(r'action="([^"]+)"', text)
    assert found is not None
    return found[1].replace("&amp;", "&")


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
    _, asked = act(page, "/duplicates?keep=largest", action=action, gone=gone)
    assert "2 files" in asked
    assert "others" not in asked
    # Both of each pair are shown, with their folders.
    for image in (*gone, *ids(library, photos, "copies/000 copy.png", "kept/001.png")):
        assert f"{image}/thumbnail" in asked
    assert "kept/<wbr>000.png" in asked
    assert "copies/<wbr>000 copy.png" in asked
    assert on_disk(photos) == files
    fields = hidden(asked)
    assert set(fields["gone"]) == set(gone)
    address, done = act(page, "/duplicates?keep=largest", **fields)
    assert urlsplit(address).path == "/duplicates/run"
    for name in ("kept/000.png", "copies/001 copy.png"):
        file = photos / name
        if action == "trash":
            assert not file.exists()
        else:
            assert file.is_symlink() or file.stat().st_nlink == 2
    assert (photos / "copies/000 copy.png").read_bytes() == files[str(photos / "kept/000.png")][0]
    assert (photos / "small/000.png").exists()
    assert ">Undo</button>" in done
    # What was done last can be undone from the page of near-duplicates, too.
    listed = page.get("/duplicates").text
    assert WORDS[action] in listed
    assert 'action="/duplicates/undo' in listed
    again, undone = act(page, form(done), **hidden(done))
    assert again == address
    assert "Brought 2 files back" in undone
    assert ">Undo</button>" not in undone
    assert on_disk(photos) == files
    assert in_tables(library) == rows
    assert 'action="/duplicates/undo' not in page.get("/duplicates").text
    refused = post(page, form(done), 400, **hidden(done))
    assert "Run 1 has nothing to undo." in refused
    assert "vecsearch undo" not in refused


def test_a_plan_is_shown_until_it_is_carried_out(
    library: Library, photos: Path, page: TestClient
) -> None:
    gone = ids(library, photos, "copies/000 copy.png")
    address, asked = act(page, "/duplicates", action="trash", gone=gone)
    act(page, "/duplicates", **hidden(asked))
    shown = page.get(address)
    assert shown.status_code == 410
    assert "was carried out, or has expired" in shown.text
    assert 'href="/duplicates?collection=images"' in shown.text
    assert page.get("/duplicates/run?run=9").status_code == 400


def test_a_file_that_cannot_come_back_is_shown_with_the_reason(
    library: Library, photos: Path, page: TestClient
) -> None:
    names = ("copies/000 copy.png", "copies/001 copy.png")
    _, asked = act(page, "/duplicates", action="trash", gone=ids(library, photos, *names))
    _, done = act(page, "/duplicates", **hidden(asked))
    (photos / names[0]).write_bytes(b"another file")
    _, partly = act(page, form(done), **hidden(done))
    assert "Brought 1 of 2 files back" in partly
    assert "in the trash." in partly
    assert "back in its place." in partly
    (photos / names[0]).unlink()
    assert ">Undo the rest</button>" in partly
    assert "Brought 2 files back" in act(page, form(partly), **hidden(partly))[1]


def test_what_was_shown_is_done_though_the_collection_changed(
    library: Library, photos: Path, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("copies/000 copy.png", "copies/001 copy.png", "copies/002 copy.png")
    _, asked = act(page, "/duplicates", action="trash", gone=ids(library, photos, *names))
    # Since then, somebody said that one is no duplicate, and one file has changed.
    kept, copy = ids(library, photos, "kept/000.png", names[0])
    library.collection().not_duplicates(kept, copy)
    changed = b"changed since"
    (photos / names[1]).write_bytes(changed)

    def find(*_: object, **__: object) -> None:
        pytest.fail("duplicates are computed anew")

    monkeypatch.setattr("vecsearch.analysis.duplicates.groups.find", find)
    _, done = act(page, "/duplicates", **hidden(asked))
    assert "Sent 2 files to the trash" in done
    assert "left alone." in done
    assert [(photos / name).exists() for name in names] == [False, True, False]
    assert (photos / names[1]).read_bytes() == changed


def test_a_list_is_confirmed_once_and_on_its_own_collection(
    library: Library, photos: Path, page: TestClient
) -> None:
    files = on_disk(photos)
    gone: dict[str, Any] = {"action": "trash", "gone": ids(library, photos, "copies/000 copy.png")}

    def asked(address: str = "/duplicates") -> dict[str, Any]:
        return hidden(act(page, address, **gone)[1])

    fields = asked()
    assert "Nothing was done yet" in act(page, "/duplicates", **fields | {"plan": "x"})[1]
    # Nine later lists: the first is no longer kept.
    for _ in range(KEPT + 1):
        asked()
    assert "had expired" in act(page, "/duplicates", **fields)[1]
    assert on_disk(photos) == files
    library.collection("images").rename("others")
    fields = asked("/duplicates?collection=others")
    library.collection("others").rename("images")
    assert "had expired" in act(page, "/duplicates", **fields)[1]
    assert on_disk(photos) == files
    fields = asked()
    assert "Sent 1 file to the trash" in act(page, "/duplicates", **fields)[1]
    assert "without a duplicate now" in post(page, "/duplicates", 400, **fields)


def test_the_last_one_of_a_group_stays(library: Library, photos: Path, page: TestClient) -> None:
    files = on_disk(photos)
    group = ids(library, photos, "kept/000.png", "copies/000 copy.png", "small/000.png")
    refused = post(
        page, "/duplicates?collection=images&keep=path", 400, action="trash", gone=group, plan="x"
    )
    assert "All 3 images of a group are selected" in refused
    back = re.search(r'href="([^"]+)">Back to the near-duplicates<', refused)
    assert back is not None
    assert back[1].replace("&amp;", "&") == "/duplicates?collection=images&keep=path"
    lone = ids(library, photos, "others/000.png")
    assert "without a duplicate now" in post(
        page, "/duplicates", 400, action="trash", gone=lone, plan="x"
    )
    # A copy of other bytes is no link.
    small = ids(library, photos, "small/000.png")
    _, shown = act(page, "/duplicates", action="hardlink", gone=small)
    assert "There is nothing to do" in shown
    assert "Its bytes differ" in shown
    for fields in ({}, {"gone": "x"}, {"gone": group[:1], "action": "move"}):
        post(page, "/duplicates", 422, **{"action": "trash", **fields})
    # An image is an id here; in the address of the first page, an uploaded picture.
    for address in ("/duplicates/apart", "/duplicates/together"):
        shown = post(page, address, 422, image="x", other=group)
        assert "image: give an id such as 00000000-" in shown
    assert on_disk(photos) == files


def test_what_are_no_duplicates_is_recorded_and_can_be_forgotten(
    library: Library, photos: Path, page: TestClient
) -> None:
    group = ids(library, photos, "kept/000.png", "copies/000 copy.png", "small/000.png")
    earlier = ids(library, photos, "kept/001.png", "others/001.png")
    library.collection().not_duplicates(*earlier)

    def grouped() -> set[str]:
        return {str(row.id) for row in library.collection().duplicates().images}

    before = grouped()
    _, shown = act(page, "/duplicates/apart", image=group[2], other=group)
    assert grouped() == before - {group[2]}
    said = shown.replace("<wbr>", "")
    assert (
        "Recorded that small/000.png is not a duplicate of copies/000 copy.png and kept/000.png."
        in said
    )
    assert "Recorded that kept/001.png and others/001.png are not duplicates." in said
    # The last one is undone, and what was recorded before stays.
    act(page, "/duplicates/together", image=group[2], other=group[:2])
    assert grouped() == before
    assert len(library.collection().recorded_not_duplicates(9)) == 1
    assert library.collection().undo_not_duplicates(*reversed(earlier)) == 1
    assert library.collection().undo_not_duplicates(*earlier) == 0
    for act_on in ("apart", "together"):
        post(page, f"/duplicates/{act_on}", 400, image=group[0], other=group[:1])


def test_the_page_says_which_files_have_the_same_bytes(
    library: Library, photos: Path, page: TestClient
) -> None:
    shown = dict(
        re.findall(r'value="([^"]+)" data-bytes="([0-9a-f]{64})"', page.get("/duplicates").text)
    )
    kept, copy, small = ids(library, photos, "kept/000.png", "copies/000 copy.png", "small/000.png")
    assert shown[kept] == shown[copy] != shown[small]


def test_a_large_group_is_said_to_be_a_chain(
    photos: Path, page: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "Groups are chains of similar pairs, so"
    assert photos.exists()
    assert sentence not in page.get("/duplicates").text
    monkeypatch.setattr("vecsearch.web.duplicates.LARGE", 2)
    assert page.get("/duplicates").text.count(sentence) == 3


def test_a_server_that_only_reads_does_nothing(library: Library, photos: Path) -> None:
    files = on_disk(photos)
    reading = client(library)
    gone = ids(library, photos, "copies/000 copy.png")
    for path, fields in (
        ("/duplicates", {"action": "trash", "gone": gone, "plan": "x"}),
        ("/duplicates/undo", {"run": 1}),
        ("/duplicates/apart", {"image": gone, "other": gone}),
        ("/duplicates/together", {"image": gone, "other": gone}),
    ):
        assert "This server only reads" in post(reading, path, 403, **fields)
    assert reading.get("/duplicates/plan?plan=x").status_code == 403
    tidy = library.collection().tidy
    run = tidy.apply(tidy.plan("hardlink", keep="largest"))[0].run
    assert "Undo</button>" not in reading.get("/duplicates").text
    shown = reading.get(f"/duplicates/run?run={run}").text
    assert "by hard links" in shown
    assert "Undo</button>" not in shown
    tidy.undo()
    assert ">Select<" not in reading.get("/duplicates").text
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
