"""The map of a collection: its table, the API's answer, the page."""

import math
import re
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from support import (
    Corpus,
    PixelEncoder,
    clustered,
    every_server,
    ingest,
    make_corpus,
    run_command,
    scalar,
    store_concepts,
    write,
)
from web_support import Known, client

from vecsearch.errors import CollectionNotFound, InvalidInput
from vecsearch.library import Library
from vecsearch.web import api, pages

Place = tuple[float, float]


def places(library: Library) -> dict[uuid.UUID, Place]:
    with library.sql("SELECT id, x, y FROM images_map") as (_, rows, _):
        return {id_: (x, y) for id_, x, y in rows}


def two_kinds() -> np.ndarray:
    """Return 40 vectors of one kind, and 20 of another."""
    random = np.random.default_rng(7)
    centres = np.eye(2, 24) * 4 + 1
    vectors = np.repeat(centres, [40, 20], axis=0) + random.normal(0, 0.2, (60, 24))
    return np.maximum(vectors, 0.001).astype(np.float16).astype(np.float64)


@every_server
def test_the_same_images_have_the_same_map_and_kinds_are_apart(library: Library) -> None:
    corpus = make_corpus(library, "images", two_kinds())
    chosen = library.collection()
    (done,) = chosen.refresh(["map"])
    assert (done.view, done.rows, done.images) == ("images_map", 60, 60)
    first = places(library)
    assert first.keys() == {*corpus.ids}
    kinds = [[first[id_] for id_ in corpus.ids[:40]], [first[id_] for id_ in corpus.ids[40:]]]
    centres = [np.mean(kind, axis=0) for kind in kinds]
    apart = math.dist(*centres)
    for kind, centre in zip(kinds, centres, strict=True):
        assert max(math.dist(place, centre) for place in kind) < apart / 3
    # Nothing of the order in which rows were written, or of what the table had, is left in it.
    write(library, "UPDATE images SET metadata = '{}' WHERE width % 3 = 0")
    chosen.refresh(["map"])
    assert places(library) == first


def test_a_sign_does_not_depend_on_one_image(library: Library) -> None:
    corpus = make_corpus(library, "images", two_kinds())
    chosen = library.collection()
    chosen.refresh(["map"])
    before = places(library)
    for gone in corpus.ids[:6]:
        write(library, "DELETE FROM images WHERE id = :id", id=gone)
        chosen.refresh(["map"])
        after = places(library)
        assert all(math.dist(after[id_], before[id_]) < 0.2 for id_ in after)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_images_have_a_map(library: Library, count: int) -> None:
    make_corpus(library, "images", clustered(max(count, 1), 8, seed=2))
    if count == 0:
        write(library, "DELETE FROM images")
    (done,) = library.collection().refresh(["map"])
    assert (done.rows, done.images) == (count, count)
    found = list(places(library).values())
    assert np.isfinite(found).all()
    if count == 2:
        assert math.dist(*found) > 0.01


def test_equal_embeddings_are_at_one_place(library: Library) -> None:
    make_corpus(library, "images", np.repeat(clustered(1, 8, seed=2), 30, axis=0))
    library.collection().refresh(["map"])
    assert {*places(library).values()} == {(0.0, 0.0)}


def test_images_come_and_go_without_a_place_until_the_next_refresh(library: Library) -> None:
    corpus = make_corpus(library, "images", two_kinds())
    chosen = library.collection()
    chosen.refresh(["map"])
    write(library, "DELETE FROM images WHERE id = :id", id=corpus.ids[0])
    write(
        library,
        "INSERT INTO images (id, path, label, embedding)"
        " SELECT gen_random_uuid(), '/new.png', '', embedding FROM images LIMIT 1",
    )
    found = chosen.map(points=1_000)
    assert (found.images, found.placed, len(found.ids)) == (60, 59, 59)
    assert corpus.ids[0] not in found.ids
    page = client(library).get("/map").text
    assert "1 image added later is not on the map" in page
    assert "<code>vecsearch refresh map</code>" in page
    chosen.refresh(["map"])
    assert chosen.map(points=0).placed == 60


def test_the_command_says_what_it_needs(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    make_corpus(library, "images", two_kinds())
    monkeypatch.setitem(sys.modules, "umap", None)
    status, _, said = run_command(library, "refresh", "map", "--layout", "umap")
    assert status == 1
    assert "pip install 'vecsearch[umap]'" in said
    assert places(library) == {}
    status, _, said = run_command(library, "refresh", "--layout", "pca")
    assert status == 1
    assert "Name: neighbours duplicates map" in said
    with pytest.raises(InvalidInput, match="Unknown layout 'tsne'"):
        library.collection().refresh(["map"], layout="tsne")
    status, out, _ = run_command(library, "refresh", "map")
    assert status == 0
    assert '"rows": 60' in out
    write(library, "DELETE FROM images WHERE width > 10")
    with pytest.raises(InvalidInput, match="at least 20 images"):
        library.collection().refresh(["map"], layout="umap")
    assert len(scalar(library, "SELECT array_agg(id) FROM vecsearch_internal.map")) == 60


def test_clusters_are_named_by_the_concept_nearest_to_their_centre(library: Library) -> None:
    vectors = two_kinds()
    make_corpus(library, "images", vectors)
    chosen = library.collection()
    names = "SELECT string_agg(DISTINCT cluster || ' ' || coalesce(name, '?'), ', ')"
    names += " FROM images_clusters"
    chosen.refresh(["clusters"], clusters=2)
    assert scalar(library, names) == "1 ?, 2 ?"
    # The longest vector is not the nearest.
    weights = np.stack([vectors[50], vectors[3] / 10, np.ones(24) * 9]).astype(np.float16)
    store_concepts(library, ["owl", "cat", "all"], weights, [0, 0, 9])
    chosen.refresh(["clusters"])
    assert scalar(library, names) == "1 cat, 2 owl"


@pytest.fixture
def mapped(library: Library, known: list[Known]) -> TestClient:
    library.collection().refresh(["map", "clusters"], clusters=2)
    return client(library)


def test_the_api_has_each_point_with_its_label(
    mapped: TestClient, library: Library, known: list[Known]
) -> None:
    found = mapped.get("/api/collections/images/map").json()
    assert [found[key] for key in ("images", "placed", "all_groups")] == [20, 20, 3]
    groups = [(group["name"], group["images"]) for group in found["groups"]]
    assert groups == [("label 0", 7), ("label 1", 7), ("label 2", 6)]
    label_of = {one.id: one.path.parent.name for one in known}
    stored = places(library)
    for id_, x, y, group in zip(*(found[key] for key in ("ids", "x", "y", "group")), strict=True):
        assert groups[group][0] == label_of.pop(id_)
        assert (x, y) == pytest.approx(stored[uuid.UUID(id_)], abs=1e-5)
    assert not label_of


def test_the_api_has_each_point_with_its_cluster(mapped: TestClient, library: Library) -> None:
    alone = "SELECT id FROM images WHERE path LIKE '%00.png'"
    write(library, f"DELETE FROM vecsearch_internal.clusters WHERE id = ({alone})")
    found = mapped.get("/api/collections/images/map", params={"colour": "cluster"}).json()
    assert {group["cluster"] for group in found["groups"]} == {1, 2, None}
    with library.sql("SELECT id, cluster, distance FROM images_clusters") as (_, rows, _):
        clusters = {str(id_): (cluster, distance) for id_, cluster, distance in rows}
    for id_, group in zip(found["ids"], found["group"], strict=True):
        assert found["groups"][group]["cluster"] == clusters.get(id_, (None,))[0]
    for group in found["groups"]:
        if group["cluster"]:
            own = {id_: at for id_, (of, at) in clusters.items() if of == group["cluster"]}
            assert (len(own), group["image"]) == (group["images"], min(own, key=own.__getitem__))


def test_a_cluster_has_a_page_of_its_images_the_nearest_to_its_centre_first(
    mapped: TestClient, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "BROWSED", 4)
    with library.sql("SELECT id FROM images_clusters WHERE cluster = 1 ORDER BY distance, id") as (
        _,
        rows,
        _,
    ):
        members = [str(id_) for (id_,) in rows]
    link = re.search(r'href="(/map/cluster[^"]+cluster=1)"', mapped.get("/map?colour=cluster").text)
    assert link is not None
    shown: list[str] = []
    address: str | None = link[1].replace("&amp;", "&")
    while address:
        text = mapped.get(address).text
        assert f"{len(members)} images are in this cluster of images" in text
        shown += re.findall(r'images/([0-9a-f-]{36})/thumbnail"', text)
        onward = re.search(r'href="([^"]+)">Next<', text)
        address = onward and onward[1].replace("&amp;", "&")
    assert shown == members
    for wrong, status in (("9", 400), ("0", 422), ("x", 422)):
        assert mapped.get("/map/cluster", params={"cluster": wrong}).status_code == status


def test_a_large_map_is_a_sample_that_says_so(
    mapped: TestClient, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "POINTS", 6)
    monkeypatch.setattr(pages, "POINTS", 6)
    first = mapped.get("/api/collections/images/map").json()
    assert (first["placed"], len(first["ids"]), len(first["x"])) == (20, 6, 6)
    assert first == mapped.get("/api/collections/images/map").json()
    text = mapped.get("/map").text
    assert re.search(r"<strong>6 images</strong> of 20, chosen at random", text)
    few = library.collection().map(points=20, groups=1)
    assert (len(few.groups), few.all_groups, few.group.count(0), few.group.count(-1)) == (
        1,
        3,
        7,
        13,
    )


def test_places_are_degrees(mapped: TestClient, library: Library, known: list[Known]) -> None:
    address = {"by": "place"}
    refused = mapped.get("/api/collections/images/map", params=address)
    assert refused.status_code == 400
    assert "has a latitude and a longitude" in refused.json()["detail"]
    assert "No image has a place" in mapped.get("/map", params=address).text
    offered = 'by=place">Place</a>'
    assert offered not in mapped.get("/map").text
    assert "No image has a place" in mapped.get("/map").text
    write(library, "UPDATE images SET latitude = 48.2, longitude = 16.4 WHERE width = 40")
    write(library, "UPDATE images SET latitude = 1 WHERE width = 47")
    assert offered in mapped.get("/map").text
    found = mapped.get("/api/collections/images/map", params=address).json()
    assert (found["ids"], found["x"], found["y"]) == ([known[0].id], [16.4], [48.2])
    page = mapped.get("/map", params=address).text
    assert "19 others have no latitude and longitude" in page
    assert "data-place" in page


def test_without_a_map_the_page_says_how_to_make_one(
    library: Library, known: list[Known], tmp_path: Path
) -> None:
    ingest(library.engine, [tmp_path / "photos"], PixelEncoder(), collection="others")
    api_ = client(library)
    for name, command in (
        ("images", "vecsearch refresh map"),
        ("others", "vecsearch refresh map --collection others"),
    ):
        page = api_.get("/map", params={"collection": name})
        assert page.status_code == 200
        assert f"<pre>{command}</pre>" in page.text
        refused = api_.get(f"/api/collections/{name}/map")
        assert refused.status_code == 400
        assert refused.json()["detail"].endswith(f"Run: {command}")
    assert places(library) == {}
    assert api_.get("/api/collections/nothing/map").status_code == 404
    with pytest.raises(CollectionNotFound):
        library.collection("nothing").map(points=1)
    library.collection("others").refresh(["map"])
    uncoloured = api_.get("/map", params={"collection": "others", "colour": "cluster"}).text
    assert "<pre>vecsearch refresh clusters --collection others</pre>" in uncoloured
    write(library, "DELETE FROM others")
    assert api_.get("/api/collections/others/map").json()["ids"] == []
    assert "others has no images" in api_.get("/map", params={"collection": "others"}).text


def test_odd_labels_are_links_that_lead_to_them(library: Library, corpus_of_odd: Corpus) -> None:
    library.collection().refresh(["map"])
    api_ = client(library)
    page = api_.get("/map").text
    assert "<b>" not in page
    links = re.findall(r'data-name="\d+" href="([^"]+)">', page)
    # Those without a label have no page of their own.
    assert re.search(r'<span data-name="0">no label</span>\s+<span class="soft">2</span>', page)
    assert len(links) == 2
    for link in links:
        found = api_.get(link.replace("&amp;", "&"))
        assert found.status_code == 200, link
        assert found.text.count("<figcaption>") == 1, link


@pytest.fixture
def corpus_of_odd(library: Library) -> Corpus:
    corpus = make_corpus(library, "images", clustered(4, 8, seed=1))
    for position, label in enumerate(["<b>&\"'", "a b+c%2f#?é", "", ""]):
        write(library, f"UPDATE images SET label = :label WHERE width = {position}", label=label)
    return corpus
