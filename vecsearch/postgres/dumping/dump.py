"""Dump and restore all collections of a database, or one, in pg_dump's custom format.

A dump of one collection is made by copying it to a scratch database and dumping that. A dump that
cannot be restored directly, for example because the database has other collections, is restored
into a scratch database, upgraded there, and copied row by row.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from vecsearch.errors import DatabaseError, InvalidInput, SchemaNewer
from vecsearch.files import written_whole
from vecsearch.postgres import catalog, database, distributed, migrate, schema, tables
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.dumping import copying
from vecsearch.postgres.embedded import programs, server
from vecsearch.postgres.sessions import hosts

DUMP, RESTORE = "pg_dump", "pg_restore"
# Embeddings hardly compress, so a higher level only takes more time.
COMPRESSION = "1"


@dataclass(frozen=True)
class Contents:
    """The contents of a dump.

    Attributes:
        revision: the schema's revision.
        collections: names of the collections.
        extension_schema: the schema in which pgvector was installed.

    """

    revision: str
    collections: list[str]
    extension_schema: str


def dump(engine: sa.Engine, file: Path) -> None:
    """Write our schemas to a file; on failure the file is unchanged.

    Raises:
        InvalidInput: the file cannot be written, or a collection is in shards.
        DatabaseError: pg_dump fails, or is too old for the server.

    """
    with database.reading(engine) as connection:
        major = _server_major(connection)
        spread = distributed.list_distributed(connection)
        if spread:
            raise InvalidInput(
                f"Collection {spread[0]!r} is in shards, which {DUMP} does not read. Dump one "
                f"collection at a time: vecsearch db dump {shlex.quote(str(file))} "
                f"--collection {spread[0]}"
            )
    with written_whole(file) as partial:
        arguments = ["--format=custom", f"--compress={COMPRESSION}"]
        arguments += [f"--schema={name}" for name in tables.SCHEMAS]
        _run(engine, DUMP, major, *arguments, f"--file={partial}")


def dump_collection(engine: sa.Engine, name: str, file: Path, folder: Path) -> None:
    """Write one collection to a file; on failure the file is unchanged.

    Args:
        engine: engine of a database with tables of this version.
        name: the collection.
        file: see `dump`.
        folder: folder for a scratch database, which takes as much space as the collection.

    Raises:
        CollectionNotFound: there is no collection of this name.
        InvalidInput: see `dump`.

    """
    with catalog.reading(engine, name):
        pass  # a missing collection is refused before a scratch server is started
    with scratch(folder) as alone:
        with migrate.reading_current(engine) as source:
            migrate.run(alone)
            with database.writing(alone) as target:
                copying.copy_collection(source, target, name)
        dump(alone, file)


def read_contents(file: Path) -> Contents:
    """Return the contents of a dump.

    Raises:
        InvalidInput: the file is not a dump of vecsearch, or does not exist.
        SchemaNewer: a newer vecsearch made the dump.

    """
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise InvalidInput(f"{file} {what}. Name a file that `vecsearch db dump` wrote.")
    # Read all definitions, and the rows of two small tables.
    small = "--data-only", "--table=alembic_version", "--table=collections"
    definition, rows = (_script(file, *arguments) for arguments in (("--section=pre-data",), small))
    revisions = _column(rows, schema.VERSION_TABLE, "version_num")
    if len(revisions) != 1:
        raise InvalidInput(f"{file} holds no tables of vecsearch. Name a dump of vecsearch.")
    if not migrate.is_known(revisions[0]):
        raise SchemaNewer(
            f"{file} is at revision {revisions[0]}, made by a newer vecsearch than this one. "
            "Run: pip install --upgrade vecsearch"
        )
    found = re.search(r"(\w+)\.halfvec\b", definition)
    return Contents(
        revisions[0],
        sorted(_column(rows, tables.collections.name, "name")),
        "public" if found is None else found[1],
    )


def restore(engine: sa.Engine, file: Path, folder: Path, only: str | None = None) -> list[str]:
    """Restore the collections of a dump, all or none; return their names.

    Their HNSW indexes may be missing afterwards; the caller builds them.

    Args:
        engine: engine of the target database.
        file: the dump.
        folder: see `dump_collection`.
        only: one of the dump's collections; None restores all of them.

    Raises:
        InvalidInput: the file is not a dump, or a collection already exists.
        SchemaNewer: a newer vecsearch made the dump.
        SchemaOutdated: the target database's tables are of an older version.

    """
    contents = read_contents(file)
    names = contents.collections if only is None else [only]
    if only is not None and only not in contents.collections:
        held = ", ".join(contents.collections) or "no collection"
        raise InvalidInput(f"{file} has no collection {only!r}. It holds: {held}.")
    if only is None and _takes_as_it_is(engine, file, contents):
        renamed = _restore_into(engine, file, contents)
        return sorted(renamed.get(name, name) for name in names)
    migrate.prepare(engine)
    with migrate.reading_current(engine) as connection:
        copying.refuse_existing(connection, names)
    with scratch(folder) as apart:
        renamed = _restore_into(apart, file, contents, indexed=False)
        names = sorted(renamed.get(name, name) for name in names)
        with migrate.reading_current(apart) as source, database.writing(engine) as target:
            for name in names:
                copying.copy_collection(source, target, name)
    return names


@contextmanager
def scratch(folder: Path) -> Iterator[sa.Engine]:
    """Yield the engine of an empty database on a temporary server."""
    with server.scratch(folder) as url:
        engine = database.open_engine(url)
        try:
            yield engine
        finally:
            engine.dispose()


def _takes_as_it_is(engine: sa.Engine, file: Path, contents: Contents) -> bool:
    """Return whether pg_restore can restore into this database directly.

    It must have no tables of ours, and pgvector in the same schema or not at all; this machine must
    have a pg_restore that can read the file and is not older than the server.
    """
    with database.reading(engine) as connection:
        driver = driver_connection(connection)
        is_used = driver.execute(
            "SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid ="
            " relnamespace WHERE nspname = ANY(%s))",
            [[*tables.SCHEMAS]],
        ).fetchone()
        installed = driver.execute(
            f"SELECT quote_ident({database.VECTOR_SCHEMA})".encode()
        ).fetchone()
        major = _server_major(connection)
    if is_used == (True,) or installed not in {(None,), (contents.extension_schema,)}:
        return False
    # The pg_restore of an older server cannot read the dump of a newer pg_dump.
    program = _found(RESTORE, major)
    return program is not None and _listed(program, file) is not None


def _restore_into(
    engine: sa.Engine, file: Path, contents: Contents, *, indexed: bool = True
) -> dict[str, str]:
    """Restore a whole dump into a database without our tables, and upgrade it.

    Return the collections that the upgrade renamed: new names by old names.

    Args:
        engine: engine of the target database.
        file: the dump.
        contents: contents of the dump.
        indexed: False omits the HNSW indexes, which take most of the time.

    """
    place = contents.extension_schema
    with database.writing(engine) as connection:
        major = _server_major(connection)
        for statement in (
            f"CREATE SCHEMA IF NOT EXISTS {place}",
            f"CREATE EXTENSION IF NOT EXISTS vector SCHEMA {place}",
        ):
            connection.exec_driver_sql(statement)
        existing = [name for name in tables.SCHEMAS if _has_schema(connection, name)]
    left_out = rf" (SCHEMA -|COMMENT - SCHEMA) ({'|'.join(existing)}) "
    if not indexed:
        ours = "|".join(tables.SCHEMAS)
        left_out += rf"| INDEX ({ours}) \S+({'|'.join(schema.INDEX_SUFFIXES)}) "
    listed = _listed(_program(RESTORE, major), file) or ""
    wanted = [line for line in listed.splitlines() if not re.search(left_out, line)]
    with tempfile.NamedTemporaryFile("w", suffix=".list") as selection:
        selection.write("\n".join(wanted) + "\n")
        selection.flush()
        _run(
            engine,
            RESTORE,
            major,
            *("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"),
            f"--use-list={selection.name}",
            str(file),
        )
    return migrate.run(engine)


def _has_schema(connection: sa.Connection, name: str) -> bool:
    found = driver_connection(connection).execute("SELECT to_regnamespace(%s)", [name])
    return found.fetchone() != (None,)


def _server_major(connection: sa.Connection) -> int:
    return driver_connection(connection).info.server_version // 10_000


def _program(name: str, major: int) -> str:
    """Return the path of a Postgres program that is not older than the server.

    Raises:
        DatabaseError: every installed version is older than the server.

    """
    found = _found(name, major)
    if found is None:
        raise DatabaseError(
            f"The server is PostgreSQL {major}, and this machine has no {name} of that version "
            f"or newer. Install the client programs of PostgreSQL {major}, and put them on the "
            "PATH."
        )
    return found


def _found(name: str, major: int) -> str | None:
    """Return the path of a program like `_program`; None if there is none."""
    fitting = [version for version in programs.versions() if version >= major]
    if fitting:
        return str(programs.program(name, min(fitting)))
    found = shutil.which(name)
    printed = "" if found is None else _output([found, "--version"]).stdout
    match = re.search(r"\) (\d+)", printed)
    return found if match is not None and int(match[1]) >= major else None


def _run(engine: sa.Engine, name: str, major: int, *arguments: str) -> None:
    """Run pg_dump or pg_restore on the engine's database.

    Raises:
        DatabaseError: the program failed.

    """
    url, password = hosts.for_programs(engine.url)
    words = [_program(name, major), *arguments, f"--dbname={url}"]
    done = _output(words, **password)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "error:" in line]
        reason = (said or done.stderr.splitlines() or ["unknown reason"])[0]
        raise DatabaseError(
            f"{name} failed: {reason.rpartition('error: ')[2]}. Nothing was written."
        )


def _output(words: list[str], **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - a program of Postgres, by its path
        words,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **variables, "LC_ALL": "C"},
    )


def _script(file: Path, *arguments: str) -> str:
    """Return a part of a dump as SQL.

    Raises:
        InvalidInput: the file is not a dump.

    """
    newest = str(programs.program(RESTORE, max(programs.versions())))
    done = _output([newest, *arguments, "--file=-", str(file)])
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("error: ")[2]
        raise InvalidInput(
            f"{file} is not a dump: {reason}. Name a file that `vecsearch db dump` wrote."
        )
    return done.stdout


def _listed(program: str, file: Path) -> str | None:
    """Return a dump's table of contents; None if this pg_restore cannot read it."""
    done = _output([program, "--list", str(file)])
    return done.stdout if done.returncode == 0 else None


def _column(script: str, table: str, column: str) -> list[str]:
    """Return one column of the rows that a script copies into a table; values have no escapes."""
    pattern = rf"^COPY {tables.SCHEMA}\.{table} \((.*?)\) FROM stdin;\n(.*?)^\\\.$"
    found = re.search(pattern, script, re.MULTILINE | re.DOTALL)
    if found is None:
        return []
    position = found[1].split(", ").index(column)
    return [line.split("\t")[position] for line in found[2].splitlines()]
