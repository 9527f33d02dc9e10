"""Attempt what a reader should not be able to do, and print what came of each, with seconds.

    python benchmarks/reader.py --images FOLDER

A fresh embedded database ingests the folder, then a reader connects by TCP and tries to change its
own password, to take locks, to leave things behind, to fill the server, and to hold up an ingest, a
build, a drop and an upgrade by an open cursor. It unsets its timeouts first where that helps it. A
query that never ends takes as long as the reader's time limit, five minutes.
"""

import argparse
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from common import conditions, say

from vecsearch.config import Settings
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.errors import VecsearchError
from vecsearch.library import Library
from vecsearch.postgres import database, schema
from vecsearch.postgres.embedded import reader, server

REFUSED = (
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1, 2)",
    "LOCK TABLE images IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE collections IN SHARE MODE",
    "SELECT id FROM images FOR UPDATE",
    "CREATE TEMP TABLE mine (x int)",
    "CREATE TABLE public.mine (x int)",
    "CREATE TABLE vecsearch.mine (x int)",
    "CREATE SCHEMA mine",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_logical_emit_message(true, 'x', 'y')",
    "DELETE FROM images",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT * FROM pg_authid",
    "ALTER ROLE vecsearch_reader CONNECTION LIMIT -1",
    "ALTER ROLE vecsearch_reader SET temp_file_limit = -1",
    "SET temp_file_limit = -1",
    "SET log_min_messages = debug5",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "CHECKPOINT",
)
UNSET = (
    "SET default_transaction_read_only = off; SET statement_timeout = 0;"
    " SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0"
)
OLD_REVISION = "0013"

# An attempt, what happened, and seconds.
Row = tuple[str, str, float]


def main() -> None:
    """Attempt everything and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=Path, required=True)
    images = parser.parse_args().images
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        server.set_port(data_dir, _free_port())
        settings = Settings.load(data_dir=data_dir)
        with Library.open(settings) as library:
            url = reader.prepare(library.engine, data_dir).url
            say(f"Ingesting {images}")
            library.collection().ingest([images], model=PACKAGED_MODEL)
            _statements(url, data_dir / "postgres/log", rows)
            _connections(library, url, rows)
            _password(settings, url, rows)
            _ingests(library, images, url, rows)
            with ThreadPoolExecutor() as pool:
                say("Waiting for the time limits")
                rows += pool.map(lambda limited: limited(url), (_endless, _idle))
        _upgrade(Path(folder) / "old", rows)
    print(f"Conditions: {conditions()}.\n")
    print("| attempt | what happened | seconds |")
    print("|---|---|---|")
    for attempt, result, seconds in rows:
        print(f"| {attempt} | {result} | {seconds:.1f} |")


def _statements(url: str, log: Path, rows: list[Row]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(UNSET)
        for statement in REFUSED:
            attempt = partial(connection.execute, statement.encode())
            if statement.startswith("LOCK"):
                connection.execute("BEGIN")
            rows.append((f"`{statement}`", *_tried(attempt)))
            connection.execute("ROLLBACK")
        flood = (
            "DO $$ BEGIN FOR i IN 1..20000 LOOP PERFORM pg_notify('x', i::text); END LOOP; END $$"
        )
        rows.append(("20,000 notifications", *_tried(lambda: connection.execute(flood))))
        flood = "DO $$ BEGIN FOR i IN 1..20000 LOOP RAISE WARNING 'x'; END LOOP; END $$"
        before = log.stat().st_size
        result, seconds = _tried(lambda: connection.execute(flood))
        result = f"{result}; {log.stat().st_size - before} bytes logged"
        rows.append(("20,000 warnings", result, seconds))


def _connections(library: Library, url: str, rows: list[Row]) -> None:
    started = perf_counter()
    with ExitStack() as opened:
        count = 0
        try:
            while True:
                opened.enter_context(psycopg.connect(url))
                count += 1
        except psycopg.OperationalError as error:
            reason = str(error).rpartition("FATAL:")[2].strip()
        with psycopg.connect(library.url):
            pass
    result = f"{count} more, then: {reason}; the owner connects"
    rows.append(("many connections", result, perf_counter() - started))


def _password(settings: Settings, url: str, rows: list[Row]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(UNSET)
        connection.execute("ALTER ROLE vecsearch_reader PASSWORD 'mine'")
        connection.execute("ALTER ROLE vecsearch_reader SET statement_timeout = 0")
    started = perf_counter()
    with Library.open(settings):
        pass
    seconds = perf_counter() - started
    with psycopg.connect(url) as connection:
        (timeout,) = connection.execute("SHOW statement_timeout").fetchone() or ("",)
    rows.append(
        (
            "change its own password and time limit",
            f"allowed; the owner's next command restores them (password works, limit {timeout})",
            seconds,
        )
    )


def _ingests(library: Library, images: Path, url: str, rows: list[Row]) -> None:
    for number, what in enumerate(("alone", "beside an open cursor")):
        collection = library.collection(f"again_{number}")
        steps: list[tuple[str, Callable[[], Any]]] = [
            (
                "ingest of a new collection",
                partial(collection.ingest, [images], model=PACKAGED_MODEL),
            ),
            ("index create --method compact", partial(collection.create_index, "compact")),
            ("drop", collection.drop),
        ]
        for name, step in steps:
            say(f"{name} {what}")
            # The first step has no table of its own to hold yet.
            table = "images" if step is steps[0][1] else collection.name
            with _held(url, table if number else None):
                rows.append((f"{name} {what}", *_tried(step)))


def _upgrade(data_dir: Path, rows: list[Row]) -> None:
    for what in ("alone", "beside an open cursor"):
        folder = data_dir / what.replace(" ", "-")
        server.set_port(folder, _free_port())
        with Library.open(Settings.load(data_dir=folder)) as library:
            with database.writing(library.engine) as connection:
                config = Config()
                config.set_main_option("script_location", str(schema.MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, OLD_REVISION)
            library.engine.dispose()
            url = reader.prepare(library.engine, folder).url
            with _held(url, None if what == "alone" else "collections"):
                rows.append((f"upgrade {what}", *_tried(library.upgrade)))


@contextmanager
def _held(url: str, table: str | None) -> Iterator[None]:
    """Hold a cursor on a table open, without time limits, in a session of the reader's."""
    if table is None:
        yield
        return
    connection = psycopg.connect(url)
    connection.execute(UNSET)
    connection.commit()
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.execute(f"DECLARE held CURSOR FOR SELECT * FROM {table}".encode())
    connection.execute("FETCH 1 FROM held")
    try:
        yield
    finally:
        connection.close()


def _endless(url: str) -> Row:
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "SELECT pg_sleep(1e9)"
        return "a query that never ends", *_tried(lambda: connection.execute(statement))


def _idle(url: str) -> Row:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT count(*) FROM images")
        started = perf_counter()
        with socket.socket(fileno=os.dup(connection.fileno())) as waiting:
            waiting.settimeout(600)
            waiting.recv(1, socket.MSG_PEEK)
        result, _ = _tried(lambda: connection.execute("SELECT 1"))
        return "a transaction left open", result, perf_counter() - started


def _tried(call: Callable[[], Any]) -> tuple[str, float]:
    """Return what came of a call, and its seconds."""
    started = perf_counter()
    try:
        done = call()
    except (psycopg.Error, VecsearchError) as error:
        lines = [line for line in str(error).splitlines() if line]
        return f"refused: {lines[0]}", perf_counter() - started
    notes = getattr(done, "notes", done if isinstance(done, (list, tuple)) else ())
    return "done" + "".join(f"; {note}" for note in notes), perf_counter() - started


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
