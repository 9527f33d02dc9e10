"""The server's parts that need no database."""

import ast
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from support import png
from web_support import client

from vecsearch import web
from vecsearch.config import Settings
from vecsearch.errors import ImageNotFound, ImageUnreadable, VecsearchError
from vecsearch.imaging import decode, reading
from vecsearch.library import Library
from vecsearch.search.filters import Filters
from vecsearch.search.query import Query
from vecsearch.search.questions.pictures import Crop, Picture
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import Axes, Colouring, KeepRule, Metric
from vecsearch.web.access.guard import HEADERS
from vecsearch.web.mcp.arguments import Search
from vecsearch.web.metrics import Measured, Metrics
from vecsearch.web.parameters import (
    PAGE_K,
    DuplicatesQuestion,
    MapRule,
    Named,
    PageQuestion,
    QueryForm,
)
from vecsearch.web.uploads import Uploads
from vecsearch.web.views import slider, unbroken


def test_a_fault_has_the_headers_of_every_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(_: Library) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Library, "check", fail)
    with Library.open(Settings.load(database_url="postgresql:///", data_dir=tmp_path)) as library:
        fault, missing = map(client(library).get, ("/api/health", "/api/nothing"))
    assert (fault.status_code, missing.status_code) == (500, 404)
    assert fault.json() == {"detail": "vecsearch failed. See the log of the server."}
    told, expected = ({**answer.headers, "content-length": ""} for answer in (fault, missing))
    assert told == expected
    assert {name: told[name.lower()] for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("k", ["0", "1001", "-1", "1.5", "ten"]),
        ("collection", ["", "Images", "a b", "x" * 41, "images\n", "i;drop", "../x"]),
        ("metric", ["COSINE", "hamming"]),
        ("max_distance", ["nan", "inf", "1e400", "x"]),
        ("min_similarity", ["1.1", "-1.1", "nan"]),
        ("label", ["a\0b", "x" * 4_097, "\ud800"]),
        ("date_from", ["2024-13-01", "yesterday", "0000-01-01", "10000-01-01"]),
        ("min_width", ["0", "-1", str(2**31), "1e3x"]),
        ("exact", ["perhaps"]),
        ("id", ["1", "../../etc/passwd", "' OR 1=1 --", f":{UUID(int=1)}", f"-1:{UUID(int=1)}"]),
        ("not_text", ["x" * 201, "a\0b"]),
        ("image_weight", ["0", "-1", "1001", "nan"]),
        ("expand", ["-1", "101"]),
        ("ranking", ["best"]),
        ("where", ["true"]),
    ],
)
def test_what_may_not_be_asked(field: str, bad: list[str]) -> None:
    for value in bad:
        if field == "collection" and not value:
            continue  # a form's empty field is one that was left out
        with pytest.raises(ValidationError):
            QueryForm.model_validate({field: value})


# Fields of `Query` that the API does not offer, and why.
NOT_OFFERED = {
    "where": "is SQL: callers set filters instead",
    "model": "loads another encoder into the server",
    "weights": "names a file of the server's machine",
}


# Fields that become the terms of a query.
PARTS = {
    f"{prefix}{name}" for prefix in ("", "not_") for name in ("image", "id", "text", "image_weight")
}


def test_the_api_offers_every_field_of_a_query() -> None:
    given = {
        "crop": "1,2,3,4",
        "expand": 5,
        "ranking": "compact",
        "k": 7,
        "metric": "l1",
        "min_similarity": 0.5,
        "max_distance": 2.5,
        "exact": True,
        "exclude_self": True,
        "label": "cat",
        "date_from": "2024-05-06",
        "date_to": "2024-05-07",
        "min_width": 1,
        "max_width": 2,
        "min_height": 3,
        "max_height": 4,
    }
    form = QueryForm.model_validate(given)
    others = {"collection", "full_sql", *PARTS}
    assert form.model_fields_set | others == QueryForm.model_fields.keys()
    made, plain = form.query([Term(id=UUID(int=7))]), Query()
    names = [field.name for field in fields(Query)]
    unchanged = {name for name in names if getattr(made, name) == getattr(plain, name)}
    assert unchanged == {*NOT_OFFERED, "image", "id", "text"}
    assert made.parts == [Term(id=UUID(int=7), crop=Crop(1, 2, 3, 4))]
    assert made.metric is Metric.l1
    for field in fields(Filters):
        assert str(getattr(made.filters, field.name)) == str(given[field.name])


def test_an_assistant_may_ask_what_a_program_may_and_a_condition() -> None:
    given = {"text": "crab", "where": "width > 1", "exact": True, "label": "a"}
    made = Search.model_validate(given).asked()
    assert (made.where, made.exact, made.filters.label) == ("width > 1", True, "a")
    assert made.parts == [Term(text="crab")]
    assert Search.model_fields.keys() - Named.model_fields.keys() == {
        *("image", "not_path", "path", "thumbnails", "where")
    }
    assert not NOT_OFFERED.keys() & (Search.model_fields.keys() - {"where"})


@pytest.mark.parametrize(("kind", "most"), [(QueryForm, 1_000), (Search, 100)])
def test_the_number_of_hits_is_the_querys_or_all_within_a_cut_off(
    kind: type[Named], most: int
) -> None:
    assert kind().query([]).k is None
    for field in ("max_distance", "min_similarity"):
        bounded = kind.model_validate({field: 0})
        assert bounded.query([]).k == most
        assert [len(bounded.notes(hits)) for hits in (most - 1, most)] == [0, 1]
        chosen = kind.model_validate({field: 0, "k": most})
        assert (chosen.query([]).k, chosen.notes(most)) == (most, [])
    described = kind.model_json_schema()["properties"]["k"]["description"]
    assert described.endswith(
        f"Default: 10; with a cut-off, every image within it, up to {most:,}."
    )
    assert {PageQuestion(max_distance=cut_off).query([]).k for cut_off in (None, 1)} == {PAGE_K}


def test_choices_of_the_api_are_the_enumerations() -> None:
    schema = QueryForm.model_json_schema()["properties"]["metric"]["anyOf"]
    assert schema == [{"type": "string", "enum": list(Metric)}, {"type": "null"}]
    for name in Metric:
        assert PageQuestion.model_validate({"metric": name}).query([]).metric is name
    for rule in KeepRule:
        assert DuplicatesQuestion.model_validate({"keep": rule}).keep is rule
    of_map = MapRule.model_json_schema()["properties"]
    assert (of_map["by"]["enum"], of_map["colour"]["enum"]) == (list(Axes), list(Colouring))


WEB = Path(web.__file__).parent
# What the web code may import of the search room: types, and what needs no database.
SEARCH_TYPES = """
    filters.Filters gallery.Label gallery.Map gallery.StoredImage query.Answer query.Hit query.Query
    tags.Tag questions.originals.open_original questions.pictures.Crop questions.pictures.Picture
    questions.terms.WEIGHT questions.terms.Term questions.terms.terms questions.terms.weighted
""".split()


def test_the_web_code_reads_the_database_through_the_library_alone() -> None:
    modules = [ast.parse(file.read_text()) for file in WEB.glob("*.py")]
    imported = {
        f"{node.module}.{alias.name}"
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert not [name for name in imported if name.startswith("vecsearch.postgres")]
    searched = {name for name in imported if name.startswith("vecsearch.search.")}
    assert searched <= {f"vecsearch.search.{name}" for name in SEARCH_TYPES}


def test_what_may_be_asked() -> None:
    form = QueryForm.model_validate({"k": "", "collection": "", "label": "", "id": "", "image": ""})
    assert form == QueryForm()
    one = QueryForm.model_validate({"k": "1000", "id": str(UUID(int=7))})
    assert one.terms() == [Term(id=str(UUID(int=7)))]
    several = QueryForm.model_validate(
        {"id": [f"2:{UUID(int=7)}", ""], "text": ["snow"], "not_text": ["0.5:dog"]}
    )
    assert several.terms() == [
        Term(id=str(UUID(int=7)), weight=2),
        Term(text="snow"),
        Term(text="dog", weight=-0.5),
    ]
    question = PageQuestion.model_validate({"date_to": "2024-05-06", "min_width": "5"})
    filters = question.filters()
    assert (str(filters.date_to), filters.min_width, filters.label) == ("2024-05-06", 5, None)


@pytest.mark.parametrize(
    ("nearest", "farthest", "chosen"),
    [
        (0.0, 0.0, None),
        (0.1, 0.1, 0.1),
        (0.0123, 0.4567, None),
        (3.0, 812.5, 400.0),
        (-5e6, -12.0, None),
        (0.2, 0.3, 0.5),
        (0.0, 1e-9, None),
    ],
)
def test_a_sliders_range_holds_every_hit(
    nearest: float, farthest: float, chosen: float | None
) -> None:
    cut_off = slider(nearest, farthest, chosen)
    assert cut_off.low < cut_off.high
    assert cut_off.high >= max(farthest, chosen if chosen is not None else farthest)
    assert cut_off.step > 0
    assert cut_off.value == cut_off.high if chosen is None else cut_off.value >= chosen


def test_uploads_are_found_by_their_hash_and_by_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    uploads = Uploads(folder, 10**6, 10**6)
    kept = Picture(png(1))
    uploads.keep(kept)
    assert uploads.find(kept.sha256) == kept
    assert uploads.find(kept.sha256).sha256 == kept.sha256
    assert decode.decode(uploads.thumbnail(kept.sha256), "it", max_pixels=10**6)
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "secret").write_text("secret")
    for name in ("../secret", "0" * 64, "", f"{kept.sha256}.thumbnail", f"{kept.sha256}\n"):
        with pytest.raises(ImageNotFound):
            uploads.find(name)


def test_what_is_no_picture_is_not_kept(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", 10**6, 100)
    for content in (b"", b"<svg/>", png(1)):
        with pytest.raises(ImageUnreadable):
            uploads.keep(Picture(content))
    assert not (tmp_path / "uploads").exists()


def test_of_too_many_uploads_the_longest_unused_go(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    pictures = [Picture(png(seed)) for seed in range(4)]
    room = Uploads(folder, 10**9, 10**6)
    for kept in pictures[:3]:
        room.keep(kept)
    names = [kept.sha256 for kept in pictures]
    for age, name in zip((10, 20, 30), names[:3], strict=True):
        for file in folder.glob(f"{name}*"):
            os.utime(file, (age, age))
    room.find(names[0])  # used just now
    # Pictures differ by some bytes.
    full = sum(file.stat().st_size for file in folder.iterdir()) + 100
    Uploads(folder, full, 10**6).keep(pictures[3])
    left = {names[0], names[2], names[3]}
    assert {file.name.partition(".")[0] for file in folder.iterdir()} == left
    assert sum(file.stat().st_size for file in folder.iterdir()) <= full
    # A picture goes with its thumbnail.
    assert len(list(folder.iterdir())) == 6


def test_many_uploads_at_once_into_a_small_folder_are_each_kept_or_forgotten(
    tmp_path: Path,
) -> None:
    contents = [Picture(png(seed)) for seed in range(12)]
    # Two servers, one folder.
    rooms = [Uploads(tmp_path / "uploads", 1_000, 10**6) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: rooms[number % 2].keep(contents[number % 12]), range(48)))
    for file in (tmp_path / "uploads").iterdir():
        name, _, kind = file.name.partition(".")
        assert kind == "thumbnail" or reading.bytes_sha256(file.read_bytes()) == name


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    uploads = Uploads(tmp_path / "file" / "uploads", 10**6, 10**6)
    with pytest.raises(VecsearchError, match="cannot be written"):
        uploads.keep(Picture(png(1)))


def test_methods_that_callers_invent_do_not_grow_the_metrics() -> None:
    metrics = Metrics()

    async def ask(method: str) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 405})

        async def nothing(*_: Any) -> Any:
            return None

        await Measured(app, metrics)({"type": "http", "method": method}, nothing, nothing)

    for number in range(100):
        asyncio.run(ask(f"X{number}"))
    counted = [line for line in metrics.text().decode().splitlines() if "requests_total{" in line]
    assert counted == ['vecsearch_requests_total{method="other",route="none",status="405"} 100.0']


def test_options_in_a_sentence_stay_on_one_line_and_markup_stays_text() -> None:
    sentence = "Set --max-distance 0.1, not <b>--x</b> - or --."
    shown = unbroken(sentence)
    assert shown.striptags() == sentence
    assert [part.split("<")[0] for part in shown.split('"option">')[1:]] == [
        "--max-distance",
        "--x",
    ]
    assert "<b>" not in shown
