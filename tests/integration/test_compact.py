"""Compact vectors: what writes, refits and cut-off builds may not break."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import (
    Corpus,
    PixelEncoder,
    check_vectors,
    clustered,
    every_server,
    ingest,
    make_corpus,
    once,
    picture,
)

from vecsearch.errors import DatabaseBusy, DatabaseError, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search import execute
from vecsearch.search.indexes import build, ddl, projection
from vecsearch.search.indexes import vectors as compact_vectors
from vecsearch.search.query import Query
from vecsearch.search.statement import Search
from vecsearch.vocabulary import IndexMethod, Metric


def scalar(library: Library, statement: str) -> Any:
    with database.reading(library.engine) as connection:
        return connection.scalar(sa.text(statement))


def versions(library: Library, name: str = "images") -> list[catalog.Compact]:
    with database.reading(library.engine) as connection:
        return catalog.compact_versions(connection, name)


@every_server
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("k", [10, 1_000])
def test_every_metric_is_served_by_candidates(compact_corpus: Corpus, metric: str, k: int) -> None:
    library = compact_corpus.library
    found = exact = 0
    for position in range(0, 100, 10):
        answer = library.query(id=compact_corpus.ids[position], k=k, metric=metric)
        # Where candidates are a good part of all rows, the planner may compare them all.
        assert answer.uses_index or metric != "cosine" or k > 10
        assert len(answer.hits) == k
        distances = np.sort(compact_corpus.distances(compact_corpus.vectors[position], metric))[:k]
        limit = distances[-1] + 1e-5 * abs(distances[-1])
        found += sum(hit.distance <= limit for hit in answer.hits)
        exact += k
        keys = [hit.distance for hit in answer.hits]
        assert keys == sorted(keys)
    assert answer.candidates == (
        max(100, 4 * k) if metric == "cosine" else None if k > 500 else 1_000
    )
    assert found / exact >= (0.98 if metric == "cosine" else 0.9)


def test_a_new_vector_is_asked_with_by_its_projection(compact_corpus: Corpus) -> None:
    with catalog.reading(compact_corpus.library.engine, "images") as (connection, collection):
        query = clustered(3_100, 64, seed=1)[3_050].astype(np.float32)
        search = execute.plan(connection, collection, query, Query(id=""))
        hits, ran = execute.nearest(connection, search)
        shown = ran.script()
        assert execute.explain(connection, ran)[1]
    distances = np.sort(compact_corpus.distances(query.astype(np.float64)))[:10]
    assert np.allclose([hit.distance for hit in hits], distances, atol=1e-5)
    # What is shown runs in any client, and finds the same.
    url = compact_corpus.library.engine.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as client:
        client.execute("SET search_path = vecsearch, public")
        statements = shown.removeprefix("BEGIN;").removesuffix("COMMIT;")
        rows = client.execute(statements.encode())
        while rows.nextset():
            pass
        assert [row[0] for row in rows.fetchall()] == [hit.id for hit in hits]


@every_server
def test_the_function_serves_any_condition_and_is_never_short(compact_corpus: Corpus) -> None:
    library, ids = compact_corpus.library, compact_corpus.ids
    exact = library.query(id=ids[17], k=10, exact=True).hits
    with database.reading(library.engine) as connection:
        # As docs/sql.md says for a server that is not ours.
        connection.execute(sa.text("SET LOCAL hnsw.iterative_scan = 'strict_order'"))

        def rows(rest: str, image: object = ids[17]) -> list[Any]:
            return list(
                connection.execute(sa.text(f"SELECT * FROM images_nearest('{image}') {rest}"))
            )

        ten = rows("LIMIT 10")
        assert [row.id for row in ten] == [hit.id for hit in exact]
        assert [row.id for row in rows("LIMIT 10", exact[0].path)] == [row.id for row in ten]
        assert [row.distance for row in ten] == [hit.distance for hit in exact]
        assert ten[0].similarity == 1 - ten[0].distance
        everything = rows("")
        assert {row.id for row in everything} == set(ids)
        assert len(everything) == len(ids)
        first = [row.distance for row in everything[:200]]
        assert first == sorted(first)
        assert len(rows("WHERE label = 'c7' LIMIT 140")) == 140
        assert len(rows("WHERE width IN (5, 2999)")) == 2
        assert rows("", "/nothing") == []
        plan = [
            row[0]
            for row in connection.execute(
                sa.text(
                    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM"
                    f" images_nearest('{ids[17]}') LIMIT 10"
                )
            )
        ]
    text = "\n".join(plan)
    assert versions(library)[0].index in text
    assert "Function Scan" not in text
    assert "Parallel" not in text
    branches = [line for line in plan if "SELECT* 2" in line]
    assert len(branches) == 1
    assert "never executed" in branches[0]


def test_duplicates_are_found_by_either_index(corpus: Corpus, compact_corpus: Corpus) -> None:
    def groups(of: Corpus) -> list[set[str]]:
        found: dict[int, set[str]] = {}
        for image in of.library.collection().duplicates(max_distance=0.02).images:
            found.setdefault(image.group, set()).add(image.path)
        return list(found.values())

    assert groups(compact_corpus) == groups(corpus) != []


@once
def test_embeddings_beyond_hnsw_are_served(library: Library) -> None:
    corpus = make_corpus(library, "wide", clustered(1_200, 4_096, seed=3))
    with pytest.raises(InvalidInput, match="--method compact"):
        library.collection("wide").create_index("hnsw")
    library.collection("wide").create_index("compact")
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("SET enable_seqscan = off"))
    with catalog.reading(library.engine, "wide") as (connection, collection):
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        search = Search(collection, corpus.ids[5], Query())
        hits, seconds = execute.timed(connection, search)
        assert execute.explain(connection, search)[1]
    assert seconds > 0
    distances = np.sort(corpus.distances(corpus.vectors[5]))[:10]
    assert np.allclose([hit.distance for hit in hits], distances, atol=1e-5)
    (status,) = library.collections()
    assert status.index == "compact"


@once
def test_a_method_replaces_another_and_leaves_nothing_behind(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(300, 32, seed=0))

    def state() -> tuple[str, set[str], list[int]]:
        with database.reading(library.engine) as connection:
            names = connection.scalars(
                sa.text(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'vecsearch'::regnamespace"
                    " AND (relname LIKE 'images_embedding%' OR relname LIKE 'images\\_compact%'"
                    " OR relname LIKE '%hnsw') AND relkind IN ('r', 'i')"
                )
            )
            found = {"".join(c for c in name if not c.isdigit()) for name in names}
        return (
            library.collection().index_status().index,
            found,
            [one.version for one in versions(library)],
        )

    sides = {"images_compact_", "images_compact__pkey", "images_compact__hnsw"}
    function = "SELECT pg_get_functiondef('images_nearest'::regproc)"
    plain = scalar(library, function)
    assert state() == ("hnsw", {"images_embedding_hnsw"}, [])
    library.collection().create_index("compact", dims=8)
    first = state()
    assert first[:2] == ("compact", sides)
    assert "UNION ALL" in scalar(library, function)
    library.collection().create_index("compact", dims=12, m=8, ef_construction=40)
    second = state()
    assert second[:2] == ("compact", sides)
    assert second[2][0] > first[2][0]
    status = library.collection().index_status()
    assert (status.dims, status.m, status.ef_construction) == (12, 8, 40)
    assert (status.images, status.indexed) == (300, 300)
    library.collection().create_index("hnsw", m=10)
    assert state() == ("hnsw", {"images_embedding_hnsw"}, [])
    assert scalar(library, function) == plain
    assert library.collection().index_status().m == 10
    library.collection().create_index("none")
    assert state() == ("none", set(), [])
    assert [hit.id for hit in library.query(id=corpus.ids[0], k=1)] == [corpus.ids[0]]


@once
def test_ingests_go_on_while_the_index_is_built_anew(library: Library, tmp_path: Path) -> None:
    for seed in range(40):
        (tmp_path / "a").mkdir(exist_ok=True)
        picture(seed, (16, 16)).save(tmp_path / "a" / f"{seed:03}.png")
    ingest(library.engine, [tmp_path], PixelEncoder())
    library.collection().create_index("compact", dims=8)
    before = versions(library)[0].version
    failures: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        seed = 40
        try:
            while not stop.is_set() or seed < 60:
                picture(seed, (16, 16)).save(tmp_path / "a" / f"{seed:03}.png")
                # One changes, one moves, one is a copy, one goes.
                picture(seed + 1_000, (16, 16)).save(tmp_path / "a" / f"{seed - 40:03}.png")
                (tmp_path / "a" / f"{seed:03}.png").rename(tmp_path / "a" / f"m{seed:03}.png")
                picture(seed, (16, 16)).save(tmp_path / "a" / f"c{seed:03}.png")
                (tmp_path / "a" / f"{seed - 21:03}.png").unlink(missing_ok=True)
                ingest(library.engine, [tmp_path], PixelEncoder(), prune=True)
                assert library.query(tmp_path / "a" / f"m{seed:03}.png", k=3).hits
                seed += 1
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's thread
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            library.collection().create_index("compact", dims=8)
    finally:
        stop.set()
        writer.join()
    assert failures == []
    (now,) = versions(library)
    assert now.version > before
    check_vectors(library.engine, now)


@once
def test_a_collection_that_was_removed_by_hand_leaves_nothing_to_its_successor(
    library: Library,
) -> None:
    make_corpus(library, "images", clustered(30, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    (left,) = versions(library)
    with database.writing(library.engine) as connection:
        connection.execute(sa.text("DELETE FROM vecsearch.collections WHERE name = 'images'"))
        connection.execute(sa.text("DROP TABLE vecsearch.images CASCADE"))
    corpus = make_corpus(library, "images", clustered(30, 16, seed=0))
    assert versions(library) == []
    assert scalar(library, f"SELECT to_regclass('{left.table}')") is None
    assert library.query(id=corpus.ids[3]).hits[0].id == corpus.ids[3]


@once
def test_a_reader_of_what_was_replaced_keeps_nobody_from_writing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "DROP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(build, "READERS_TIMEOUT_S", 0.0)
    corpus = make_corpus(library, "images", clustered(300, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    with psycopg.connect(library.url) as connection:
        # An analyst's session, left open.
        nearest_of = f"SELECT id FROM vecsearch.images_nearest('{corpus.ids[3]}') LIMIT 3"
        assert len(connection.execute(nearest_of.encode()).fetchall()) == 3
        (note,) = library.collection().create_index("compact", dims=8)
        assert "still being read" in note
        assert len(versions(library)) == 2
    assert library.collection().create_index("compact", dims=8) == []
    assert len(versions(library)) == 1


@once
def test_an_index_of_compact_vectors_that_was_lost_is_built_again(library: Library) -> None:
    make_corpus(library, "images", clustered(1_000, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    (made,) = versions(library)
    with database.writing(library.engine) as connection:
        connection.execute(sa.text(f"DROP INDEX vecsearch.{made.index}"))
    library.collection("images").ensure_index()
    assert library.collection().index_status().index == "compact"


@once
def test_a_build_that_is_cut_off_leaves_what_was_in_use(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(library, "images", clustered(300, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    (used,) = versions(library)

    def fails(*_: Any) -> None:
        raise DatabaseError("The server went away.")

    for step in ("fill", "build", "use"):
        with monkeypatch.context() as patched:
            patched.setattr(compact_vectors if step == "fill" else ddl, step, fails)
            with pytest.raises(DatabaseError, match="went away"):
                library.collection().create_index("compact", dims=8)
        assert library.query(id=corpus.ids[3]).candidates == 100
        assert library.collection().index_status().version == used.version
        assert len(versions(library)) == 2
    with monkeypatch.context() as patched:
        patched.setattr(ddl, "rename", fails)
        with pytest.raises(DatabaseError, match="went away"):
            library.collection().create_index("hnsw")
    assert library.collection().index_status().index == "compact"
    library.collection().create_index("compact", dims=8)
    (now,) = versions(library)
    assert now.version > used.version
    check_vectors(library.engine, now)
    assert scalar(library, "SELECT count(*) FROM pg_class WHERE relname LIKE '%hnsw'") == 1


@once
def test_two_builds_of_one_index_exclude_each_other(library: Library) -> None:
    make_corpus(library, "images", clustered(50, 8, seed=0))
    with (
        database.session(library.engine) as connection,
        connection.begin(),
    ):
        assert ddl.claim(connection, "images")
        with pytest.raises(DatabaseBusy, match="Another command"):
            library.collection().create_index("compact")


@once
@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("compact", {"dims": 0}, "--dims is 0"),
        ("compact", {"dims": 4_001}, "--dims is 4001"),
        ("hnsw", {"dims": 64}, "has no option --dims"),
        ("none", {"m": 16}, "has no option --m"),
        ("hnsw", {"m": 1}, "--m is 1"),
        ("hnsw", {"m": 101}, "--m is 101"),
        ("hnsw", {"ef_construction": 3}, "--ef-construction is 3"),
        ("hnsw", {"m": 20, "ef_construction": 39}, "twice --m"),
    ],
)
def test_options_out_of_bounds_are_refused(
    library: Library, method: str, options: dict[str, Any], words: str
) -> None:
    make_corpus(library, "images", clustered(5, 8, seed=0))
    with pytest.raises(InvalidInput, match=words):
        library.collection().create_index(method, **options)
    assert library.collection().index_status().index == "hnsw"


@once
def test_so_few_images_have_few_components(library: Library) -> None:
    make_corpus(library, "few", clustered(5, 8, seed=0))
    (note,) = library.collection("few").create_index("compact")
    assert note.startswith("5 images have at most 4 principal")
    make_corpus(library, "one", clustered(1, 8, seed=0))
    with pytest.raises(InvalidInput, match="at least 2"):
        library.collection("one").create_index("compact")


@once
def test_an_import_builds_the_index_that_is_wanted(library: Library, tmp_path: Path) -> None:
    vectors = clustered(1_200, 32, seed=5).astype(np.float32)
    paths = np.array([f"/p/{number}.png" for number in range(len(vectors))])
    np.savez(tmp_path / "all.npz", paths=paths, embeddings=vectors)
    np.savez(tmp_path / "more.npz", paths=paths[:30], embeddings=vectors[30:60])
    for method in IndexMethod:
        library.collection(f"{method}_wanted").import_file(tmp_path / "all.npz", index=method)
        assert library.collection(f"{method}_wanted").index_status().index == method
    with pytest.raises(InvalidInput, match="index create --method none"):
        library.collection("compact_wanted").import_file(tmp_path / "all.npz", index="none")
    library.collection("compact_wanted").import_file(tmp_path / "more.npz")
    (version,) = versions(library, "compact_wanted")
    check_vectors(library.engine, version)


@once
def test_tuning_takes_the_least_breadth_that_finds_enough(library: Library) -> None:
    make_corpus(library, "images", clustered(1_500, 64, seed=2))
    library.collection().create_index("compact", dims=4)
    tuned = library.collection().tune_index(recall=0.9)
    assert tuned.choice is not None
    assert tuned.choice == tuned.scores[-1]
    assert all(score.recall < 0.9 <= tuned.choice.recall for score in tuned.scores[:-1])
    image = scalar(library, "SELECT id FROM images LIMIT 1")
    assert library.query(id=image).candidates == tuned.choice.breadth
    assert library.query(id=image, k=20).candidates == 100  # what was tuned for 10 is too few
    assert library.collection().index_status().breadths["cosine"]["breadth"] == tuned.choice.breadth
    library.collection().create_index("compact", dims=1)
    assert library.collection().index_status().breadths == {}
    with pytest.raises(InvalidInput, match="--recall"):
        library.collection().tune_index(recall=1.5)
    library.collection().create_index("hnsw")
    assert library.collection().tune_index().breadth_name == "ef_search"
    with pytest.raises(InvalidInput, match="serves l2"):
        library.collection().tune_index(metric="l2")


@once
def test_images_of_another_kind_are_told_as_drift(library: Library) -> None:
    vectors = clustered(600, 64, seed=2)
    random = np.random.default_rng(0)
    vectors[:, 32:] = 0.001
    make_corpus(library, "images", vectors)
    library.collection().create_index("compact", dims=32)
    fresh = library.collection().evaluate().drift
    assert fresh is not None
    assert not fresh.is_stale
    assert fresh.since is None
    with database.writing(library.engine) as connection:
        other = np.abs(random.normal(0, 1, (100, 64)))
        for number, vector in enumerate(other):
            connection.execute(
                sa.text(
                    "INSERT INTO images (id, path, label, embedding, ingested_at)"
                    " VALUES (gen_random_uuid(), :path, 'new', :vector, clock_timestamp())"
                ),
                {"path": f"/n/{number}", "vector": str(vector.tolist())},
            )
    drifted = library.collection().evaluate().drift
    assert drifted is not None
    assert drifted.is_stale
    assert drifted.since_images == 100
    assert drifted.since is not None
    assert drifted.since < drifted.now < drifted.fitted
    library.collection().create_index("compact", dims=32)
    again = library.collection().evaluate().drift
    assert again is not None
    assert not again.is_stale


@once
def test_an_image_that_was_written_past_us_is_found_all_the_same(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(400, 16, seed=0))
    library.collection().create_index("compact", dims=4)
    with database.writing(library.engine) as connection:
        connection.execute(
            sa.text(f"DELETE FROM {versions(library)[0].table} WHERE id = :id"),
            {"id": corpus.ids[9]},
        )
    for exclude_self in (False, True):
        answer = library.query(id=corpus.ids[9], exclude_self=exclude_self)
        exact = library.query(id=corpus.ids[9], exclude_self=exclude_self, exact=True)
        assert [hit.id for hit in answer] == [hit.id for hit in exact]
    assert library.collection().index_status().indexed == 399


@once
def test_a_reader_who_came_before_the_swap_still_finds_its_vectors(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(library, "images", clustered(300, 16, seed=0))
    library.collection().create_index("compact", dims=4)
    ready, opened = threading.Event(), threading.Event()
    use = ddl.use

    def waits(*arguments: Any) -> None:
        ready.set()
        assert opened.wait(60)
        use(*arguments)

    monkeypatch.setattr(ddl, "use", waits)
    built = threading.Thread(
        target=library.collection().create_index, args=("compact",), kwargs={"dims": 6}
    )
    built.start()
    assert ready.wait(60)
    with catalog.reading(library.engine, "images") as (connection, collection):
        opened.set()
        # The new version is in use; the old one waits for us.
        while library.collection().index_status().dims == 4:
            assert built.is_alive()
        search = Search(collection, corpus.ids[0], Query())
        assert len(execute.timed(connection, search)[0]) == 10
        assert len(versions(library)) == 2
    built.join()
    assert len(versions(library)) == 1


def test_a_projection_keeps_what_varies() -> None:
    random = np.random.default_rng(0)
    low = random.normal(size=(500, 6)) @ random.normal(size=(6, 40)) + 10
    fitted = projection.fit(low.astype(np.float32), 6)
    assert fitted.variance_kept > 0.99
    compacted = fitted.project(low.astype(np.float32))
    full = low / np.linalg.norm(low, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.linalg.norm(compacted[0] - compacted, axis=1),
        np.linalg.norm(full[0] - full, axis=1),
        atol=2e-2,
    )
    again = projection.fit(low.astype(np.float32), 6)
    np.testing.assert_array_equal(fitted.components, again.components)
    assert projection.fit(low.astype(np.float32), 100).components.shape == (40, 40)
    assert projection.fit(low[:3].astype(np.float32), 100).components.shape == (2, 40)
    same = projection.fit(np.ones((4, 5), np.float32), 3)
    assert np.isfinite(same.project(np.ones((2, 5), np.float32))).all()
