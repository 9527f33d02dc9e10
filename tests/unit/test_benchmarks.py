"""What the benchmarks' tables rest on: the vectors, the exact answer, the page made of results."""

import json
from pathlib import Path
from typing import Any

import databases
import numpy as np
import plots
import pytest
import report
import scale
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import CHUNK, DIMENSIONS, Nearest, Vectors

from vecsearch.search.indexes.capacity import Need
from vecsearch.search.indexes.resources import build_seconds
from vecsearch.vocabulary import DIMS, IndexMethod

ROOT = Path(__file__).parents[2]

laws = settings(derandomize=True, deadline=None)


def test_vectors_are_the_same_however_many_follow() -> None:
    (few,) = Vectors(50)
    first, second = Vectors(CHUNK + 1)
    assert few.shape == (50, DIMENSIONS)
    assert np.array_equal(few, first[:50])
    assert len(second) == 1
    assert not np.array_equal(second[0], first[0])
    assert not np.array_equal(next(iter(Vectors(50, seed=1))), few)


def test_queries_are_not_among_the_vectors() -> None:
    queries = Vectors(200).queries(20)
    (stored,) = Vectors(200)
    assert not (queries[:, np.newaxis] == stored).all(axis=2).any()


def test_vectors_survive_half_precision_and_look_as_the_module_says() -> None:
    vectors = Vectors(0)
    random = np.random.default_rng(3)
    some = vectors.draw(random, 90, np.repeat(random.choice(1_000, 6, replace=False), 15))
    assert np.array_equal(some.astype(np.float16), some)
    assert (some >= 0).all()
    norms = np.linalg.norm(some, axis=1)
    unit = some / norms[:, np.newaxis]
    variance = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False) ** 2
    mean = unit.mean(axis=0)
    assert (some == 0).mean() == pytest.approx(0.76, abs=0.03)
    assert norms.std() / norms.mean() == pytest.approx(0.16, abs=0.06)
    assert (unit @ mean).mean() / np.linalg.norm(mean) == pytest.approx(0.5, abs=0.05)
    assert variance[:16].sum() / variance.sum() == pytest.approx(0.73, abs=0.05)


@laws
@given(
    rows=st.integers(10, 60), sizes=st.integers(3, 30), seed=st.integers(0, 99), k=st.integers(1, 9)
)
def test_nearest_of_chunks_is_nearest_of_all(rows: int, sizes: int, seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.random((rows, 8), dtype=np.float32)
    queries = random.random((4, 8), dtype=np.float32)
    nearest = Nearest(queries, k)
    for start in range(0, rows, sizes):
        nearest.add(vectors[start : start + sizes])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = np.argsort(-(queries @ units.T), axis=1)[:, :k].tolist()
    assert nearest.recall(exact) == 1
    assert nearest.recall([[] for _ in exact]) == 0
    assert nearest.recall([row[:-1] for row in exact]) == pytest.approx((k - 1) / k)


@laws
@given(power=st.floats(-2, 2), factor=st.floats(0.1, 10))
def test_a_power_of_the_rows_is_extrapolated_as_such(power: float, factor: float) -> None:
    rows = [10_000, 100_000, 1_000_000]
    values = [factor * row**power for row in rows]
    assert plots.extrapolated(rows, values) == pytest.approx(factor * plots.BILLION**power)


def test_values_are_worded_in_the_unit_of_people() -> None:
    said = [plots.in_words(value, unit) for value, unit in ((90, "s"), (7_200, "s"), (6e5, "s"))]
    assert said == ["90 s", "2 h", "6.9 days"]
    assert plots.in_words(7.21e6, "MB") == "7.2 TB"


def compared() -> dict[str, Any]:
    built = {"load_s": 1.0, "graph_s": 2.0, "holds_vectors": True, "tune_s": 1, "by_id_p50_ms": 3}
    asked = {"breadth": 40, "recall": 0.9995, "p95_ms": 9.0}
    return {
        "rows": 100_000,
        "queries": 300,
        "rounds": 5,
        "builds": {
            "hnsw": built | {"build_s": 200.0, "index_mb": 800.0, "stored_mb": 800.0},
            "compact": built | {"build_s": 30.0, "index_mb": 60.0, "stored_mb": 90.0},
            "chroma": built | {"load_s": None, "build_s": 60.0, "index_mb": 800.0},
        },
        "asked": [
            asked | {"contestant": "hnsw", "name": databases.DIRECT, "p50_ms": 2.0},
            asked | {"contestant": "compact", "name": databases.COMPACT, "p50_ms": 1.0},
            asked | {"contestant": "chroma", "name": "Chroma", "p50_ms": 4.0},
        ],
    }


def grown(rows: int) -> dict[str, Any]:
    times = {"recall": 0.99, "p50_ms": 1.0, "p95_ms": 2.0}
    asked = [
        {"breadth": breadth, "ef_search": 316, "tuned": tuned, **times}
        for breadth, tuned in ((100, False), (150, True))
    ]
    sizes = {"index_mb": rows / 1000, "compact_mb": 1.0, "rows_mb": 2.0}
    built = {"load_s": 1.0, "build_s": 2.0, "graph_s": 1.0}
    peaks = {"load": {"server": 5.0, "client": 6.0}, "build": {"server": 7.0, "client": 3.0}}
    return {"rows": rows, "asked": asked, "peak_mb": peaks} | sizes | built


def test_the_ratios_are_those_of_the_table() -> None:
    assert databases.ratios(compared()) == [
        "compact / hnsw, build: 0.150",
        "compact / hnsw, index size: 0.075",
        "compact / hnsw, p50: 0.50",
        "compact, recall@10 of exact: 0.9995",
        "compact / Chroma: build 0.50, p50 0.25",
    ]


def test_the_page_has_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    empty = report.report(tmp_path)
    assert empty.count(report.NOT_RUN) == len(report.SECTIONS)
    (tmp_path / "databases.json").write_text(json.dumps(compared()))
    for rows in (1_000, 10_000):
        (tmp_path / f"growth-{rows}.json").write_text(json.dumps(grown(rows)))
    (tmp_path / "memory.md").write_text("Twice as much.\n")
    page = report.report(tmp_path, "It had two cores.")
    assert page.count(report.NOT_RUN) == len(report.SECTIONS) - 4
    assert "times do not.\nIt had two cores.\n\n- [Ingest]" in page
    assert "| build, s | 200.0 | 30.0 | 0.15 |" in page
    assert "| 10,000 | 1 | 2 | 1 | 10 | 1 | 2 | 7 | 6 |" in page
    assert "| 10,000 | tuned | 150 | 316 | 0.9900 | 1.00 | 2.00 |" in page
    assert "Twice as much." in page


def test_the_picture_says_what_is_extrapolated(tmp_path: Path) -> None:
    file = tmp_path / "growth.svg"
    plots.draw([grown(1_000), grown(10_000)], file)
    assert file.read_text().count("extrapolated, not measured") >= 4


def test_the_table_of_scale_tells_what_is_measured_from_what_is_computed() -> None:
    needs = {1_000: [Need(IndexMethod.compact, 3 * 1024, 2 * 1024, 1024, 90.0, 1)]}
    known = {(1_000, "compact"): {"memory": 4 * 1024.0, "build_s": 200.0, "disk": 5 * 1024.0}}
    text = scale.table(needs, known)
    assert "| 1,000 | compact | 5.0 kB | 4.0 kB | *1.0 kB* | 3 min | 100 | 1 |" in text
    text = scale.table(needs, {})
    assert "| 1,000 | compact | *3.0 kB* | *2.0 kB* | *1.0 kB* | *90 s* | 100 | 1 |" in text


def test_the_page_has_a_place_for_the_table_and_keeps_the_rest() -> None:
    page = (ROOT / "docs" / "scale.md").read_text()
    before, _, after = page.partition(scale.BEGIN)
    written = scale.replaced(scale.replaced(page, "TABLE ONE"), "TABLE TWO")
    assert written.startswith(before)
    assert written.endswith(after.partition(scale.END)[2])
    assert written.count("TABLE TWO") == 1
    assert "TABLE ONE" not in written
    with pytest.raises(SystemExit):
        scale.replaced("no place", "a table")


def test_a_build_takes_about_as_long_as_estimated() -> None:
    results = ROOT / "benchmarks" / "results"
    for (rows, method), figures in scale.measured(results).items():
        dimensions = DIMS.default if method == "compact" else DIMENSIONS
        expected = build_seconds(rows, dimensions, workers=1)
        # Of fewer, a build has hardly begun.
        if rows >= 100_000:
            assert expected / 2 < figures["build_s"] < 2 * expected
