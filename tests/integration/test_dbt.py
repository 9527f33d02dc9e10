"""The dbt package, run by dbt in an environment of its own: its pins are older than ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import lacks
from servers import running
from support import Corpus, clustered, make_corpus, write

from vecsearch.config import Settings
from vecsearch.library import Library

PACKAGE = Path(__file__).parents[2] / "dbt"
# The next one downloads a program from a site that is no package index.
WANTED = ["dbt-core>=1.11,<1.12", "dbt-postgres>=1.10,<2"]
K = 5


@pytest.fixture
def dbt(request: pytest.FixtureRequest) -> Path:
    """The command dbt; it is installed once for each checkout."""
    folder = request.config.cache.mkdir("dbt")
    installed = folder / "installed"
    if not installed.exists() or installed.read_text() != str(WANTED):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "env"], check=True)
        pip = [str(folder / "env/bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *WANTED], check=False, capture_output=True, text=True)
        if done.returncode:
            lacks("dbt cannot be installed: no package index")
        installed.write_text(str(WANTED))
    return folder / "env/bin/dbt"


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    """A collection on a server that is reached over TCP, and a role for dbt."""
    with (
        running("tcp-18", tmp_path) as url,
        Library.open(Settings.load(database_url=url, data_dir=tmp_path / "unused")) as library,
    ):
        library.upgrade()
        corpus = make_corpus(library, "images", clustered(80, 8, seed=6))
        for statement in (
            "CREATE ROLE dbt LOGIN",
            "GRANT CREATE ON DATABASE postgres TO dbt",
            "GRANT USAGE ON SCHEMA vecsearch, vecsearch_internal TO dbt",
            "GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch, vecsearch_internal TO dbt",
        ):
            write(library, statement)
        yield corpus


def profile(library: Library) -> dict[str, Any]:
    """Return a profile with two targets, which differ in their schemas."""
    url = library.engine.url
    shared = {"type": "postgres", "host": url.host, "port": url.port, "dbname": url.database}
    shared |= {"user": "dbt", "password": "", "threads": 1}
    outputs = {name: shared | {"schema": name} for name in ("marts", "anew")}
    return {"vecsearch": {"target": "marts", "outputs": outputs}}


def rows(library: Library, schema: str) -> list[Any]:
    columns = "id, rank, neighbour, distance"
    with library.sql(f"SELECT {columns} FROM {schema}.neighbours") as (_, found, _):
        return sorted(map(tuple, found))


@pytest.mark.slow
def test_runs_that_follow_the_feed_give_what_a_full_build_gives(
    corpus: Corpus, dbt: Path, tmp_path: Path
) -> None:
    library = corpus.library
    # dbt reads YAML, of which JSON is a part.
    (tmp_path / "profiles.yml").write_text(json.dumps(profile(library)))

    def run(*words: str) -> str:
        places = {"PROFILES_DIR": tmp_path, "PROJECT_DIR": PACKAGE}
        places |= {"TARGET_PATH": tmp_path / "target", "LOG_PATH": tmp_path / "logs"}
        settings = {f"DBT_{name}": str(place) for name, place in places.items()}
        settings |= {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_USE_COLORS": "false"}
        words = (*words, "--vars", json.dumps({"neighbours": K}))
        done = subprocess.run(
            [dbt, *words],
            env=os.environ | settings,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "ERROR=0" in run("build")
    first = rows(library, "marts")
    assert len(first) == 80 * K

    gone, changed, like = corpus.ids[:5], corpus.ids[5:8], corpus.ids[20]
    write(library, "DELETE FROM images WHERE id = ANY(:ids)", ids=gone)
    embedding = f"(SELECT embedding FROM images WHERE id = '{like}')"
    write(library, f"UPDATE images SET embedding = {embedding} WHERE id = ANY(:ids)", ids=changed)
    added = np.maximum(corpus.vectors[30] + 0.1, 0)
    write(
        library,
        "INSERT INTO images (id, path, label, embedding)"
        f" VALUES (gen_random_uuid(), '/new.png', '', CAST('{added.tolist()}' AS halfvec))",
    )

    assert "ERROR=0" in run("build")
    followed = rows(library, "marts")
    run("run", "--target", "anew")
    assert followed == rows(library, "anew") != first
    assert len(followed) == 76 * K
    with library.sql("SELECT position FROM marts.neighbours GROUP BY 1 HAVING count(*) > 50") as (
        _,
        positions,
        _,
    ):
        assert len(list(positions)) == 2  # of the rows that were kept, and of the others
