"""What analysts call: each collection's view and function, and the recipes of docs/sql.md."""

import re
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import (
    Corpus,
    as_sqlglot_writes,
    clustered,
    every_server,
    make_corpus,
    once,
    store_concepts,
)

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.search import functions

pytestmark = every_server


PROJECT = Path(__file__).parents[2]
DOCUMENT = (PROJECT / "docs/sql.md").read_text()

PREPARED = """
    UPDATE images SET label = CASE WHEN width < 40 THEN 'cats' ELSE 'dogs' END;
    UPDATE images SET taken_at = timestamp '2026-01-15' + width % 3 * interval '1 month',
        path = '/photos/' || label || '/' || lpad((width % 40)::text, 2, '0') || '.png';
    CREATE TABLE vecsearch.sales AS
    SELECT path, date '2026-02-01' AS sold_on, width * 10 AS amount
    FROM images, generate_series(1, 2)"""


@pytest.fixture
def analyst(corpus: Corpus) -> Iterator[psycopg.Connection[Any]]:
    """A plain client of the corpus, which prefers its index, with the document's settings."""
    url = corpus.library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SET search_path = vecsearch, public")
        connection.execute("SET hnsw.iterative_scan = relaxed_order")
        yield connection


# A statement, and the plan that follows it, if one does.
RECIPE = re.compile(r"^```sql\n(.*?)^```(?:\n\n```text\n(.*?)```)?", re.MULTILINE | re.DOTALL)


def rows_of(connection: psycopg.Connection[Any], statement: str) -> list[Any]:
    cursor = connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []


def plan_of(connection: psycopg.Connection[Any], statement: str) -> str:
    rows = connection.execute(f"EXPLAIN {statement}".encode()).fetchall()
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("by", ["id", "upper-case id", "path"])
def test_the_index_serves_an_order_around_the_function(
    corpus: Corpus, analyst: psycopg.Connection[Any], by: str
) -> None:
    answer = corpus.library.query(id=corpus.ids[17], k=50, exact=True).hits
    image = {"id": str(answer[0].id), "upper-case id": str(answer[0].id).upper()}.get(
        by, answer[0].path
    )
    statement = f"SELECT * FROM images_distances('{image}') ORDER BY distance LIMIT 50"
    assert "images_embedding_hnsw" in plan_of(analyst, statement)
    rows = analyst.execute(statement.encode()).fetchall()
    columns = [column.name for column in analyst.execute(statement.encode()).description or ()]
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    assert len(found) == 50
    assert found[0]["id"] == answer[0].id
    recall = {row["id"] for row in found} & {hit.id for hit in answer}
    assert len(recall) >= 49
    for row in found:
        assert row["similarity"] == 1 - row["distance"]
    # The index compares in half precision, and so may change places of what is equally near.
    distances = [row["distance"] for row in found]
    np.testing.assert_allclose(distances, sorted(distances), atol=2e-3)


def test_a_condition_around_the_function_takes_nothing_from_the_answer(
    corpus: Corpus, analyst: psycopg.Connection[Any]
) -> None:
    distances = f"FROM images_distances('{corpus.ids[3]}') WHERE label = 'c7'"
    statement = f"SELECT id {distances} ORDER BY distance LIMIT 20"
    assert len(analyst.execute(statement.encode()).fetchall()) == 20
    # Without LIMIT nobody would take the index, which the corpus is set to prefer.
    analyst.execute("SET enable_seqscan = on")
    assert analyst.execute(f"SELECT count(*) {distances}".encode()).fetchone() == (150,)


NOBODY = ["/nothing/here.png", str(uuid.UUID(int=0)), ""]


@pytest.mark.parametrize("nobody", NOBODY)
@pytest.mark.parametrize("function", ["distances", "search", "embedding"])
def test_an_image_that_is_not_there_is_an_error(
    analyst: psycopg.Connection[Any], function: str, nobody: str
) -> None:
    with pytest.raises(psycopg.errors.NoDataFound, match="There is no image"):
        analyst.execute(f"SELECT * FROM images_{function}(%s)".encode(), [nobody])


def similarity(connection: psycopg.Connection[Any], image: str, other: str) -> Any:
    ((value,),) = connection.execute("SELECT images_similarity(%s, %s)", [image, other]).fetchall()
    return value


def test_two_images_are_compared_by_id_or_by_path(
    corpus: Corpus, analyst: psycopg.Connection[Any]
) -> None:
    for one, other in [(17, 4), (4, 17), (9, 9)]:
        images = [str(corpus.ids[position]) for position in (one, other)]
        paths = [f"/corpus/{position * 7919 % len(corpus):05}.png" for position in (one, other)]
        expected = 1 - corpus.distances(corpus.vectors[one])[other]
        for named in (images, paths, [images[0].upper(), paths[1]]):
            assert similarity(analyst, *named) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("nobody", NOBODY)
def test_an_image_that_is_not_there_cannot_be_compared(
    corpus: Corpus, analyst: psycopg.Connection[Any], nobody: str
) -> None:
    somebody = str(corpus.ids[0])
    for images in ((somebody, nobody), (nobody, somebody)):
        with pytest.raises(psycopg.errors.NoDataFound):
            similarity(analyst, *images)
        analyst.rollback()
        analyst.execute("SET search_path = vecsearch")


def test_all_work_for_a_session_that_has_no_search_path(
    corpus: Corpus, analyst: psycopg.Connection[Any]
) -> None:
    analyst.execute("SET search_path = ''")
    image = [str(corpus.ids[5])]
    for function in ("images_search(%s, 1)", "images_distances(%s) ORDER BY distance LIMIT 1"):
        rows = analyst.execute(f"SELECT id FROM vecsearch.{function}".encode(), image).fetchall()
        assert rows == [(corpus.ids[5],)]
    compared = analyst.execute("SELECT vecsearch.images_similarity(%s, %s)", image * 2)
    assert compared.fetchone() == (1,)
    viewed = analyst.execute("SELECT * FROM vecsearch.images_view LIMIT 1")
    assert [column.name for column in viewed.description or ()][:2] == ["name", "label"]
    assert "embedding" not in {column.name for column in viewed.description or ()}


@once
def test_a_collection_called_like_a_word_of_sql_has_all(library: Library) -> None:
    corpus = make_corpus(library, "order", clustered(20, 8, seed=0))
    image = corpus.ids[0]
    for function in (
        "search('{}', 30)",
        """search('{}', 30, '"order".width < 50')""",
        "distances('{}')",
    ):
        statement = f"SELECT count(*) FROM order_{function.format(image)}"
        with library.sql(statement) as (_, rows, _):
            assert next(rows) == (20,)
    with library.sql(f"SELECT order_similarity('{image}', '{image}')") as (_, rows, _):
        assert next(rows) == (1,)
    with library.sql("SELECT count(*) FROM order_view") as (_, rows, _):
        assert next(rows) == (20,)


@once
def test_k_may_be_any_number_before_the_table_is_analysed(corpus: Corpus) -> None:
    url = corpus.library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'images'")
        search = f"vecsearch.images_search('{corpus.ids[0]}'::uuid, 2147483647)"
        assert rows_of(connection, f"SELECT count(*) FROM {search}") == [(len(corpus),)]
        connection.rollback()


@once
def test_a_function_of_earlier_versions_keeps_its_own_columns(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(20, 8, seed=0))
    with database.writing(library.engine) as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION vecsearch.images_nearest(image text)"
            " RETURNS TABLE (distance double precision, id uuid) LANGUAGE sql STABLE"
            " BEGIN ATOMIC SELECT 0.5, CAST(image AS uuid); END"
        )
        functions.refresh(connection)
    with library.sql(f"SELECT * FROM images_nearest('{corpus.ids[3]}')") as (columns, found, _):
        assert columns == ["distance", "id"]
        assert next(found) == (0, corpus.ids[3])


@pytest.fixture
def owned(library: Library) -> Iterator[str]:
    """The URL of a database's owner, who is no superuser, after `db configure`.

    What is embedded needs none.
    """
    url = library.engine.url.set(drivername="postgresql")
    name, role = url.database, f"owner_of_{url.database}"
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN".encode())
        superuser.execute(f"ALTER DATABASE {name} OWNER TO {role}".encode())
        superuser.execute(f"GRANT CREATE ON SCHEMA public TO {role}".encode())
        owner = url.set(username=role).render_as_string(hide_password=False)
        if url.host is not None:
            with Library.open(Settings.load(database_url=owner)) as owners:
                owners.configure(owners.missing_settings())
        yield owner
        superuser.execute(f"ALTER DATABASE {name} OWNER TO {url.username}".encode())
        superuser.execute(f"DROP OWNED BY {role}".encode())
        superuser.execute(f"DROP ROLE {role}".encode())


POINTS = """
    SELECT setseed(0.5);
    CREATE TABLE public.points AS
    SELECT i, ARRAY[random(), random(), random()]::vector::halfvec(3) AS embedding, false AS far
    FROM generate_series(1, 25000) AS i;
    UPDATE public.points SET far = true WHERE i IN (
        SELECT i FROM public.points ORDER BY embedding <=> '[1, 1, 1]' DESC LIMIT 40);
    CREATE INDEX points_hnsw ON public.points USING hnsw (embedding halfvec_cosine_ops);
    ANALYZE public.points"""


def test_no_plain_session_gets_a_short_answer_from_the_index(owned: str) -> None:
    with psycopg.connect(owned, autocommit=True) as owner:
        owner.execute(POINTS)
    # A session of its own, in which nothing has been set but what makes the index win.
    nearest = "SELECT i FROM public.points {} ORDER BY embedding <=> '[1, 1, 1]' LIMIT {}"
    with psycopg.connect(owned) as plain:
        plain.execute("SET enable_seqscan = off")
        plain.execute("SET enable_sort = off")
        plain.execute("SET work_mem = '1MB'")
        for condition, rows in [("", 100), ("", 2_000), ("WHERE far", 40)]:
            statement = nearest.format(condition, rows)
            assert "points_hnsw" in plan_of(plain, statement)
            assert len(plain.execute(statement.encode()).fetchall()) == rows


class TestRecipes:
    @pytest.fixture
    def connection(self, library: Library) -> Iterator[psycopg.Connection[Any]]:
        """Forty photos of cats and forty of dogs, two of them alike, and what was sold."""
        vectors = clustered(80, 64, seed=8)
        centres = clustered(2, 64, seed=9)
        vectors = (vectors + np.repeat(centres, 40, axis=0)).astype(np.float16)
        vectors[5] = vectors[4]
        make_corpus(library, "images", vectors.astype(np.float64))
        cat = centres[0] - centres[1]
        bias = -float(cat @ vectors.mean(axis=0))
        names = ["tabby", "Airedale"]
        store_concepts(library, names, np.stack([cat, -cat]).astype(np.float16), [bias, -bias])
        library.collection().tags.ensure()
        library.collection().refresh(["neighbours", "clusters"])
        with database.writing(library.engine) as writing:
            for statement in PREPARED.split(";"):
                writing.execute(sa.text(statement))
        library.configure(library.missing_settings())
        url = library.engine.url.set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as opened:
            opened.execute("SET search_path = vecsearch, public")
            opened.execute("SET enable_seqscan = off")
            yield opened
            opened.rollback()  # a recipe makes a role, which other databases would share

    def test_each_gives_what_it_says(self, connection: psycopg.Connection[Any]) -> None:
        sections = re.split(r"^## (.*)$", DOCUMENT, flags=re.MULTILINE)
        found: dict[str, list[Any]] = {}
        for title, text in zip(sections[1::2], sections[2::2], strict=True):
            for shown_statement, plan in RECIPE.findall(text):
                # The embedded server has this role.
                statement = shown_statement.replace("vecsearch_readers", "other_readers")
                # The plan that is shown is the plan there is, line by line.
                for line in plan.splitlines():
                    # PostgreSQL 16 writes a subquery's value otherwise.
                    shown = re.sub(r"\(InitPlan 1\).*", "", line.strip())
                    assert shown in plan_of(connection, statement)
                # Superset and others send what sqlglot makes of it.
                with connection.transaction(force_rollback=True):
                    rewritten = rows_of(connection, as_sqlglot_writes(statement))
                found[title] = rows_of(connection, statement)
                assert rewritten == found[title], statement
        self.check(found)
        assert len(found) >= 15

    @pytest.mark.parametrize("document", ["README.md", "docs/clients.md"])
    def test_what_other_documents_show_survives_sqlglot(
        self, connection: psycopg.Connection[Any], document: str
    ) -> None:
        text = (PROJECT / document).read_text().replace("/cat.jpg", "/cats/01.png")
        for statement, _ in RECIPE.findall(text):
            found = rows_of(connection, statement)
            assert len(found) >= 10
            assert rows_of(connection, as_sqlglot_writes(statement)) == found

    def check(self, found: dict[str, list[Any]]) -> None:
        cat = "/photos/cats/01.png"
        assert len(found["Look at the images"]) == 5
        nearest = found["Nearest to a known picture"]
        assert nearest[0] == (cat, pytest.approx(0, abs=1e-3))
        assert {path.split("/")[2] for path, _ in nearest} == {"cats"}
        assert [row[1] for row in found["Nearest within a category"]] == ["dogs"] * 10
        tabbies = found["Images that show something"]
        assert len(tabbies) > 10
        assert {path.split("/")[2] for path, _ in tabbies} == {"cats"}
        shown = found["What each folder shows"]
        assert {row[:2] for row in shown if row[2] > 20} == {
            ("cats", "tabby"),
            ("dogs", "Airedale"),
        }
        joined = found["Joined with business data"]
        assert {row[0] for row in joined} == {row[0] for row in nearest}
        assert joined[0][::2] == (cat, 2 * 10)
        ((of_cats, of_cats_chi2), (of_both, of_both_chi2)) = [
            row[2:] for row in found["How similar two pictures are"]
        ]
        assert 0 < of_both < of_cats < 1 < of_cats_chi2 < of_both_chi2
        assert {row[0].split("/")[2] for row in found["The average picture of a group"]} == {"cats"}
        outliers = [row[2] for row in found["Outliers"]]
        assert outliers == sorted(outliers, reverse=True)
        drift = found["Drift between two months"]
        assert [row[0] for row in drift] == [datetime(2026, month, 1) for month in (1, 2, 3)]  # noqa: DTZ001 - a camera has no zone
        assert drift[0][1] is None
        assert all(0 < row[1] < 0.1 for row in drift[1:])
        pair, *_ = found["Near-duplicates"]
        assert {pair[0], pair[1]} == {"/photos/cats/04.png", "/photos/cats/05.png"}
        assert found["Classification by neighbours"] == [("cats", 5)]
        assert sum(row[3] for row in found["A histogram of distances"]) == 80
        kept = found["Tables that vecsearch keeps"]
        assert [row[0] for row in kept] == list(range(1, 7))
        assert sum(images for _, _, images, _ in kept) == 80
        assert {shown for *_, shown in kept} == {"tabby", "Airedale"}
        assert {name for _, name, *_ in kept} <= {"tabby", "Airedale"}
        changes = found["The feed of changes"]
        assert [changes[0][1], len(changes)] == ["reset", 81]
        assert len(found["Thumbnails"]) == 10
        ranked = found["Chi-squared of the nearest hundred"]
        assert ranked[0] == (cat, 0.0)
        assert len(ranked) == 10

    def test_the_table_of_neighbours_has_five_for_each(
        self, connection: psycopg.Connection[Any]
    ) -> None:
        (statement,) = re.findall(r"CREATE TABLE neighbours.*?;", DOCUMENT, re.DOTALL)
        connection.execute(statement.encode())
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT id), max(rank) FROM neighbours"
        ).fetchone()
        assert rows is not None
        assert rows == (5 * 80, 80, 5)
