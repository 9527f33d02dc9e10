"""Questions of several parts: their sum, its signs and weights, parts of pictures, expansion."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import (
    Corpus,
    PixelEncoder,
    as_pasted,
    citus,
    clustered,
    every_server,
    ingest,
    make_corpus,
    once,
    store_concepts,
)
from web_support import Known

from vecsearch.analysis.ranking import expanded
from vecsearch.encoders.base import LazyEncoder
from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.library import Library
from vecsearch.search.query import Query
from vecsearch.search.questions import embedder
from vecsearch.search.questions.pictures import Crop
from vecsearch.search.questions.terms import Term, weighted

pytestmark = citus

Floats = NDArray[np.float64]


def unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def widths(answer: Any) -> list[int]:
    return [hit.width for hit in answer.hits]


@every_server
@pytest.mark.parametrize("compact", [False, True])
def test_the_question_is_the_sum_of_its_normalised_parts(
    corpus: Corpus, compact_corpus: Corpus, *, compact: bool
) -> None:
    corpus = compact_corpus if compact else corpus
    weights = {10: 2.0, 500: 1.0, 1_234: -0.5}
    terms = [Term(id=corpus.ids[row], weight=weight) for row, weight in weights.items()]
    total = sum(weight * unit(corpus.vectors[row]) for row, weight in weights.items())
    expected = corpus.distances(np.asarray(total))
    answer = corpus.library.query(terms=terms, k=20, exact=True)
    np.testing.assert_allclose([hit.distance for hit in answer], np.sort(expected)[:20], atol=1e-4)
    by_index = corpus.library.query(terms=terms, k=20)
    # A third of all rows are candidates, so the planner may compare them all.
    assert by_index.uses_index or compact
    assert len({*widths(by_index)} & {*widths(answer)}) >= 19
    without = corpus.library.query(terms=terms, k=20, exact=True, exclude_self=True)
    assert not {*weights} & {*widths(without)}
    assert widths(without)[:15] == [row for row in widths(answer) if row not in weights][:15]
    # What is shown finds the same in any client.
    assert as_pasted(corpus.library, without.sql) == [hit.id for hit in without]


@once
@given(
    rows=st.lists(st.integers(0, 2_980), min_size=2, max_size=5, unique=True),
    factor=st.floats(0.01, 100),
)
@settings(max_examples=15, deadline=None)
def test_neither_order_nor_scale_changes_the_answer(
    corpus: Corpus, rows: list[int], factor: float
) -> None:
    terms = [Term(id=corpus.ids[row], weight=1 + n % 3) for n, row in enumerate(rows)]
    scaled = [Term(id=term.id, weight=term.weight * factor) for term in reversed(terms)]
    first, second = (
        corpus.library.query(terms=asked, k=9, exact=True) for asked in (terms, scaled)
    )
    np.testing.assert_allclose(
        [hit.distance for hit in first], [hit.distance for hit in second], atol=1e-5
    )


@once
def test_pictures_ids_and_words_are_parts_alike(library: Library, known: list[Known]) -> None:
    by_file = library.query(known[3].path, terms=[Term(known[7].path, weight=-1)], k=20)
    found = {hit.path: hit.id for hit in by_file}
    by_id = library.query(
        terms=[
            Term(id=found[str(known[3].path)]),
            Term(id=str(found[str(known[7].path)]), weight=-1),
        ],
        k=20,
    )
    assert by_file.hits == by_id.hits
    assert by_file.hits[-1].path == str(known[7].path)
    assert by_file.image is None


@once
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"terms": []}, "There is nothing to search for"),
        ({"terms": [Term(id="x", text="y")]}, "A part of a question is"),
        ({"terms": [Term(text="snow", weight=-1)]}, "only says what hits should be unlike"),
        ({"terms": [Term(text="snow", weight=0)]}, "The weight of snow is 0"),
        ({"terms": [Term(text="snow", weight=float("nan"))]}, "The weight of snow is nan"),
        ({"text": "snow", "crop": Crop(0, 0, 1, 1)}, "a part of a picture, not of words"),
        ({"id": "x", "metric": "l2", "expand": 3}, "Expanded questions are compared by cosine"),
        ({"id": "x", "metric": "l2", "terms": [Term(id="y")]}, "Several pictures are compared"),
        ({"id": "x", "expand": 101}, "cannot be expanded by 101 images"),
        ({"id": "x", "ranking": "best"}, "Unknown ranking 'best'. Use full or compact"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    corpus: Corpus, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        corpus.library.query(**options)


@once
def test_parts_that_cancel_or_are_missing_are_named(corpus: Corpus) -> None:
    same = [Term(id=corpus.ids[4]), Term(id=corpus.ids[4], weight=-1)]
    with pytest.raises(InvalidInput, match="cancel each other out"):
        corpus.library.query(terms=same)
    # Equal embeddings cancel, too, whatever their ids.
    with pytest.raises(InvalidInput, match="cancel each other out"):
        corpus.library.query(
            terms=[Term(id=corpus.ids[-1], weight=3), Term(id=corpus.ids[-2], weight=-3)]
        )
    nobody = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(ImageNotFound, match=nobody):
        corpus.library.query(terms=[Term(id=corpus.ids[4]), Term(id=nobody)])
    with pytest.raises(ImageNotFound, match=nobody):
        corpus.library.query(id=nobody, expand=5)


@once
def test_a_part_of_a_picture_is_searched_for_as_if_it_were_cut_out(
    library: Library, known: list[Known], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedder, "collection_encoder", lambda *_: LazyEncoder(PixelEncoder))
    with PIL.Image.open(known[9].path) as whole:
        whole.crop((10, 5, 40, 45)).save(tmp_path / "cut.png")
    expected = library.query(tmp_path / "cut.png", k=20)
    crop = Crop.parse("10, 5,30,40")
    by_file = library.query(known[9].path, crop=crop, k=20)
    assert by_file.hits == expected.hits
    [own] = library.query(known[9].path, k=1).hits
    assert library.query(id=own.id, crop=crop, k=20).hits == expected.hits
    for asked in (Query(id=own.id), Query(known[9].path)):
        without = library.collection().ask(replace(asked, crop=crop, k=20, exclude_self=True))
        assert {hit.id for hit in expected} - {hit.id for hit in without} == {own.id}
    for outside in ("10,5,3000,4", "0,0,0,5"):
        with pytest.raises(InvalidInput, match="is not within the picture, which has 103 × 63"):
            library.query(known[9].path, crop=Crop.parse(outside))
    for bad in ("1,2,3", "a,b,c,d", "-1,2,3,4", ""):
        with pytest.raises(InvalidInput, match="is no crop"):
            Crop.parse(bad)
    known[9].path.write_bytes(known[8].path.read_bytes())
    with pytest.raises(InvalidInput, match="has changed since it was ingested"):
        library.query(id=own.id, crop=crop)


@every_server
@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("neighbours", [1, 10, 100])
def test_an_expanded_question_is_the_one_that_numpy_makes(
    corpus: Corpus, compact_corpus: Corpus, neighbours: int, *, compact: bool
) -> None:
    corpus = compact_corpus if compact else corpus
    rows = np.array([3, 700, 2_000])
    questions = expanded(corpus.vectors[rows], corpus.vectors, neighbours, rows)
    for row, question in zip(rows, questions, strict=True):
        expected = np.sort(corpus.distances(question))[:30]
        exact = corpus.library.query(id=corpus.ids[row], k=30, expand=neighbours, exact=True)
        np.testing.assert_allclose([hit.distance for hit in exact], expected, atol=1e-3)
        answer = corpus.library.query(id=corpus.ids[row], k=30, expand=neighbours)
        assert answer.uses_index
        assert len({*widths(answer)} & {*widths(exact)}) >= 28
        same = corpus.library.query(id=corpus.ids[row], k=30, expand=0)
        assert same.hits == corpus.library.query(id=corpus.ids[row], k=30).hits
        assert widths(same) != widths(exact)


@once
def test_a_collection_of_one_is_expanded_by_nobody(library: Library, known: list[Known]) -> None:
    alone = library.query(known[0].path, k=5, where="label = 'label 0'", expand=100)
    assert len(alone.hits) == 5
    for each in known[1:]:
        each.path.unlink()
    folder = str(known[0].path.parents[1])

    ingest(library.engine, [folder], PixelEncoder(), prune=True)
    [only] = library.query(known[0].path, expand=10).hits
    assert only.path == str(known[0].path)
    assert only.distance == pytest.approx(0, abs=1e-6)


@once
def test_each_meaning_of_a_word_is_expanded(library: Library) -> None:
    vectors = clustered(300, 32, seed=7)
    corpus = make_corpus(library, "images", vectors)
    words = np.stack([vectors[5], vectors[200]])
    store_concepts(library, ["crane", "crane"], words.astype(np.float16), [0.0, 0.0])
    questions = expanded(words, vectors, 3, np.array([-1, -1]))
    nearest = np.min([corpus.distances(question) for question in questions], axis=0)
    answer = library.query(text="crane", expand=3, k=20)
    distances = [hit.distance for hit in answer]
    np.testing.assert_allclose(distances, np.sort(nearest)[:20], atol=1e-3)


def test_weights_are_written_before_a_colon() -> None:
    assert weighted("2:snow") == (2, "snow")
    assert weighted("0.5:a:b") == (0.5, "a:b")
    assert weighted("16:9 screen") == (16, "9 screen")
    assert weighted("snow:2") == (1, "snow:2")
    assert weighted(":snow") == (1, ":snow")
    assert Query(terms=[Term("/a/b.jpg")]).parts[0].name == "b.jpg"
