"""Migrations: from nothing, from older tables, beside newer ones, and in odd places."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from older import create_old_table, old_corpus
from support import (
    PixelEncoder,
    alembic_upgrade,
    citus,
    clustered,
    counts,
    every_server,
    ingest,
    make_corpus,
    one_server,
    scalar,
    store_concepts,
    write,
)

from vecsearch.config import Settings
from vecsearch.errors import (
    DatabaseError,
    SchemaMissing,
    SchemaNewer,
    SchemaOutdated,
)
from vecsearch.imaging.scan import Unreadable
from vecsearch.ingest.writes import write_errors
from vecsearch.library import Library
from vecsearch.postgres import database, renaming, schema, tables

pytestmark = [citus, every_server]


def test_the_revision_we_need_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == schema.REVISION


def test_migrations_make_the_tables_that_the_code_knows(empty: Library) -> None:
    empty.upgrade()
    with database.reading(empty.engine) as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table_schema": tables.SCHEMA,
                "include_schemas": True,
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: kind != "schema" or name in tables.SCHEMAS,
            },
        )
        assert compare_metadata(context, tables.metadata) == []


def test_an_upgrade_of_what_is_new_changes_nothing(library: Library) -> None:
    before = scalar(library, "SELECT max(xmin::text::bigint) FROM pg_class")
    library.upgrade()
    assert scalar(library, "SELECT max(xmin::text::bigint) FROM pg_class") == before


def test_every_table_and_column_has_a_comment(library: Library) -> None:
    make_corpus(library, "images", clustered(5, 8, seed=0))
    library.collection().create_index("compact", dims=2)
    with library.sql(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace::regnamespace::text IN ('vecsearch', 'vecsearch_internal')"
        " AND relkind IN ('r', 'v') AND attnum >= 0"
        " AND NOT attisdropped AND relname <> 'alembic_version'"
        " AND col_description(attrelid, attnum) IS NULL"
    ) as (_, rows, _):
        assert list(rows) == []
    uncommented = (
        "SELECT count(*) FROM pg_class"
        " WHERE relnamespace::regnamespace::text IN ('vecsearch', 'vecsearch_internal')"
        " AND relkind IN ('r', 'v') AND relname <> 'alembic_version'"
        " AND obj_description(oid, 'pg_class') IS NULL"
    )
    assert scalar(library, uncommented) == 0
    public = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind <> 'i'"
    public += " AND relnamespace = 'vecsearch'::regnamespace"
    assert scalar(library, public) == (
        "alembic_version collections concepts hit images images_changes images_clusters"
        " images_duplicates images_map images_neighbours images_tags images_view ingest_errors"
        " not_duplicates"
    )


def test_a_database_without_tables_says_how_to_begin(empty: Library) -> None:
    with pytest.raises(SchemaMissing, match="vecsearch ingest FOLDER"):
        empty.query(id="00000000-0000-0000-0000-000000000000")
    assert empty.collections() == []


def test_older_tables_are_refused_and_upgraded_with_their_rows(
    empty: Library, photos: Path
) -> None:
    with database.writing(empty.engine) as connection:
        alembic_upgrade(connection, "0001")
    empty.engine.dispose()
    corpus = old_corpus(empty, "images", 50)
    for refused in (
        lambda: empty.query(id=corpus.ids[0]),
        lambda: empty.collection().ingest([photos]),
        lambda: empty.collection().ingest([photos], dry_run=True),
        empty.collections,
        empty.collection().errors,
    ):
        with pytest.raises(SchemaOutdated, match="vecsearch db upgrade"):
            refused()
    empty.upgrade()
    assert len(empty.query(id=corpus.ids[0], k=60).hits) == 50
    assert empty.collection().errors() == []


@one_server
def test_a_collection_made_before_imports_may_have_rows_without_files_afterwards(
    empty: Library,
) -> None:
    with database.writing(empty.engine) as connection:
        alembic_upgrade(connection, "0002")
    empty.engine.dispose()
    old_corpus(empty, "elder", 5)
    required = "sha256 width height format file_size modified_at".split()
    for column in required:
        write(empty, f"ALTER TABLE elder ALTER {column} SET NOT NULL")
        write(empty, f"COMMENT ON COLUMN elder.{column} IS 'as it was'")
    empty.upgrade()
    make_corpus(empty, "younger", clustered(5, 8, seed=0))
    (done,) = empty.collection("elder").refresh(["neighbours"])
    assert done.rows == 5 * 4

    def columns(table: str) -> Any:
        return (
            "SELECT string_agg(concat_ws(' ', attname, attnotnull, atttypid::regtype, atttypmod,"
            " col_description(attrelid, attnum)), '; ' ORDER BY attnum) FROM pg_attribute"
            f" WHERE attrelid = {table} AND attnum > 0"
        )

    def beside(table: str) -> list[str]:
        statements = [
            statement
            for view in (f"'{table}{suffix}'::regclass" for suffix in schema.VIEW_SUFFIXES)
            for statement in (
                f"SELECT pg_get_viewdef({view})",
                f"SELECT obj_description({view}, 'pg_class')",
                f"SELECT CAST(reloptions AS text) FROM pg_class WHERE oid = {view}",
                columns(view),
            )
        ]
        statements += [
            (
                "SELECT string_agg(pg_get_triggerdef(oid), '; ' ORDER BY tgname) FROM pg_trigger"
                f" WHERE tgrelid = '{table}'::regclass"
            ),
            (
                "SELECT string_agg(kind, '; ') FROM vecsearch_internal.changes"
                f" WHERE collection = '{table}' AND id IS NULL"
            ),
        ]
        for called in ("distances(uuid)", "search(text, bigint, text)", "embedding(uuid)"):
            function = f"'{table}_{called}'::regprocedure"
            statements += [
                f"SELECT pg_get_functiondef({function})",
                f"SELECT obj_description({function}, 'pg_proc')",
            ]
        return [scalar(empty, statement).replace(table, "NAME") for statement in statements]

    before, after = (columns(f"'{table}'::regclass") for table in ("elder", "younger"))
    assert scalar(empty, before) == scalar(empty, after)
    assert beside("elder") == beside("younger")
    assert scalar(empty, "SELECT count(*) FROM elder") == 5


def test_newer_tables_are_refused_by_everything(library: Library, photos: Path) -> None:
    write(library, "UPDATE vecsearch.alembic_version SET version_num = '9999'")
    for refused in (
        lambda: library.query(photos / "cats" / "01.png"),
        lambda: library.collection().ingest([photos]),
        library.collections,
        library.upgrade,
    ):
        with pytest.raises(SchemaNewer, match="pip install --upgrade vecsearch"):
            refused()


def test_a_migration_of_the_future_reaches_every_collection(
    library: Library, tmp_path: Path
) -> None:
    names = ("images", "others", "order")
    corpora = [make_corpus(library, name, clustered(20, 8, seed=0)) for name in names]
    folder = Path(shutil.copytree(schema.MIGRATIONS, tmp_path / "migrations"))
    (folder / "versions" / "9999_rating.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "from vecsearch.postgres import migrate\n"
        "revision = '9999'\n"
        f"down_revision = '{schema.REVISION}'\n"
        "def upgrade():\n"
        "    for name in migrate.collection_names(op.get_bind()):\n"
        "        column = sa.Column('rating', sa.Integer, server_default='3')\n"
        "        op.add_column(name, column, schema='vecsearch')\n"
    )
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, "head", folder)
    for corpus in corpora:
        assert scalar(library, f'SELECT sum(rating) FROM "{corpus.name}"') == 60
    with pytest.raises(SchemaNewer):
        library.query(id=corpora[0].ids[0])


def test_upgrades_at_the_same_time_make_one_set_of_tables(empty_database_url: str) -> None:
    barrier = Barrier(4)

    def upgrade(_: int) -> None:
        with Library.open(Settings.load(database_url=empty_database_url)) as library:
            barrier.wait(60)
            library.upgrade()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, range(4)))
    with Library.open(Settings.load(database_url=empty_database_url)) as library:
        assert scalar(library, "SELECT version_num FROM vecsearch.alembic_version") == (
            schema.REVISION
        )


def test_errors_of_any_path_are_kept_by_the_id_of_the_image(empty: Library) -> None:
    at_revision(empty, "0018")
    kept = ["/photos/ä b.png", "/photos/" + "x" * 2_000, "odd", "/odd", "/photos//odd/"]
    for path in kept:
        write(
            empty,
            "INSERT INTO ingest_errors (collection, path, error) VALUES ('images', :path, 'e')",
            path=path,
        )
    empty.upgrade()
    assert [error.path for error in empty.collection().errors()] == sorted(kept)
    long = Unreadable(f"/{'/'.join(f'{number:0>255}' for number in range(16))}", "A reason.")
    again = [Unreadable(path, "Another.") for path in kept[:2]]
    for _ in range(2):
        with database.writing(empty.engine) as connection:
            write_errors(connection, "images", [long, *again], [])
    found = {error.path: error.error for error in empty.collection().errors()}
    assert found == {
        **dict.fromkeys(kept, "e"),
        **{each.path: each.reason for each in (long, *again)},
    }
    with database.writing(empty.engine) as connection:
        write_errors(connection, "images", [], [long.path])
    assert len(empty.collection().errors()) == len(kept)


@one_server
def test_a_failed_upgrade_leaves_nothing(empty: Library) -> None:
    write(empty, "CREATE SCHEMA vecsearch")
    write(empty, "CREATE TABLE vecsearch.ingest_errors (somebody text)")
    with pytest.raises(DatabaseError, match="already exists"):
        empty.upgrade()
    assert scalar(empty, "SELECT to_regclass('vecsearch.collections')") is None
    assert scalar(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'") == 0


@one_server
def test_an_extension_in_a_schema_of_its_own_works_end_to_end(empty: Library, photos: Path) -> None:
    write(empty, "CREATE SCHEMA extensions")
    write(empty, "CREATE EXTENSION vector SCHEMA extensions")
    empty.upgrade()
    assert counts(ingest(empty.engine, [photos], PixelEncoder())) == {"added": 12}
    answer = empty.query(photos / "cats" / "01.png", k=20)
    assert len(answer.hits) == 12
    assert len(empty.query(photos / "cats" / "01.png", k=20, exact=True).hits) == 12
    assert empty.status().pgvector


def at_revision(library: Library, revision: str) -> None:
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, revision)
    library.engine.dispose()


def renamed(library: Library, old: str, new: str) -> None:
    """Give a collection a name that was free once."""
    with database.writing(library.engine) as connection:
        renaming.rename(connection, old, new)


@pytest.mark.parametrize(
    ("revision", "name"),
    [
        ("0003", "images_view"),
        ("0004", "not_duplicates"),
        ("0005", "thumbnails"),
        ("0007", "projections"),
        ("0007", "images_compact_1"),
        ("0008", "quantized_models"),
        ("0013", "tags"),
        ("0013", "images_tags"),
        ("0021", "images_map"),
    ],
)
def test_a_collection_whose_name_we_need_is_renamed_by_the_upgrade(
    empty: Library, revision: str, name: str
) -> None:
    at_revision(empty, "0003")
    corpora = {"images": old_corpus(empty, "images", 20), name: old_corpus(empty, "theirs", 30)}
    write(empty, "INSERT INTO ingest_errors (collection, path, error) VALUES ('theirs', 'p', 'e')")
    at_revision(empty, revision)
    renamed(empty, "theirs", name)
    write(empty, f"CREATE VIEW mine AS SELECT width FROM {name}")
    (note,) = empty.upgrade()
    new = f"{name}_1"
    expected = f"Renamed collection '{name}' to '{new}': vecsearch now reserves the old name."
    assert note == expected
    assert [status.name for status in empty.collections()] == ["images", new]
    assert scalar(empty, "SELECT count(*) FROM mine") == 30
    assert [error.path for error in empty.collection(new).errors()] == ["p"]
    left = (
        "SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace ="
        f" 'vecsearch'::regnamespace AND starts_with(relname, '{name}_')"
        f" AND NOT starts_with(relname, '{new}') AND relname <> '{name}_pkey'"
    )
    assert scalar(empty, left) is None
    for chosen, corpus in (("images", corpora["images"]), (new, corpora[name])):
        assert len(empty.collection(chosen).query(id=corpus.ids[0], k=50).hits) == len(corpus)
        empty.collection(chosen).create_index("compact", dims=4)
        assert empty.collection(chosen).index_status().index == "compact"
    assert empty.upgrade() == []
    write(empty, "DROP VIEW mine")
    empty.collection(new).drop()
    empty.collection().drop()


def test_a_collection_with_compact_vectors_is_renamed_with_all_beside_it(library: Library) -> None:
    make_corpus(library, "images", clustered(50, 8, seed=0))
    corpus = make_corpus(library, "theirs", clustered(50, 8, seed=1))
    library.collection("theirs").create_index("compact", dims=4)
    before = library.collection("theirs").query(id=corpus.ids[0], k=50).hits
    renamed(library, "theirs", "street_view")
    (note,) = library.upgrade()
    assert "'street_view_1'" in note
    assert library.collection("street_view_1").query(id=corpus.ids[0], k=50).hits == before
    assert library.collection("street_view_1").index_status().index == "compact"
    query = f"SELECT count(*) FROM street_view_1_search('{corpus.ids[0]}', 60)"
    assert scalar(library, query) == 50
    library.collection("street_view_1").drop()
    make_corpus(library, "theirs", clustered(50, 8, seed=1))


def test_an_older_collection_s_encoder_family_is_told_by_its_model(empty: Library) -> None:
    with database.writing(empty.engine) as connection:
        alembic_upgrade(connection, "0010")
    for name, model, sha256 in (
        ("a", "resnet50.tv_in1k", "'0'"),
        ("b", "autoencoder", "'0'"),
        ("c", "unknown", "NULL"),
    ):
        write(
            empty,
            "INSERT INTO vecsearch.collections (name, model, layer, weights_sha256, preprocessing,"
            f" dimensions) VALUES ('{name}', '{model}', 'pooled', {sha256}, '{{}}', 8)",
        )
        with database.writing(empty.engine) as connection:
            create_old_table(connection, name)
    empty.upgrade()
    backends = "SELECT string_agg(backend, ' ' ORDER BY name) FROM vecsearch.collections"
    assert scalar(empty, backends) == "timm autoencoder unknown"


def test_older_images_are_tagged_when_they_are_asked_for(empty: Library) -> None:
    at_revision(empty, "0001")
    corpus = old_corpus(empty, "images", 20)
    at_revision(empty, "0013")
    store_concepts(empty, ["first", "second"], np.eye(2, 8, dtype=np.float16), [0, 1])
    write(empty, "CREATE ROLE reader_of_tags")
    write(empty, "GRANT SELECT ON images_view TO reader_of_tags")
    empty.upgrade()
    granted = "SELECT has_table_privilege('reader_of_tags', '{}', 'SELECT')"
    assert scalar(empty, granted.format("images_tags"))
    assert not scalar(empty, granted.format("images"))
    write(empty, "DROP OWNED BY reader_of_tags")
    write(empty, "DROP ROLE reader_of_tags")
    assert scalar(empty, "SELECT count(*) FROM images_tags") == 0
    assert empty.collection().tags.ensure() == 20
    first = empty.collection().tags.of(corpus.ids[:1])[corpus.ids[0]]
    odds = np.exp([corpus.vectors[0][0], corpus.vectors[0][1] + 1])
    assert {tag.name: tag.probability for tag in first} == {
        name: pytest.approx(value, rel=1e-3)
        for name, value in zip(("first", "second"), odds / odds.sum(), strict=True)
        if value >= 0.01
    }
