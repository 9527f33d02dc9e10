"""Near-duplicates tidied in a real browser, by the keyboard, on a server that may edit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.browser import Windows, hits, names, serving
from acceptance.conftest import runner
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
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
def windows(
    browser: Browser,
    photos: Path,
    environment: dict[str, str],
    small_model: str,
    weights: Path,
    tmp_path: Path,
) -> Iterator[Windows]:
    run = runner(tmp_path / "data", environment, tmp_path)
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
    expect(selected).to_have_text("Nothing selected")
    expect(page.get_by_role("button", name="Send to the trash")).to_be_disabled()
    # The second image of the first group is the one to keep, and one of the second group goes.
    shown = names(page)
    press(page, "n", "ArrowRight", "k", "n", "s")
    expect(selected).to_have_text("3 selected")
    expect(hits(page).nth(3).locator(".tile")).to_be_focused()
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Send to the trash").click()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("This sends 3 files to the trash")
    assert files(photos) == before
    assert Axe().run(page).response["violations"] == []
    page.get_by_role("button", name="Do it").click()
    expect(heading).to_have_text("Sent 3 files to the trash.")
    gone = {shown[0], shown[2], shown[3]}
    assert files(photos) == {name: before[name] for name in before if name not in gone}
    page.get_by_role("button", name="Undo").click()
    expect(heading).to_have_text("Brought 3 files back.")
    assert files(photos) == before
    page.get_by_role("link", name="Back to the near-duplicates").click()
    expect(page.locator(".group")).to_have_count(2)
    # Different pictures after all: the other two of the group stay together.
    press(page, "n", "d")
    expect(page.locator(".group").first.locator("li")).to_have_count(2)
    assert shown[0] not in names(page)
