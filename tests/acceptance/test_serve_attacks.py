"""A server under attack still answers whoever has access: tests/reliability, for a moment each."""

from pathlib import Path

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
            assert (found.bad, found.good > 0) == (0, True)
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
