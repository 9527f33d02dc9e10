"""A primary and a standby that streams from it: where one reads and writes, and which one fails."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from servers import Handle, free_port, initialise
from support import PixelEncoder, counts, ingest, once, write
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.errors import DatabaseBusy
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.postgres.embedded import programs

pytestmark = once


@dataclass
class Pair:
    """A primary, its standby, and their ports."""

    primary: Handle
    standby: Handle
    ports: tuple[int, int]

    def url(self, kind: str = "prefer-standby", *, of: Sequence[int] = ()) -> str:
        """Return the URL of both, the primary first, or of the server at a port."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in of or self.ports)
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs={kind}"

    def catch_up(self) -> None:
        """Wait until the standby has all that the primary has written."""
        with psycopg.connect(self.url("any", of=self.ports[:1])) as connection:
            [(written,)] = connection.execute("SELECT pg_current_wal_lsn()").fetchall()
        with psycopg.connect(self.url("any", of=self.ports[1:]), autocommit=True) as connection:
            replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
            while connection.execute(replayed, [written]).fetchone() != (True,):
                pass


def copy_of(primary: Handle, folder: Path, port: int) -> Handle:
    """Make the folder of a standby from a running primary."""
    folder.mkdir(0o700)
    user = programs.account_of(primary.folder)
    for path in (folder, primary.folder / "log"):
        os.chown(path, user.uid, user.gid)
    with programs.entrance(folder, user) as entrance:
        backup = str(programs.program("pg_basebackup"))
        source = f"host=127.0.0.1 port={port} user=postgres"
        words = [backup, "-D", entrance.path, "-d", source, "-R", "-c", "fast", "--no-sync"]
        subprocess.run(words, check=True, **entrance.options)
    return Handle(folder, None)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with ExitStack() as ending:
        primary = initialise(tmp_path / "primary", 18)
        ports = (free_port(), free_port())
        primary.start(ports[0])
        ending.callback(primary.kill)
        standby = copy_of(primary, tmp_path / "standby", ports[0])
        standby.start(ports[1])
        ending.callback(standby.kill)
        yield Pair(primary, standby, ports)


def command(pair: Pair, *words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*map(str, words), "--database-url", pair.url()])
    return done.exit_code, done.stdout, done.stderr


def reads_from_standby(library: Library) -> object:
    with library.sql("SELECT pg_is_in_recovery()") as (_, rows, _):
        [(answer,)] = rows
    return answer


def test_the_standby_is_read_and_the_primary_written(
    pair: Pair, photos: Path, tmp_path: Path
) -> None:
    kept, lost = photos / "cats" / "03.png", photos / "cats" / "01.png"
    query = ("query", kept, "-k", "3", "--format", "paths")
    with Library.open(Settings.load(database_url=pair.url(), data_dir=tmp_path)) as library:
        library.upgrade()
        assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 12}
        pair.catch_up()
        expected = command(pair, *query)
        assert expected[0] == 0
        assert expected[1].splitlines()[0] == str(kept)
        assert reads_from_standby(library) is True

        pair.standby.kill()
        assert reads_from_standby(library) is False
        assert command(pair, *query) == expected
        lost.unlink()
        summary = ingest(library.engine, [photos], PixelEncoder(), prune=True)
        assert counts(summary) == {"unchanged": 11, "pruned": 1}

        pair.standby.start(pair.ports[1])
        pair.catch_up()
        pair.primary.kill()
        assert [status.images for status in library.collections()] == [11]
        assert command(pair, *query)[0] == 0
        assert command(pair, "status")[0] == 0
        code, out, err = command(pair, "forget", photos, "--existing", "--yes")
        assert (code, out) == (1, "")
        refused, read_only = (f"127.0.0.1:{port}: " for port in pair.ports)
        assert f"use the database: {refused}Connection refused; {read_only}session is read" in err
        with psycopg.connect(pair.url("any", of=pair.ports[1:]), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"unchanged": 11}


def read_what_is_vacuumed(pair: Pair, library: Library) -> None:
    with database.reading(library.reader) as reading:
        reading.exec_driver_sql("SELECT count(*) FROM images")
        write(library, "DELETE FROM images")
        with psycopg.connect(pair.url("primary"), autocommit=True) as connection:
            connection.execute("VACUUM vecsearch.images")
        pair.catch_up()
        reading.exec_driver_sql("SELECT count(*) FROM images")


def test_a_statement_that_the_standby_stops_is_explained(
    pair: Pair, photos: Path, tmp_path: Path
) -> None:
    with psycopg.connect(pair.url("any", of=pair.ports[1:]), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        connection.execute("SELECT pg_reload_conf()")
    with Library.open(Settings.load(database_url=pair.url(), data_dir=tmp_path)) as library:
        library.upgrade()
        ingest(library.engine, [photos], PixelEncoder())
        pair.catch_up()
        with pytest.raises(DatabaseBusy, match=r"The standby stopped the statement: .*Retry"):
            read_what_is_vacuumed(pair, library)
        assert [status.images for status in library.collections()] == [0]
