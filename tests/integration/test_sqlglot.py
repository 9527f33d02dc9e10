"""Statements that are shown for pasting survive sqlglot, by which Superset rewrites SQL."""

from typing import Any

import numpy as np
import psycopg
import pytest
from support import Corpus, as_sqlglot_writes, clustered, make_corpus, once, store_concepts

from vecsearch.library import Library
from vecsearch.search.filters import Filters
from vecsearch.search.query import Query
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import Metric

pytestmark = once


def rows_of(library: Library, script: str) -> list[Any]:
    """Return the rows of a transaction's only SELECT, for another client than ours."""
    url = library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as client:
        client.execute("SET search_path = vecsearch, public")
        cursor = client.execute(script.encode())
        rows = cursor.fetchall() if cursor.description else []
        while cursor.nextset():
            if cursor.description:
                rows += cursor.fetchall()
        return rows


@pytest.fixture
def corpus(library: Library) -> Corpus:
    vectors = clustered(1_200, 16, seed=5)
    corpus = make_corpus(library, "images", vectors)
    words = np.stack([vectors[5], vectors[200], vectors[300]])
    store_concepts(library, ["crane", "crane", "clock"], words.astype(np.float16), [0.0] * 3)
    return corpus


@pytest.mark.parametrize("index", ["hnsw", "compact", "ranking"])
def test_every_statement_that_is_shown_keeps_its_rows(corpus: Corpus, index: str) -> None:
    collection = corpus.library.collection()
    if index == "compact":
        collection.create_index("compact", dims=8)
    elif index == "ranking":
        collection.set_ranking("compact", dims=8)
    one, other, unlike = corpus.ids[3], corpus.ids[700], corpus.ids[90]
    queries = [
        *(Query(id=one, metric=metric) for metric in Metric),
        *(Query(id=one, exclude_self=True, where=where) for where in (None, "width % 2 = 1")),
        Query(id=one, filters=Filters(label="c3"), k=30),
        Query(id=one, where="metadata ->> 'price' LIKE '%7' AND path ~ '^/corpus' -- prices"),
        Query(id=one, max_distance=0.3),
        Query(id=one, max_distance=0.3, k=5),
        Query(id=one, exact=True),
        Query(id=one, expand=5),
        # Vectors, as of a picture that is not stored.
        Query(terms=[Term(id=one), Term(id=other), Term(id=unlike, weight=-1)]),
        Query(terms=[Term(id=one), Term(id=other)], exclude_self=True, expand=5),
        Query(text="clock"),
        # Several meanings, of which the nearest counts.
        Query(text="crane", expand=3),
    ]
    for query in queries:
        shown = collection.ask(query).sql
        found = rows_of(corpus.library, shown)
        assert len(found) >= 5, query
        assert rows_of(corpus.library, as_sqlglot_writes(shown)) == found, query


def test_the_shown_statement_sorts_what_a_long_scan_of_the_index_finds(corpus: Corpus) -> None:
    # Beyond 1,000 rows a scan goes on in batches, each of which may have nearer ones.
    for query in (
        Query(id=corpus.ids[3], k=1_100),
        Query(id=corpus.ids[3], k=1_100, max_distance=1),
    ):
        answer = corpus.library.collection().ask(query)
        assert answer.uses_index
        distances = [row[-1] for row in rows_of(corpus.library, answer.sql)]
        assert len(distances) == len(answer.hits)
        assert distances == sorted(distances)
