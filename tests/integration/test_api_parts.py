"""Questions of several parts: the API and the page find the rows that `Collection.query` finds."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient
from support import once, png
from web_support import ask, client

from vecsearch.collection import Collection
from vecsearch.errors import ImageNotFound, Unclear
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id
from vecsearch.search.questions.pictures import Crop
from vecsearch.search.questions.terms import Term, terms

pytestmark = once
ONE, OTHER, NEW = png(1_001), png(1_002), png(1_003)


@pytest.fixture
def images(library: Library, photos: Path, small_model: str, weights: Path) -> Collection:
    library.collection().ingest(photos, model=small_model, weights=weights)
    return library.collection()


@pytest.fixture
def api(images: Collection, library: Library) -> TestClient:
    return client(library)


@pytest.fixture
def ids(photos: Path) -> list[str]:
    return [str(image_id(str(path))) for path in sorted(photos.rglob("*.png"))]


def shown(page: str) -> list[tuple[str, float]]:
    """Return the file names and the distances of the hits on a page."""
    names = re.findall(r'<span class="name" title="([^"]+)"', page)
    found = re.findall(r'data-distance="([^"]+)"', page)
    return list(zip(names, map(float, found), strict=True))


def keep(api: TestClient, content: bytes) -> str:
    """Upload a picture to the page, and return its name there."""
    [name] = parts(api.post("/", files={"image": ("x.png", content)}))["image"]
    return name


def parts(answer: Any) -> dict[str, list[str]]:
    """Return what the address asks for to which a form leads."""
    assert answer.status_code == 303, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)


def linked(page: str, label: str) -> dict[str, list[str]]:
    """Return what the link of this label asks for."""
    [address] = re.findall(rf'href="([^"]+)" aria-label="{label}"', page)
    return parse_qs(urlsplit(address.replace("&amp;", "&")).query)


def test_every_form_finds_the_rows_that_the_collection_finds(
    api: TestClient, images: Collection, ids: list[str]
) -> None:
    a, b, c = ids[:3]
    crop = Crop(8, 4, 30, 20)
    cases: list[tuple[dict[str, Any], list[Term], dict[str, Any]]] = [
        (
            {"id": [a, b], "not_id": [c]},
            [*terms(ids=[a, b]), *terms(ids=[c], sign=-1)],
            {},
        ),
        (
            {"id": f"3:{a}", "text": "0.5:goldfish", "not_text": ["crab", "2:snail"]},
            [
                Term(id=a, weight=3),
                Term(text="goldfish", weight=0.5),
                Term(text="crab", weight=-1),
                Term(text="snail", weight=-2),
            ],
            {},
        ),
        (
            {"image": [ONE, OTHER], "image_weight": [2, 1], "not_image": NEW},
            [Term(ONE, weight=2), Term(OTHER), Term(NEW, weight=-1)],
            {},
        ),
        ({"id": a, "crop": str(crop)}, [Term(id=a, crop=crop)], {}),
        (
            {"image": ONE, "id": a, "crop": str(crop)},
            [Term(ONE, crop=crop), Term(id=a)],
            {},
        ),
        ({"id": [a, b], "expand": 3}, terms(ids=[a, b]), {"expand": 3}),
    ]
    seen = []
    for fields, asked, options in cases:
        expected = images.query(terms=asked, k=7, **options)
        distances = pytest.approx([hit.distance for hit in expected], abs=1e-5)
        answer = ask(api, k=7, **fields)
        assert [hit["id"] for hit in answer["hits"]] == [str(hit.id) for hit in expected]
        assert [hit["distance"] for hit in answer["hits"]] == distances
        assert answer["concepts"] == list(expected.concepts)
        assert answer["expansion"] == options.get("expand", 0)
        # On the page, a file is named by its hash, with its weight before it.
        files = fields.get("image", [])
        files = files if isinstance(files, list) else [files]
        weights = fields.pop("image_weight", [1] * len(files))
        named = [f"{w}:{keep(api, each)}" for w, each in zip(weights, files, strict=True)]
        fields["image"] = named
        if "not_image" in fields:
            fields["not_image"] = keep(api, fields["not_image"])
        page = api.get("/", params={"k": 7, "exclude_self": False, **fields}).text
        names, page_distances = zip(*shown(page), strict=True)
        assert list(names) == [hit.path for hit in expected]
        assert list(page_distances) == distances
        seen.append([hit.path for hit in expected])
    # Each part counts, or two cases would agree.
    assert len(set(map(tuple, seen))) == len(cases)


def test_what_cannot_be_asked_is_refused_in_words(
    api: TestClient, ids: list[str], photos: Path
) -> None:
    a, b = ids[:2]
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"image": ONE, "image_weight": [1, 2]}, 400, "a weight for each file"),
        ({"image": ONE, "image_weight": [0]}, 422, "give a number above 0, up to 1,000."),
        ({"id": f"0:{a}"}, 400, "The weight of .* is 0. Give a number above 0"),
        ({"id": f"1001:{a}"}, 400, "up to 1000"),
        ({"id": [a] * 51}, 422, "^id: .* at most 50"),
        ({"not_id": a}, 400, "only says what hits should be unlike"),
        ({"id": a, "not_id": a}, 400, "cancel each other out"),
        ({"id": [a, b], "metric": "l2"}, 400, "compared by cosine, not by l2. Omit the metric"),
        ({"id": a, "expand": 101}, 422, "^expand: "),
        ({"id": "x"}, 422, "^id.0: it is not an id, such as "),
        ({"id": a, "ranking": "compact"}, 400, "no compact vectors that rank"),
        ({"id": a, "crop": "1,2,3"}, 400, "'1,2,3' is no crop"),
        ({"id": a, "crop": "60,0,10,10"}, 400, "not within the picture, which has 64 × 48"),
        ({"text": "goldfish", "crop": "0,0,1,1"}, 400, "A crop is a part of a picture, not of"),
    ]
    for fields, status, sentence in cases:
        said = ask(api, status, **fields)["detail"]
        assert re.search(sentence, said), (fields, said)
        assert "--" not in said.replace("--collection", "")
    # Of a stored image the file is read, if it is the one that was ingested.
    [path] = [path for path in photos.rglob("*.png") if str(image_id(str(path))) == a]
    ask(api, id=a, crop="0,0,20,20")
    path.write_bytes(path.read_bytes() + b"!")
    assert "changed since" in ask(api, 400, id=a, crop="0,0,20,20")["detail"]
    path.unlink()
    os.mkfifo(path)
    refused = api.get("/", params={"id": a, "crop": "0,0,20,20"})
    assert refused.status_code == 400
    assert "No part of this image can be searched by" in refused.text
    assert '<form id="question"' in refused.text
    assert ask(api, id=a)["hits"][0]["id"] == a


def test_links_add_exclude_and_remove(api: TestClient, ids: list[str]) -> None:
    a, b = ids[0], ids[5]
    asked: dict[str, Any] = {
        "id": a,
        "crop": "0,0,20,20",
        "max_distance": 9,
        "metric": "cosine",
        "label": "cats",
    }
    kept = {"collection": ["images"], "crop": ["0,0,20,20"], "label": ["cats"]}
    page = api.get("/", params=asked).text
    name = re.findall(rf'id={b}" aria-label="Add (.*) to the question"', page)[0]
    assert linked(page, f"Add {name} to the question") == {**kept, "id": [a, b]}
    assert linked(page, f"Exclude what is like {name}") == {**kept, "id": [a], "not_id": [b]}
    # Of the question itself, the hits say that it is in it.
    own = name_of(api.get("/", params={"id": b}).text, a)
    page = api.get("/", params={**asked, "exclude_self": False}).text
    assert '<span class="soft">in the question</span>' in page
    assert f"Add {own} to the question" not in page
    page = api.get("/", params={"id": [a, f"2:{b}"], "crop": "0,0,20,20", "text": "crab"}).text
    rest = {"collection": ["images"], "text": ["crab"]}
    assert linked(page, f"Remove {name}") == {**rest, "crop": ["0,0,20,20"], "id": [a]}
    # A crop goes with its picture.
    assert linked(page, f"Remove {own}") == {**rest, "id": [f"2:{b}"]}
    # What is added is no longer excluded, and the other way about.
    excluded = api.post("/", params={"id": [a, b]}, data={"text": b, "part": "exclude"})
    assert parts(excluded) == {"collection": ["images"], "id": [a], "not_id": [b]}


def name_of(page: str, id_: str) -> str:
    [path] = re.findall(rf'id={id_}" title="[^"]*\n([^"\n]+)"', page)
    return Path(path).name


def test_what_is_typed_or_uploaded_may_be_added(api: TestClient, ids: list[str]) -> None:
    a = ids[0]
    before: dict[str, Any] = {"id": a, "crop": "0,0,20,20", "max_distance": 0.5, "k": 5}
    rest = {"collection": ["images"], "k": ["5"]}
    words = {"text": " 2:crab ", "part": "add"}
    assert parts(api.post("/", params=before, data=words)) == {
        **rest,
        "id": [a],
        "crop": ["0,0,20,20"],
        "text": ["2:crab"],
    }
    new = parts(api.post("/", params=before, data={"text": ids[1]}))
    assert new == {**rest, "id": [ids[1]]}
    file = {"image": ("x.png", NEW)}
    # The crop is of the first picture, and uploads come before stored images.
    added = parts(api.post("/", params=before, files=file, data={"part": "add"}))
    assert added == {**rest, "id": [a], "image": [keep(api, NEW)]}
    unlike = parts(api.post("/", params=before, files=file, data={"part": "exclude"}))
    assert unlike == {**rest, "id": [a], "crop": ["0,0,20,20"], "not_image": added["image"]}
    for address in (added, unlike):
        assert len(shown(api.get("/", params=address).text)) == 5


def test_the_end_of_a_path_names_an_image_if_it_is_the_only_one(
    api: TestClient, images: Collection, photos: Path
) -> None:
    one = min(photos.rglob("*.png"))
    other = photos / "others" / one.name
    other.parent.mkdir()
    other.write_bytes(ONE)
    images.ingest(photos)
    twins = [str(one), str(other)]
    end = f"{one.parent.name}/{one.name}"
    for name in (end, f"./{end}"):
        assert images.query(id=name, k=1).hits[0].path == str(one)
        assert images.image(name).path == str(one)
    assert f"<h1>{one.name}</h1>" in api.get("/", params={"id": end}).text
    assert parts(api.post("/", data={"text": end}))["id"] == [end]
    with pytest.raises(Unclear, match=f"{len(twins)} paths .* end in {one.name}") as error:
        images.query(id=one.name)
    assert error.value.near == {"paths": twins}
    page = api.get("/", params={"id": one.name})
    assert page.status_code == 400
    for twin in twins:
        assert f'">{twin}</a></li>' in page.text
    # No part of a name, and no pattern.
    for name in (one.name[1:], "%.png", "_" * len(one.name), "../" + end, "", "/" + end):
        with pytest.raises(ImageNotFound):
            images.query(id=name)
