"""Dropping a collection deletes everything that belongs to it, and nothing else."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from support import (
    PixelEncoder,
    citus,
    clustered,
    counts,
    ingest,
    make_corpus,
    run_command,
    scalar,
    store_concepts,
    write,
)

from vecsearch.cli import command
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.errors import CollectionNotFound, DatabaseBusy, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import database, drop, quantized, tables

pytestmark = citus

UNINSTALL = Path(__file__).parents[2] / "docs/uninstall.md"


def objects(library: Library) -> set[str]:
    """Return every relation, function and type of our schemas."""
    names = " UNION ALL ".join(
        f"SELECT {column}name FROM pg_{catalog} JOIN pg_namespace AS n ON n.oid = {column}namespace"
        " WHERE nspname IN ('vecsearch', 'vecsearch_internal')"
        for column, catalog in (("rel", "class"), ("pro", "proc"), ("typ", "type"))
    )
    with database.reading(library.engine) as connection:
        return set(connection.scalars(sa.text(names)))


def rows(library: Library, table: str) -> int:
    with database.reading(library.engine) as connection:
        return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0)


SHARED = [table.fullname for table in tables.metadata.sorted_tables]


def test_a_dropped_collection_leaves_nothing(library: Library, photos: Path) -> None:
    before = objects(library)
    broken = photos / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not much of a picture")
    store_concepts(library, ["dark", "bright"], np.eye(2, 48, dtype=np.float16), [0, 1])
    ingest(library.engine, [photos], PixelEncoder(), collection="order")
    chosen = library.collection("order")
    chosen.create_index("compact", dims=4)
    chosen.create_index("compact", dims=8)
    one, other = chosen.browse(limit=2)
    chosen.not_duplicates(one.id, other.id)
    exported = Exported(b"graph", b"weights", 48, (3, 4, 4))
    with database.writing(library.engine) as connection:
        quantized.store(connection, "int8-0", exported)
        quantized.store(connection, "int8-1", exported)
    write(library, "UPDATE vecsearch.collections SET precision = 'int8-0'")
    chosen.refresh(["neighbours", "clusters", "map"])
    write(
        library,
        "INSERT INTO vecsearch_internal.duplicates VALUES ('order', :id, 1, :id, 0)",
        id=one.id,
    )
    write(
        library,
        "INSERT INTO vecsearch_internal.file_actions (collection, run, number, action, state, id,"
        " path, sha256, kept, kept_path, facts) VALUES ('order', 1, 1, 'trash', 'done', :id, '/a',"
        " '0', :id, '/b', '{}')",
        id=one.id,
    )
    assert all(rows(library, table) for table in SHARED)
    chosen.drop()
    assert objects(library) == before
    # A model that no collection used yet may belong to an ingest that has just begun.
    assert {table: rows(library, table) for table in SHARED} == {
        **dict.fromkeys(SHARED, 0),
        tables.quantized_models.fullname: 1,
    }
    with pytest.raises(CollectionNotFound):
        chosen.drop()
    done = ingest(library.engine, [photos], PixelEncoder(), collection="order")
    assert counts(done) == {"added": 12, "failed": 1}


def test_what_another_collection_uses_stays(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    ingest(library.engine, [photos / "cats"], PixelEncoder(), collection="cats")
    with database.writing(library.engine) as connection:
        quantized.store(connection, "int8-0", Exported(b"graph", b"weights", 48, (3, 4, 4)))
    write(library, "UPDATE vecsearch.collections SET precision = 'int8-0'")
    library.collection().drop()
    assert [status.name for status in library.collections()] == ["cats"]
    assert rows(library, tables.thumbnails.fullname) == 6
    assert rows(library, tables.quantized_models.fullname) == 1
    assert len(library.collection("cats").query(photos / "cats" / "01.png").hits) == 6


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["CREATE VIEW mine AS SELECT id FROM images"], ["view mine"]),
        (["CREATE VIEW mine AS SELECT name FROM images_view"], ["view mine"]),
        (
            [
                (
                    "CREATE VIEW mine AS SELECT i.id FROM images AS i,"
                    " LATERAL images_distances(i.path) AS n"
                ),
                "CREATE MATERIALIZED VIEW kept AS SELECT width FROM images",
                "CREATE VIEW tens AS SELECT path FROM images_search(CAST(NULL AS uuid))",
            ],
            ["materialized view kept", "view mine", "view tens"],
        ),
        (
            ["CREATE TABLE prices (image uuid REFERENCES images, price numeric)"],
            ["constraint prices_image_fkey on table prices"],
        ),
        (
            ["CREATE FUNCTION of(row_ images) RETURNS text LANGUAGE sql AS 'SELECT (row_).path'"],
            ["function of(images)"],
        ),
    ],
    ids=["view", "view of view", "views", "foreign key", "row type"],
)
def test_what_depends_on_it_is_named_and_nothing_goes(
    library: Library, statements: list[str], named: list[str]
) -> None:
    make_corpus(library, "images", clustered(20, 8, seed=0))
    for statement in statements:
        write(library, statement)
    with pytest.raises(InvalidInput) as caught:
        library.collection().drop()
    assert str(caught.value) == (
        f"Collection 'images' is used by {', '.join(named)}. Drop those first, or all at once: "
        "vecsearch drop images --cascade"
    )
    assert rows(library, "images_view") == rows(library, "images") == 20
    # What depends on those goes, too, and no more.
    write(library, "CREATE TABLE apart (id int)")
    for view in named[-1:]:
        if view.startswith("view "):
            write(library, f"CREATE VIEW further AS SELECT 1 FROM {view.removeprefix('view ')}")
            named = sorted([*named, "view further"])
    assert library.collection().dependents() == named
    code, _, err = run_command(library, "drop", "images", "--yes", "--cascade")
    assert code == 0
    assert f"Dropped with it: {', '.join(named)}." in err
    assert library.collections() == []
    assert rows(library, "apart") == 0


def test_indexes_and_triggers_of_the_users_own_go_with_the_table(library: Library) -> None:
    make_corpus(library, "images", clustered(20, 8, seed=0))
    write(library, "CREATE INDEX mine ON images (taken_at)")
    write(library, "ALTER TABLE images ADD COLUMN rating int")
    write(
        library,
        "CREATE TRIGGER mine BEFORE UPDATE ON images FOR EACH ROW"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )
    library.collection().drop()
    assert library.collections() == []


def test_a_table_in_use_is_waited_for_no_longer_than_allowed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop, "LOCK_TIMEOUT_S", 1)
    make_corpus(library, "images", clustered(20, 8, seed=0))
    with database.reading(library.engine) as connection:
        connection.execute(sa.text("SELECT count(*) FROM images"))
        with pytest.raises(DatabaseBusy, match="Other programs are using collection 'images'"):
            library.collection().drop()
    library.collection().drop()


def test_the_command_needs_a_yes_and_says_what_goes(library: Library) -> None:
    make_corpus(library, "images", np.ones((20, 8)))
    code, out, err = run_command(library, "drop", "images")
    assert (code, out) == (1, "")
    assert err.startswith("error: This removes collection 'images' with 20 rows")
    assert err.endswith("Dropping it needs a yes: add --yes.\n")
    assert len(library.query(id=library.collection().browse(limit=1)[0].id).hits) == 10
    code, out, err = run_command(library, "drop", "nothing", "--yes")
    assert (code, out) == (1, "")
    assert "no collection 'nothing'" in err
    code, out, err = run_command(library, "drop", "images", "--yes")
    assert (code, out) == (0, "")
    assert err.startswith("Dropped collection 'images' with 20 rows (")
    assert "its hnsw index (" in err
    assert err.endswith("The image files stay.\n")
    assert library.collections() == []


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_asks(
    library: Library, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    make_corpus(library, "images", np.ones((20, 8)))
    monkeypatch.setattr(command, "is_terminal", lambda: True)
    code, out, err = run_command(library, "drop", "images", input=answer)
    # The runner echoes what is typed.
    assert (code, out.strip()) == (left, answer.strip())
    assert "This removes collection 'images' with 20 rows" in err
    assert "Drop collection 'images'? [y/N]" in err
    assert len(library.collections()) == left


def test_all_can_be_removed_by_the_document_and_nothing_else_goes(library: Library) -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", UNINSTALL.read_text(), re.DOTALL)
    make_corpus(library, "images", clustered(20, 8, seed=0))
    write(library, "CREATE VIEW public.mine AS SELECT name FROM vecsearch.concepts")
    before = objects(library)
    for remedy in (library.collection().drop, lambda: write(library, "DROP VIEW public.mine")):
        with (
            psycopg.connect(library.url, autocommit=True) as connection,
            pytest.raises(psycopg.errors.DependentObjectsStillExist),
        ):
            connection.execute(statements.encode())
        assert objects(library) <= before
        assert {"concepts", "thumbnails", "concept"} <= objects(library)
        remedy()
    with psycopg.connect(library.url, autocommit=True) as connection:
        connection.execute(statements.encode())
    assert objects(library) == set()
    assert scalar(library, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^vecsearch'") == 0


def test_a_query_that_a_drop_overtakes_names_the_collection(library: Library) -> None:
    corpus = make_corpus(library, "order", clustered(20, 8, seed=0))
    with database.writing(library.engine) as connection, ThreadPoolExecutor(1) as pool:
        drop.drop(connection, "order")
        asked = pool.submit(library.collection("order").query, id=corpus.ids[0])
        with psycopg.connect(library.url, autocommit=True) as watching:
            while watching.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone() == (0,):
                assert not asked.done()
        connection.commit()
        with pytest.raises(CollectionNotFound, match="order"):
            asked.result()
