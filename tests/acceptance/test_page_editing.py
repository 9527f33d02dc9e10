"""Near-duplicates tidied in a real browser, by the keyboard, on a server that may edit."""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from acceptance.browser import PHONE, Windows, hits, names, serving
from acceptance.conftest import Run, runner
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from support import picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures, of each of which there are two copies, and two others."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        file = folder / f"{number} a.png"
        picture(number, (160, 90)).save(file)
        for copy in "bc":
            shutil.copy(file, folder / f"{number} {copy}.png")
        picture(number + 10).save(folder / f"other {number}.png")
    return folder


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    return runner(tmp_path / "data", environment, tmp_path)


@pytest.fixture
def windows(
    browser: Browser,
    run: Run,
    photos: Path,
    environment: dict[str, str],
    small_model: str,
    weights: Path,
    tmp_path: Path,
) -> Iterator[Windows]:
    run("ingest", photos, "--model", small_model, "--weights", weights)
    settings = {
        **environment,
        "VECSEARCH_DATA_DIR": str(tmp_path / "data"),
        "XDG_DATA_HOME": str(tmp_path / "home"),
    }
    with serving(settings, "--edit") as url:
        windows = Windows(browser, url)
        yield windows
        windows.close()


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_copies_go_by_the_keyboard_and_come_back(windows: Windows, photos: Path) -> None:
    before = files(photos)
    page = windows.open("/duplicates?max_distance=0.0001")
    expect(page.locator(".group")).to_have_count(2)
    selected = page.locator("#selected")
    expect(selected).to_have_text("None selected")
    expect(page.get_by_role("button", name="Send to the trash")).to_be_disabled()
    # The second image of the first group is the one to keep, and one of the second group goes.
    shown = names(page)
    press(page, "n", "ArrowRight", "k", "n", "s")
    expect(selected).to_have_text("3 selected")
    expect(hits(page).nth(3).locator(".tile")).to_be_focused()
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Send to the trash").click()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Send 3 files to the trash?")
    confirm = page.get_by_role("button", name="Send 3 files to the trash")
    expect(confirm).not_to_be_focused()
    expect(page.locator(".goes")).to_have_count(3)
    expect(page.locator(".plan .stays")).to_have_count(2)
    assert files(photos) == before
    assert Axe().run(page).response["violations"] == []
    # Whoever goes back, by the link or by the browser, finds what was selected.
    page.get_by_role("link", name="Cancel").click()
    expect(selected).to_have_text("3 selected")
    page.get_by_role("button", name="Send to the trash").click()
    expect(confirm).to_be_visible()
    page.go_back()
    expect(selected).to_have_text("3 selected")
    page.get_by_role("button", name="Send to the trash").click()
    confirm.click()
    expect(heading).to_have_text("Sent 3 files to the trash.")
    gone = {shown[0], shown[2], shown[3]}
    left = {name: before[name] for name in before if name not in gone}
    assert files(photos) == left
    # Nothing is sent again, and the page of near-duplicates undoes it, too.
    page.reload()
    expect(heading).to_have_text("Sent 3 files to the trash.")
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("link", name="Back to the near-duplicates").click()
    expect(page.locator(".lately")).to_contain_text("Sent 3 files to the trash.")
    assert Axe().run(page).response["violations"] == []
    assert files(photos) == left
    page.get_by_role("button", name="Undo").click()
    expect(heading).to_have_text("Brought 3 files back.")
    assert files(photos) == before


def test_a_different_picture_is_no_longer_grouped_until_that_is_undone(windows: Windows) -> None:
    page = windows.open("/duplicates?max_distance=0.0001")
    shown = names(page)
    press(page, "n", "d")
    expect(page.locator("#done")).to_contain_text(f"Recorded that photos/{shown[0]} is not")
    expect(page.locator(".group").first.locator("li")).to_have_count(2)
    expect(hits(page).first.locator(".tile")).to_be_focused()
    assert shown[0] not in names(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".group").first.locator("li")).to_have_count(3)
    expect(page.locator(".lately")).to_have_count(0)


def test_what_cannot_be_is_prevented_with_a_word(windows: Windows, run: Run, photos: Path) -> None:
    page = windows.open("/duplicates?max_distance=0.0001")
    group = page.locator(".group").first
    boxes = group.get_by_role("checkbox")
    why = group.get_by_text("One image of each group stays")
    expect(why).to_be_hidden()
    for number in range(2):
        boxes.nth(number).check()
    expect(group.locator(".stays")).to_have_text(re.compile("Stays"))
    # It says that it is disabled, but not why: for that it can be clicked.
    boxes.nth(2).click(force=True)
    expect(boxes.nth(2)).not_to_be_checked()
    expect(why).to_be_visible()
    expect(page.locator("#selected")).to_have_text("2 selected")
    boxes.nth(0).uncheck()
    expect(why).to_be_hidden()
    # Its bytes are those of the one that stays.
    page.get_by_text("Use links").click()
    link = page.get_by_role("button", name="Replace by hard links")
    expect(link).to_be_enabled()
    expect(page.locator("#unlinked")).to_be_empty()
    boxes.nth(1).uncheck()
    expect(link).to_be_hidden()
    page.get_by_text("Use links").click()
    expect(link).to_be_disabled()
    expect(page.locator("#unlinked")).to_have_text("Select files first.")
    page.keyboard.press("Escape")
    expect(link).to_be_hidden()
    # A file of other bytes that shows the same.
    with PIL.Image.open(photos / "0 a.png") as drawn:
        drawn.save(photos / "0 d.png", compress_level=1)
    run("ingest", photos)
    page.reload()
    other = group.locator("li", has_text="0 d.png")
    other.get_by_role("checkbox").check()
    page.get_by_text("Use links").click()
    expect(link).to_be_disabled()
    expect(page.locator("#unlinked")).to_contain_text("No selected file has the same bytes")


def test_a_search_for_duplicates_is_seen_to_go_on(windows: Windows) -> None:
    page = windows.open("/duplicates?max_distance=0.0001")
    release = threading.Event()

    def late(route: Route) -> None:
        # The list is already locked, and says so, while the server has not answered.
        expect(page.locator("#results")).to_have_attribute("inert", "")
        expect(page.locator(".summary")).to_have_text("Looking for near-duplicates…")
        release.set()
        route.continue_()

    page.route("**/duplicates?*mirrored*", late)
    page.get_by_label("Mirrored copies, too").check()
    expect(page.locator(".summary")).to_contain_text("images in")
    assert release.is_set()
    expect(page.locator("#results")).not_to_have_attribute("inert", "")


def test_duplicates_on_a_phone(windows: Windows) -> None:
    page = windows.open("/duplicates?max_distance=0.0001&keep=path", **PHONE)
    expect(page.locator("#selected")).to_have_text("4 selected")
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 0
    expect(page.locator(".keys")).to_be_hidden()
    expect(page.locator(".hovering")).to_be_hidden()
    # What to do is said before the groups; the bar has one row, and leaves the pictures free.
    hint, group = (page.locator(name).first.bounding_box() for name in (".hint", ".group"))
    bar = page.locator(".bar").bounding_box()
    assert hint is not None
    assert group is not None
    assert bar is not None
    assert hint["y"] < group["y"]
    assert bar["height"] < 72
    page.locator(".group").last.scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator(".group").last.bounding_box()
    bar = page.locator(".bar").bounding_box()
    assert last is not None
    assert bar is not None
    assert last["y"] + last["height"] <= bar["y"] + 1
