"""eval and compare: against answers known beforehand, and what cannot be scored."""

import numpy as np
import pytest
import sqlalchemy as sa
from support import Corpus, citus, clustered, make_corpus, once

from vecsearch.analysis import evaluate, sampling
from vecsearch.analysis.sampling import Labelling
from vecsearch.errors import CollectionNotFound, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import database

pytestmark = citus


def relabel(library: Library, name: str, statement: str) -> None:
    with database.writing(library.engine) as connection:
        connection.execute(sa.text(f"UPDATE {name} SET {statement}"))


@pytest.fixture
def two_classes(library: Library) -> Corpus:
    """Twelve vectors: six near one axis, and five near another beside a stray of the first."""
    vectors = np.tile([1.0, 0.0], (12, 1))
    vectors[6:] = [0.0, 1.0]
    vectors += np.arange(12)[:, None] * 0.01
    corpus = make_corpus(library, "images", vectors.astype(np.float16).astype(np.float64))
    relabel(library, "images", "label = CASE WHEN width < 7 THEN 'Left' ELSE 'right' END")
    return corpus


@once
def test_scores_are_those_counted_by_hand(two_classes: Corpus) -> None:
    result = two_classes.library.collection().evaluate(k=5)
    assert (result.images, result.queries, result.unlabelled) == (12, 12, 0)
    left, right = result.classes
    # Of the seven on the left, one is among the five of the right, whose five nearest they are.
    assert (left.label, left.images, right.label, right.images) == ("Left", 7, "right", 5)
    assert left.precision == pytest.approx((6 * 1.0 + 1 * 0.0) / 7)
    assert right.precision == pytest.approx(4 / 5)
    assert result.precision == pytest.approx((6 + 5 * 4 / 5) / 12)
    assert left.map is not None
    assert left.map < 1
    found = result.as_dict()
    assert found["precision@5"] == result.precision
    assert [row["label"] for row in found["classes"]] == ["Left", "right"]


@once
def test_labels_come_from_metadata_or_file_names_too(two_classes: Corpus) -> None:
    library = two_classes.library
    relabel(library, "images", "metadata = jsonb_build_object('side', label) WHERE width < 10")
    result = library.collection().evaluate(k=3, labelling=Labelling("metadata:side"))
    assert (result.images, result.unlabelled) == (10, 2)
    assert [score.label for score in result.classes] == ["Left", "right"]
    relabel(library, "images", "metadata = '[1]' WHERE width = 3")  # SQL may put any JSON there
    assert library.collection().evaluate(k=3, labelling=Labelling("metadata:side")).unlabelled == 3
    numbers = {"path": "'/x/' || CASE WHEN width < 7 THEN 'CAT' ELSE 'dog' END || width || '.png'"}
    relabel(library, "images", f"path = {numbers['path']}")
    named = library.collection().evaluate(k=3, labelling=Labelling(regex="^([a-z]+)"))
    assert [(score.label, score.images) for score in named.classes] == [("cat", 7), ("dog", 5)]


@once
@pytest.mark.parametrize(
    ("labelling", "message"),
    [
        (Labelling("colour"), "Use folder or metadata:KEY"),
        (Labelling("none"), "none is for --improve"),
        (Labelling("metadata:"), "Use folder or metadata:KEY"),
        (Labelling("metadata:nothing"), "At least 2 images need a label, and images gives 0"),
        (Labelling(regex="^[a-z]+"), "has no group"),
        (Labelling(regex="(["), "is not a regular expression"),
        (Labelling(regex="^(nothing)"), "At least 2 images need a label, and images gives 0"),
    ],
)
def test_labels_that_are_none_are_refused(
    two_classes: Corpus, labelling: Labelling, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        two_classes.library.collection().evaluate(labelling=labelling)


@once
def test_what_cannot_be_scored_is_refused(library: Library) -> None:
    with pytest.raises(CollectionNotFound):
        library.collection("nothing").evaluate()
    make_corpus(library, "images", clustered(20, 8, seed=1) - 1.0)
    for k in (0, -1):
        with pytest.raises(InvalidInput, match="Ask for at least 1"):
            library.collection().evaluate(k=k)
    with pytest.raises(InvalidInput, match="has negative ones"):
        library.collection().evaluate(metric="chi2")
    with pytest.raises(InvalidInput, match="Use cosine, l2, l1, ip or chi2"):
        library.collection().evaluate(metric="hamming")


# The function of chi2 takes tens of times as long as pgvector's distances.
@pytest.mark.parametrize(("metric", "index_queries"), [("cosine", 100), ("chi2", 20)])
def test_the_index_is_compared_with_the_exact_answer(
    corpus: Corpus, metric: str, index_queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "INDEX_QUERIES", index_queries)
    result = corpus.library.collection().evaluate(metric=metric)
    assert result.queries == 1_000
    breadths = [score.breadth for score in result.index]
    assert breadths == sorted(breadths)
    assert len(breadths) == 5
    by_breadth = {score.breadth: score for score in result.index}
    assert by_breadth[1_000].recall >= 0.99
    assert result.choice in by_breadth
    assert result.index_used  # the corpus' database prefers it
    assert all(0 < score.p50_ms <= score.p95_ms for score in result.index)
    name = "candidates" if metric == "chi2" else "ef_search"
    assert result.as_dict()["index"][0][name] == breadths[0]


def test_a_breadth_below_k_is_not_tried(corpus: Corpus) -> None:
    assert [score.breadth for score in corpus.library.collection().evaluate(k=150).index] == [
        200,
        400,
        1_000,
    ]


@once
@pytest.mark.parametrize(("metric", "breadth"), [("cosine", 1_000), ("chi2", 10_000)])
def test_a_k_beyond_every_breadth_is_tried_as_a_query_would_be(
    library: Library, metric: str, breadth: int
) -> None:
    make_corpus(library, "images", clustered(40, 8, seed=0))
    (score,) = library.collection().evaluate(k=2_500, metric=metric).index
    assert (score.breadth, score.recall) == (breadth, 1.0)


@once
def test_without_an_index_there_is_no_choice(library: Library) -> None:
    make_corpus(library, "wide", clustered(30, 4_001, seed=0))
    result = library.collection("wide").evaluate()
    assert (result.index, result.choice, result.index_used) == ([], None, False)
    assert result.as_dict()["index"] is None


@once
def test_a_sample_of_queries_is_the_same_for_the_same_seed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAXIMUM_QUERIES", 100)
    monkeypatch.setattr(evaluate, "INDEX_QUERIES", 20)
    one, same, other = (
        corpus.library.collection().evaluate(seed=seed).precision for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


class TestCompare:
    @once
    def test_a_collection_agrees_with_itself(self, library: Library) -> None:
        vectors = clustered(60, 16, seed=4)
        for name in ("one", "other"):
            make_corpus(library, name, vectors)
        result = library.compare("one", "other", examples=3)
        assert result.overlap == 1
        assert (result.images, result.queries, result.labels) == (60, 60, 20)
        one, other = result.sides
        assert (one.precision, one.map) == (other.precision, other.map)
        assert one.bytes_per_image > 2 * 16
        assert len(result.examples) == 3
        for example in result.examples:
            assert [hit.path for hit in example.answers["one"]] == [
                hit.path for hit in example.answers["other"]
            ]
            assert example.path not in {hit.path for hit in example.answers["one"]}
            assert example.correct["one"] == [
                hit.label == example.label for hit in example.answers["one"]
            ]

    @once
    def test_only_what_both_hold_is_compared_in_whatever_order_it_came(
        self, library: Library
    ) -> None:
        vectors = clustered(80, 16, seed=4)
        make_corpus(library, "one", vectors)
        make_corpus(library, "other", np.flip(vectors, axis=0)[:, :8])
        relabel(library, "other", "path = '/elsewhere' || path WHERE width < 30")
        result = library.compare("one", "other", k=5, examples=50)
        assert result.images == result.queries == 50
        # What is drawn is what is counted.
        assert len(result.examples) == 50
        drawn = [example.answers for example in result.examples]
        for hits in (hits for answers in drawn for hits in answers.values()):
            assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
            assert not [hit.path for hit in hits if "/elsewhere" in hit.path]
            assert not [hit.id for hit in hits if (hit.width or 0) < 30]
        shares = [
            len({hit.path for hit in answers["one"]} & {hit.path for hit in answers["other"]}) / 5
            for answers in drawn
        ]
        assert np.mean(shares) == pytest.approx(result.overlap)
        assert 0 <= result.overlap < 1
        assert [side.dimensions for side in result.sides] == [16, 8]
        back = library.compare("other", "one", k=5)
        assert back.overlap == pytest.approx(result.overlap)
        assert back.sides[1].precision == pytest.approx(result.sides[0].precision)

    @once
    def test_each_collection_has_its_own_metric_unless_one_is_named(self, library: Library) -> None:
        for name in ("one", "other"):
            make_corpus(library, name, clustered(20, 8, seed=4))
        relabel(library, "collections", "default_metric = 'l2' WHERE name = 'other'")
        assert [side.metric for side in library.compare("one", "other").sides] == ["cosine", "l2"]
        named = library.compare("one", "other", metric="chi2").sides
        assert [side.metric for side in named] == ["chi2", "chi2"]

    @once
    def test_collections_that_share_nothing_are_refused(self, library: Library) -> None:
        for name in ("one", "other"):
            make_corpus(library, name, clustered(20, 8, seed=4))
        relabel(library, "other", "path = '/elsewhere' || path")
        with pytest.raises(InvalidInput, match="one and other have no image in common"):
            library.compare("one", "other")
