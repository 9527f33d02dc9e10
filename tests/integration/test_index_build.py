"""Builds of an index: what goes on meanwhile, and what a build that fails leaves."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import (
    PixelEncoder,
    check_vectors,
    clustered,
    ingest,
    make_corpus,
    once,
    picture,
    scalar,
    versions,
    write,
)

from vecsearch.config import Settings
from vecsearch.errors import DatabaseError, InvalidInput, SchemaMissing
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.search import execute
from vecsearch.search.indexes import build, ddl
from vecsearch.search.indexes import vectors as compact_vectors
from vecsearch.search.plan import Search
from vecsearch.search.query import Query
from vecsearch.vocabulary import IndexMethod


@once
def test_a_method_replaces_another_and_leaves_nothing_behind(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(300, 32, seed=0))

    def state() -> tuple[str, set[str], list[int]]:
        with database.reading(library.engine) as connection:
            names = connection.scalars(
                sa.text(
                    "SELECT relname FROM pg_class"
                    " WHERE relnamespace::regnamespace::text IN ('vecsearch', 'vecsearch_internal')"
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
    function = "SELECT pg_get_functiondef('images_search(uuid, bigint, text)'::regprocedure)"
    plain = scalar(library, function)
    assert state() == ("hnsw", {"images_embedding_hnsw"}, [])
    library.collection().create_index("compact", dims=8)
    first = state()
    assert first[:2] == ("compact", sides)
    assert f"images_compact_{first[2][0]} " in scalar(library, function)
    library.collection().create_index("compact", dims=12, m=8, ef_construction=40)
    second = state()
    assert second[:2] == ("compact", sides)
    assert second[2][0] > first[2][0]
    assert f"images_compact_{second[2][0]} " in scalar(library, function)
    assert f"images_compact_{first[2][0]} " not in scalar(library, function)
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
    stop = threading.Event()

    def write() -> None:
        seed = 40
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

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            for _ in range(3):
                library.collection().create_index("compact", dims=8)
        finally:
            stop.set()
        writer.result()
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
    # In so small a collection, a search would compare all rows.
    write(library, "UPDATE pg_class SET reltuples = 100000 WHERE oid = 'images'::regclass")
    with psycopg.connect(library.url) as connection:
        # An analyst's session, left open.
        nearest_of = f"SELECT id FROM vecsearch.images_search('{corpus.ids[3]}', 3)"
        assert len(connection.execute(nearest_of.encode()).fetchall()) == 3
        (note,) = library.collection().create_index("compact", dims=8)
        assert "still being read" in note
        assert len(versions(library)) == 2
        # Its next search is of what replaced it.
        assert len(connection.execute(nearest_of.encode()).fetchall()) == 3
    assert library.collection().create_index("compact", dims=8) == []
    assert len(versions(library)) == 1


@once
def test_an_index_of_compact_vectors_that_was_lost_is_built_again(library: Library) -> None:
    make_corpus(library, "images", clustered(1_000, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    (made,) = versions(library)
    with database.writing(library.engine) as connection:
        connection.execute(sa.text(f"DROP INDEX vecsearch_internal.{made.index}"))
    library.collection("images").ensure_index()
    assert library.collection().index_status().index == "compact"


@once
def test_a_build_that_is_cut_off_leaves_what_was_in_use(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(library, "images", clustered(300, 32, seed=0))
    library.collection().create_index("compact", dims=8)
    (used,) = versions(library)

    def fails(*_: Any, **__: Any) -> None:
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
        ("hnsw", {"foo": 3, "m": 16}, "Unknown index option 'foo'"),
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
def test_a_tuning_of_an_index_that_was_rebuilt_meanwhile_is_not_kept(library: Library) -> None:
    make_corpus(library, "images", clustered(20, 8, seed=0))
    with catalog.reading(library.engine, "images") as (_, before):
        pass
    library.collection().create_index("hnsw", m=8)
    with catalog.reading(library.engine, "images") as (_, now):
        pass
    for collection, kept in ((before, {}), (now, {"cosine": {"breadth": 40}})):
        with database.writing(library.engine) as connection:
            ddl.set_breadth(connection, collection, "cosine", {"breadth": 40})
        assert library.collection().index_status().breadths == kept


@once
def test_an_index_of_a_database_without_tables_is_refused(
    empty_database_url: str, tmp_path: Path
) -> None:
    settings = Settings.load(database_url=empty_database_url, data_dir=tmp_path)
    with Library.open(settings) as library:
        with pytest.raises(SchemaMissing):
            library.collection().ensure_index()
        with pytest.raises(SchemaMissing):
            library.collection().create_index("hnsw")


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
def test_a_reader_who_came_before_the_swap_still_finds_its_vectors(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(library, "images", clustered(300, 16, seed=0))
    library.collection().create_index("compact", dims=4)
    ready, opened = threading.Event(), threading.Event()
    use = ddl.use

    def waits(*arguments: Any, **options: Any) -> None:
        ready.set()
        assert opened.wait(60)
        use(*arguments, **options)

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
