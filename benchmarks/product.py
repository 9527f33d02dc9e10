"""Run vecsearch as users do: import, `index create`, `index tune`, and its search statement.

Shared by databases.py and growth.py.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import sqlalchemy as sa
from common import K
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from vectors import Array

from vecsearch.library import Library
from vecsearch.postgres import catalog
from vecsearch.postgres.sessions.settings import EF_SEARCH
from vecsearch.search import query
from vecsearch.search.indexes import vectors
from vecsearch.search.plan import plan

if TYPE_CHECKING:
    from vecsearch.search.indexes.projection import Projection

# Rows per file; an import copies a whole file into a temporary table to check it.
FILE_CHUNKS = 5


def load(library: Library, collection: str, vectors: Iterable[Array], rows: int) -> float:
    """Import vectors, without an index, from NPZ files of five chunks; return the seconds it took.

    The time excludes making the vectors and writing the files.
    """
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npz"
        held: list[Array] = []
        done = 0
        for chunk in vectors:
            held.append(chunk.astype(np.float16))
            if len(held) < FILE_CHUNKS and done + sum(map(len, held)) < rows:
                continue
            embeddings = np.concatenate(held)
            held = []
            names = [f"{row:09}.png" for row in range(done, done + len(embeddings))]
            np.savez(file, paths=np.array(names), embeddings=embeddings)
            del embeddings
            started = perf_counter()
            library.collection(collection).import_file(file, root="/made", index="none")
            seconds += perf_counter() - started
            done += len(names)
    return seconds


def build(library: Library, collection: str, method: str) -> dict[str, float]:
    """Create an index; return the seconds of the whole build, and of its last step."""
    started = perf_counter()
    begun: dict[str, float] = {}

    def note(step: str, _done: int, _total: int | None) -> None:
        begun.setdefault(step, perf_counter())

    library.collection(collection).create_index(method, on_progress=note)
    ended = perf_counter()
    return {"build_s": ended - started, "graph_s": ended - begun["Indexing"]}


def tune(library: Library, collection: str, recall: float) -> dict[str, float]:
    """Run `vecsearch index tune`; return its seconds, including its start, and its choice, or 0."""
    options = ["--collection", collection, "--recall", str(recall)]
    options += ["--data-dir", str(library.settings.data_dir)]
    started = perf_counter()
    command = [sys.executable, "-m", "vecsearch", "index", "tune", *options]
    subprocess.run(command, check=True, stdout=sys.stderr)
    seconds = perf_counter() - started
    with catalog.reading(library.engine, collection) as (_, stored):
        chosen = stored.breadths.get("cosine", {"breadth": 0})
    return {"tune_s": seconds, "tuned": chosen["breadth"]}


def megabytes(library: Library, collection: str) -> dict[str, float]:
    """Return sizes on disk in MB: of the vector indexes, the compact vectors, and the rows."""
    statement = """
        SELECT sum(pg_relation_size(oid)) FILTER (WHERE access = 'hnsw') / 1e6 AS index,
            sum(pg_relation_size(oid)) FILTER (WHERE compact AND access = 'heap') / 1e6 AS compact,
            sum(pg_table_size(oid)) FILTER (WHERE kind = 'r' AND NOT compact) / 1e6 AS rows
        FROM (SELECT c.oid, am.amname AS access, c.relkind AS kind,
                coalesce(t.relname, c.relname) ~ :compact AS compact
            FROM pg_class AS c
            JOIN pg_am AS am ON am.oid = c.relam
            LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
            LEFT JOIN pg_class AS t ON t.oid = i.indrelid
            WHERE c.relnamespace::regnamespace::text IN ('vecsearch', 'vecsearch_internal')
            AND coalesce(t.relname, c.relname) ~ :tables) AS relations"""
    names = {"compact": f"^{collection}_compact_", "tables": f"^{collection}(_compact_[0-9]+)?$"}
    with catalog.reading(library.engine, collection) as (connection, _):
        row = connection.execute(sa.text(statement), names).mappings().one()
    return {name: float(value or 0) for name, value in row.items()}


class Statement:
    """The search statement on its own connection, as an application runs it.

    It is the library's statement, prepared, with the vector as a binary parameter. The library's
    settings for a search are applied once per session. With a compact index, the time of a query
    includes projecting the vector.

    Attributes:
        breadth: the number of candidates, or hnsw.ef_search, of the last query.
        ef_search: hnsw.ef_search of the last query.

    """

    def __init__(self, library: Library, collection: str) -> None:
        self._library = library
        self._collection = collection
        url = sa.make_url(library.url).set(drivername="postgresql")
        self._driver = psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)
        register_vector(self._driver)
        self._cursor = psycopg.RawCursor(self._driver)
        self._asked: int | None = -1
        self.breadth: int | None = None
        self.ef_search = 0
        self._text = b""
        self._projection: Projection | None = None

    def close(self) -> None:
        """Disconnect."""
        self._driver.close()

    def ask(self, vector: Array, breadth: int | None) -> list[int]:
        """Return the rows nearest to a vector, with a given breadth or the library's default."""
        if breadth != self._asked:
            self._prepare(vector, breadth)
        compared = [HalfVector(each) for each in self._compared(vector)]
        rows = self._cursor.execute(self._text, compared, prepare=True).fetchall()
        return [row_number(row[1]) for row in rows]

    def _compared(self, vector: Array) -> list[Array]:
        if self._projection is None:
            return [vector]
        return [vector, self._projection.project(vector[np.newaxis])[0]]

    def _prepare(self, vector: Array, breadth: int | None) -> None:
        with catalog.reading(self._library.engine, self._collection) as (connection, stored):
            asked = query.Query(image=b"", k=K)
            planned = plan(connection, stored, vector, asked)
            if stored.compact is not None:
                self._projection = vectors.read_projection(connection, stored.compact)
        if breadth is not None:
            planned = replace(planned, chosen=breadth)
        for name, value in planned.settings().items():
            self._driver.execute("SELECT set_config(%s, %s, false)", [name, value])
        self._text = planned.sent.encode()
        self._asked, self.breadth = breadth, planned.candidates or planned.chosen
        self.ef_search = int(planned.settings()[EF_SEARCH])


def row_number(path: str) -> int:
    """Return the row number of a path's vector."""
    return int(Path(path).stem)
