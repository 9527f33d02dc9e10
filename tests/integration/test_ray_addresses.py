"""Addresses of Ray clusters that do not answer, or are none; and Ray that is not installed."""

import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import free_port
from support import once, run_command, scalar

from vecsearch.ingest.stages import cluster as clusters
from vecsearch.library import Library

pytestmark = once


class Refusing(BaseHTTPRequestHandler):
    """A web server, which is not Ray."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def mute_server() -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["nobody", "web_server", "mute_server"])
def test_an_address_that_does_not_answer_is_named_and_nothing_is_written(
    empty: Library,
    photos: Path,
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clusters, "ANSWER_S", 1.0)
    address = f"127.0.0.1:{free_port()}" if kind == "nobody" else request.getfixturevalue(kind)
    for form in (address, f"ray://{address}"):
        status, out, err = run_command(empty, "ingest", photos, "--ray", form)
        assert (status, out) == (1, "")
        assert err.startswith(f"error: The Ray cluster at {form} does not answer: ")
        assert err.endswith("Check the address with `ray status`, or use --ray local.\n")
    assert scalar(empty, "SELECT to_regclass('vecsearch.collections')") is None


def test_what_is_no_address_is_refused(library: Library, photos: Path) -> None:
    for address in ("nonsense", "host:", ":6379", "http://host:1"):
        _, _, err = run_command(library, "ingest", photos, "--ray", address)
        assert "HOST:PORT" in err or "does not answer" in err


def test_without_ray_the_extra_is_named(
    library: Library, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = run_command(library, "ingest", photos, "--ray", "local")
    assert status == 1
    assert err == (
        "error: Ray is not installed. Install it here and on every node: "
        "pip install 'vecsearch[ray]'\n"
    )
