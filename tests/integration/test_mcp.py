"""The server of MCP: the command, as an assistant's program starts it, by the SDK's own client."""

import base64
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import MCPError
from mcp_support import COMMAND, Assistant, assistant
from server_support import kill
from support import PixelEncoder, draw_photos, ingest, picture, png, run_command, store_concepts

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.embedded import access
from vecsearch.postgres.rows import image_id
from vecsearch.web.mcp import tools
from vecsearch.web.mcp.arguments import Search
from vecsearch.web.mcp.tools import Served

SEVENTH = base64.b64encode(png(7)).decode()
TOOLS = ["search_images", "get_image", "sql", "list_collections"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("mcp") / "photos")


@pytest.fixture(scope="module")
def library(photos: Path) -> Iterator[Library]:
    with Library.open(Settings.load(data_dir=photos.parent / "data")) as opened:
        opened.upgrade()
        ingest(opened.engine, [photos], PixelEncoder())
        ingest(opened.engine, [photos / "cats"], PixelEncoder(), collection="cats")
        shown = [photos / "cats" / "03.png", photos / "dogs" / "06.png"]
        concepts = [PixelEncoder().expected(file) for file in shown]
        store_concepts(opened, ["tabby", "poodle"], np.array(concepts, np.float16), [0, 0])
        yield opened


@pytest.fixture(scope="module")
def asked(library: Library) -> Iterator[Assistant]:
    with assistant("--data-dir", library.settings.data_dir) as client:
        yield client


def names(found: Any) -> list[str]:
    return [Path(hit["path"]).name for hit in found["hits"]]


def test_what_there_is_and_that_it_only_reads(asked: Assistant) -> None:
    tools = asked.portal.call(asked.client.list_tools).tools
    assert [tool.name for tool in tools] == TOOLS
    for tool in tools:
        assert tool.description
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False
    assert "not be changed" in str(asked.client.instructions)


def test_collections_and_what_words_they_take(asked: Assistant) -> None:
    found, pictures = asked.call("list_collections")
    assert found["default"] == "images"
    assert [(each["name"], each["images"], each["words"]) for each in found["collections"]] == [
        ("cats", 6, "concepts"),
        ("images", 12, "concepts"),
    ]
    assert pictures == []


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (lambda _: {"text": "tabby"}, "03.png"),
        (lambda _: {"text": ["tabby", "2:poodle"], "not_text": ["tabby"]}, "06.png"),
        (lambda photos: {"path": str(photos / "cats" / "05.png")}, "05.png"),
        (lambda photos: {"id": str(image_id(str(photos / "dogs" / "08.png")))}, "08.png"),
        (lambda _: {"image": SEVENTH}, "07.png"),
        (lambda _: {"image": f"data:image/png;base64,{SEVENTH}"}, "07.png"),
    ],
    ids=["words", "several", "path", "id", "bytes", "data"],
)
def test_the_nearest_images_are_those_of_the_library(
    asked: Assistant, library: Library, photos: Path, by: Any, expected: str
) -> None:
    found, pictures = asked.call("search_images", k=3, thumbnails=2, **by(photos))
    assert names(found)[0] == expected
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert found["hits"][0]["label"] in {"cats", "dogs"}
    assert [each.size for each in pictures] == [(64, 48)] * 2
    # Compression is lossy.
    drawn = picture(int(expected[:2]))
    assert np.abs(np.array(pictures[0], int) - np.array(drawn, int)).mean() < 12
    assert "embedding" not in json.dumps(found)


def test_options_of_a_query_and_no_pictures(asked: Assistant, photos: Path) -> None:
    path = str(photos / "cats" / "05.png")
    found, pictures = asked.call(
        "search_images",
        path=path,
        k=100,
        where="label = 'dogs' AND id IN (SELECT id FROM images_view)",
        metric="l2",
        thumbnails=0,
    )
    assert found["metric"] == "l2"
    assert {hit["label"] for hit in found["hits"]} == {"dogs"}
    assert (len(found["hits"]), pictures) == (6, [])
    found, _ = asked.call("search_images", path=path, collection="cats", exclude_self=True, k=None)
    assert found["collection"] == "cats"
    assert (len(found["hits"]), "05.png" in names(found)) == (5, False)
    found, _ = asked.call("search_images", path=path, min_similarity=0.9999)
    assert names(found) == ["05.png"]


def test_without_k_there_are_10_hits_or_all_within_the_cut_off(
    asked: Assistant, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cut_off, hits in (({}, 10), ({"max_distance": 2}, 12), ({"min_similarity": -1}, 12)):
        found, _ = asked.call("search_images", text="tabby", **cut_off)
        assert (len(found["hits"]), found["notes"]) == (hits, [])
    monkeypatch.setattr(Search, "most", 7)
    cut = tools.search(Served(library, "images"), Search(text=["tabby"], max_distance=2)).answer
    assert len(cut.hits) == 7
    assert cut.notes[0].startswith("Cut short after 7 images")


def test_one_image_with_everything_that_is_stored(asked: Assistant, photos: Path) -> None:
    path = str(photos / "cats" / "05.png")
    by_path, pictures = asked.call("get_image", image=path)
    assert (by_path["id"], by_path["width"]) == (str(image_id(path)), 64)
    assert [each.size for each in pictures] == [(64, 48)]
    assert asked.call("get_image", image=by_path["id"], thumbnail=False) == (by_path, [])


def test_sql_reads_as_much_as_it_is_asked_for(asked: Assistant) -> None:
    by_label = "SELECT label, count(*) FROM images GROUP BY label ORDER BY label"
    counted, _ = asked.call("sql", statement=by_label)
    rows = [["cats", 6], ["dogs", 6]]
    assert counted == {"columns": ["label", "count"], "rows": rows, "notes": []}
    whole, _ = asked.call("sql", statement="SELECT path FROM images", limit=12)
    assert (len(whole["rows"]), whole["notes"]) == (12, [])
    cut, _ = asked.call("sql", statement="SELECT path FROM images", limit=11)
    assert len(cut["rows"]) == 11
    assert cut["notes"] == ["Cut short after 11 rows; there are more. Use WHERE or count(*)."]
    nothing, _ = asked.call("sql", statement="SELECT path AS it FROM images WHERE false")
    assert nothing == {"columns": ["it"], "rows": [], "notes": []}
    shown, _ = asked.call("sql", statement="SHOW transaction_read_only")
    assert shown["rows"] == [["on"]]


def test_an_endless_answer_is_not_read_to_its_end(asked: Assistant) -> None:
    endless = "SELECT generate_series(1, 10000000000) AS n, repeat('é', 5000) AS long"
    found, _ = asked.call("sql", statement=endless, limit=3)
    assert [row[0] for row in found["rows"]] == [1, 2, 3]
    assert {row[1] for row in found["rows"]} == {f"{'é' * 2_000}…"}
    assert found["notes"][1] == "3 values were cut after 2,000 characters, where … is."
    found, _ = asked.call("sql", statement=endless, limit=1_000)
    assert len(found["rows"]) == 49
    assert found["notes"][0].startswith("Cut short after 49 rows, because an answer has at most")


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("DELETE FROM images", "read-only transaction"),
        ("CREATE TABLE mine (x int)", "read-only transaction"),
        ("COPY (SELECT 1) TO PROGRAM 'id'", "permission denied"),
        ("COPY images TO STDOUT", "COPY does not work here"),
        ("SELECT pg_read_file('/etc/passwd')", "permission denied"),
        ("SET ROLE postgres", "permission denied"),
        ("SELECT 1; DROP TABLE images", "One statement at a time"),
        ("SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n", "division by zero"),
        ("", "There is no statement"),
        ("SELEC", "syntax error"),
    ],
)
def test_sql_does_no_more_than_read(asked: Assistant, statement: str, sentence: str) -> None:
    assert sentence in asked.refused("sql", statement=statement)
    counted, _ = asked.call("sql", statement="SELECT count(*) FROM images")
    assert counted["rows"] == [[12]]


def test_a_condition_does_no_more_than_read(asked: Assistant) -> None:
    for where in ("pg_read_file('/etc/passwd') <> ''", "true); DROP TABLE images; --", "no = 1"):
        assert asked.refused("search_images", text="tabby", where=where)
    assert len(asked.call("search_images", text="tabby", k=100)[0]["hits"]) == 12


NO_ID = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "There is nothing to search for"),
        ({"text": "xylophone"}, "'xylophone'"),
        ({"text": "tabby", "collection": "nope"}, "Collections: cats, images."),
        ({"text": "tabby", "collection": "'; --"}, "collection: "),
        ({"text": "tabby", "k": 101}, "k: give a whole number from 1 to 100."),
        ({"text": "tabby", "thumbnails": 21}, "thumbnails: give a whole number from 0 to 20."),
        ({"text": "tabby", "min_similarity": 2}, "min_similarity: give a number from -1 to 1."),
        ({"text": "tabby", "model": "resnet50"}, "model: there is no such field"),
        ({"text": "tabby", "label": "nope"}, "no image with the label 'nope'"),
        ({"text": "tabby", "metric": "l2"}, "Words are compared by cosine"),
        ({"text": {"a": 1}}, "text.0: "),
        ({"id": NO_ID}, NO_ID),
        ({"id": "1"}, "id.0: "),
        ({"image": "?"}, "not base64"),
        ({"image": 7}, "not base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "Not an image"),
        ({"path": "/nowhere/x.png"}, "/nowhere/x.png does not exist"),
        ({"path": "x.png"}, "not an absolute path"),
        ({"path": "/"}, "/ is not a file"),
        ({"path": "/dev/zero"}, "/dev/zero is not a file"),
        ({"path": "/etc/passwd"}, "Not an image"),
        ({"path": "/x\0y"}, "NUL"),
        ({"path": "http://127.0.0.1:1/x.png"}, "is a URL"),
        ({"path": "file:///etc/passwd"}, "is a URL"),
    ],
)
def test_what_cannot_be_searched_for(
    asked: Assistant, arguments: dict[str, Any], sentence: str
) -> None:
    assert sentence in asked.refused("search_images", **arguments)


def test_other_tools_refuse_nonsense_and_the_server_goes_on(asked: Assistant) -> None:
    assert "nope" in asked.refused("get_image", image="nope")
    assert "statement: it is missing" in asked.refused("sql")
    limit = "limit: give a whole number from 1 to 1,000."
    assert asked.refused("sql", statement="SELECT 1", limit=0) == limit
    assert asked.refused("get_image", image=7) == "image: Input should be a valid string."
    assert "x: there is no such field" in asked.refused("list_collections", x=1)
    with pytest.raises(MCPError, match="There is no tool 'nope'"):
        asked.result("nope")
    assert asked.call("list_collections")


def test_a_database_that_was_killed_is_started_again(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ingested = [draw_photos(tmp_path / "photos")]
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        library.upgrade()
        ingest(library.engine, ingested, PixelEncoder())
    with assistant("--data-dir", data_dir) as client:
        before = client.call("list_collections")
        kill(data_dir)
        # The first answer may be that of a session that has not noticed, or of one that waited.
        while (said := client.result("list_collections")).is_error:
            assert re.search(r"Run the command again|Retry in a moment", str(said.content))
        assert client.call("list_collections") == before
        assert client.call("sql", statement="SELECT count(*) FROM images")[0]["rows"] == [[12]]


@pytest.mark.parametrize("collection", ["images", "cats"])
def test_a_database_that_is_not_there_is_said_so(tmp_path: Path, collection: str) -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    with assistant("--database-url", url, "--data-dir", tmp_path, "-c", collection) as client:
        assert "Cannot use the database" in client.refused("list_collections")
        assert "Cannot use the database" in client.refused("sql", statement="SELECT 1")


def test_without_a_name_it_searches_what_the_page_would(tmp_path: Path) -> None:
    [path, *_] = sorted(draw_photos(tmp_path / "photos").rglob("*.png"))
    with Library.open(Settings.load(data_dir=tmp_path / "data")) as library:
        library.upgrade()
        with assistant("--data-dir", tmp_path / "data") as client:
            assert client.call("list_collections")[0] == {"default": "images", "collections": []}
            assert "nor any other" in client.refused("search_images", path=str(path))
            for name in ("photos", "images", "albums"):
                ingest(library.engine, [path], PixelEncoder(), collection=name)
                # The default one or, while there is none, the first.
                searched = "photos" if name == "photos" else "images"
                assert client.call("list_collections")[0]["default"] == searched
                assert client.call("search_images", path=str(path))[0]["collection"] == searched
                assert client.call("get_image", image=str(path))[0]["path"] == str(path)
            library.collection().rename("others")
            assert client.call("search_images", path=str(path))[0]["collection"] == "albums"
            refused = client.refused("search_images", path=str(path), collection="images")
            assert "There is no collection 'images'" in refused


def test_a_superuser_runs_no_sql_of_strangers(library: Library) -> None:
    with assistant("--database-url", library.url) as client:
        for refused in (
            client.refused("sql", statement="SELECT 1"),
            client.refused("search_images", text="tabby", where="true"),
        ):
            assert "--reader-url" in refused
        assert names(client.call("search_images", text="tabby", k=1)[0]) == ["03.png"]
    reader = ("--reader-url", access.as_local(library.url))
    with assistant("--database-url", library.url, *reader) as client:
        assert client.call("sql", statement="SELECT 1")[0]["rows"] == [[1]]


def message(method: str, number: int | None = None, **params: Any) -> str:
    given = {"jsonrpc": "2.0", "method": method, "params": params}
    return json.dumps(given if number is None else {**given, "id": number}) + "\n"


HELLO = message(
    "initialize",
    1,
    protocolVersion="2025-06-18",
    capabilities={},
    clientInfo={"name": "test", "version": "1"},
) + message("notifications/initialized")


def started(library: Library) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *COMMAND, "--data-dir", library.settings.data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_stdout_is_the_protocol_s_alone_and_garbage_ends_nothing(
    library: Library, photos: Path
) -> None:
    garbage = 'garbage\n{}\n[1\n{"jsonrpc": "2.0"}\n\n'
    path = str(photos / "cats" / "05.png")
    call = message("tools/call", 2, name="search_images", arguments={"path": path})
    with started(library) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{HELLO}{garbage}{call}")
        server.stdin.flush()
        # What is asked when the input ends may go unanswered.
        lines = [server.stdout.readline(), server.stdout.readline()]
        rest, errors = server.communicate()
    answers = {each["id"]: each for each in map(json.loads, [*lines, *rest.splitlines()])}
    assert answers.keys() == {1, 2}
    assert answers[1]["result"]["serverInfo"]["name"] == "vecsearch"
    assert answers[2]["result"]["structuredContent"]["hits"][0]["path"] == path
    assert (server.returncode, errors) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_the_assistant_is_there(library: Library, number: int) -> None:
    with started(library) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(HELLO)
        server.stdin.flush()
        assert json.loads(server.stdout.readline())["id"] == 1
        server.send_signal(number)
        assert server.wait(60) == 130
        assert server.stderr is not None
        assert server.stderr.read() == "Interrupted.\n"


def test_without_the_sdk_the_extra_is_named(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.web.mcp.find_spec", lambda _: None)
    status, out, err = run_command(library, "mcp")
    assert (status, out) == (1, "")
    assert err == (
        "error: MCP needs the extra 'mcp', which is not installed. "
        "Run: pip install 'vecsearch[mcp]'\n"
    )
