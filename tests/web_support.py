"""A client of the server, and pictures with known facts."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from vecsearch.library import Library
from vecsearch.postgres.rows import image_id
from vecsearch.web.app import create_app
from vecsearch.web.site import Options

LOCAL = "http://127.0.0.1"
NOTHING = "00000000-0000-0000-0000-000000000000"
Json = Any


@dataclass(frozen=True)
class Known:
    """What a row must be, known without asking Postgres."""

    path: Path
    width: int
    height: int
    day: date
    vector: Any

    @property
    def id(self) -> str:
        return str(image_id(str(self.path)))


def client(library: Library, collection: str = "images", **options: Any) -> TestClient:
    app = create_app(library, Options(collection, **options))
    return TestClient(app, base_url=LOCAL, raise_server_exceptions=False, follow_redirects=False)


def ask(api: TestClient, status: int = 200, **fields: Any) -> Json:
    """Post a query as a multipart form; bytes are a file, and a list is a repeated field."""
    files: list[Any] = [
        (name, ("picture.png", each) if isinstance(each, bytes) else (None, str(each)))
        for name, value in fields.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    answer = api.post("/api/query", files=files)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()
