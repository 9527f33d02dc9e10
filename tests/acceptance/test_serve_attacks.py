"""A server under attack still answers whoever has access: tests/reliability, for a moment each."""

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import machine
from acceptance.browser import Album
from reliability import serve_attacks
from reliability.serve_attacks import Attack, Figures, attack

FILES = 128
SECONDS = 1.5


def test_others_are_answered_while_somebody_attacks(
    album: Album, environment: dict[str, str], tmp_path: Path
) -> None:
    settings = {**environment, "VECSEARCH_DATA_DIR": str(album.data_dir)}
    log = tmp_path / "log"
    with serve_attacks.served(settings, log, FILES) as server:
        row = serve_attacks.stored_row(server)

        def figures(tried: Attack) -> Figures:
            found = attack("", tried, server, row, SECONDS)
            assert (found.bad, found.good > 0) == ({}, True)
            assert found.open_files < FILES
            return found

        found = figures(serve_attacks.half_sent(2 * FILES))
        assert found.connections > FILES
        found = figures(serve_attacks.multipart_tokens(10))
        assert set(found.answers) <= {"413", "closed"}
        assert found.disk == 0
        assert found.memory < found.memory_before + 50 * 2**20
        found = figures(serve_attacks.guesses(10))
        assert found.answers["401"] <= 12
        assert found.answers["429"] > 0
        found = figures(serve_attacks.garbage(10))
        assert set(found.answers) <= {"400", "closed"}
        assert found.answers["400"] > 60
    said = log.read_text()
    assert len(said) < 10_000
    assert "Traceback" not in said
    assert "\x1b" not in said


def test_other_users_of_this_machine_are_refused(album: Album) -> None:
    if os.geteuid() != 0:
        machine.lacks("root, to connect as another user")
    server = urlsplit(album.url)

    def asked(user: int, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(str(server.hostname), server.port or 0)
        # The kernel notes who makes a socket.
        os.seteuid(user)
        try:
            connection.connect()
        finally:
            os.seteuid(0)
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    nobody = 65_534
    for path in ("/", "/api/collections", "/duplicates", "/openapi.json"):
        status, content = asked(nobody, path)
        assert status == 403
        assert b"only the user who started it" in content
        assert asked(0, path)[0] == 200
    assert asked(nobody, "/api/health") == (200, b'{"status":"ok"}')
    assert b"version" in asked(0, "/api/health")[1]
