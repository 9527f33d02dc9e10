"""Questions of several parts, and of a part of a picture, in a real browser."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from acceptance.browser import (
    NEW,
    PHONE,
    Album,
    Windows,
    distances,
    drop,
    hits,
    names,
    question,
)
from playwright.sync_api import Locator, Page, expect

from vecsearch.web.parameters import PAGE_K


def tiles(page: Page) -> Locator:
    """Return the parts of the question."""
    return page.get_by_role("list", name="The question").get_by_role("listitem")


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def rectangle(page: Page) -> list[float]:
    """Return the rectangle that is shown on the query picture, in pixels of the original."""
    shown = page.locator(".query .frame rect")
    expect(shown).to_be_visible()
    return [float(shown.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]


@pytest.mark.parametrize("javascript", [True, False])
def test_hits_are_added_and_excluded_and_removed(
    windows: Windows, album: Album, javascript: bool
) -> None:
    page = windows.open(album.address(), java_script_enabled=javascript)
    title = page.get_by_role("heading", level=1)
    expect(tiles(page)).to_have_count(0)
    first = distances(page)
    second, fourth = hits(page).nth(1), hits(page).nth(3)
    added, unlike = (item.locator(".name").inner_text() for item in (second, fourth))
    second.get_by_role("link", name=f"Add {added} to the question").click()
    expect(title).to_have_text(f"03.png + {added}")
    expect(tiles(page)).to_have_count(2)
    sums = distances(page)
    assert sums != first
    # Cats, dogs and birds share names.
    page.get_by_role("link", name=f"Exclude what is like {unlike}", exact=True).last.click()
    expect(tiles(page)).to_have_count(3)
    expect(title).to_have_text(f"03.png + {added} − {unlike}")
    assert distances(page) != sums
    expect(tiles(page).last).to_contain_text("Unlike")
    # The address is all that it takes.
    another = windows.open(page.url)
    assert (names(another), distances(another)) == (names(page), distances(page))
    tiles(page).first.get_by_role("link", name="Remove 03.png").click()
    expect(title).to_have_text(f"{added} − {unlike}")
    page.go_back()
    expect(tiles(page)).to_have_count(3)
    tiles(page).last.get_by_role("link", name=f"Remove {unlike}").click()
    expect(tiles(page)).to_have_count(2)
    assert distances(page) == sums
    # A click on a hit is a new question.
    hits(page).last.locator(".tile").click()
    expect(tiles(page)).to_have_count(0)


def test_words_and_pictures_are_added_and_excluded(windows: Windows, album: Album) -> None:
    page = windows.open(album.address())
    box = page.get_by_label("Words, or an image’s id or path")
    page.get_by_text("Exclude", exact=True).first.click()
    box.fill("goldfish")
    box.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png − goldfish")
    page.get_by_label("Add", exact=True).focus()
    page.keyboard.press("Space")
    drop(page, "new.png", NEW)
    expect(tiles(page)).to_have_count(3)
    assert asked(page).keys() == {"collection", "id", "not_text", "image"}
    expect(hits(page)).to_have_count(PAGE_K)
    # A change of the form keeps the question, and offers no metric that cannot compare it.
    seen = names(page)
    expect(page.get_by_label("Metric").locator("option")).to_have_text(["cosine"])
    page.get_by_label("At most").select_option("100")
    page.wait_for_url("**k=100*")
    expect(tiles(page)).to_have_count(3)
    assert names(page)[:PAGE_K] == seen
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Nearest images to refine").select_option("5")
    expect(page.locator("#sql")).to_contain_text("for the question and its 5 nearest images")
    assert question(page)["expand"] == "5"
    # Nothing is left to search for: the page says so, and the rest can still be mended.
    page = windows.open("/?not_text=goldfish&not_text=crab", statuses=[400])
    expect(page.locator("#results")).to_contain_text("only says what hits should be unlike")
    expect(tiles(page)).to_have_count(2)


def test_a_rectangle_is_dragged(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(max_distance="0.9"))
    whole = distances(page)
    picture = page.locator(".query .tile")
    expect(page.locator(".query .frame")).to_be_hidden()
    box = picture.bounding_box()
    assert box is not None
    # The picture's pixels are 64 by 48, and it is as wide as its tile.
    scale = box["width"] / 64
    top = box["y"] + (box["height"] - 48 * scale) / 2
    page.mouse.move(box["x"] + 40 * scale, top + 36 * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + 20 * scale, top + 20 * scale, steps=3)
    page.mouse.move(box["x"] + 8 * scale, top - 2 * scale, steps=3)
    assert rectangle(page) == pytest.approx([8, 0, 32, 36], abs=1)
    assert "crop" not in question(page)
    page.mouse.up()
    page.wait_for_url("**crop=*")
    expect(page.get_by_role("link", name="Search by the whole picture")).to_be_visible()
    crop = question(page)["crop"]
    assert [int(number) for number in crop.split(",")] == rectangle(page)
    # A cut-off belongs to the question that it was chosen for.
    assert "max_distance" not in question(page)
    cropped = distances(page)
    assert cropped != whole
    another = windows.open(page.url)
    assert (distances(another), rectangle(another)) == (cropped, rectangle(page))
    # What is added later leaves it alone; the keyboard changes it.
    hits(page).nth(4).get_by_role("link", name=re.compile("^Add ")).click()
    expect(tiles(page)).to_have_count(2)
    assert question(page)["crop"] == crop
    page.get_by_text("Search by a part of it").press("Enter")
    field = page.get_by_label("Left, top, width, height")
    field.fill("1,2,30,40")
    assert rectangle(page) == [1, 2, 30, 40]
    field.press("Enter")
    page.wait_for_url("**crop=1%2C2%2C30%2C40*")
    page.get_by_role("link", name="Search by the whole picture").click()
    expect(page.locator(".query .frame")).to_be_hidden()
    assert "crop" not in question(page)
    page.go_back()
    assert rectangle(page) == [1, 2, 30, 40]
    # A click that is no drag opens the picture, as before.
    page.evaluate(
        """addEventListener("click", (event) => {
          window.followed = !event.defaultPrevented;
          event.preventDefault();
        })"""
    )
    picture.click()
    assert page.evaluate("window.followed")


def test_a_crop_outside_the_picture_can_be_mended(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(crop="1,2,300,40"), statuses=[400], java_script_enabled=False)
    expect(page.locator("#results")).to_contain_text("not within the picture, which has 64 × 48")
    page.get_by_text("Search by a part of it").click()
    page.get_by_label("Left, top, width, height").fill("1,2,30,40")
    page.get_by_role("button", name="Crop").click()
    expect(hits(page)).to_have_count(PAGE_K)
    assert rectangle(page) == [1, 2, 30, 40]


def test_a_rectangle_on_a_phone(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(), **PHONE)
    page.get_by_text("Search by a part of it").tap()
    box = page.locator(".query .tile").bounding_box()
    assert box is not None
    assert box["width"] > 300
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    # Playwright has no finger that moves.
    client = page.context.new_cdp_session(page)
    for kind, offset in (("touchStart", 0), ("touchMove", 40), ("touchMove", 60), ("touchEnd", 0)):
        points = [{"x": middle[0] + offset, "y": middle[1] + offset}] if offset else []
        if kind == "touchStart":
            points = [{"x": middle[0], "y": middle[1]}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_url("**crop=*")
    x, y, width, height = rectangle(page)
    assert (x, y) == pytest.approx((32, 24), abs=1)
    assert width == pytest.approx(height, abs=1)
