"""The page's addresses over a real database: each is answered by one search and one look-up."""

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient
from support import once, png
from web_support import Known, ask, client

from vecsearch.collection import Collection
from vecsearch.imaging import reading
from vecsearch.library import Library
from vecsearch.search import execute
from vecsearch.web import pages

pytestmark = once


def distances(page: str) -> list[float]:
    return [float(found) for found in re.findall(r'data-distance="([^"]+)"', page)]


def post(api: TestClient, content: bytes, **values: Any) -> str:
    """Upload a picture and return the address that it leads to."""
    answer = api.post("/", params=values, files={"image": ("a.png", content)})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def spied(monkeypatch: pytest.MonkeyPatch, *watched: tuple[Any, str]) -> Counter[str]:
    """Count the calls of functions."""
    counts: Counter[str] = Counter()

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for owner, name in watched:
        watch(owner, name)
    return counts


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return spied(
        monkeypatch,
        (reading, "bytes_sha256"),
        (Collection, "image_of"),
        (Collection, "ask"),
        (execute, "plan"),
    )


def test_a_new_picture_is_hashed_once_and_looked_up_once_a_request(
    library: Library, photos: Path, small_model: str, weights: Path, counts: Counter[str]
) -> None:
    library.collection().ingest(photos, model=small_model, weights=weights)
    api = client(library)
    counts.clear()
    address = post(api, png(1_000))
    assert parse_qs(urlsplit(address).query).keys() == {"collection", "image"}
    assert counts == {"bytes_sha256": 1, "image_of": 1}
    counts.clear()
    page = api.get(address)
    assert "It is not in the collection images." in page.text
    assert len(distances(page.text)) > 1
    # Its name is its hash, and the search itself looks it up.
    assert counts == {"ask": 1, "plan": 1}
    counts.clear()
    ask(api, image=png(1_000))
    assert counts == {"bytes_sha256": 1, "ask": 1, "plan": 1}


def test_a_stored_picture_that_is_uploaded_is_asked_about_by_its_id(
    api: TestClient, known: list[Known], counts: Counter[str]
) -> None:
    address = post(api, known[3].path.read_bytes(), metric="l2", max_distance=1, k=5)
    assert parse_qs(urlsplit(address).query) == {
        "collection": ["images"],
        "id": [known[3].id],
        "metric": ["l2"],
        "k": ["5"],
    }
    assert counts == {"bytes_sha256": 1, "image_of": 1}
    counts.clear()
    assert len(distances(api.get(address).text)) == 5
    assert counts == {"ask": 1, "plan": 1}


def test_a_picture_that_was_ingested_after_its_upload_is_shown_as_the_stored_one(
    library: Library, photos: Path, small_model: str, weights: Path
) -> None:
    images = library.collection()
    images.ingest(photos, model=small_model, weights=weights)
    api = client(library)
    address = post(api, png(1_000))
    (photos / "cats" / "new.png").write_bytes(png(1_000))
    images.ingest(photos)
    page = api.get(address).text
    assert "It is not in the collection" not in page
    assert "<h1>new.png</h1>" in page


@pytest.mark.parametrize("name", ["max_distance", "min_similarity"])
def test_a_cut_off_takes_one_search_and_its_slider_has_the_range_of_all_hits(
    api: TestClient, known: list[Known], counts: Counter[str], name: str
) -> None:
    plain = api.get("/", params={"id": known[0].id}).text
    everything = distances(plain)
    limit = (everything[9] + everything[10]) / 2
    counts.clear()
    value = limit if name == "max_distance" else 1 - limit
    page = api.get("/", params={"id": known[0].id, name: value}).text
    assert counts == {"ask": 1, "plan": 1}
    assert distances(page) == everything[:10]
    farthest = re.findall(r'data-max="([^"]+)"', plain)
    assert re.findall(r'data-max="([^"]+)"', page) == farthest
    # The statement that is shown has the cut-off.
    assert re.search(r"distance &lt;= 0\.\d+", page)
    nothing = api.get("/", params={"id": known[0].id, "max_distance": 0, "exclude_self": True}).text
    assert distances(nothing) == []
    assert "No image is within the cut-off" in nothing
    assert re.findall(r'data-max="([^"]+)"', nothing) == farthest


def test_cut_offs_that_make_no_sense_are_refused(api: TestClient, known: list[Known]) -> None:
    both = api.get("/", params={"id": known[0].id, "max_distance": 1, "min_similarity": 0})
    assert (both.status_code, "not both" in both.text) == (400, True)
    by_l2 = api.get("/", params={"id": known[0].id, "metric": "l2", "min_similarity": 0})
    assert (by_l2.status_code, "not for l2" in by_l2.text) == (400, True)


def test_the_form_stays_when_a_question_is_refused(api: TestClient, known: list[Known]) -> None:
    stored = known[0].id
    questions: list[tuple[dict[str, str], str]] = [
        ({"label": "nope"}, "no image with the label"),
        ({"id": stored, "label": "nope"}, "no image with the label"),
        ({"id": stored, "max_distance": "1", "min_similarity": "0"}, "not both"),
    ]
    for question, sentence in questions:
        page = api.get("/", params=question)
        assert (page.status_code, sentence in page.text) == (400, True)
        assert '<form id="question"' in page.text
        assert ('<a class="button" href="/?collection=images">Show all images</a>') in page.text
        assert ("Clear the filters</a></p>\n<p>" in page.text) == ("label" in question)
    address = post(api, known[3].path.read_bytes(), label="nope")
    assert parse_qs(urlsplit(address).query)["label"] == ["nope"]


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        ({"files": {"image": ("x.png", b"no picture")}}, 415, "Not an image, or "),
        ({"files": {"image": ("x.png", b"")}}, 415, "The file is empty."),
        ({"files": {"image": ("x.png", b"")}, "data": {"text": "crab"}}, 415, "The file is empty."),
        ({"files": {"image": ("x.svg", b"<svg/>")}}, 415, "Not an image, or "),
        ({"files": {"image": ("", b"")}}, 422, "Type words, or choose a picture."),
        ({"data": {"text": "  "}}, 422, "Type words, or choose a picture."),
    ],
)
def test_what_cannot_be_searched_for_leaves_the_question_as_it_was(
    api: TestClient, known: list[Known], sent: dict[str, Any], status: int, sentence: str
) -> None:
    for asked in ({"id": known[3].id}, {}):
        page = api.post("/", params=asked, **sent)
        assert page.status_code == status
        [problem] = re.findall(
            r'id="upload-error" class="problem" role="alert">([^<]+)<', page.text
        )
        assert sentence in problem
        assert bool(distances(page.text)) == bool(asked)
        assert f'value="{known[3].id}"' in page.text or not asked


def test_words_that_are_a_label_lead_to_its_images(api: TestClient, known: list[Known]) -> None:
    link = 'href="/?collection=images&amp;label=label+1">show them</a>'
    for text in ("label 1", "Label 1", "LABEL_1", "lABEL 1"):
        answer = api.get("/", params={"text": text})
        assert answer.status_code == 400
        assert f"7 images have the label label 1: <a {link}" in answer.text
    near = api.get("/", params={"text": "labbel 1"})
    assert "The closest labels:" in near.text
    assert 'label=label+1">label 1</a>' in near.text
    # Commands are for whoever has a terminal.
    assert "vecsearch concepts" not in near.text
    wrong = api.get("/", params={"label": "LABEL 1", "id": known[0].id})
    assert f'label=label+1&amp;id={known[0].id}">label 1</a>' in wrong.text


def test_browsing_says_how_many_and_goes_back(
    api: TestClient, known: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "BROWSED", 3)

    def ids(page: str) -> list[str]:
        return re.findall(r'images/([0-9a-f-]{36})/thumbnail"', page)

    def follow(page: str, words: str) -> str:
        [address] = re.findall(rf'href="([^"]+)">{words}</a>', page)
        return str(api.get(address.replace("&amp;", "&")).text)

    first = api.get("/").text
    assert f"<strong>{len(known)} images</strong>, 3 on this page" in first
    assert "Previous" not in first
    second = follow(first, "Next")
    third = follow(second, "Next")
    assert ids(first) + ids(second) + ids(third) == sorted(each.id for each in known)[:9]
    assert ids(follow(third, "Previous")) == ids(second)
    assert ids(back := follow(follow(third, "Previous"), "Previous")) == ids(first)
    assert ("Previous" in back, "Next" in back) == (False, True)
    assert ids(follow(third, "First")) == ids(first)
    some = api.get("/", params={"min_width": known[0].width, "max_width": known[0].width}).text
    count = sum(each.width == known[0].width for each in known)
    assert f"<strong>{count} of {len(known)} images</strong>" in some
    empty = api.get("/", params={"min_width": 200, "max_width": 100})
    assert (empty.status_code, "200, is more than the largest, 100" in empty.text) == (400, True)
    days = api.get("/", params={"date_from": "2024-05-07", "date_to": "2024-05-06"})
    assert (days.status_code, "The first day, 2024-05-07, is after" in days.text) == (400, True)


def test_what_only_excludes_can_be_taken_back(api: TestClient, known: list[Known]) -> None:
    page = api.get("/", params={"not_id": known[0].id})
    assert page.status_code == 400
    [address] = re.findall(r'class="remove" href="([^"]+)"', page.text)
    assert address == "/?collection=images"


def test_compact_vectors_are_offered_where_there_are_some(api: TestClient) -> None:
    page = api.get("/").text
    assert 'name="metric"' in page
    assert 'name="ranking"' not in page


def test_names_that_are_typed(api: TestClient, known: list[Known]) -> None:
    names = [known[2].id, f" {known[2].id} ", str(known[2].path), known[2].path.name]
    for name in [*names, f"{known[2].path.parent.name}/{known[2].path.name}"]:
        assert f"<h1>{known[2].path.name}</h1>" in api.get("/", params={"id": name}).text
    for name, sentence in (
        ("%.png", "has no image"),
        ("/nowhere.png", "has no image /nowhere.png"),
    ):
        page = api.get("/", params={"id": name})
        assert (page.status_code, sentence in page.text) == (404, True)
        # What was typed can be corrected.
        assert f'type="search" value="{name}"' in page.text
        assert 'name="id"' not in page.text
    unkept = api.get("/", params={"image": "0" * 64})
    assert (unkept.status_code, "no longer kept" in unkept.text) == (404, True)


def test_the_query_image_is_not_its_own_hit(api: TestClient, known: list[Known]) -> None:
    own = {"id": str(known[3].id)}
    without = api.get("/", params=own).text
    assert distances(without)[0] > 0
    with_it = api.get("/", params={**own, "exclude_self": "false"}).text
    assert distances(with_it)[0] == pytest.approx(0, abs=1e-6)
    assert distances(with_it)[1:] == distances(without)
    assert 'value="false" checked' in with_it


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        ({"k": "many"}, {"text": "crab", "label": "label 1"}),
        ({"k": "many", "metric": "taxi"}, {"text": "crab"}),
        ({"collection": "missing", "id": "x"}, {"text": "crab", "k": "7"}),
    ],
)
def test_the_way_back_from_an_error_keeps_the_rest_of_the_question(
    api: TestClient, wrong: dict[str, str], kept: dict[str, str]
) -> None:
    page = api.get("/", params=wrong | kept)
    assert page.status_code in {404, 422}
    [back] = re.findall(r'href="/[?]([^"]+)">Search without it', page.text)
    assert parse_qs(back.replace("&amp;", "&")) == {name: [value] for name, value in kept.items()}


def test_collections_vanish_appear_and_change_their_names_while_it_runs(
    library: Library, known: list[Known]
) -> None:
    api = client(library)
    own = {"id": known[0].id, "collection": "images"}
    seen = distances(api.get("/", params=own).text)
    library.collection().rename("other")
    gone = api.get("/", params={**own, "text": "crab"})
    assert (gone.status_code, "There is no collection" in gone.text) == (404, True)
    # The words can be asked of another collection, where no id would make sense.
    assert 'href="/?text=crab">Search without it' in gone.text
    renamed = api.get("/", params={**own, "collection": "other"})
    assert distances(renamed.text) == seen
    assert distances(api.get("/", params={"id": known[0].id}).text) == seen
    assert api.get("/duplicates", params={"collection": "images"}).status_code == 404
    assert api.get("/duplicates", params={"collection": "other"}).status_code == 200
    library.collection("other").drop()
    empty = api.get("/", params={"collection": "other"})
    assert (empty.status_code, "There are no images yet" in empty.text) == (200, True)


def test_without_a_name_the_first_collection_is_searched(
    library: Library, known: list[Known]
) -> None:
    other = client(library, "missing")
    assert ask(other, id=known[0].id)["collection"] == "images"
    assert "Search images" in other.get("/").text
    assert (
        "no collection 'missing'" in ask(other, 404, id=known[0].id, collection="missing")["detail"]
    )


def test_a_link_may_have_gathered_parameters_that_are_not_ours(
    api: TestClient, known: list[Known]
) -> None:
    gathered = {"id": str(known[3].id), "k": "5", "utm_source": "mail", "fbclid": "x"}
    page = api.get("/", params=gathered)
    assert page.status_code == 200
    assert len(distances(page.text)) == 5
    assert "utm_source" not in page.text
    # No address reaches SQL.
    unasked = api.get("/", params={**gathered, "where": "false"})
    assert distances(unasked.text) == distances(page.text)
    assert api.get("/duplicates", params={"utm_source": "mail"}).status_code == 200
    # A program's mistake is told.
    assert ask(api, 422, id=known[3].id, kk=5)
