"""Ask every SQL client of this machine the same questions, and print what each answers.

A client is a script of this folder, in the client's own language. It finds the questions in its
environment (see `questions`) and prints lines of words separated by tabs: `version`, `types`, and
the ids of each answer. This script compares them with the exact answers.

    python tests/clients/run.py PICTURES --python VENV/bin/python --node-modules FOLDER

`--python` may be repeated: a client in Python runs in the first environment that has its packages.
A client that is not installed is listed as that.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import free_port

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.embedded import programs, reader, server

HERE = Path(__file__).parent
# Each with the words of its column.
QUESTIONS = {"nearest": "nearest", "hundred": "k = 100", "filter": "filter", "all": "cursor"}
# Distances nearer to each other than this may change places: the index compares in half precision.
TIE = 2e-3


@dataclass(frozen=True)
class Client:
    """A client.

    Attributes:
        name: its name.
        script: its script.
        needs: of a script in Python, the modules that it imports; of one in bash, the variables of
            `extras` that it reads.

    """

    name: str
    script: str
    needs: tuple[str, ...] = ()


CLIENTS = (
    Client("psql", "with_psql.sh"),
    Client("pandas", "with_pandas.py", ("pandas", "psycopg", "sqlalchemy")),
    Client("polars", "with_polars.py", ("polars", "adbc_driver_postgresql", "pyarrow")),
    Client("DuckDB", "with_duckdb.py", ("duckdb",)),
    Client("psycopg", "with_psycopg.py", ("psycopg",)),
    Client("asyncpg", "with_asyncpg.py", ("asyncpg",)),
    Client("node-postgres", "with_node.js"),
    Client("JDBC", "WithJdbc.java"),
    Client("ODBC", "with_odbc.py", ("pyodbc",)),
    Client("R", "with_r.R"),
    Client("SQLAlchemy automap", "with_automap.py", ("sqlalchemy", "psycopg")),
    Client("Django", "with_django.py", ("django", "psycopg")),
    Client("dbt", "with_dbt.sh", ("DBT",)),
    Client("Superset", "with_superset.py", ("superset",)),
    Client("ibis", "with_ibis.py", ("ibis",)),
    Client("postgres_fdw", "with_fdw.sh", ("PG_BIN",)),
    Client("pg_dump", "with_pg_dump.sh"),
    Client("logical replication", "with_replication.sh"),
)


@dataclass(frozen=True)
class Source:
    """A collection to ask: its database's addresses, and the exact answers.

    Attributes:
        owner, reader: URLs.
        jdbc: the reader's URL for Java.
        image: id of the image that the questions name.
        label: the label that one of them filters by.
        distances: the cosine distance of every image from `image`.
        labels: the label of every image.

    """

    owner: str
    reader: str
    jdbc: str
    image: str
    label: str
    distances: Mapping[str, float]
    labels: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What a client's script is told."""
        address = sa.make_url(self.reader)
        return {
            "READER_URL": self.reader,
            "OWNER_URL": self.owner,
            "JDBC_URL": self.jdbc,
            "PGHOST": str(address.host),
            "PGPORT": str(address.port),
            "PGUSER": str(address.username),
            "PGPASSWORD": str(address.password),
            "PGDATABASE": str(address.database),
            "IMAGE": self.image,
            "LABEL": self.label,
            "PSQL": str(programs.program("psql")),
            "PG_DUMP": str(programs.program("pg_dump")),
        } | {f"ASK_{name.upper()}": text for name, text in questions(self).items()}

    def judge(self, question: str, found: Sequence[str]) -> str:
        """Return what is wrong with an answer, or "right"; with how many rows are out of order.

        An index scan returns a few rows of a long answer later than their distance says, if
        hnsw.iterative_scan is relaxed_order; strict_order would leave them out.
        """
        wanted = {id_ for id_ in self.distances if question != "filter" or self.is_wanted(id_)}
        k = {"nearest": 10, "hundred": 100, "filter": 20, "all": len(wanted)}[question]
        exact = sorted(self.distances[id_] for id_ in wanted)[:k]
        if not set(found) <= wanted:
            return f"{len(set(found) - wanted)} ids that should not be there"
        if len(set(found)) != len(exact) or len(found) != len(exact):
            return f"{len(set(found))} of {len(exact)} rows"
        near = sum(self.distances[id_] <= exact[-1] + TIE for id_ in found)
        if near < len(exact):
            return f"recall {near / len(exact):.2f}"
        distances = [self.distances[id_] for id_ in found]
        late = sum(b < a - TIE for a, b in itertools.pairwise(distances))
        return f"right, {late} late" if late else "right"

    def is_wanted(self, image: str) -> bool:
        """Return whether an image passes the filter."""
        return self.labels[image] == self.label


def questions(source: Source) -> dict[str, str]:
    """Return the questions that clients send as they are; each answers with the id first."""
    every = f"SELECT id, label, distance FROM images_distances('{source.image}')"
    return {
        "types": "SELECT id, path, width, file_size, modified_at, taken_at, latitude, metadata,"
        " embedding FROM images ORDER BY id LIMIT 1",
        "nearest": f"SELECT id, label, distance FROM images_search('{source.image}', 10)",
        "hundred": f"{every} ORDER BY distance LIMIT 100",
        "filter": f"{every} WHERE label = '{source.label}' ORDER BY distance LIMIT 20",
        "all": f"{every} ORDER BY distance",
    }


def source_of(library: Library) -> Source:
    """Return the library's collection `images`, whose server must have a port."""
    address = reader.prepare(library.engine, library.settings.data_dir)
    with psycopg.connect(library.url) as connection:
        connection.execute("SET enable_indexscan = off")
        ((image,),) = connection.execute(
            "SELECT id::text FROM vecsearch.images ORDER BY path LIMIT 1"
        ).fetchall()
        found = connection.execute(
            "SELECT i.id::text, i.label, i.embedding OPERATOR(public.<=>) q.embedding"
            " FROM vecsearch.images AS i, vecsearch.images AS q WHERE q.id = %s",
            [image],
        ).fetchall()
    distances = {id_: distance for id_, _, distance in found}
    labels = {id_: label for id_, label, _ in found}
    # One that not every near image has.
    label = labels[sorted(distances, key=distances.__getitem__)[len(distances) // 3]]
    return Source(library.url, address.url, address.jdbc, image, label, distances, labels)


@dataclass(frozen=True)
class Answers:
    """What a client said."""

    version: str
    types: Mapping[str, str]
    ids: Mapping[str, list[str]]
    note: str


def ask(command: Sequence[str], source: Source, extra: Mapping[str, str]) -> Answers:
    """Run a client's script and read its answers."""
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **source.environment, **extra},
        timeout=300,
    )
    version, notes = "", []
    types: dict[str, str] = {}
    ids: dict[str, list[str]] = {name: [] for name in QUESTIONS}
    for line in done.stdout.splitlines():
        match line.split("\t"):
            case ["version", words]:
                version = words
            case ["types", name, type_]:
                types[name] = type_
            case ["note", words]:
                notes.append(words)
            case [question, id_] if question in ids:
                # Some clients give a UUID as 32 digits.
                ids[question].append(_dashed(id_))
    if done.returncode:
        notes.append((done.stderr.strip().splitlines() or ["failed"])[-1])
    return Answers(version, types, ids, "; ".join(notes))


def _dashed(id_: str) -> str:
    digits = id_.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@cache
def _imports(python: str, modules: tuple[str, ...]) -> bool:
    code = f"import importlib.util as u; raise SystemExit(not all(map(u.find_spec, {modules!r})))"
    return subprocess.run([python, "-c", code], check=False, capture_output=True).returncode == 0


def command_of(
    client: Client, pythons: Sequence[str], extra: Mapping[str, str]
) -> list[str] | None:
    """Return the command that runs a client's script; None if the client is not installed."""
    script = str(HERE / client.script)
    match Path(script).suffix:
        case ".py":
            found = (python for python in pythons if _imports(python, client.needs))
            python = next(found, None)
            return [python, script] if python else None
        case ".sh":
            return ["bash", script] if set(client.needs) <= extra.keys() else None
        case ".js":
            return ["node", script] if shutil.which("node") else None
        case ".R":
            return ["Rscript", script] if shutil.which("Rscript") else None
        case _:
            jar = Path("/usr/share/java/postgresql.jar")
            is_found = shutil.which("java") and jar.exists()
            return ["java", "-cp", str(jar), script] if is_found else None


@contextmanager
def served(pictures: Path) -> Iterator[Library]:
    """Yield a library with a collection of pictures, in an embedded server with a port."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        settings = Settings.load(data_dir=data_dir)
        # Root's server runs as another user, who must reach its files.
        Path(folder).chmod(0o755)
        server.set_port(data_dir, free_port())
        with Library.open(settings) as library, library.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                sa.text("ALTER SYSTEM SET wal_level = logical")
            )
        # It stopped with its last user, and starts with what was set.
        with Library.open(settings) as library:
            library.collection().ingest([pictures], model="tf_efficientnet_lite0")
            yield library


def extras(node_modules: Path | None, pythons: Sequence[str]) -> dict[str, str]:
    """Return where scripts find the programs that are not on the PATH."""
    found = {"NODE_PATH": str(node_modules)} if node_modules else {}
    for python in pythons:
        dbt = Path(python).parent / "dbt"
        if dbt.exists():
            found["DBT"] = str(dbt)
    # Servers of the system that have postgres_fdw, which the wheel's has not.
    for library in sorted(Path("/usr/lib/postgresql").glob("*/lib/postgres_fdw.so")):
        found["PG_BIN"] = str(library.parents[1] / "bin")
    return found


def main() -> int:
    """Ask, and print a row for each client."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, help="a folder of more than 100 pictures")
    parser.add_argument("--python", action="append", default=[], help="for clients in Python")
    parser.add_argument("--node-modules", type=Path, help="for node-postgres")
    parser.add_argument("--only", nargs="*", help="names of clients")
    parser.add_argument(
        "--types", action="store_true", help="print the types that each client sees"
    )
    chosen = parser.parse_args()
    pythons = [sys.executable, *chosen.python]
    extra = extras(chosen.node_modules, pythons)
    with served(chosen.pictures) as library:
        source = source_of(library)
        print("|".join(["client", "version", *QUESTIONS.values(), "embedding", "note"]))
        failures = 0
        for client in CLIENTS:
            if chosen.only and client.name not in chosen.only:
                continue
            command = command_of(client, pythons, extra)
            if command is None:
                print(f"{client.name}|not installed")
                continue
            answers = ask(command, source, extra)
            judged = [source.judge(question, answers.ids[question]) for question in QUESTIONS]
            failures += not all(words.startswith("right") for words in judged)
            seen = answers.types.get("embedding", "")
            print("|".join([client.name, answers.version, *judged, seen, answers.note]), flush=True)
            if chosen.types:
                print("   ", dict(answers.types))
    return int(failures > 0)


if __name__ == "__main__":
    raise SystemExit(main())
