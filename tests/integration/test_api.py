"""The JSON API, over a real database."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from servers import free_port
from starlette.testclient import TestClient
from support import once
from web_support import NOTHING, Known, ask, client

from vecsearch.config import Settings
from vecsearch.imaging import reading
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.web.parameters import QueryForm
from vecsearch.web.site import SESSION

pytestmark = once


def cosine(one: Any, other: Any) -> float:
    norms = float((one @ one) ** 0.5 * (other @ other) ** 0.5)
    return 1 - float(one @ other) / norms


def test_a_query_returns_the_nearest_and_how_it_found_them(
    api: TestClient, known: list[Known]
) -> None:
    answer = ask(api, id=known[4].id, k=7)
    nearest = sorted(known, key=lambda image: cosine(image.vector, known[4].vector))[:7]
    assert [hit["path"] for hit in answer["hits"]] == [str(image.path) for image in nearest]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5, 6, 7]
    for hit, image in zip(answer["hits"], nearest, strict=True):
        distance = cosine(image.vector, known[4].vector)
        assert hit["distance"] == pytest.approx(distance, abs=2e-3)
        assert hit["similarity"] == pytest.approx(1 - hit["distance"])
        assert (hit["width"], hit["height"]) == (image.width, image.height)
        assert hit["label"] == image.path.parent.name
    assert answer["collection"] == "images"
    assert answer["metric"] == "cosine"
    assert answer["candidates"] is None
    assert answer["seconds"] > 0
    assert answer["sql"].startswith("BEGIN;")
    assert "embedding" not in answer["hits"][0]


def test_sql_names_vectors_unless_they_are_asked_for(
    api: TestClient, library: Library, known: list[Known]
) -> None:
    parts: dict[str, Any] = {"id": [known[0].id, known[1].id], "k": 3}
    short, full = (ask(api, **parts, full_sql=is_full)["sql"] for is_full in (False, True))
    assert "CAST(:'q1' AS HALFVEC(" in short
    [vector] = re.findall(r"'\[[^']+\]'", full)
    assert short.replace(":'q1'", vector) == full
    with library.engine.connect() as connection:
        connection.exec_driver_sql(full)
    # A stored image needs no vector.
    assert ask(api, id=known[0].id)["sql"] == ask(api, id=known[0].id, full_sql=True)["sql"]


def test_a_picture_of_the_collection_is_found_by_its_bytes(
    api: TestClient, known: list[Known]
) -> None:
    # No encoder could be loaded for this collection: its stored embedding is used.
    by_bytes = ask(api, image=known[3].path.read_bytes(), k=5)
    assert by_bytes["hits"] == ask(api, id=known[3].id, k=5)["hits"]
    other = known[3].path.read_bytes() + b"!"
    assert "pixels" in ask(api, 409, image=other)["detail"]


def test_a_new_picture_is_embedded(
    library: Library, photos: Path, small_model: str, weights: Path
) -> None:
    library.collection().ingest(photos, model=small_model, weights=weights)
    api = client(library)
    file = photos / "cats" / "01.png"
    answer = ask(api, image=file.read_bytes() + b"!", k=3)
    assert answer["hits"][0]["path"] == str(file)
    assert answer["hits"][0]["distance"] == pytest.approx(0, abs=1e-3)
    assert "vecsearch_encoder_pictures_total 1.0" in api.get("/api/metrics").text
    assert ask(api, image=file.read_bytes() + b"!", k=3)["hits"] == answer["hits"]
    assert "vecsearch_encoder_pictures_total 1.0" in api.get("/api/metrics").text


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"label": "label 1"}, lambda image: image.path.parent.name == "label 1"),
        ({"date_from": "2024-01-08"}, lambda image: image.day >= date(2024, 1, 8)),
        ({"date_to": "2024-01-08"}, lambda image: image.day <= date(2024, 1, 8)),
        ({"date_to": "9999-12-31"}, lambda _: True),
        ({"date_from": "0001-01-01"}, lambda _: True),
        ({"min_width": 82}, lambda image: image.width >= 82),
        ({"max_width": 82}, lambda image: image.width <= 82),
        ({"min_height": 60}, lambda image: image.height >= 60),
        ({"max_height": 60}, lambda image: image.height <= 60),
        ({"min_width": 2**31 - 1}, lambda _: False),
        (
            {"label": "label 2", "date_from": "2024-01-04", "max_height": 80, "min_width": 60},
            lambda image: (
                image.path.parent.name == "label 2"
                and image.day >= date(2024, 1, 4)
                and image.height <= 80
                and image.width >= 60
            ),
        ),
        ({"label": "", "min_width": "", "date_to": "", "metric": ""}, lambda _: True),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_filters(
    api: TestClient,
    known: list[Known],
    fields: dict[str, Any],
    holds: Callable[[Known], bool],
    exact: bool,
) -> None:
    answer = ask(api, id=known[0].id, k=20, exclude_self=True, exact=exact, **fields)
    expected = {image.id for image in known[1:] if holds(image)}
    assert {hit["id"] for hit in answer["hits"]} == expected
    assert len(answer["hits"]) == len(expected)


def test_cut_offs(api: TestClient, known: list[Known]) -> None:
    everything = ask(api, id=known[0].id)["hits"]
    middle = everything[9]["distance"]
    near = ask(api, id=known[0].id, max_distance=middle)["hits"]
    assert near == everything[:10]
    assert ask(api, id=known[0].id, min_similarity=1 - middle - 1e-9)["hits"] == near
    assert "not both" in ask(api, 400, id=known[0].id, max_distance=1, min_similarity=0)["detail"]
    assert "not for l2" in ask(api, 400, id=known[0].id, metric="l2", min_similarity=0)["detail"]
    for distance in ("5e-324", "1e308", "-1e308"):
        ask(api, id=known[0].id, max_distance=distance)


@pytest.mark.parametrize("metric", ["cosine", "l2", "l1", "ip", "chi2"])
def test_metrics_of_distance(api: TestClient, known: list[Known], metric: str) -> None:
    answer = ask(api, id=known[0].id, metric=metric, k=20)
    assert answer["metric"] == metric
    distances = [hit["distance"] for hit in answer["hits"]]
    assert len(distances) == 20
    assert distances == sorted(distances)


def test_k_and_its_limits(api: TestClient, known: list[Known]) -> None:
    for k, hits in ((1, 1), (19, 19), (1_000, 20)):
        assert len(ask(api, id=known[0].id, k=k)["hits"]) == hits
    for bad in ("0", "1001", "-1", "x", "1.5", "9" * 100):
        wanted = "k: give a whole number from 1 to 1,000."
        assert ask(api, 422, id=known[0].id, k=bad)["detail"] == wanted


def test_without_k_there_are_10_hits_or_all_within_the_cut_off(
    api: TestClient, known: list[Known], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, images = known[0].id, library.collection()
    cut_offs: list[dict[str, Any]] = [{}, {"max_distance": 2}, {"min_similarity": -1}]
    for cut_off in cut_offs:
        answer = ask(api, id=own, **cut_off)
        expected = [hit.path for hit in images.query(id=own, **cut_off)]
        assert [hit["path"] for hit in answer["hits"]] == expected
        assert (len(expected), answer["notes"]) == (20 if cut_off else 10, [])
    monkeypatch.setattr(QueryForm, "most", 7)
    cut = ask(api, id=own, max_distance=2)
    assert len(cut["hits"]) == 7
    [note] = cut["notes"]
    assert note.startswith("Cut short after 7 images")
    assert ask(api, id=own, max_distance=2, k=7)["notes"] == []


def test_what_a_query_needs(api: TestClient, known: list[Known]) -> None:
    assert "There is nothing to search for" in ask(api, 400)["detail"]
    assert "only says what hits should be unlike" in ask(api, 400, not_id=known[0].id)["detail"]
    assert "has no image" in ask(api, 404, id=NOTHING)["detail"]
    assert "no collection 'other'" in ask(api, 404, id=known[0].id, collection="other")["detail"]
    assert "no image with the label 'nope'" in ask(api, 400, id=known[0].id, label="nope")["detail"]
    assert ask(api, 422, id=known[0].id, where="true")["detail"].startswith("where: ")
    # What is said back is short, whatever was named.
    assert (
        len(ask(api, 422, **{f"x{number}" + "x" * 500: 1 for number in range(50)})["detail"])
        < 2_000
    )


def test_other_bodies_are_refused(api: TestClient) -> None:
    kinds = ("application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/x")
    for kind in kinds:
        answer = api.post("/api/query", content=b'{"id": 1}', headers={"Content-Type": kind})
        assert answer.status_code in {400, 422}, kind
        assert answer.json().keys() == {"detail"}


def test_collections_and_labels(api: TestClient, known: list[Known], library: Library) -> None:
    (only,) = api.get("/api/collections").json()
    assert only == api.get("/api/collections/images").json()
    assert (only["name"], only["images"], only["dimensions"]) == ("images", 20, 48)
    assert api.get("/api/collections/images/labels").json() == [
        {"label": "label 0", "images": 7},
        {"label": "label 1", "images": 7},
        {"label": "label 2", "images": 6},
    ]
    for path in ("other", "other/labels", f"other/images/{NOTHING}"):
        answer = api.get(f"/api/collections/{path}")
        assert (answer.status_code, "no collection" in answer.json()["detail"]) == (404, True)


def test_an_image(api: TestClient, known: list[Known]) -> None:
    stored = api.get(f"/api/collections/images/images/{known[5].id}").json()
    assert stored["path"] == str(known[5].path)
    assert stored["sha256"] == reading.bytes_sha256(known[5].path.read_bytes())
    assert (stored["width"], stored["format"]) == (known[5].width, "PNG")
    assert "embedding" not in stored
    assert api.get(f"/api/collections/images/images/{NOTHING}").status_code == 404
    assert api.get("/api/collections/images/images/1").status_code == 422


def test_numbers_that_json_has_not_are_answered(
    api: TestClient, known: list[Known], library: Library
) -> None:
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("UPDATE images SET metadata = '{\"x\": 1e400}'"))
    assert api.get(f"/api/collections/images/images/{known[0].id}").status_code == 200
    ask(api, id=known[0].id)


def test_metrics(api: TestClient, known: list[Known]) -> None:
    ask(api, id=known[0].id)
    api.get("/nowhere")
    api.post("/api/query", headers={"Sec-Fetch-Site": "cross-site"})
    answer = api.get("/api/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    count = "vecsearch_requests_total"
    assert f'{count}{{method="POST",route="/api/query",status="200"}} 1.0' in lines
    assert f'{count}{{method="GET",route="none",status="404"}} 1.0' in lines
    assert f'{count}{{method="POST",route="none",status="403"}} 1.0' in lines
    assert "vecsearch_search_seconds_count 1.0" in lines
    for line in lines:
        assert re.fullmatch(r"#.*|[a-z_]+(\{.*\})? [-+.e0-9]+", line), line


def test_health_and_a_database_without_tables(
    empty_database_url: str, tmp_path: Path, api: TestClient
) -> None:
    assert api.get("/api/health").json()["status"] == "ok"
    settings = Settings.load(database_url=empty_database_url, data_dir=tmp_path / "unused")
    with Library.open(settings, session=SESSION) as empty:
        fresh = client(empty)
        assert fresh.get("/api/health").json()["status"] == "ok"
        assert fresh.get("/api/collections").json() == []
        assert "Start with: vecsearch ingest FOLDER" in ask(fresh, 404, id=NOTHING)["detail"]
        assert fresh.get("/api/collections/images").status_code == 404


def test_tables_of_another_version(api: TestClient, library: Library, known: list[Known]) -> None:
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("UPDATE vecsearch.alembic_version SET version_num = '0001'"))
    for path in ("/api/health", "/api/collections"):
        answer = api.get(path)
        assert (answer.status_code, "db upgrade" in answer.json()["detail"]) == (503, True)


@pytest.fixture
def down(server_url: str, tmp_path: Path) -> Iterator[TestClient]:
    url = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/nowhere"
    with Library.open(Settings.load(database_url=url, data_dir=tmp_path / "unused")) as library:
        yield client(library)


def test_without_its_database_the_server_says_so(down: TestClient) -> None:
    for path in ("/api/health", "/api/collections", "/api/collections/images", "/"):
        answer = down.get(path)
        assert answer.status_code == 503
        assert "Cannot use the database" in answer.text
        assert "s3cret" not in answer.text
    assert ask(down, 503, id=NOTHING)["detail"].startswith("Cannot use the database")
    assert down.get("/api/metrics").status_code == 200


def test_a_database_that_comes_back_is_used_again(
    api: TestClient, library: Library, known: list[Known]
) -> None:
    ask(api, id=known[0].id)
    with database.writing(library.engine) as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    ask(api, id=known[0].id)


def test_tokens_hosts_and_other_sites(library: Library, known: list[Known]) -> None:
    closed = client(library, token="s3cret")
    for path in ("/api/collections", "/api/metrics", "/openapi.json", "/", "/api/nowhere"):
        answer = closed.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert closed.get("/api/health").status_code == 200
    bearer = {"Authorization": "Bearer s3cret"}
    assert closed.get("/api/collections", headers=bearer).status_code == 200
    entered = closed.post("/token", data={"given": "s3cret", "address": "/duplicates"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/duplicates")
    assert closed.get("/api/collections").status_code == 200
    assert client(library, token="s3cret").post("/token", data={"given": "x"}).status_code == 401
    assert closed.get("/?token=s3cret&k=5").headers["location"] == "/?k=5"
    open_ = client(library)
    assert open_.get("/api/collections", headers={"Host": "evil.example"}).status_code == 421
    crossed = open_.post("/api/query", headers={"Sec-Fetch-Site": "cross-site"})
    assert (crossed.status_code, crossed.json().keys()) == (403, {"detail"})


def test_bodies_over_the_limit(library: Library, known: list[Known]) -> None:
    api = client(library, max_bytes=2**20)

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield b"x" * 2**16

    for path in ("/api/query", "/"):
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        for content in (b"x" * (2**20 + 1), chunks()):
            answer = api.post(path, content=content, headers=kind)
            assert answer.status_code == 413
            assert "larger than 1 MB" in answer.text


def test_methods_and_addresses_that_are_not_there(api: TestClient) -> None:
    answer = api.delete("/api/query")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "nothing at this address" in api.get("/api/nowhere").json()["detail"]
    assert api.get("/docs").status_code == 404
