"""The map of a collection, in a real browser."""

import re
from typing import Any
from urllib.parse import urljoin

from acceptance.browser import ALL, CATS, PHONE, Album, Windows, hits, names, question
from playwright.sync_api import Page, expect

from vecsearch.web.parameters import PAGE_K

# Pixels that the script leaves around the whole map.
MARGIN = 40


def points(page: Page) -> dict[str, Any]:
    """Return the API's answer that the page draws."""
    address = page.locator(".atlas").get_attribute("data-points")
    found: dict[str, Any] = page.request.get(urljoin(page.url, address)).json()
    return found


def place(page: Page, number: int) -> tuple[float, float]:
    """Return where a point is on the canvas, while the whole map is in view."""
    found, box = points(page), page.locator("canvas").bounding_box()
    assert box is not None
    spans = [(min(found[axis]), max(found[axis])) for axis in "xy"]
    (left, right), (bottom, top) = spans
    scale = min(
        (box["width"] - 2 * MARGIN) / (right - left), (box["height"] - 2 * MARGIN) / (top - bottom)
    )
    return (
        box["width"] / 2 + (found["x"][number] - (left + right) / 2) * scale,
        box["height"] / 2 - (found["y"][number] - (bottom + top) / 2) * scale,
    )


def drawn(page: Page) -> int:
    """Return the number of pixels of the canvas that are not empty."""
    count: int = page.locator("canvas").evaluate(
        """canvas => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let at = 3; at < data.length; at += 4) if (data[at]) count++;
          return count;
        }"""
    )
    return count


def expect_in_view(page: Page, count: int) -> None:
    expect(page.locator(".atlas")).to_have_attribute("data-drawn", str(count))


def at_rest(page: Page) -> str:
    """Return how many images are drawn, once that is the same for ten frames."""
    count: str = page.locator(".atlas").evaluate(
        """async atlas => {
          for (let same = 0, last = ""; same < 10; last = atlas.dataset.drawn) {
            await new Promise(requestAnimationFrame);
            same = atlas.dataset.drawn === last ? same + 1 : 0;
          }
          return atlas.dataset.drawn;
        }"""
    )
    return count


def test_the_map_is_drawn_and_a_click_leads_to_the_image(windows: Windows) -> None:
    page = windows.open()
    page.get_by_role("link", name="Map").click()
    expect_in_view(page, ALL)
    expect(page.locator(".summary")).to_contain_text(f"{ALL} images")
    page.wait_for_load_state("networkidle")
    assert drawn(page) > 1_000
    # Thumbnails take the room in this order, so nothing lies over the first.
    first = points(page)["ids"][0]
    x, y = place(page, 0)
    page.mouse.move(0, 0)
    page.locator("canvas").hover(position={"x": x, "y": y})
    expect(page.locator(".peek")).to_be_visible()
    page.locator("canvas").click(position={"x": x, "y": y})
    expect(hits(page)).to_have_count(PAGE_K)
    assert question(page)["id"] == first
    # A drag is no click, and whoever comes back finds the map as it was left.
    page.go_back()
    expect_in_view(page, ALL)
    page.mouse.wheel(0, 0)
    page.locator("canvas").hover(position={"x": x, "y": y})
    page.mouse.wheel(0, -600)
    expect(page.locator(".atlas")).not_to_have_attribute("data-drawn", str(ALL))
    page.mouse.down()
    page.mouse.move(500, 400, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Show the whole map").click()
    expect_in_view(page, ALL)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".atlas")).not_to_have_attribute("data-drawn", str(ALL))
    canvas = page.locator("canvas")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    left = at_rest(page)
    assert left != str(ALL)
    page.keyboard.press("Enter")
    expect(hits(page)).to_have_count(PAGE_K)
    page.go_back()
    expect(page.locator(".atlas")).to_have_attribute("data-drawn", str(left))


def test_the_list_leads_to_the_same_images(windows: Windows) -> None:
    page = windows.open("/map")
    only = page.get_by_role("button", name="Show only cats")
    only.click()
    expect(only).to_have_attribute("aria-pressed", "true")
    only.click()
    expect(only).to_have_attribute("aria-pressed", "false")
    page.get_by_role("link", name="cats", exact=True).click()
    expect(hits(page)).to_have_count(CATS)
    page = windows.open("/map?colour=cluster", java_script_enabled=False)
    expect(page.get_by_text("The map needs JavaScript")).to_be_visible()
    link = page.get_by_role("link", name=re.compile("^1 · "))
    count = int(page.locator(".legend li", has=link).locator(".soft").inner_text())
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^1 · "))
    expect(hits(page)).to_have_count(count)
    hits(page).first.locator(".tile").click()
    expect(hits(page)).to_have_count(PAGE_K)


def test_a_map_on_a_phone(windows: Windows) -> None:
    page = windows.open("/map", **PHONE)
    expect_in_view(page, ALL)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.scrollingElement.scrollWidth - innerWidth") <= 0
    expect(page.locator("canvas")).to_be_in_viewport(ratio=0.5)
    first = points(page)["ids"][0]
    x, y = place(page, 0)
    page.locator("canvas").tap(position={"x": x, "y": y})
    page.wait_for_url("**id=*")
    assert question(page)["id"] == first


def test_places_are_drawn_and_another_collection_is_chosen(windows: Windows, album: Album) -> None:
    page = windows.open("/map")
    page.get_by_label("Collection").select_option("cats_only")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#results pre")).to_have_text(
        "vecsearch refresh map --collection cats_only"
    )
    page.get_by_role("link", name="Place", exact=True).click()
    expect_in_view(page, CATS)
    # They are all at one place: 6.4 degrees west.
    canvas = page.locator("canvas")
    box = canvas.bounding_box()
    assert box is not None
    page.wait_for_load_state("networkidle")
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(hits(page)).to_have_count(CATS - 1)
    assert question(page)["collection"] == "cats_only"
    assert names(page)[0] in {file.name for file in (album.folder / "cats").iterdir()}
