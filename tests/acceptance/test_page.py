"""Searches on the page, in a real browser."""

import re
from urllib.parse import urlencode

import pytest
from acceptance.browser import (
    ALL,
    BIRDS,
    CATS,
    DOGS,
    NEW,
    Album,
    Windows,
    distances,
    drop,
    expect_query_in_view,
    hits,
    names,
    question,
)
from playwright.sync_api import FilePayload, expect

from vecsearch.web.parameters import PAGE_K


@pytest.mark.parametrize("how", ["choose", "drop", "paste"])
def test_a_new_picture_is_searched_for(windows: Windows, how: str) -> None:
    page = windows.open()
    expect(hits(page)).to_have_count(ALL)
    if how == "choose":
        content = FilePayload(name="new.png", mimeType="image/png", buffer=NEW)
        page.set_input_files("#picture", content)
    else:
        if how == "drop":
            drop(page, "new.png", NEW, how="dragover")
            expect(page.locator("html")).to_have_class(re.compile("dragging"))
        drop(page, "new.png", NEW, how=how)
    page.wait_for_url("**image=*")
    expect(hits(page)).to_have_count(PAGE_K)
    expect(page.locator(".summary")).to_contain_text(f"{PAGE_K} images, nearest first")
    assert "id" not in question(page)
    expect_query_in_view(page)
    assert distances(page) == sorted(distances(page))


def test_a_stored_picture_is_recognised(windows: Windows, album: Album) -> None:
    page = windows.open()
    page.set_input_files("#picture", album.cat)
    page.wait_for_url("**id=*")
    assert "image" not in question(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    expect_query_in_view(page)
    # It is beside the hits, and none of them unless somebody asks.
    own = page.locator(f"#results .tile[href*='id={question(page)['id']}']")
    expect(own).to_have_count(0)
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Show the query images among the hits").check()
    expect(own).to_have_count(1)
    assert distances(page)[0] == pytest.approx(0, abs=1e-3)
    page.get_by_label("Show the query images among the hits").uncheck()
    expect(own).to_have_count(0)


def test_a_hit_is_the_next_question(windows: Windows, album: Album) -> None:
    page = windows.open(album.address())
    third = names(page)[2]
    hits(page).nth(2).locator(".tile").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(third)
    assert question(page)["id"] != str(album.cat)
    expect_query_in_view(page)
    own = question(page)["id"]
    expect(page.locator(f"#results .tile[href*='id={own}']")).to_have_count(0)


def test_an_id_and_a_path_are_typed(windows: Windows, album: Album) -> None:
    page = windows.open()
    field = page.get_by_label("Words, or an image’s id or path")
    field.fill(str(album.cat))
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    # The page says the id, which is another name for the same question.
    by_path = names(page)
    page.get_by_text("More", exact=True).click()
    image_id = page.get_by_text(re.compile("^id [0-9a-f-]{36}$")).inner_text().removeprefix("id ")
    drop(page, "new.png", NEW)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your picture")
    field.fill(image_id)
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    assert names(page) == by_path


def test_the_cut_off_shows_what_it_leaves_out(windows: Windows, album: Album) -> None:
    page = windows.open(album.address())
    slider = page.get_by_label(re.compile("^Cut-off"))
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    expect(page.locator("#cut-off")).to_contain_text("similarity")
    faded = page.locator("#results li.beyond").count()
    expect(page.locator("#cut-off")).to_contain_text(f": {PAGE_K - faded} of {PAGE_K}")
    assert 0 < faded < PAGE_K
    assert "max_distance" not in question(page)
    page.mouse.up()
    expect(hits(page)).to_have_count(PAGE_K - faded)
    limit = question(page)["max_distance"]
    assert max(distances(page)) <= float(limit)
    expect(page.locator("#statement")).to_contain_text(f"<= {float(limit)}")
    # All the way to the right is no cut-off; the keyboard moves it, too.
    slider.press("End")
    expect(hits(page)).to_have_count(PAGE_K)
    expect(page.locator("#cut-off")).to_have_text("none")
    assert "max_distance" not in question(page)
    expect(slider).to_be_focused()


def test_a_metric_and_a_number_of_hits(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(max_distance="0.5"))
    by_cosine = distances(page)
    page.get_by_label("Metric").select_option("l2")
    expect(page.locator("#statement")).to_contain_text("<->")
    expect(hits(page)).to_have_count(PAGE_K)
    assert question(page)["metric"] == "l2"
    # A distance by one metric says nothing about another.
    assert "max_distance" not in question(page)
    assert distances(page)[1] > by_cosine[1]
    page.get_by_label("At most").select_option("100")
    expect(hits(page)).to_have_count(ALL - 1)
    assert question(page)["metric"] == "l2"


def test_another_collection(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(), statuses=[404])
    page.get_by_label("Collection").select_option("cats_only")
    expect(hits(page)).to_have_count(CATS - 1)
    assert question(page)["collection"] == "cats_only"
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    # The next question goes to the same one.
    hits(page).nth(1).locator(".tile").click()
    page.wait_for_url(re.compile("[?&]id="))
    assert question(page)["collection"] == "cats_only"
    expect(hits(page)).to_have_count(CATS - 1)
    # A picture that the other does not hold: it says so, and the way on leads there.
    page.goto(f"{album.url}?{urlencode({'id': str(album.folder / 'dogs/01.png')})}")
    page.get_by_label("Collection").select_option("cats_only")
    expect(page.locator(".empty")).to_contain_text("'cats_only' has no image")
    expect(page.get_by_role("heading", level=1)).to_have_text("Search cats_only")


def test_filters(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(k="100"))
    page.get_by_text("Filters", exact=True).click()
    label = page.get_by_label("Label")
    label.focus()
    suggested = page.locator("#labels option")
    expect(suggested).to_have_count(3)
    assert [option.get_attribute("value") for option in suggested.all()] == [
        "cats",
        "dogs",
        "birds",
    ]
    label.fill("dogs")
    label.press("Enter")
    expect(hits(page)).to_have_count(DOGS)
    assert question(page)["label"] == "dogs"
    expect(page.locator("#statement")).to_contain_text("label = 'dogs'")
    expect(page.get_by_text("Filters: on")).to_be_visible()
    page.get_by_role("link", name="Clear the filters").click()
    expect(hits(page)).to_have_count(ALL - 1)
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Width from").fill("96")
    page.get_by_label("Width from").press("Tab")
    expect(hits(page)).to_have_count(DOGS + BIRDS)
    expect(page.get_by_label("Width to")).to_be_focused()
    page.get_by_label("Width to").fill("100")
    page.get_by_label("Width to").press("Enter")
    expect(hits(page)).to_have_count(DOGS)
    page.get_by_label("Height from").fill("1000")
    page.get_by_label("Height from").press("Enter")
    expect(page.locator(".empty")).to_contain_text("No image passes these filters")
    page.get_by_role("link", name="Show the nearest of all").click()
    expect(hits(page)).to_have_count(ALL - 1)


def test_days_are_typed(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(k="100"))
    page.get_by_text("Filters", exact=True).click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_label("Taken from").focus()
    page.keyboard.type("12312024")
    page.keyboard.press("Enter")
    expect(hits(page)).to_have_count(DOGS + BIRDS)
    assert question(page)["date_from"] == "2024-12-31"
    # Each digit of a year makes another day, which nobody wants to see, or to be interrupted by.
    assert not [url for url in asked if "date_from=0" in url]
    page.get_by_label("Taken until").focus()
    page.keyboard.type("12312025")
    page.get_by_label("Width from").click()
    expect(hits(page)).to_have_count(DOGS)
    assert question(page) == question(page) | {"date_from": "2024-12-31", "date_to": "2025-12-31"}
    # Picked with the mouse rather than typed, a day is asked about at once.
    page.get_by_label("Taken until").fill("2026-12-31")
    expect(hits(page)).to_have_count(DOGS + BIRDS)
    expect(page.get_by_label("Taken from")).to_have_value("2024-12-31")


def test_back_and_forward(windows: Windows, album: Album) -> None:
    page = windows.open(album.address())
    metric, collection = page.get_by_label("Metric"), page.get_by_label("Collection")
    seen = [names(page)]
    metric.select_option("l1")
    expect(page.locator("#statement")).to_contain_text("l1_distance")
    seen.append(names(page))
    collection.select_option("cats_only")
    expect(hits(page)).to_have_count(CATS - 1)
    seen.append(names(page))
    hits(page).nth(3).locator(".tile").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(seen[2][3])
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    assert (names(page), collection.input_value()) == (seen[2], "cats_only")
    page.go_back()
    expect(collection).to_have_value("images")
    expect(hits(page)).to_have_count(PAGE_K)
    assert (names(page), metric.input_value()) == (seen[1], "l1")
    page.go_back()
    expect(metric).to_have_value("cosine")
    assert names(page) == seen[0]
    page.go_forward()
    expect(metric).to_have_value("l1")
    assert names(page) == seen[1]
    page.go_forward()
    expect(collection).to_have_value("cats_only")
    assert names(page) == seen[2]


def test_an_address_is_shared(windows: Windows) -> None:
    page = windows.open()
    drop(page, "new.png", NEW)
    page.wait_for_url("**image=*")
    page.get_by_label("Metric").select_option("l2")
    expect(page.locator("#statement")).to_contain_text("<->")
    seen = names(page)
    page.reload()
    assert names(page) == seen
    expect(page.get_by_label("Metric")).to_have_value("l2")
    another = windows.open(page.url)
    assert names(another) == seen
    expect_query_in_view(another)


def test_the_sql_is_copied(windows: Windows, album: Album) -> None:
    page = windows.open(album.address(), permissions=["clipboard-read", "clipboard-write"])
    # A change of the fragment is no other question: the page stays where it was led.
    statement = page.locator("#statement")
    statement.evaluate("element => { element.kept = true; }")
    page.get_by_role("link", name="SQL", exact=True).click()
    expect(statement).to_be_in_viewport()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == statement.text_content()
    page.wait_for_load_state("networkidle")
    assert statement.evaluate("element => element.kept") is True


def test_near_duplicates(windows: Windows) -> None:
    page = windows.open()
    page.get_by_role("link", name="Near-duplicates").click()
    page.get_by_label("Cut-off").fill("0.0001")
    page.get_by_label("Cut-off").press("Enter")
    expect(page.locator(".group")).to_have_count(1)
    assert sorted(names(page)) == ["00.png", "11.png"]
    expect(page.locator(".badge")).to_have_count(0)
    page.get_by_label("Keep").select_option("path")
    expect(page.locator(".badge")).to_have_count(2)
    marks = dict(zip(names(page), page.locator(".badge").all_inner_texts(), strict=True))
    assert marks == {"00.png": "keep", "11.png": "could go"}
    expect(page.locator(".hint")).to_contain_text("--keep path")
    page.get_by_label("Keep").select_option("newest")
    expect(page.locator(".hint")).to_contain_text("--keep newest")
    marks = dict(zip(names(page), page.locator(".badge").all_inner_texts(), strict=True))
    assert marks == {"00.png": "could go", "11.png": "keep"}
    page.go_back()
    expect(page.get_by_label("Keep")).to_have_value("path")
    hits(page).first.locator(".tile").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("00.png")
