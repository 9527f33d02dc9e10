"""The page without a mouse, a script, a large screen or good eyes."""

from typing import Any

import pytest
from acceptance.browser import (
    CATS,
    DOGS,
    NEW,
    PHONE,
    Album,
    Windows,
    expect_query_in_view,
    hits,
    names,
    question,
)
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FilePayload, Page, expect

from vecsearch.web.parameters import PAGE_K


def test_without_javascript(windows: Windows, album: Album) -> None:
    page = windows.open(java_script_enabled=False)
    content = FilePayload(name="new.png", mimeType="image/png", buffer=NEW)
    page.locator("#picture").set_input_files(content)
    page.get_by_role("button", name="Search").click()
    expect(hits(page)).to_have_count(PAGE_K)
    assert "image" in question(page)
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Label").fill("dogs")
    page.get_by_role("button", name="Apply").click()
    expect(hits(page)).to_have_count(DOGS)
    page.get_by_label("Words, or an image’s id or path").fill(str(album.cat))
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    expect(hits(page)).to_have_count(DOGS)
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your picture")


def test_with_the_keyboard_alone(windows: Windows, album: Album) -> None:
    page = windows.open(album.address())
    second = names(page)[1]
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the images")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the images")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="SQL", exact=True)).to_be_focused()
    for _ in range(2):
        # Each hit can be added and excluded, too, and what does so is seen.
        page.keyboard.press("Tab")
    expect(hits(page).first.get_by_role("link", name="Add", exact=False)).to_be_focused()
    expect(hits(page).first.locator(".acts")).to_have_css("opacity", "1")
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(hits(page).nth(1).locator(".tile")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(second)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone(windows: Windows, album: Album, width: int) -> None:
    phone = {**PHONE, "viewport": {"width": width, "height": 700}}
    page = windows.open(album.address(label="cats", exact="true"), **phone)
    expect(hits(page)).to_have_count(CATS - 1)
    assert overflow(page) == 0
    hits(page).last.scroll_into_view_if_needed()
    expect_query_in_view(page)
    page.goto(f"{album.url}{album.address(not_text='goldfish', crop='1,2,30,40')[1:]}")
    expect(page.locator(".part")).to_have_count(2)
    assert overflow(page) == 0
    page.goto(f"{album.url}duplicates?keep=path&max_distance=0.0001")
    expect(page.locator(".group")).to_have_count(1)
    assert overflow(page) == 0
    page.goto(album.url)
    assert overflow(page) == 0
    hits(page).first.locator(".tile").tap()
    expect(hits(page)).to_have_count(PAGE_K)


def test_the_query_stays_in_view(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(k="100"))
    hits(page).last.scroll_into_view_if_needed()
    expect_query_in_view(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_everybody_can_use_it(
    windows: Windows, album: Album, scheme: str, device: dict[str, Any]
) -> None:
    addresses = {
        "/": 200,
        album.address(label="cats", exact="true"): 200,
        album.address(max_distance="0", exclude_self="true"): 200,
        album.address(not_text="goldfish", text="crab", crop="1,2,30,40", expand="5"): 200,
        "/?collection=bare": 200,
        "/duplicates?keep=path&max_distance=0.0001": 200,
        "/map": 200,
        "/map?colour=cluster": 200,
        "/map?collection=cats_only": 200,
        "/map?collection=cats_only&by=place": 200,
        "/?id=nothing": 404,
    }
    for address, status in addresses.items():
        page = windows.open(address, statuses={status}, color_scheme=scheme, **device)
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        results = Axe().run(page, options={"resultTypes": ["violations"]})
        found = {
            f"{rule['id']}: {node['html']}: {node['failureSummary']}"
            for rule in results.response["violations"]
            for node in rule["nodes"]
        }
        assert found == set(), address
        page.context.close()


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    found: int = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    return max(0, found)
