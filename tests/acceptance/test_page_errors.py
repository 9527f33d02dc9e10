"""What the page says when it cannot answer, in a real browser."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from acceptance.browser import (
    ALL,
    BIRDS,
    CATS,
    NEW,
    Album,
    Windows,
    drop,
    expect_query_in_view,
    hits,
    names,
    question,
    serving,
)
from acceptance.conftest import Run
from playwright.sync_api import Browser, expect
from servers import initialise, listening, stopped

from vecsearch.web.parameters import PAGE_K


@pytest.mark.parametrize("javascript", [True, False])
@pytest.mark.parametrize("name", ["page.jpg", "drawing.svg"])
def test_what_is_no_picture(windows: Windows, tmp_path: Path, name: str, javascript: bool) -> None:
    file = tmp_path / name
    root = "svg xmlns='http://www.w3.org/2000/svg'" if name.endswith("svg") else "html"
    file.write_text(f"<{root} />")
    page = windows.open("/?collection=cats_only", statuses=[415], java_script_enabled=javascript)
    page.set_input_files("#picture", file)
    if not javascript:
        page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_contain_text("ot an image, or ")
    expect(page.get_by_role("alert")).to_contain_text("Choose another picture.")
    expect(page.get_by_role("heading", level=1)).to_have_text("Search cats_only")
    expect(hits(page)).to_have_count(CATS)


@pytest.mark.parametrize("javascript", [True, False])
def test_nothing_to_search_for(windows: Windows, album: Album, javascript: bool) -> None:
    page = windows.open(album.address(), statuses=[422], java_script_enabled=javascript)
    field = page.get_by_label("Words, or an image")
    field.fill("  ")
    field.press("Enter")
    if javascript:
        expect(field).to_be_focused()
    else:
        expect(page.get_by_role("alert")).to_have_text("Type words, or choose a picture.")
    expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
    expect(hits(page)).to_have_count(PAGE_K)


def test_a_file_over_the_limit(windows: Windows, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    file.write_bytes(bytes(20 * 2**20))
    page = windows.open()
    page.set_input_files("#picture", file)
    expect(page.get_by_role("alert")).to_have_text(
        "The file has 20 MB; the limit is 1 MB. Choose a smaller picture."
    )
    expect(hits(page)).to_have_count(ALL)
    # A picture of a good size is then taken, and the sentence is gone.
    drop(page, "new.png", NEW)
    page.wait_for_url("**image=*")
    page = windows.open(statuses=[413], java_script_enabled=False)
    page.set_input_files("#picture", file)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "The request is larger than 1 MB, the limit here. Send a smaller picture."
    )


def test_an_empty_collection(windows: Windows) -> None:
    page = windows.open("/?collection=bare")
    expect(page.get_by_role("heading", level=2)).to_have_text("bare has no images")
    expect(page.locator("pre")).to_have_text("vecsearch ingest FOLDER --collection bare")
    drop(page, "new.png", NEW)
    page.wait_for_url("**image=*")
    expect(page.locator(".empty")).to_contain_text("bare has no images")
    expect_query_in_view(page)
    page.get_by_role("link", name="Near-duplicates").click()
    expect(page.locator(".summary")).to_contain_text("There are no near-duplicates")


def test_no_collection_until_one_is_made(
    browser: Browser,
    vecsearch: Run,
    data_dir: Path,
    environment: dict[str, str],
    album: Album,
    small_model: str,
    weights: Path,
) -> None:
    with serving({**environment, "VECSEARCH_DATA_DIR": str(data_dir)}) as url:
        windows = Windows(browser, url)
        page = windows.open()
        expect(page.get_by_role("heading", level=1)).to_have_text("There are no images yet")
        expect(page.locator("pre")).to_have_text("vecsearch ingest FOLDER")
        page.get_by_role("link", name="Near-duplicates").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("There are no images yet")
        encoder = ("--model", small_model, "--weights", weights)
        vecsearch("ingest", album.folder / "birds", *encoder)
        page.get_by_role("link", name="vecsearch").click()
        expect(hits(page)).to_have_count(BIRDS)
        drop(page, "new.png", NEW)
        page.wait_for_url("**image=*")
        expect(hits(page)).to_have_count(BIRDS)
        windows.close()
    # Ctrl-C ends the embedded server, too.
    assert not (data_dir / "postgres/postmaster.pid").exists()


def test_ctrl_c_may_come_at_once(album: Album, environment: dict[str, str]) -> None:
    settings = {**environment, "VECSEARCH_DATA_DIR": str(album.data_dir)}
    with serving(settings):
        pass


def test_the_database_goes_and_comes_back(
    browser: Browser,
    vecsearch: Run,
    environment: dict[str, str],
    album: Album,
    small_model: str,
    weights: Path,
    tmp_path: Path,
) -> None:
    handle = initialise(tmp_path / "postgres", 18)
    with ExitStack() as stack:
        database = stack.enter_context(listening(handle))
        settings = {"VECSEARCH_DATABASE_URL": database}
        encoder = ("--model", small_model, "--weights", weights)
        vecsearch("ingest", album.folder / "birds", *encoder, **settings)
        data_dir = str(tmp_path / "data")
        url = stack.enter_context(
            serving({**environment, **settings, "VECSEARCH_DATA_DIR": data_dir})
        )
        windows = Windows(browser, url)
        page = windows.open(statuses=[503])
        hits(page).first.locator(".tile").click()
        expect(hits(page)).to_have_count(BIRDS - 1)
        before = names(page)
        with stopped(handle, database):
            # A change of the form, a reload, and another page say the same.
            page.get_by_label("Metric").select_option("l2")
            expect(page.get_by_role("heading", level=1)).to_contain_text("Cannot use the database")
            answer = page.reload()
            assert answer is not None
            assert answer.status == 503
            expect(page.get_by_role("heading", level=1)).to_contain_text("Cannot use the database")
            expect(page.locator("main")).not_to_contain_text("Traceback")
        page.get_by_role("link", name="Try again").click()
        expect(hits(page)).to_have_count(BIRDS - 1)
        expect(page.get_by_label("Metric")).to_have_value("l2")
        page.get_by_label("Metric").select_option("cosine")
        expect(page.locator("#statement")).to_contain_text("embedding_distance")
        assert names(page) == before
        windows.close()


def test_a_token(
    browser: Browser,
    vecsearch: Run,
    environment: dict[str, str],
    album: Album,
    data_dir: Path,
) -> None:
    refused = vecsearch("serve", "--host", "0.0.0.0", "--port", "0", status=1)
    assert "--token" in refused.stderr
    # As from a variable that is not set: it must not serve without one.
    refused = vecsearch("serve", "--all-users", "--token", "", "--port", "0", status=1)
    assert "one or more printable" in refused.stderr
    settings = {**environment, "VECSEARCH_DATA_DIR": str(album.data_dir)}
    options = ("--host", "0.0.0.0", "--token", "open sesame")
    with serving(settings, *options) as url:
        windows = Windows(browser, url.replace("0.0.0.0", "127.0.0.1"))
        page = windows.open(album.address(metric="l2"), statuses=[401])
        expect(page.get_by_role("heading", level=1)).to_have_text(
            "This server needs a token. Ask whoever started it."
        )
        expect(page.locator("img")).to_have_count(0)
        field = page.get_by_label("Token")
        expect(field).to_be_focused()
        field.fill("open barley")
        field.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("Wrong token.")
        field.fill("open sesame")
        field.press("Enter")
        # It leads to where somebody wanted to go, and is not asked for again.
        expect(page.get_by_role("heading", level=1)).to_have_text("03.png")
        assert question(page)["metric"] == "l2"
        expect_query_in_view(page)
        page.reload()
        expect(hits(page)).to_have_count(PAGE_K)
        [cookie] = page.context.cookies()
        assert cookie["httpOnly"]
        assert "sesame" not in cookie["value"]
        page = windows.open(f"{album.address(k='100')}&token=open+sesame")
        expect(hits(page)).to_have_count(ALL - 1)
        assert "token" not in page.url
        assert question(page)["k"] == "100"
        page = windows.open("/?token=wrong", statuses=[401])
        expect(page.get_by_label("Token")).to_be_visible()
        windows.close()
