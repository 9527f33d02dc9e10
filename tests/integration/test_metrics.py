"""Every metric: SQL and numpy measure the same, and an answer is ordered by it."""

import numpy as np
import pytest
from support import Corpus

from vecsearch.analysis import ranking
from vecsearch.vocabulary import Metric


@pytest.mark.parametrize("metric", Metric)
def test_sql_and_numpy_measure_the_same(corpus: Corpus, metric: Metric) -> None:
    answer = corpus.library.query(id=corpus.ids[7], metric=metric, k=50, exact=True)
    places = [corpus.ids.index(hit.id) for hit in answer]
    expected = ranking.distances(corpus.vectors[7:8], corpus.vectors[places], metric)[0]
    np.testing.assert_allclose([hit.distance for hit in answer], expected, rtol=1e-5, atol=1e-5)
    assert answer.metric is metric
    everything = ranking.distances(corpus.vectors[7:8], corpus.vectors, metric)[0]
    np.testing.assert_allclose(np.sort(everything)[:50], expected, rtol=1e-5, atol=1e-5)
