"""`vecsearch db configure`: plain SQL on a Postgres of one's own is right from any client."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from servers import initialise, listening
from support import clustered, make_corpus
from typer.testing import CliRunner, Result

from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import migrate
from vecsearch.postgres.sessions.settings import SEARCH

ROWS = 300


@pytest.fixture(scope="module", params=[16, 18])
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("own") / "postgres"
    with listening(initialise(folder, request.param)) as url:
        yield url


@pytest.fixture(scope="module")
def photos(own_server: str) -> str:
    """The URL of a plain role, of the database that it owns; another role may read there."""
    with psycopg.connect(own_server, autocommit=True) as connection:
        for statement in (
            "CREATE ROLE keeper LOGIN",
            "CREATE ROLE analyst LOGIN",
            "CREATE DATABASE photos OWNER keeper",
            "ALTER DATABASE photos SET search_path = app, public",
        ):
            connection.execute(statement.encode())
    return own_server.replace("postgres@", "keeper@").replace("/postgres", "/photos")


def configure(url: str, *arguments: str) -> Result:
    words = ["db", "configure", *arguments, "--database-url", url]
    return CliRunner().invoke(app, words)


def settings(url: str) -> dict[str, str]:
    """Return what a client's new session has."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT CAST('[1]' AS public.vector)")
        found = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [[*SEARCH, "search_path"]]
        )
        return dict(found.fetchall())


def test_the_owner_configures_every_session_and_a_role_its_own(
    own_server: str, photos: str
) -> None:
    assert "vecsearch db upgrade" in configure(photos, "--yes").stderr
    with psycopg.connect(photos.replace("keeper@", "postgres@")) as connection:
        connection.execute("CREATE EXTENSION vector SCHEMA public")
    with Library.open(Settings.load(database_url=photos)) as library:
        (note,) = migrate.prepare(library.engine)
        assert note.endswith("Set them: vecsearch db configure")
        corpus = make_corpus(library, "images", clustered(ROWS, 16, seed=3))
        assert migrate.prepare(library.engine) == []
    before = settings(photos)
    with psycopg.connect(photos) as connection, pytest.raises(errors.UndefinedTable):
        connection.execute("SELECT count(*) FROM images")

    unasked = configure(photos)
    assert (unasked.exit_code, "add --yes" in unasked.stderr) == (1, True)
    assert settings(photos) == before

    # A role that does not own the database configures itself.
    analyst = photos.replace("keeper@", "analyst@")
    with psycopg.connect(photos) as connection:
        connection.execute("GRANT USAGE ON SCHEMA vecsearch TO analyst")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch TO analyst")
    done = configure(analyst, "--yes")
    assert done.exit_code == 0
    assert "role 'analyst' in database 'photos'" in done.stderr
    # What the database had stays first: other programs create their tables there.
    wanted = {"search_path": "app, public, vecsearch", **SEARCH}
    assert settings(analyst) == wanted
    assert settings(photos) == before

    done = configure(photos, "--yes")
    assert "database 'photos'" in done.stderr
    for name, value in wanted.items():
        assert f"  {name} = {value}\n" in done.stderr
    assert settings(photos) == wanted
    assert "already" in configure(photos, "--yes").stderr
    with psycopg.connect(photos) as connection:
        connection.execute("ALTER ROLE keeper SET cursor_tuple_fraction = 0.5")
    hidden = configure(photos, "--yes").stderr
    assert "take precedence over these: cursor_tuple_fraction" in hidden
    with psycopg.connect(analyst) as connection:
        connection.execute("SET enable_seqscan = off")
        found = connection.execute(
            "SELECT id FROM images ORDER BY embedding <=>"
            " (SELECT embedding FROM images WHERE id = %s) LIMIT 200",
            [corpus.ids[0]],
        ).fetchall()
        assert len(found) == 200


def test_the_embedded_database_is_configured_already(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["db", "configure", "--data-dir", str(tmp_path / "data")])
    assert (done.exit_code, "already" in done.stderr) == (0, True)
    with Library.open(Settings.load(data_dir=tmp_path / "data")) as library:
        assert migrate.prepare(library.engine) == []
        assert library.missing_settings().missing == {}
