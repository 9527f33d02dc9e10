"""The functions by which any client searches: exact where they promise it, never short, tidy."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg import errors
from sql_support import Client, connect, path, plan, rows
from support import Corpus, citus, clustered, every_server, make_corpus, once, one_server, write

from vecsearch.library import Library

pytestmark = citus


@pytest.fixture
def client(indexed: Corpus) -> Iterator[Client]:
    with connect(indexed.library) as connection:
        yield connection


@pytest.fixture
def hnsw(corpus: Corpus) -> Iterator[Client]:
    """A client of the corpus, as `vecsearch db configure` leaves it."""
    with connect(corpus.library) as connection:
        connection.execute("SET hnsw.iterative_scan = relaxed_order")
        yield connection


def conditions(corpus: Corpus) -> dict[str | None, NDArray[np.bool]]:
    """Return conditions, and which positions of a corpus meet them."""
    places = np.arange(len(corpus))
    last = places * 7919 % len(corpus) % 10
    return {
        None: places >= 0,
        " ": places >= 0,
        "label = 'c7'": places % 20 == 7,
        "metadata @> '{\"price\": 5}'": places == 5,
        "images.path ~ '[0-4][.]png$' -- a comment": last < 5,
        "width > 2000 /* ; */ OR label = ';)'": places > 2_000,
        "false": places < 0,
    }


@every_server
def test_the_nearest_are_found_whatever_the_condition_and_never_too_few(
    indexed: Corpus, client: Client
) -> None:
    places = {image: place for place, image in enumerate(indexed.ids)}
    for condition, matching in conditions(indexed).items():
        for k in (1, 10, 100, 1_000):
            found = asked = 0
            for place in (5, 1_234):
                distances = indexed.distances(indexed.vectors[place])
                expected = np.sort(distances[matching])[:k]
                hits = rows(
                    client,
                    "SELECT id, distance, similarity FROM images_search(%s, %s, %s)",
                    indexed.ids[place],
                    k,
                    condition,
                )
                assert len(hits) == len(expected)
                positions = [places[hit[0]] for hit in hits]
                assert matching[positions].all()
                assert len({*positions}) == len(hits)
                given = [hit[1] for hit in hits]
                assert given == sorted(given)
                np.testing.assert_allclose(given, distances[positions], atol=1e-5)
                assert all(hit[2] == 1 - hit[1] for hit in hits)
                found += sum(one <= expected[-1] + 1e-5 for one in given)
                asked += len(expected)
            assert found >= 0.99 * asked, (condition, k)


@once
@pytest.mark.parametrize(
    ("method", "ranking", "expansion"),
    [("none", "full", 0), ("hnsw", "full", 5), ("compact", "compact", 0), ("compact", "full", 5)],
)
def test_a_search_ranks_as_a_query_does(
    library: Library, method: str, ranking: str, expansion: int
) -> None:
    corpus = make_corpus(library, "images", clustered(800, 32, seed=3))
    images = library.collection()
    images.create_index(method, dims=12 if method == "compact" else None)
    images.set_ranking(ranking, expansion=expansion)
    with connect(library) as client:
        for where in (None, "label = 'c7'", "label IN ('c1', 'c2', 'c3', 'c4', 'c5', 'c6')"):
            for k in (1, 20, 1_000):
                hits = rows(
                    client,
                    "SELECT id, distance FROM images_search(%s, %s, %s)",
                    corpus.ids[9],
                    k,
                    where,
                )
                exact = library.query(id=corpus.ids[9], k=k, where=where, exact=True).hits
                assert len(hits) == len(exact)
                np.testing.assert_allclose(
                    [hit[1] for hit in hits], [hit.distance for hit in exact], atol=2e-3
                )
                assert len({hit[0] for hit in hits} & {hit.id for hit in exact}) >= 0.95 * len(hits)


@one_server
def test_an_image_is_named_in_any_way_and_a_search_stands_anywhere(
    indexed: Corpus, client: Client
) -> None:
    register_vector(client)
    image, own = indexed.ids[17], path(indexed, 17)
    ten = rows(client, "SELECT id, distance FROM images_search(%s)", image)
    assert (len(ten), ten[0][0]) == (10, image)
    (vector,) = rows(client, "SELECT images_embedding(%s)", image)[0]
    np.testing.assert_array_equal(vector.to_numpy(), indexed.vectors[17])
    assert rows(client, "SELECT images_embedding(%s) = %s", own, vector) == [(True,)]
    for source, values in (
        ("images_search(%s)", [str(image)]),
        ("images_search(%s)", [str(image).upper()]),
        ("images_search(%s)", [own]),
        ("images_search(%s)", [vector]),
        ("images_search(k => 10, image => CAST(%s AS text))", [own]),
        ("images_search((SELECT id FROM images WHERE path = %s))", [own]),
        ("images_search(images_embedding(%s))", [own]),
        ("images AS i, LATERAL images_search(i.id) AS s WHERE i.path = %s", [own]),
        ("images AS i CROSS JOIN images_search(i.path) AS s WHERE i.path = %s", [own]),
        ("images JOIN images_search(%s) AS s USING (id) ORDER BY s.distance", [image]),
    ):
        columns = "s.id, s.distance" if " AS s" in source else "id, distance"
        columns = "id, s.distance" if "USING" in source else columns
        assert rows(client, f"SELECT {columns} FROM {source}", *values) == ten, source
    # From the fifth time on, Postgres may keep a plan that does not know the values.
    for place in (17, 3, 17, 17, 17, 17, 17):
        again = client.execute(
            "SELECT id, distance FROM images_search(%s, %s, %s)",
            [indexed.ids[place], 10, "width >= 0"],
            prepare=True,
        ).fetchall()
        assert again[0][0] == indexed.ids[place]
        assert place != 17 or again == ten
    # As many questions as there are rows, each with its own answer.
    joined = rows(
        client,
        "SELECT i.id, s.id FROM images AS i, LATERAL images_search(i.id, 3) AS s"
        " WHERE i.width < 20 ORDER BY i.width, s.distance",
    )
    assert [one for one, _ in joined[::3]] == indexed.ids[:20]
    assert all(one == other for one, other in joined[::3])


def test_a_cursor_is_read_to_the_end(indexed: Corpus, client: Client) -> None:
    client.execute("SET hnsw.iterative_scan = relaxed_order")
    for source in (
        "images_search(%s, 10000)",
        "images_distances(%s) ORDER BY distance",
    ):
        with client.transaction(), client.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute(f"SELECT id, distance FROM {source}".encode(), [indexed.ids[17]])
            found = list(cursor)
        assert {row[0] for row in found} == {*indexed.ids}
        assert len(found) == len(indexed)
        # An index scan gives nearly this order.
        distances = [row[1] for row in found]
        assert distances == sorted(distances) or "search" not in source


@once
@pytest.mark.parametrize("method", ["hnsw", "compact"])
def test_an_index_that_is_lost_or_invalid_leaves_nothing_out(library: Library, method: str) -> None:
    corpus = make_corpus(library, "images", clustered(800, 32, seed=3))
    library.collection().create_index(method)
    with connect(library) as client:
        ((index,),) = rows(
            client,
            "SELECT CAST(CAST(oid AS regclass) AS text) FROM pg_class"
            " WHERE relname LIKE 'images%%hnsw' AND relkind = 'i'",
        )
    search = "SELECT id FROM images_search(%s, 10)"
    expected = [corpus.ids[place] for place in np.argsort(corpus.distances(corpus.vectors[9]))[:10]]
    with connect(library) as client:
        assert [row[0] for row in rows(client, search, corpus.ids[9])] == expected
        invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST(:i AS regclass)"
        write(library, invalid, i=index)
        assert [row[0] for row in rows(client, search, corpus.ids[9])] == expected
        write(library, f"DROP INDEX {index}")
        assert [row[0] for row in rows(client, search, corpus.ids[9])] == expected
        assert len(rows(client, "SELECT FROM images_search(%s, 900)", corpus.ids[9])) == 800


@one_server
@once
def test_rows_without_compact_vectors_are_found_where_all_are_wanted(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(800, 32, seed=3))
    library.collection().create_index("compact", dims=12)
    write(
        library,
        "INSERT INTO images (id, path, label, embedding) SELECT gen_random_uuid(), '/new/' || n,"
        f" 'new', embedding FROM images, generate_series(1, 5) AS n WHERE id = '{corpus.ids[9]}'",
    )
    with connect(library) as client:

        def found(k: int, condition: str | None = None) -> int:
            """Return how many of the new ones are among the k nearest."""
            search = "SELECT label FROM images_search(%s, %s, %s)"
            return rows(client, search, corpus.ids[9], k, condition).count(("new",))

        # Fewer rows match than are wanted, or few.
        for k, condition in (
            (806, None),
            (10, "label = 'new'"),
            (5, "label = 'new'"),
            (800, "label = 'new' OR width > 5"),
            (10, "label = 'new' OR width = 5"),
        ):
            assert found(k, condition) == 5, (k, condition)
        assert (
            rows(
                client,
                "SELECT label FROM images_distances(%s) ORDER BY distance, label DESC LIMIT 5",
                corpus.ids[9],
            )
            == [("new",)] * 5
        )
        # The index does not know them yet; an ingest would have told it. It is used in a larger
        # collection, as this one now seems to be.
        write(library, "UPDATE pg_class SET reltuples = 100000 WHERE oid = 'images'::regclass")
        assert found(10) == 0
        library.collection().create_index("compact", dims=12)
        assert found(10) == 5
        # One is a question that cannot be ranked by what it does not have.
        library.collection().set_ranking("compact", dims=12)
        write(
            library,
            "INSERT INTO images (id, path, label, embedding)"
            " SELECT gen_random_uuid(), '/newer', 'newer', embedding FROM images LIMIT 1",
        )
        with pytest.raises(errors.NoDataFound, match="has no compact vector yet") as caught:
            rows(client, "SELECT * FROM images_search('/newer')")
        assert "vecsearch index create" in str(caught.value.diag.message_hint)


@one_server
def test_distances_are_inlined_and_the_index_serves_them(corpus: Corpus, hnsw: Client) -> None:
    image = corpus.ids[17]
    distances = np.sort(corpus.distances(corpus.vectors[17]))
    are_others = np.arange(len(corpus)) % 20 != 7
    others = np.sort(corpus.distances(corpus.vectors[17])[are_others])
    for source, expected in (
        (f"images_distances('{image}'::uuid) ORDER BY distance LIMIT 5", distances[:5]),
        (f"images_distances('{image}') ORDER BY distance LIMIT 5", distances[:5]),
        (f"images_distances('{image}') ORDER BY distance LIMIT 200", distances[:200]),
        (
            (
                f"images_distances('{path(corpus, 17)}') WHERE label <> 'c7'"
                " ORDER BY distance LIMIT 100"
            ),
            others[:100],
        ),
        (
            (
                f"images_distances('{image}') AS d JOIN images_view AS v ON v.id = d.id"
                " AND v.width >= 0 ORDER BY d.distance LIMIT 30"
            ),
            distances[:30],
        ),
        (
            (
                "images, LATERAL (SELECT embedding_distance(embedding,"
                f" images_embedding('{image}'))) AS d (distance)"
                f" ORDER BY embedding_distance(embedding, (SELECT images_embedding('{image}')))"
                " LIMIT 50"
            ),
            distances[:50],
        ),
    ):
        statement = f"SELECT distance FROM {source}"
        # Not for a dear sort, and not because every other way is forbidden.
        assert "Index Scan using images_embedding_hnsw" in plan(hnsw, statement), source
        assert "Function Scan" not in plan(hnsw, statement), source
        found = [row[0] for row in rows(hnsw, statement)]
        assert len(found) == len(expected)
        assert sum(one <= expected[-1] + 1e-5 for one in found) >= 0.98 * len(found), source
    # A search chooses for itself.
    scans = "SELECT pg_stat_get_xact_numscans('images_embedding_hnsw'::regclass)"
    with hnsw.transaction():
        ((before,),) = rows(hnsw, scans)
        assert len(rows(hnsw, "SELECT FROM images_search(%s)", image)) == 10
        assert rows(hnsw, scans) == [(before + 1,)]
    everything = rows(hnsw, "SELECT id, distance FROM images_distances(%s)", image)
    assert {row[0] for row in everything} == {*corpus.ids}
    np.testing.assert_allclose(
        [dict(everything)[one] for one in corpus.ids],
        corpus.distances(corpus.vectors[17]),
        atol=1e-5,
    )


@one_server
def test_settings_under_which_the_index_would_leave_rows_out_are_an_error(corpus: Corpus) -> None:
    with connect(corpus.library) as client:
        for image in (corpus.ids[3], str(corpus.ids[3])):
            with pytest.raises(errors.ObjectNotInPrerequisiteState) as caught:
                rows(client, "SELECT * FROM images_distances(%s) LIMIT 5", image)
            assert "iterative_scan is off" in str(caught.value)
            assert "vecsearch db configure" in str(caught.value.diag.message_hint)
        for mode in ("relaxed_order", "strict_order"):
            client.execute(f"SET hnsw.iterative_scan = {mode}".encode())
            assert len(rows(client, "SELECT FROM images_distances(%s)", image)) == len(corpus)


@pytest.mark.parametrize("called", ["search", "distances", "embedding"])
@pytest.mark.parametrize("image", ["/nothing/here.png", "00000000-0000-0000-0000-000000000000", ""])
def test_an_image_that_is_not_there_is_an_error_by_its_name(
    indexed: Corpus, client: Client, called: str, image: str
) -> None:
    client.execute("SET hnsw.iterative_scan = relaxed_order")
    for type_ in ("text", "uuid") if image.startswith("0") else ("text",):
        with pytest.raises(errors.NoDataFound, match=f"There is no image .*{image}.* in "):
            rows(client, f"SELECT * FROM images_{called}(CAST(%s AS {type_}))", image)


def test_no_image_has_no_neighbours(indexed: Corpus, client: Client) -> None:
    client.execute("SET hnsw.iterative_scan = relaxed_order")
    for type_ in ("text", "uuid", "halfvec"):
        for called in ("search", "distances"):
            statement = f"SELECT * FROM images_{called}(CAST(NULL AS {type_}))"
            assert rows(client, statement) == [], statement


@pytest.mark.parametrize("k", [0, -1, None])
def test_no_number_of_images_is_an_error(indexed: Corpus, client: Client, k: int | None) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="Give 1 or more"):
        rows(client, "SELECT * FROM images_search(%s, %s)", indexed.ids[0], k)


@pytest.mark.parametrize(
    "condition",
    [
        "nothing = 1",
        "width",
        "width = 1;",
        "true; DROP TABLE images_view",
        "true); DELETE FROM images; SELECT (true",
        "true); DELETE FROM images; --",
        """true); DELETE FROM images; SELECT '[{"Plan": {}}]'::json WHERE (true""",
        "false) OR (true",
        "(true",
        "true)",
        "true /* and so on",
        "true UNION ALL SELECT NULL",
        "true ORDER BY random()",
        "path = $5",
    ],
)
def test_what_is_no_condition_is_an_error_and_changes_nothing(
    indexed: Corpus, client: Client, condition: str
) -> None:
    with pytest.raises((errors.ProgrammingError, errors.DataError)):
        rows(client, "SELECT * FROM images_search(%s, 10, %s)", indexed.ids[0], condition)
    assert rows(client, "SELECT count(*) FROM images") == [(len(indexed),)]


def test_a_condition_names_what_it_would_name_in_the_callers_session(
    indexed: Corpus, client: Client
) -> None:
    condition = "path NOT IN (SELECT path FROM collections)"
    search = "SELECT count(*) FROM vecsearch.images_search(%s, 5000, %s)"
    with client.transaction(force_rollback=True):
        client.execute("CREATE SCHEMA own")
        client.execute("CREATE TABLE own.collections AS SELECT path FROM images LIMIT 7")
        client.execute("SET search_path = own, vecsearch, public")
        assert rows(client, search, indexed.ids[0], condition) == [(len(indexed) - 7,)]
