"""The planner, left alone, takes the index: for us, and for any client's plain statement."""

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import clustered, every_server, make_corpus

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = every_server


ROWS = 3_000
# A hundred centres and thirty steps from each of them: an index of pure noise is slow to build.
FILL = """
    CREATE TEMP TABLE points ON COMMIT DROP AS
    SELECT number, array_agg(value)::real[]::public.halfvec(2048) AS point
    FROM (SELECT number, random() * CASE WHEN number < 100 THEN 1 ELSE 0.3 END AS value
        FROM generate_series(0, 129) AS number, generate_series(1, 2048)) AS drawn
    GROUP BY number;
    INSERT INTO vecsearch.images (id, path, sha256, width, height, format, file_size,
        modified_at, label, embedding)
    SELECT gen_random_uuid(), '/' || centre.number || '/' || step.number, '', 1, 1, 'PNG', 1,
        now(), '', centre.point + step.point
    FROM points AS centre JOIN points AS step ON centre.number < 100 AND step.number >= 100;
"""


@pytest.fixture(scope="module")
def resnet_sized(server_url: str, template: str) -> Iterator[Library]:
    """A library with 3,000 vectors of ResNet50's size, drawn by the server."""
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE resnet_sized TEMPLATE {template}".encode())
        url = sa.make_url(server_url).set(database="resnet_sized")
        settings = Settings.load(database_url=url.render_as_string(hide_password=False))
        with Library.open(settings) as library:
            make_corpus(library, "images", np.ones((1, 2_048)))
            with database.writing(library.engine) as connection:
                index = "vecsearch.images_embedding_hnsw"
                definition = connection.scalar(
                    sa.text(f"SELECT pg_get_indexdef('{index}'::regclass)")
                )
                for statement in (
                    f"DROP INDEX {index}",
                    "SELECT setseed(0.5)",
                    FILL,
                    str(definition),
                    "ANALYZE vecsearch.images",
                ):
                    database.driver_connection(connection).execute(statement.encode())
            yield library
        server.execute("DROP DATABASE resnet_sized WITH (FORCE)")


@pytest.mark.parametrize("target", ["subquery", "literal", "subquery by id"])
def test_a_plain_statement_of_any_client_uses_the_index(resnet_sized: Library, target: str) -> None:
    url = resnet_sized.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        ((image_id, vector),) = connection.execute(
            "SELECT id, embedding::text FROM vecsearch.images WHERE path = '/7/107'"
        ).fetchall()
        query = {
            "subquery": "(SELECT embedding FROM vecsearch.images LIMIT 1)",
            "literal": f"'{vector}'",
            "subquery by id": f"(SELECT embedding FROM vecsearch.images WHERE id = '{image_id}')",
        }[target]
        statement = f"SELECT path FROM vecsearch.images ORDER BY embedding <=> {query} LIMIT 10"
        plan = connection.execute(f"EXPLAIN {statement}".encode()).fetchall()
        assert "Index Scan using images_embedding_hnsw" in "\n".join(line for (line,) in plan)
        assert len(connection.execute(statement.encode()).fetchall()) == 10


def test_an_answer_tells_whether_the_index_gave_it(resnet_sized: Library) -> None:
    with resnet_sized.sql("SELECT id FROM images WHERE path = '/7/107'") as (_, rows, _):
        ((image_id,),) = rows
    ten = resnet_sized.query(id=image_id)
    assert ten.uses_index
    assert "images_embedding_hnsw" in ten.plan
    exact = resnet_sized.query(id=image_id, exact=True)
    assert not exact.uses_index
    assert "images_embedding_hnsw" not in exact.plan
    for answer in (ten, exact):
        assert answer.hits[0].path == "/7/107"
        assert all(hit.path.startswith("/7/") for hit in answer)
    assert not resnet_sized.query(id=image_id, max_distance=0.1).uses_index
    # Too few rows pass for the index to find them: every row was compared after all.
    assert not resnet_sized.query(id=image_id, where="width = 2").uses_index
    (status,) = resnet_sized.collections()
    assert (status.images, status.index) == (ROWS + 1, "hnsw")
    assert status.table_bytes > ROWS * 4_000
    assert status.index_bytes > ROWS * 4_000


def test_a_tuning_says_which_searches_use_the_index_with_what_it_saves(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(300, 1_280, seed=2))
    images = library.collection()
    assert not images.query(id=corpus.ids[0]).uses_index
    assert not images.evaluate().index_used
    # The smaller ef_search is, the cheaper an index scan seems to the planner.
    tuned = images.tune_index(recall=0.5)
    assert tuned.choice is not None
    assert tuned.choice.breadth == 10
    assert tuned.index_used
    assert images.query(id=corpus.ids[0]).uses_index
    assert images.evaluate().index_used
    many = images.tune_index(recall=0.5, k=200)
    assert many.index_used == images.query(id=corpus.ids[0], k=200).uses_index
