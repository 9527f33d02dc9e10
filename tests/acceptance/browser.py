"""Open a served page in a real browser, and check that it never shows an error."""

import itertools
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import machine
import PIL.Image
from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright
from support import picture, png

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Root, as which CI runs, has no sandbox; the rest keeps the browser itself off the network.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
# Only a broken page waits for so long.
PATIENCE_MS = 60_000
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
CATS, DOGS, BIRDS = 24, 12, 4
ALL = CATS + DOGS + BIRDS
# A picture that no collection holds.
NEW = png(1_000)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Run the browser."""
    found = machine.program(*NAMES, install="chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator[str]:
    """Run `vecsearch serve` on a free port, yield its URL, and end it as Ctrl-C does."""
    process = subprocess.Popen(
        ["vecsearch", "serve", "--port", "0", *options],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = re.fullmatch(r"Serving (http://\S+) until Ctrl-C\.\n", said)
        assert found, said + (process.stderr.read() if process.poll() is not None else "")
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert said.endswith("Stopped.\n")
    assert "Traceback" not in said


@dataclass
class Windows:
    """Opens pages of one server, each in a browser of its own as far as cookies go."""

    browser: Browser
    url: str
    faults: list[str] = field(default_factory=list)

    def open(self, address: str = "/", *, statuses: Iterable[int] = (), **options: Any) -> Page:
        """Open an address; answers of 400 and more are faults unless their status is expected."""
        context = self.browser.new_context(**{"locale": "en-US", **options})
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        expected = set(statuses)

        def on_response(response: Response) -> None:
            if response.status >= HTTPStatus.BAD_REQUEST and response.status not in expected:
                self.faults.append(f"{response.status} {response.url}")

        page.on("response", on_response)
        page.on("request", lambda request: self._on_request(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._on_console(message.type, message.text))
        page.goto(urljoin(self.url, address))
        return page

    def _on_request(self, url: str) -> None:
        if not url.startswith((self.url, "blob:")):
            self.faults.append(f"a request to {url}")

    def _on_console(self, kind: str, text: str) -> None:
        # Statuses are judged where they arrive.
        if kind in {"error", "warning"} and not text.startswith("Failed to load resource"):
            self.faults.append(text)

    def close(self) -> None:
        """Close them all; fail if any saw an error or asked another server."""
        for context in self.browser.contexts:
            context.close()
        assert self.faults == []


def hits(page: Page) -> Locator:
    """Return the results of a page."""
    return page.locator("#results .grid li")


def names(page: Page) -> list[str]:
    """Return the results' file names, in order."""
    return page.locator("#results .name").all_inner_texts()


def distances(page: Page) -> list[float]:
    """Return the hits' distances, in order."""
    found = [item.get_attribute("data-distance") for item in hits(page).all()]
    return [float(distance or "nan") for distance in found]


def drop(page: Page, name: str, content: bytes, *, how: str = "drop") -> None:
    """Drop a file on a page, or paste it, as the browser tells a page of either."""
    page.evaluate(
        """([how, name, bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
          const options = { bubbles: true, cancelable: true };
          const tell = (event) => document.body.dispatchEvent(event);
          if (how === "paste") {
            tell(new ClipboardEvent("paste", { ...options, clipboardData: files }));
          } else {
            tell(new DragEvent("dragover", { ...options, dataTransfer: files }));
            if (how === "drop") tell(new DragEvent("drop", { ...options, dataTransfer: files }));
          }
        }""",
        [how, name, list(content)],
    )


@dataclass(frozen=True)
class Album:
    """What is served: two collections that share the cats, and an empty one."""

    folder: Path
    data_dir: Path
    url: str

    @property
    def cat(self) -> Path:
        return self.folder / "cats/03.png"

    def address(self, **values: str) -> str:
        """Return the address of a question about the cat, unless it is about another."""
        return f"/?{urlencode({'id': str(self.cat), **values})}"


def draw(folder: Path) -> None:
    """Draw pictures: each kind has its size and its day, and dog 00 is there twice."""
    kinds = (
        ("cats", CATS, (64, 48), 2024),
        ("dogs", DOGS, (96, 72), 2025),
        ("birds", BIRDS, (128, 96), 2026),
    )
    seeds = itertools.count()
    for kind, count, size, year in kinds:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            file = folder / kind / f"{number:02}.png"
            picture(next(seeds), size).save(file)
            if file.match("dogs/11.png"):
                PIL.Image.open(file.with_name("00.png")).save(file, compress_level=1)
            noon = datetime(year, 5, 6 + number, 12, tzinfo=UTC).timestamp()
            os.utime(file, (noon, noon))


def question(page: Page) -> dict[str, str]:
    """Return the values in a page's address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def expect_query_in_view(page: Page) -> None:
    shown = page.locator(".query img")
    expect(shown).to_be_in_viewport(ratio=0.9)
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
