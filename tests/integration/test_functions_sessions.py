"""The functions by which any client searches: whoever calls them, in whatever session."""

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from psycopg import errors
from sql_support import Client, connect, path, rows
from support import Corpus, clustered, every_server, make_corpus, once, store_concepts, write

from vecsearch.library import Library
from vecsearch.postgres import database, renaming

# What a search changes while it runs.
SETTINGS = """search_path hnsw.iterative_scan hnsw.max_scan_tuples hnsw.scan_mem_multiplier
    hnsw.ef_search random_page_cost enable_sort enable_seqscan enable_indexscan
    min_parallel_table_scan_size parallel_setup_cost""".split()


@pytest.fixture
def client(indexed: Corpus) -> Iterator[Client]:
    with connect(indexed.library) as connection:
        yield connection


def settings(client: Client) -> dict[str, str]:
    return {name: str(rows(client, f"SHOW {name}")[0][0]) for name in SETTINGS}


def test_a_call_leaves_the_session_as_it_was(indexed: Corpus, client: Client) -> None:
    chosen = {
        "enable_sort": "off",
        "hnsw.ef_search": "77",
        "hnsw.iterative_scan": "strict_order",
        "enable_indexscan": "off",
        "random_page_cost": "3",
    }
    search = "SELECT count(*) FROM images_search(%s, 20, %s)"
    for values in ({}, chosen):
        for name, value in values.items():
            client.execute(f"SET {name} = {value}".encode())
        before = settings(client)
        assert values.items() <= before.items()
        for condition in (None, "label = 'c7'", "width > 100"):
            assert rows(client, search, indexed.ids[0], condition) == [(20,)]
            assert settings(client) == before
        with client.transaction():
            client.execute("SET LOCAL enable_sort = off")
            local = settings(client)
            for refused in ("nothing = 1", "1 / (width - 1000) > 0"):
                with pytest.raises(psycopg.Error), client.transaction():
                    rows(client, search, indexed.ids[0], refused)
                assert settings(client) == local
            rows(client, search, indexed.ids[0], None)
            assert settings(client) == local
        assert settings(client) == before


def test_names_of_the_callers_own_change_nothing(indexed: Corpus, client: Client) -> None:
    image = indexed.ids[17]
    search = "SELECT id FROM vecsearch.images_search(%s, 10, 'label = ''c7''')"
    distances = "SELECT id FROM vecsearch.images_distances(%s) ORDER BY distance LIMIT 10"
    similarity = "SELECT vecsearch.images_similarity(%s, %s)"
    client.execute("SET hnsw.iterative_scan = relaxed_order")
    expected = rows(client, search, image), rows(client, distances, image)
    assert len(expected[0]) == len(expected[1]) == 10
    with client.transaction(force_rollback=True):
        for statement in (
            "CREATE SCHEMA own",
            "CREATE TABLE own.images (id uuid, path text, label text, embedding text)",
            "CREATE TYPE own.hit AS (id int)",
            "CREATE TYPE own.halfvec AS (id int)",
            (
                "CREATE FUNCTION own.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql"
                " AS 'BEGIN RAISE ''shadowed''; END'"
            ),
            (
                "CREATE FUNCTION own.image_id(regclass, text) RETURNS uuid LANGUAGE sql"
                " RETURN CAST(NULL AS uuid)"
            ),
            "CREATE FUNCTION own.unequal(text, text) RETURNS boolean LANGUAGE sql RETURN false",
            "CREATE OPERATOR own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = own.unequal)",
            "CREATE TEMP TABLE images (id uuid, path text, label text)",
        ):
            client.execute(statement.encode())
        for chosen in ("''", "vecsearch", "own", "own, pg_catalog", "own, vecsearch, public"):
            client.execute(f"SET search_path = {chosen}".encode())
            for named in (image, str(image), path(indexed, 17)):
                assert rows(client, search, named) == expected[0], chosen
                assert rows(client, distances, named) == expected[1], chosen
            assert rows(client, similarity, image, image) == [(pytest.approx(1, abs=1e-6),)]


@pytest.fixture
def reader(server_url: str, indexed: Corpus) -> Iterator[str]:
    """A role that may read the collection's table, and nothing else."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE searcher")
        yield "searcher"
        write(indexed.library, "DROP OWNED BY searcher")
        connection.execute("DROP ROLE searcher")


@every_server
def test_a_reader_searches_in_a_transaction_that_is_read_only(indexed: Corpus, reader: str) -> None:
    library = indexed.library
    for statement in (
        f"GRANT USAGE ON SCHEMA vecsearch, vecsearch_internal TO {reader}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch, vecsearch_internal TO {reader}",
    ):
        write(library, statement)
    options = f"-c role={reader} -c default_transaction_read_only=on -c hnsw.iterative_scan=off"
    # Its first statement: the session does not know pgvector's settings yet.
    for condition in (None, "label = 'c7'", "width >= 0"):
        with psycopg.connect(library.url, autocommit=True, options=options) as client:
            search = "SELECT id FROM vecsearch.images_search(%s, 100, %s)"
            assert rows(client, search, path(indexed, 7), condition)[0] == (indexed.ids[7],)
            assert client.execute("SHOW hnsw.iterative_scan").fetchone() == ("off",)
            for refused in ("vecsearch.images_search(%s, 1, 'pg_read_file(''x'') = ''''')",):
                with pytest.raises(errors.InsufficientPrivilege):
                    rows(client, f"SELECT * FROM {refused}", indexed.ids[7])


def test_row_level_security_holds_for_every_function(indexed: Corpus, reader: str) -> None:
    library, visible = indexed.library, [*range(7, len(indexed), 20)]
    for statement in (
        f"GRANT USAGE ON SCHEMA vecsearch, vecsearch_internal TO {reader}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch, vecsearch_internal TO {reader}",
        "ALTER TABLE images ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON images TO {reader} USING (label = 'c7')",
    ):
        write(library, statement)
    try:
        with connect(library) as client:
            client.execute("SET hnsw.iterative_scan = relaxed_order")
            client.execute(f"SET ROLE {reader}".encode())
            expected = np.sort(indexed.distances(indexed.vectors[7])[visible])
            for k in (20, 1_000):
                for condition in (None, "true OR label <> 'c7'"):
                    search = "SELECT label, distance FROM images_search(%s, %s, %s)"
                    hits = rows(client, search, indexed.ids[7], k, condition)
                    np.testing.assert_allclose([hit[1] for hit in hits], expected[:k], atol=1e-5)
                    assert {hit[0] for hit in hits} == {"c7"}
            distances = "SELECT label FROM images_distances(%s)"
            assert {*rows(client, distances, indexed.ids[7])} == {("c7",)}
            for hidden in ("search", "distances", "embedding"):
                with pytest.raises(errors.NoDataFound, match="no image"):
                    rows(client, f"SELECT * FROM images_{hidden}(%s)", path(indexed, 8))
    finally:
        write(library, "DROP POLICY own ON images")
        write(library, "ALTER TABLE images DISABLE ROW LEVEL SECURITY")


@once
@pytest.mark.parametrize("method", ["hnsw", "compact"])
def test_a_word_is_searched_for_and_all_go_by_a_new_name(library: Library, method: str) -> None:
    corpus = make_corpus(library, "theirs", clustered(1_000, 32, seed=3))
    library.collection("theirs").create_index(method)
    weights: NDArray[np.float16] = np.eye(2, 32, dtype=np.float16)
    store_concepts(library, ["dark", "bright"], weights, [0, 1])
    renamed = "street_view"
    with database.writing(library.engine) as connection:
        renaming.rename(connection, "theirs", renamed)
    (note,) = library.upgrade()
    assert f"'{renamed}_1'" in note
    name, image = f"{renamed}_1", corpus.ids[9]
    with connect(library) as client:
        client.execute("SET hnsw.iterative_scan = relaxed_order")
        for where in (None, f"{name}.label = 'c7'"):
            chosen = slice(None) if where is None else slice(7, None, 20)
            for question, vector in (
                (f"concept('dark', '{name}')", weights[0].astype(np.float64)),
                (f"{name}_embedding('{image}')", corpus.vectors[9]),
                (f"'{image}'", corpus.vectors[9]),
            ):
                expected = np.sort(corpus.distances(vector)[chosen])[:20]
                search = f"SELECT distance FROM {name}_search({question}, 20, %s)"
                found = [row[0] for row in rows(client, search, where)]
                assert len(found) == 20
                assert sum(one <= expected[-1] + 1e-5 for one in found) >= 19, question
        assert len(rows(client, f"SELECT FROM {name}_distances(%s)", image)) == 1_000
        similarity = f"SELECT {name}_similarity(%s, %s)"
        expected_one = 1 - corpus.distances(corpus.vectors[9])[4]
        for pair in ((image, corpus.ids[4]), (path(corpus, 9), path(corpus, 4))):
            assert rows(client, similarity, *pair) == [(pytest.approx(expected_one, abs=1e-5),)]
        left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'theirs%%' OR proname ~ %s"
        assert rows(client, left, f"^{renamed}_(search|distances|embedding|similarity)$") == [(0,)]
