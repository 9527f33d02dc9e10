"""What an answer says: distances, order, its own SQL; and what cannot be asked."""

import dataclasses
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import (
    Corpus,
    PixelEncoder,
    citus,
    clustered,
    counts,
    every_server,
    ingest,
    make_corpus,
    one_server,
    picture,
    scalar,
)

from vecsearch.errors import CollectionNotFound, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search import execute
from vecsearch.search.plan import Search
from vecsearch.search.query import Query

pytestmark = citus


@every_server
@pytest.mark.parametrize("metric", ["cosine", "l2", "l1", "ip", "chi2"])
@pytest.mark.parametrize("exact", [False, True])
def test_every_metric_is_what_numpy_says(
    corpus: Corpus,
    metric: str,
    exact: bool,
) -> None:
    for position in (17, 2_999):
        hits = corpus.library.query(
            id=corpus.ids[position], k=3_000, metric=metric, exact=exact
        ).hits
        by_id = dict(
            zip(corpus.ids, corpus.distances(corpus.vectors[position], metric), strict=True)
        )
        assert np.allclose(
            [hit.distance for hit in hits], [by_id[hit.id] for hit in hits], rtol=1e-5, atol=1e-5
        )
        assert len({hit.id for hit in hits}) == 3_000
        if metric == "cosine":
            assert [hit.similarity for hit in hits] == [1 - hit.distance for hit in hits]
        else:
            assert {hit.similarity for hit in hits} == {None}


def test_a_collection_has_a_metric_of_its_own(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(30, 8, seed=3))
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("UPDATE collections SET default_metric = 'l1'"))
    hits = library.query(id=corpus.ids[3], k=30).hits
    assert np.allclose(
        [hit.distance for hit in hits],
        np.sort(corpus.distances(corpus.vectors[3], "l1")),
        rtol=1e-5,
        atol=1e-5,
    )
    assert hits[0].similarity is None
    assert library.query(id=corpus.ids[3], metric="cosine").hits[0].similarity == 1


def test_a_stored_image_is_the_first_of_its_own_answer(corpus: Corpus) -> None:
    for position in range(0, 3_000, 300):
        first, second = corpus.library.query(id=corpus.ids[position], k=2)
        assert (first.id, first.distance, first.similarity) == (corpus.ids[position], 0, 1)
        (other,) = corpus.library.query(id=corpus.ids[position], k=1, exclude_self=True)
        assert other.id == second.id


@every_server
@pytest.mark.parametrize("k", [1, 3, 11, 12, 20])
@pytest.mark.parametrize("exact", [False, True])
def test_of_equal_images_the_one_asked_for_is_first_and_the_rest_go_by_path(
    corpus: Corpus,
    k: int,
    exact: bool,
) -> None:
    for own in corpus.ids[-12::5]:
        hits = corpus.library.query(id=own, k=k, exact=exact).hits
        assert len(hits) == k
        assert hits[0].id == own
        equal = [hit for hit in hits if hit.distance == 0]
        assert {hit.id for hit in equal} <= set(corpus.ids[-12:])
        assert len(equal) == min(k, 12)
        paths = [hit.path for hit in equal[1:]]
        assert paths == sorted(paths)
        without = corpus.library.query(id=own, k=k, exact=exact, exclude_self=True).hits
        assert own not in {hit.id for hit in without}
        assert len(without) == k


def test_a_hit_tells_what_its_row_does(corpus: Corpus) -> None:
    (hit,) = corpus.library.query(id=corpus.ids[7], k=1)
    with database.reading(corpus.library.engine) as connection:
        table = catalog.get_collection(connection, "images").table
        row = connection.execute(sa.select(table).where(table.c.id == corpus.ids[7])).one()
    for field in dataclasses.fields(hit):
        if field.name not in {"rank", "distance", "similarity"}:
            assert getattr(hit, field.name) == getattr(row, field.name)
    assert hit.metadata == {"price": 7}


ASKED: list[dict[str, Any]] = [
    {},
    {"k": 150, "where": "path LIKE '%7%' AND metadata ? 'price'"},
    {"k": 20, "exact": True},
    {"max_distance": 0.25},
    {"k": 7, "min_similarity": 0.5, "metric": "cosine"},
    {"metric": "l1", "exclude_self": True},
    {"k": 3_000, "metric": "ip"},
    {"where": "label = 'it''s :no %(label)s'"},
]


@every_server
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_sql_of_an_answer_gives_the_same_rows_anywhere(
    corpus: Corpus, asked: dict[str, Any]
) -> None:
    answer = corpus.library.query(id=corpus.ids[42], **asked)
    ef_search = scalar(corpus.library, "SHOW hnsw.ef_search")
    url = corpus.library.engine.url.set(drivername="postgresql")
    plain = url.render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        cursor = connection.execute(answer.sql.encode())
        while cursor.description is None:
            assert cursor.nextset()
        rows = cursor.fetchall()
        names = [column.name for column in cursor.description]
        # And nothing of it is left behind.
        assert connection.execute("SHOW enable_indexscan").fetchone() == ("on",)
        assert connection.execute("SHOW hnsw.ef_search").fetchone() == (ef_search,)
    assert (names[0], names[-1]) == ("id", "distance")
    assert [row[-1] for row in rows] == [hit.distance for hit in answer]
    assert sorted(row[0] for row in rows) == sorted(hit.id for hit in answer)


def test_the_sql_of_a_picture_that_is_not_stored_has_its_vector(corpus: Corpus) -> None:
    query = corpus.vectors[5].astype(np.float32) * 1.25
    with database.reading(corpus.library.engine) as connection:
        collection = catalog.get_collection(connection, "images")
        search = Search(collection, query, Query(metric="l2", k=25))
        hits, search = execute.nearest(connection, search)
        text = search.script()
    with psycopg.connect(
        corpus.library.engine.url.set(drivername="postgresql").render_as_string(
            hide_password=False
        ),
        autocommit=True,
    ) as connection:
        cursor = connection.execute(text.encode())
        while cursor.description is None:
            assert cursor.nextset()
        rows = cursor.fetchall()
    assert [row[-1] for row in rows] == [hit.distance for hit in hits]


@one_server
@every_server
def test_settings_do_not_leak_from_one_search_to_the_next(corpus: Corpus) -> None:
    def changed(connection: sa.Connection) -> list[Any]:
        statement = sa.text("SELECT name FROM pg_settings WHERE setting <> reset_val")
        return [
            name for name in connection.scalars(statement) if name.startswith(("enable_", "hnsw."))
        ]

    with database.reading(corpus.library.engine) as connection:
        collection = catalog.get_collection(connection, "images")
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        for exact, k in ((False, 1_000), (True, 10), (False, 10), (False, None)):
            cut_off = 2.0 if k is None else None
            asked = Query(k=k, exact=exact, max_distance=cut_off)
            execute.nearest(connection, Search(collection, corpus.ids[0], asked))
            assert changed(connection) == []
    for options in ({"k": 1_000}, {"exact": True}, {"max_distance": 0.2}):
        corpus.library.query(id=corpus.ids[0], **options)
        with database.reading(corpus.library.engine) as connection:
            assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == pid
            assert changed(connection) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclid"}, "Use cosine, l2, l1, ip or chi2"),
        ({"k": 0}, "at least 1"),
        ({"k": -1}, "at least 1"),
        ({"id": "cat"}, "has no image .*cat. Name one by its path or its id"),
        ({"id": UUID(int=1)}, "has no image"),
        ({"max_distance": float("nan")}, "is not finite"),
        ({"max_distance": float("inf")}, "is not finite"),
        ({"min_similarity": 0.5, "max_distance": 0.5}, "not both"),
        ({"min_similarity": 0.5, "metric": "l2"}, "Give a largest distance"),
        ({"min_similarity": 1.5}, "from -1 to 1"),
        ({"min_similarity": float("nan")}, "from -1 to 1"),
        ({"id": None}, "There is nothing to search for"),
        ({"image": b"anything"}, "A part of a question is"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    corpus: Corpus, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        corpus.library.query(**{"id": corpus.ids[0], **options})


def test_a_collection_that_is_not_there_is_refused_with_those_that_are(corpus: Corpus) -> None:
    with pytest.raises(CollectionNotFound, match="Collections: images"):
        corpus.library.collection("pictures").query(id=corpus.ids[0])


def test_a_collection_too_wide_for_an_index_is_searched_without_one(library: Library) -> None:
    corpus = make_corpus(library, "wide", clustered(60, 4_096, seed=4))
    answer = library.collection("wide").query(id=corpus.ids[9], k=60)
    assert not answer.uses_index
    distances = np.sort(corpus.distances(corpus.vectors[9]))
    assert np.allclose([hit.distance for hit in answer], distances, atol=1e-5)
    assert [status.index for status in library.collections()] == ["none"]


def test_a_picture_whose_content_is_stored_is_found_by_its_hash(
    library: Library, photos: Any
) -> None:
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"added": 12}
    file = photos / "cats" / "01.png"
    elsewhere = file.rename(photos / "elsewhere.png")
    # The encoder of this collection cannot be loaded at all.
    for image in (elsewhere, str(elsewhere), elsewhere.read_bytes()):
        first = library.query(image, k=1).hits[0]
        assert (first.path, first.distance) == (str(file), 0)
    picture(1).save(file)
    assert library.query(file, k=1).hits[0].path == str(file)
