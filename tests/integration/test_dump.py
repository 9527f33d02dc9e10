"""A dump, restored elsewhere, answers as the original does, and knows what it has ingested."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from older import old_corpus
from servers import running
from support import (
    Corpus,
    PixelEncoder,
    alembic_upgrade,
    clustered,
    counts,
    ingest,
    make_corpus,
    once,
    store_concepts,
    write,
)
from typer.testing import CliRunner

from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.encoders.openvino.cache import Exported
from vecsearch.errors import (
    CollectionNotFound,
    InvalidInput,
    SchemaMissing,
    SchemaNewer,
    SchemaOutdated,
)
from vecsearch.library import Library, Restored
from vecsearch.postgres import catalog, database, migrate, quantized, tables
from vecsearch.postgres.dumping import dump
from vecsearch.postgres.schema import VIEW_SUFFIXES

# A collection that is copied begins a feed of its own.
SHARED = [
    table.fullname
    for table in tables.metadata.sorted_tables
    if table not in {tables.changes, tables.refreshes}
]


@pytest.fixture
def elsewhere(empty_database_url: str, tmp_path: Path) -> Iterator[Library]:
    """A library on a database that vecsearch has never seen."""
    settings = Settings.load(database_url=empty_database_url, data_dir=tmp_path / "elsewhere")
    with Library.open(settings) as opened:
        yield opened


def everything(library: Library, *names: str) -> dict[str, list[Any]]:
    """Return what is stored, table by table."""
    with database.reading(library.engine) as connection:
        return {
            name: sorted(connection.scalars(sa.text(f"SELECT CAST(t AS text) FROM {name} AS t")))
            for name in (*SHARED, *names)
        }


def definitions(library: Library, name: str) -> list[Any]:
    """Return what stands beside a collection's table."""
    statement = (
        "SELECT "
        + "".join(f"pg_get_viewdef('{name}{suffix}'::regclass)," for suffix in VIEW_SUFFIXES)
        + "(SELECT array_agg(pg_get_triggerdef(oid) ORDER BY tgname) FROM pg_trigger"
        f" WHERE tgrelid = 'vecsearch.\"{name}\"'::regclass),"
        " (SELECT array_agg(concat(pg_get_functiondef(oid), obj_description(oid, 'pg_proc'))"
        "  ORDER BY oid::regprocedure::text) FROM pg_proc"
        "  WHERE pronamespace::regnamespace::text LIKE 'vecsearch%' AND prokind = 'f'"
        f"  AND (proname LIKE '{name}%' OR pronamespace::regnamespace::text <> 'vecsearch')),"
        " (SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes"
        f" WHERE schemaname LIKE 'vecsearch%' AND tablename LIKE '{name}%'),"
        " (SELECT array_agg(concat(relname, obj_description(oid, 'pg_class')) ORDER BY relname)"
        " FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'vecsearch%'"
        f" AND relname LIKE '{name}%'),"
        " (SELECT array_agg(obj_description(oid, 'pg_namespace') ORDER BY nspname)"
        " FROM pg_namespace WHERE nspname LIKE 'vecsearch%')"
    )
    with database.reading(library.engine) as connection:
        return list(connection.execute(sa.text(statement)).one())


def make(library: Library, photos: Path) -> None:
    """Make a collection that has something in every table, and another."""
    broken = photos / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not much of a picture")
    store_concepts(library, ["dark", "bright"], np.eye(2, 48, dtype=np.float16), [0, 1])
    ingest(library.engine, [photos], PixelEncoder(), collection="order")
    chosen = library.collection("order")
    one, other = chosen.browse(limit=2)
    chosen.not_duplicates(one.id, other.id)
    with database.writing(library.engine) as connection:
        quantized.store(connection, "int8-0", Exported(b"graph", b"weights", 48, (3, 4, 4)))
    write(library, "UPDATE vecsearch.collections SET precision = 'int8-0'")
    write(library, """UPDATE vecsearch.collections SET breadths = '{"l2": {"breadth": 7}}'""")
    ingest(library.engine, [photos / "cats"], PixelEncoder(), collection="cats")


def test_a_whole_dump_is_the_same_database_elsewhere(
    library: Library, elsewhere: Library, photos: Path, tmp_path: Path
) -> None:
    make(library, photos)
    library.collection("order").ensure_index()
    library.collection("cats").create_index("compact", dims=4)
    version = catalog_version(library, "cats")
    write(library, "CREATE VIEW mine AS SELECT path FROM cats")
    library.dump(tmp_path / "all.dump")
    assert elsewhere.restore(tmp_path / "all.dump").names == ["cats", "order"]
    names = ('"order"', "cats", f"vecsearch_internal.cats_compact_{version}", "mine")
    assert everything(elsewhere, *names) == everything(library, *names)
    for name in ("order", "cats"):
        assert definitions(elsewhere, name) == definitions(library, name)
        theirs = elsewhere.collection(name).query(photos / "cats" / "01.png")
        ours = library.collection(name).query(photos / "cats" / "01.png")
        assert theirs.hits == ours.hits
    done = ingest(elsewhere.engine, [photos], PixelEncoder(), collection="order")
    assert counts(done) == {"unchanged": 12, "failed": 1}
    with pytest.raises(InvalidInput, match="has a collection 'cats' already"):
        elsewhere.restore(tmp_path / "all.dump")


def catalog_version(library: Library, name: str) -> int:
    with migrate.reading_current(library.engine) as connection:
        compact = catalog.get_collection(connection, name).compact
    assert compact is not None
    return compact.version


def test_one_collection_takes_what_belongs_to_it_and_joins_others(
    library: Library, elsewhere: Library, photos: Path, tmp_path: Path
) -> None:
    make(library, photos)
    library.collection("order").ensure_index()
    library.dump(tmp_path / "one.dump", collection="order")
    elsewhere.upgrade()
    make_corpus(elsewhere, "theirs", clustered(20, 8, seed=0))
    assert elsewhere.restore(tmp_path / "one.dump") == Restored(["order"], notes=[])
    assert [status.name for status in elsewhere.collections()] == ["order", "theirs"]
    ours, theirs = everything(library, '"order"'), everything(elsewhere, '"order"')
    register, tags, projections = (
        table.fullname for table in (tables.collections, tables.tags, tables.projections)
    )
    for table in ours.keys() - {register, tags, projections}:
        assert theirs[table] == ours[table], table
    assert theirs[tags] == [row for row in ours[tags] if row.startswith("(order,")] != []
    assert {*ours[register]} - {*theirs[register]} == {
        row for row in ours[register] if row.startswith("(cats,")
    }
    assert definitions(elsewhere, "order") == definitions(library, "order")
    assert elsewhere.collection("order").index_status().index == "hnsw"
    query = photos / "dogs" / "00.png"
    theirs_, ours_ = (one.collection("order").query(query) for one in (elsewhere, library))
    assert theirs_.hits == ours_.hits
    done = ingest(elsewhere.engine, [photos], PixelEncoder(), collection="order")
    assert counts(done) == {"unchanged": 12, "failed": 1}


def test_a_compact_index_is_served_after_a_restore(
    compact_corpus: Corpus, elsewhere: Library, tmp_path: Path
) -> None:
    library = compact_corpus.library
    library.dump(tmp_path / "one.dump", collection="images")
    elsewhere.upgrade()
    # Its own versions are far behind.
    make_corpus(elsewhere, "theirs", clustered(1_500, 64, seed=0))
    elsewhere.restore(tmp_path / "one.dump")
    status = elsewhere.collection().index_status()
    assert (status.index, status.indexed, status.dims) == ("compact", 3_000, 32)
    elsewhere.collection("theirs").create_index("compact", dims=8)
    assert catalog_version(elsewhere, "theirs") > catalog_version(elsewhere, "images")
    for row in (0, 7, 1_234):
        id_ = compact_corpus.ids[row]
        theirs, ours = (one.query(id=id_, exact=True) for one in (elsewhere, library))
        assert theirs.hits == ours.hits
        assert elsewhere.query(id=id_).hits[0].id == id_


def test_one_collection_of_a_whole_dump_can_be_restored(
    library: Library, elsewhere: Library, photos: Path, tmp_path: Path
) -> None:
    make(library, photos)
    library.dump(tmp_path / "all.dump")
    assert elsewhere.restore(tmp_path / "all.dump", collection="cats").names == ["cats"]
    assert [status.name for status in elsewhere.collections()] == ["cats"]
    with pytest.raises(InvalidInput, match=r"no collection 'dogs'. It holds: cats, order."):
        elsewhere.restore(tmp_path / "all.dump", collection="dogs")
    with pytest.raises(InvalidInput, match="has a collection 'cats' already"):
        elsewhere.restore(tmp_path / "all.dump", collection="cats")
    # The other one is not restored either.
    with pytest.raises(InvalidInput, match="Drop it first: vecsearch drop cats"):
        elsewhere.restore(tmp_path / "all.dump")
    elsewhere.collection("cats").drop()
    assert elsewhere.restore(tmp_path / "all.dump").names == ["cats", "order"]


def test_a_restore_returns_the_notes_on_its_indexes(
    library: Library, elsewhere: Library, photos: Path, tmp_path: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder(), collection="cats")
    write(library, "UPDATE vecsearch.collections SET index_method = 'compact'")
    (note,) = library.collection("cats").ensure_index()
    library.dump(tmp_path / "all.dump")
    assert elsewhere.restore(tmp_path / "all.dump") == Restored(["cats"], [note])


def test_an_extension_elsewhere_is_no_obstacle(
    library: Library, elsewhere: Library, photos: Path, tmp_path: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    library.dump(tmp_path / "all.dump")
    write(elsewhere, "CREATE SCHEMA extensions")
    write(elsewhere, "CREATE EXTENSION vector SCHEMA extensions")
    elsewhere.engine.dispose()
    elsewhere.restore(tmp_path / "all.dump")
    elsewhere.dump(tmp_path / "again.dump")
    assert everything(elsewhere, "images") == everything(library, "images")
    library.collection().drop()
    library.restore(tmp_path / "again.dump")
    assert everything(elsewhere, "images") == everything(library, "images")


def old_dump(library: Library, file: Path, revision: str = "0004") -> None:
    """Write a dump of tables as they were at a revision."""
    for schema in tables.SCHEMAS:
        write(library, f"DROP SCHEMA {schema} CASCADE")
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, "0001")
    library.engine.dispose()
    old_corpus(library, "images", 20)
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, revision)
    library.dump(file)


@pytest.mark.parametrize("others", [False, True])
def test_a_dump_of_an_older_version_is_upgraded(
    library: Library, elsewhere: Library, tmp_path: Path, *, others: bool
) -> None:
    old_dump(library, tmp_path / "old.dump")
    if others:
        elsewhere.upgrade()
        make_corpus(elsewhere, "theirs", clustered(20, 8, seed=0))
    assert elsewhere.restore(tmp_path / "old.dump").names == ["images"]
    assert elsewhere.collection().status().images == 20
    assert elsewhere.collection().index_status().index == "hnsw"
    make_corpus(elsewhere, "beside", clustered(20, 8, seed=0))
    named = [str(row).replace("beside", "images") for row in definitions(elsewhere, "beside")]
    assert [str(row) for row in definitions(elsewhere, "images")] == named


def test_a_dump_of_a_newer_version_is_refused(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    write(library, "UPDATE alembic_version SET version_num = '9999'")
    library.dump(tmp_path / "new.dump")
    with pytest.raises(SchemaNewer, match="pip install --upgrade vecsearch"):
        elsewhere.restore(tmp_path / "new.dump")
    assert elsewhere.collections() == []


@once
def test_what_cannot_be_dumped_or_restored_is_named(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    file = tmp_path / "a.dump"
    with pytest.raises(SchemaMissing):
        elsewhere.dump(file)
    with pytest.raises(SchemaMissing):
        elsewhere.dump(file, collection="images")
    with pytest.raises(CollectionNotFound):
        library.dump(file, collection="images")
    with pytest.raises(InvalidInput, match="does not exist"):
        library.dump(tmp_path / "nowhere" / "a.dump")
    assert not file.exists()
    with pytest.raises(InvalidInput, match="does not exist"):
        elsewhere.restore(file)
    file.write_bytes(b"not a dump")
    with pytest.raises(InvalidInput, match="is not a dump"):
        elsewhere.restore(file)
    library.dump(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match="is not a dump"):
        elsewhere.restore(file)
    assert list(tmp_path.glob(".*.partial")) == []


@once
def test_an_empty_database_is_dumped_and_restored(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    library.dump(tmp_path / "a.dump")
    assert elsewhere.restore(tmp_path / "a.dump").names == []
    assert elsewhere.restore(tmp_path / "a.dump").names == []


@once
def test_a_restore_that_fails_leaves_nothing(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    make_corpus(library, "images", np.ones((20, 8)))
    make_corpus(library, "others", np.ones((20, 8)))
    library.dump(tmp_path / "a.dump")
    elsewhere.upgrade()
    write(elsewhere, "CREATE TABLE others (somebodys int)")
    with pytest.raises(Exception, match="already exists"):
        elsewhere.restore(tmp_path / "a.dump")
    assert elsewhere.collections() == []
    assert not list((tmp_path / "elsewhere").glob("scratch-*"))


@once
def test_older_tables_are_upgraded_before_a_restore(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    make_corpus(library, "images", np.ones((20, 8)))
    library.dump(tmp_path / "a.dump")
    with database.writing(elsewhere.engine) as connection:
        alembic_upgrade(connection, "0009")
    elsewhere.engine.dispose()
    with pytest.raises(SchemaOutdated, match="vecsearch db upgrade"):
        elsewhere.restore(tmp_path / "a.dump")


@once
def test_a_server_newer_than_every_pg_restore_here_is_restored_by_copying(
    library: Library, elsewhere: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(library, "images", clustered(20, 8, seed=0))
    library.dump(tmp_path / "a.dump")

    def major(connection: sa.Connection) -> int:
        (real, *_) = connection.dialect.server_version_info or (0,)
        return 99 if connection.engine is elsewhere.engine else int(real)

    monkeypatch.setattr(dump, "_server_major", major)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert elsewhere.restore(tmp_path / "a.dump").names == ["images"]
    assert everything(elsewhere, "images") == everything(library, "images")


def run(library: Library, *words: str) -> tuple[int, str, str]:
    data_dir = str(library.settings.data_dir)
    done = CliRunner().invoke(app, [*words, "--database-url", library.url, "--data-dir", data_dir])
    return done.exit_code, done.stdout, done.stderr


@once
def test_the_commands_say_what_they_did(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    make_corpus(library, "images", np.ones((20, 8)))
    file = str(tmp_path / "a.dump")
    code, out, err = run(library, "db", "dump", file)
    assert (code, out) == (0, "")
    assert err.startswith(f"Wrote {file} (")
    assert run(elsewhere, "db", "restore", file) == (0, "", "Restored images.\n")
    code, out, err = run(elsewhere, "db", "restore", file)
    assert (code, out) == (1, "")
    assert "has a collection 'images' already" in err


@once
def test_a_dump_of_a_newer_server_is_restored_on_an_older_one(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    library.dump(tmp_path / "a.dump")
    with running("tcp-16", tmp_path / "sixteen") as url:
        settings = Settings.load(database_url=url, data_dir=tmp_path / "elsewhere")
        with Library.open(settings) as elsewhere:
            assert elsewhere.restore(tmp_path / "a.dump").names == ["images"]
            assert everything(elsewhere, "images") == everything(library, "images")
            elsewhere.dump(tmp_path / "b.dump")
    library.collection().drop()
    assert library.restore(tmp_path / "b.dump").names == ["images"]
