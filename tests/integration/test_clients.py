"""SQL clients as a BI tool's, by TCP as the reader: the same rows, whichever asks and however."""

import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from clients.run import CLIENTS, QUESTIONS, Client, Source, ask, command_of, source_of
from servers import free_port
from support import clustered, make_corpus, once

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.embedded import server

pytestmark = once
# Of the packages that the tests install. `python tests/clients/run.py` tries all that there are.
HERE = {"psql", "psycopg", "asyncpg", "pandas", "SQLAlchemy automap"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """A collection whose index the planner takes wherever it can, cursors included."""
    data_dir = tmp_path_factory.mktemp("clients") / "data"
    server.set_port(data_dir, free_port())
    with Library.open(Settings.load(data_dir=data_dir)) as library:
        library.upgrade()
        make_corpus(library, "images", clustered(2_000, 32, seed=3))
        source = source_of(library)
        with library.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as owner:
            for setting in ("enable_seqscan", "enable_sort"):
                owner.execute(sa.text(f"ALTER DATABASE vecsearch SET {setting} = off"))
        yield source


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.name in HERE], ids=lambda c: c.name)
def test_a_client_gets_the_right_rows(source: Source, client: Client) -> None:
    command = command_of(client, [sys.executable], {})
    assert command is not None
    answers = ask(command, source, {})
    assert answers.note == ""
    judged = {name: source.judge(name, answers.ids[name]) for name in QUESTIONS}
    assert {words.split(",")[0] for words in judged.values()} == {"right"}, judged
    assert answers.types["embedding"]
