"""Measure every page that `vecsearch serve` answers, as a browser loads it, one after another.

    python benchmarks/pages.py PICTURES... > benchmarks/results/pages.md

It ingests the pictures into a new database, derives the map and starts the server. Which stored
image and which words are asked for varies. An uploaded picture is a file with a few bytes appended,
which is in no collection; its time includes the redirect.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlencode

from common import conditions, say
from serve import FORM, form, serving, vecsearch

REQUESTS, WARM_UP = 50, 5
COLLECTION = "images"
API = f"/api/collections/{COLLECTION}"
WORDS = ("golden retriever", "coffee mug", "lakeside", "sports car", "umbrella")


class Browser:
    """A browser on one connection, which follows redirects."""

    def __init__(self, port: int) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def get(self, path: str, **values: Any) -> bytes:
        """Return what is at an address."""
        return self._load("GET", f"{path}?{urlencode(values)}" if values else path)

    def post(self, path: str, fields: dict[str, str], picture: bytes | None = None) -> bytes:
        """Send a form; return what it leads to."""
        return self._load("POST", path, form(fields, picture))

    def _load(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._client.request(method, path, body, {} if body is None else FORM)
        response = self._client.getresponse()
        content = response.read()
        if response.status == http.HTTPStatus.SEE_OTHER:
            return self.get(response.headers["Location"])
        if response.status != http.HTTPStatus.OK:
            raise SystemExit(f"{method} {path}: {response.status} {content[:300]!r}")
        return content


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("pictures", type=Path, nargs="+", help="folders of real pictures")
    parser.add_argument("--data-dir", type=Path, help="of a collection made before")
    parser.add_argument("--port", type=int, default=8126)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data_dir = arguments.data_dir or Path(name)
        vecsearch("ingest", *arguments.pictures, data_dir=data_dir)
        vecsearch("refresh", "map", data_dir=data_dir)
        with serving(data_dir, arguments.port, COLLECTION) as port:
            _measure(Browser(port), arguments.requests)
        vecsearch("db", "stop", data_dir=data_dir)


def _measure(browser: Browser, requests: int) -> None:
    images = _images(browser)
    lines = [
        "| page | p50, ms | p95, ms | first, ms | kB |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, ask in _pages(browser, images).items():
        say(name)
        times = []
        for _ in range(WARM_UP + requests):
            started = perf_counter()
            size = len(ask())
            times.append(1000 * (perf_counter() - started))
        p95 = statistics.quantiles(times[WARM_UP:], n=20)[18]
        numbers = f"{statistics.median(times[WARM_UP:]):.1f} | {p95:.1f} | {times[0]:.0f}"
        lines.append(f"| {name} | {numbers} | {size / 1000:.1f} |")
    count = json.loads(browser.get(API))["images"]
    print("\n".join(lines))
    print(f"\n{count:,} pictures, {requests} requests for each page; {conditions()}.")


def _images(browser: Browser) -> list[dict[str, Any]]:
    """Return stored images of different kinds: ids and paths."""
    asked = ({"collection": COLLECTION, "k": "10", "text": words} for words in WORDS)
    return [
        hit for fields in asked for hit in json.loads(browser.post("/api/query", fields))["hits"]
    ]


def _pages(browser: Browser, images: list[dict[str, Any]]) -> dict[str, Callable[[], bytes]]:
    """Return what asks for each page, for another image or words each time."""
    stored, words = itertools.cycle(images), itertools.cycle(WORDS)

    def id_() -> str:
        return str(next(stored)["id"])

    def new() -> bytes:
        return Path(next(stored)["path"]).read_bytes() + os.urandom(8)

    one = {"collection": COLLECTION, "k": "30"}
    return {
        "start": lambda: browser.get("/"),
        "answer to a stored image": lambda: browser.get("/", id=id_()),
        "answer to words": lambda: browser.get("/", text=next(words)),
        "answer to an uploaded picture": lambda: browser.post("/", {}, new()),
        "duplicates": lambda: browser.get("/duplicates"),
        "map": lambda: browser.get("/map"),
        "points of the map, for its script": lambda: browser.get(f"{API}/map"),
        "API: collections": lambda: browser.get("/api/collections"),
        "API: an image": lambda: browser.get(f"{API}/images/{id_()}"),
        "API: a thumbnail": lambda: browser.get(f"{API}/images/{id_()}/thumbnail"),
        "API: a file": lambda: browser.get(f"{API}/images/{id_()}/file"),
        "API: query by a stored image": lambda: browser.post("/api/query", one | {"id": id_()}),
        "API: query by a picture": lambda: browser.post("/api/query", one, new()),
    }


if __name__ == "__main__":
    main()
