"""What a hostile caller may try: each is refused, nothing is served, nothing is changed."""

import asyncio
import resource
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from support import PixelEncoder, ingest, once, png
from web_support import LOCAL

from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.postgres.rows import image_id
from vecsearch.web.app import create_app
from vecsearch.web.parameters import DuplicatesQuestion, PageQuestion, QueryForm
from vecsearch.web.site import Options

pytestmark = once
VALUES = (
    "../../etc/passwd",
    "' OR 1=1 --",
    "1; DROP TABLE images",
    "'; DELETE FROM vecsearch.images; --",
    "$$",
    "a\0b",
    "x" * 20_000,
    "\u202e\U0001d540\u0301",
    "\ufffe",
    "%s%(id)s:label{0}",
)
FLAT = 64 * 2**20


@pytest.fixture
def api(library: Library, photos: Path) -> Iterator[TestClient]:
    """Check that a test changes nothing in the database."""
    ingest(library.engine, [photos], PixelEncoder())

    def state() -> Any:
        with database.reading(library.engine) as connection:
            rows = "SELECT md5(string_agg(i::text, '' ORDER BY id)) FROM vecsearch.images AS i"
            relations = "SELECT array_agg(oid::text ORDER BY oid) FROM pg_class"
            return [connection.scalar(sa.text(statement)) for statement in (rows, relations)]

    before = state()
    app = create_app(library, Options("images"))
    # A fault would be raised here rather than answered.
    yield TestClient(app, base_url=LOCAL, follow_redirects=True)
    assert state() == before


@pytest.fixture
def stored(photos: Path) -> str:
    return str(image_id(str(photos / "cats" / "01.png")))


@pytest.fixture
def new() -> bytes:
    return png(99)


def refused(answer: Any) -> None:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.url, answer.text[:300])
    assert "root:" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("field", [*QueryForm.model_fields, "where"])
def test_fields_of_the_api(api: TestClient, stored: str, field: str) -> None:
    for value in VALUES:
        fields = {"id": (None, stored), field: (None, value)}
        refused(api.post("/api/query", files=fields))
        refused(api.post("/api/query", data={"id": stored, field: value}))


@pytest.mark.parametrize("field", [*PageQuestion.model_fields])
def test_fields_of_the_page(api: TestClient, stored: str, new: bytes, field: str) -> None:
    for value in VALUES:
        refused(api.get("/", params={"id": stored, field: value}))
        refused(api.get("/", params={field: value}))
        if field != "id":  # what is sent is asked about, whatever was before
            refused(api.post("/", params={field: value}, files={"image": ("x.png", new)}))
        if field in DuplicatesQuestion.model_fields:
            refused(api.get("/duplicates", params={field: value}))


@pytest.mark.parametrize(
    "path",
    [
        "/{}",
        "/static/{}",
        "/uploads/{}",
        "/api/collections/{}",
        "/api/collections/{}/labels",
        "/api/collections/{}/images/00000000-0000-0000-0000-000000000000/file",
        "/api/collections/images/images/{}",
        "/api/collections/images/images/{}/thumbnail",
        "/api/collections/images/images/{}/file",
    ],
)
def test_paths(api: TestClient, path: str) -> None:
    for value in VALUES:
        refused(api.get(path.format(quote(value, safe=""))))
        refused(api.get(path.format(quote(value, safe="/'$;"))))


def test_files_beside_the_ones_that_are_served(api: TestClient) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/../../etc/passwd",
    ):
        refused(api.get(path))
    refused(api.get("/", params={"id": "/etc/passwd"}))


def large_png(width: int, height: int) -> bytes:
    """Return a grey PNG, all black, written without holding its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_is_no_picture_or_too_large_a_one(api: TestClient, new: bytes) -> None:
    large = large_png(20_000, 10_000)
    assert len(large) < 10**6
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    html = b"<!doctype html><script>alert(1)</script>"
    before = peak()
    for path in ("/api/query", "/"):
        for content in (large, svg, html, b"", new[:100], b"\0" * 1000):
            answer = api.post(path, files={"image": ("cat.jpg", content, "image/jpeg")})
            refused(answer)
            assert "<script>alert" not in answer.text
    assert peak() - before < FLAT


@pytest.mark.parametrize("path", ["/api/query", "/"])
def test_a_gigabyte(api: TestClient, path: str) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        yield head
        for _ in range(2**30 // 2**20):
            sent += 2**20
            yield bytes(2**20)

    # The test client joins what it is given, so the application is called as a server calls it.
    statuses = _asked_by_chunks(api, path, kind, chunks())
    assert statuses == [413]
    # No more is read than is allowed, and that lies in a file.
    assert sent <= 34 * 2**20
    refused(api.post(path, content=head, headers=kind | {"Content-Length": str(2**30)}))


def _asked_by_chunks(
    api: TestClient, path: str, headers: dict[str, str], chunks: Iterator[bytes]
) -> list[int]:
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in (headers | {"Host": "127.0.0.1"}).items()
        ],
    }
    asyncio.run(api.app(scope, receive, send))  # type: ignore[arg-type]  # an ASGI application
    return statuses


def test_halves_of_characters_and_other_encodings(api: TestClient, stored: str) -> None:
    for encoding in ("unicode_escape", "utf-16", "utf-7", "hex", "undefined", "nonsense"):
        for name in ("label", "collection", "id", "\\ud800", "image", "given", "address"):
            body = (
                f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n/\\ud800\r\n--x--\r\n'
            ).encode()
            kind = {"Content-Type": f"multipart/form-data; boundary=x; charset={encoding}"}
            refused(api.post("/api/query", content=body, headers=kind))
            refused(api.post("/", content=body, headers=kind))
            assert api.post("/token", content=body, headers=kind).status_code < 500
