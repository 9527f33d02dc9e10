"""Laws of search and storage, on whatever hypothesis thinks of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Corpus, PixelEncoder, ingest, picture

from vecsearch.errors import InvalidInput
from vecsearch.ingest.annotations.metadata import KEY_COLUMNS
from vecsearch.library import Library
from vecsearch.search.filters import Filters
from vecsearch.vocabulary import Metric

LAW = settings(
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
WIDTHS = st.none() | st.integers(-1, 3_001)
LABELS = st.none() | st.sampled_from(["c0", "c7", "c19", "absent", "", "'; DROP TABLE images; --"])
# What Linux takes for a name and Postgres for a text.
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: not name.startswith(".") and len(name.encode()) < 250)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
METADATA = st.dictionaries(
    TEXTS.filter(lambda key: key not in KEY_COLUMNS),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=5,
    ),
    min_size=1,
    max_size=4,
)


@LAW
@given(
    position=st.integers(0, 2_999),
    metric=st.sampled_from(Metric),
    k=st.integers(1, 3_100),
    label=LABELS,
    least=WIDTHS,
    most=WIDTHS,
)
def test_whatever_filters_and_measures_the_nearest_are_those_of_numpy(
    corpus: Corpus,
    position: int,
    metric: Metric,
    k: int,
    label: str | None,
    least: int | None,
    most: int | None,
) -> None:
    filters = Filters(label=label, min_width=least, max_width=most)
    wanted: dict[str, Any] = {"metric": metric, "k": k, "filters": filters}
    if least is not None and most is not None and least > most:
        with pytest.raises(InvalidInput, match="Swap them"):
            corpus.library.query(id=corpus.ids[position], **wanted)
        return
    answer = corpus.library.query(id=corpus.ids[position], exclude_self=True, **wanted)
    places = np.arange(len(corpus))
    meets = places != position
    if label is not None:
        meets &= np.array([f"c{place % 20}" == label for place in places])
    if least is not None:
        meets &= places >= least
    if most is not None:
        meets &= places <= most
    distances = np.sort(corpus.distances(corpus.vectors[position], metric)[meets])
    found = [hit.distance for hit in answer.hits]
    assert len(found) == min(k, len(distances))
    assert found == sorted(found)
    # An index finds nearly all of the nearest; every row is all of them.
    if k >= len(distances):
        np.testing.assert_allclose(found, distances, rtol=1e-4, atol=1e-4)


@settings(LAW, max_examples=15)
@given(names=st.sets(NAMES, min_size=1, max_size=4), metadata=METADATA)
def test_any_name_and_any_metadata_are_stored_as_they_are(
    library: Library, tmp_path_factory: pytest.TempPathFactory, names: set[str], metadata: Any
) -> None:
    folder = tmp_path_factory.mktemp("named")
    paths = [str(folder / f"{name}.png") for name in sorted(names)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    file = folder / "facts.jsonl"
    file.write_text("".join(json.dumps({"path": path, **metadata}) + "\n" for path in paths))
    ingest(library.engine, [folder], PixelEncoder(), metadata_file=file)
    for path in paths:
        stored = library.collection().image(path)
        assert stored.path == path
        hits = library.query(Path(path), k=1).hits
        assert [hit.path for hit in hits] == [path]
        with library.sql(f"SELECT metadata FROM images WHERE id = '{stored.id}'") as (_, rows, _):
            assert list(rows) == [(metadata,)]
