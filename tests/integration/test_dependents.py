"""An upgrade keeps what analysts built upon the public objects, and what they may read.

Tables, views and functions are read from the catalogue of each revision since the first that this
covers, so that a new migration is tested without a word here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from older import create_old_table
from support import (
    alembic_upgrade,
    clustered,
    every_server,
    make_corpus,
    scalar,
    store_concepts,
    write,
)

from vecsearch.errors import DatabaseError, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import columns, database, renaming, schema
from vecsearch.search import functions

pytestmark = every_server

FIRST = "0015"
NUMBERS = sorted(file.name.partition("_")[0] for file in schema.MIGRATIONS.glob("versions/0*.py"))
REVISIONS = [number for number in NUMBERS if FIRST <= number < schema.REVISION]
DIMS, ROWS = 8, 30
# Tables that are no longer public, by the revision that made them so.
HIDDEN = {"0016": {"quantized_models", "tags", "thumbnails", "images_compact_1"}}
# Its columns of bytes became vectors when it was no longer public, so nothing upon it is kept.
REPLACED = "projections"

ID = "(SELECT md5('1')::uuid)"
OTHER = "(SELECT md5('2')::uuid)"
# What functions are called with, by the names of their parameters.
ARGUMENTS = {"image": ID, "other": OTHER, "word": "'dark'", "k": "5", "sha256": "'1'"}
VECTOR = f"array_fill(1::real, ARRAY[{DIMS}])"


@dataclass(frozen=True)
class Source:
    """A public table, view or function, and how a FROM names it."""

    name: str
    sql: str
    is_relation: bool


@dataclass(frozen=True)
class Dependent:
    """An analyst's object: what creates it, and what asks it.

    Attributes:
        described: as in the refusal to drop what it depends on; None if Postgres does not know
            that it depends, because it names its source in a text.

    """

    source: Source
    create: str
    ask: str
    described: str | None


def sources(library: Library) -> list[Source]:
    """Return the public objects of the schema, those of the collection and those it shares."""
    with database.reading(library.engine) as connection:
        driver = database.driver_connection(connection)
        relations = driver.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'vecsearch'::regnamespace"
            " AND relkind IN ('r', 'v', 'm') AND relname <> ALL(%s) ORDER BY relname",
            [["alembic_version", REPLACED]],
        ).fetchall()
        # Those that change nothing, called without what has a default.
        functions = driver.execute(
            "SELECT proname, proargnames, ARRAY(SELECT format_type(type, NULL)"
            " FROM unnest(proargtypes) WITH ORDINALITY AS given (type, position)"
            " ORDER BY position LIMIT pronargs - pronargdefaults)"
            " FROM pg_proc WHERE pronamespace = 'vecsearch'::regnamespace"
            " AND prokind = 'f' AND provolatile <> 'v' ORDER BY oid"
        ).fetchall()
    called = (
        (
            name,
            ", ".join(
                f"CAST({VECTOR if 'vec' in type_ else ARGUMENTS[parameter]} AS {type_})"
                for parameter, type_ in zip(parameters or (), types, strict=False)
            ),
        )
        for name, parameters, types in functions
    )
    return [
        *(Source(name, f"vecsearch.{name}", is_relation=True) for (name,) in relations),
        *(Source(name, f"vecsearch.{name}({given})", is_relation=False) for name, given in called),
    ]


def dependents(upon: list[Source]) -> Iterator[Dependent]:
    """Yield five objects upon each source, all in the schema `mine`."""
    for number, source in enumerate(upon):
        select = f"SELECT count(*) FROM {source.sql}"
        for kind in ("view", "materialized view"):
            name = f"mine.{kind.split()[0]}_{number}"
            yield Dependent(
                source,
                f"CREATE {kind} {name} AS SELECT * FROM {source.sql}",
                f"SELECT md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {name} AS t",
                f"{kind} {name}",
            )
        for language, body in (
            ("atomic", f"LANGUAGE sql BEGIN ATOMIC {select}; END"),
            ("sql", f"LANGUAGE sql AS $${select}$$"),
            ("plpgsql", f"LANGUAGE plpgsql AS $$BEGIN RETURN ({select}); END$$"),
        ):
            name = f"mine.{language}_{number}"
            yield Dependent(
                source,
                f"CREATE FUNCTION {name}() RETURNS bigint {body}",
                f"SELECT {name}()",
                f"function {name}()" if language == "atomic" else None,
            )


def fill(library: Library, revision: str) -> None:
    """Make a collection with compact vectors, and a row in every table, at a revision."""
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, "0001")
        # No view or function stands beside it yet: migrations make them.
        create_old_table(connection, "images")
    write(
        library,
        "INSERT INTO vecsearch.collections (name, model, layer, weights_sha256, preprocessing,"
        " dimensions) VALUES ('images', 'seeded', 'pooled', repeat('0', 64), '{}', :dims)",
        dims=DIMS,
    )
    with database.writing(library.engine) as connection:
        alembic_upgrade(connection, revision)
    library.engine.dispose()
    internal = "vecsearch" if revision < "0016" else "vecsearch_internal"
    write(
        library,
        "INSERT INTO vecsearch.images (id, path, sha256, width, label, embedding) SELECT"
        " CAST(md5(CAST(n AS text)) AS uuid), '/' || n || '.png', n, n, 'c' || n % 3,"
        " CAST(ARRAY(SELECT sin(n * d) FROM generate_series(1, :dims) AS d) AS halfvec)"
        " FROM generate_series(1, :rows) AS n",
        dims=DIMS,
        rows=ROWS,
    )
    store_concepts(library, ["dark", "bright"], np.eye(2, DIMS, dtype=np.float16), [0, 1])
    mean, components = np.zeros(DIMS, "<f4"), np.eye(4, DIMS, dtype="<f4")
    are_bytes = revision < "0017"
    given = "CAST(:mean AS vector), CAST(CAST(:components AS text[]) AS vector[])"
    if are_bytes:
        given = ":mean, :components"
    write(
        library,
        f"INSERT INTO {internal}.projections (collection, dimensions, mean, components, sample,"
        f" variance_kept) VALUES ('images', :dims, {given}, 30, 0.9)",
        dims=4,
        mean=mean.tobytes() if are_bytes else str(mean.tolist()),
        components=components.tobytes() if are_bytes else [str(one.tolist()) for one in components],
    )
    compact = f"{internal}.images_compact_1"
    for statement in (
        f"CREATE TABLE {compact} (id uuid PRIMARY KEY, compact halfvec(4) NOT NULL)",
        f"INSERT INTO {compact} SELECT id, subvector(l2_normalize(embedding), 1, 4) FROM images",
        f"CREATE INDEX images_compact_1_hnsw ON {compact} USING hnsw (compact halfvec_l2_ops)",
        "UPDATE vecsearch.collections SET index_method = 'compact', projection = 1",
        f"INSERT INTO {internal}.thumbnails VALUES ('1', 1, 1, 'x')",
        f"INSERT INTO {internal}.tags SELECT 'images', id, 1, 'dark', 0, 0.9 FROM vecsearch.images",
        f"INSERT INTO {internal}.quantized_models VALUES ('int8-1', 'x', 'x', 8, '{{1}}')",
        f"INSERT INTO vecsearch.not_duplicates VALUES ('images', {ID}, {OTHER})",
    ):
        write(library, statement)
    name, value = (", id", f", {ID}") if revision >= "0019" else ("", "")
    failed = f"(collection, path, error{name}) VALUES ('images', 'p', 'e'{value})"
    write(library, f"INSERT INTO vecsearch.ingest_errors {failed}")
    if revision >= "0018":
        write(library, f"INSERT INTO {internal}.neighbours VALUES ('images', {ID}, 1, {OTHER}, 0)")
        write(library, f"INSERT INTO {internal}.duplicates VALUES ('images', {ID}, 1, {ID}, 0)")
        write(library, f"INSERT INTO {internal}.clusters VALUES ('images', {ID}, 1, 0)")
    if revision >= "0022":
        write(library, f"INSERT INTO {internal}.map VALUES ('images', {ID}, 0, 0)")
    if revision >= "0017":
        with database.writing(library.engine) as connection:
            functions.refresh(connection)


def answers(library: Library, made: list[Dependent]) -> dict[str, Any]:
    return {one.ask: scalar(library, one.ask) for one in made}


@pytest.mark.parametrize(
    ("revision", "nearest"),
    [
        *((revision, False) for revision in REVISIONS),
        # 0017 drops it where nothing depends on it.
        *((revision, True) for revision in REVISIONS if revision < "0017"),
    ],
)
def test_what_analysts_built_is_there_after_an_upgrade_and_answers(
    empty: Library,
    revision: str,
    nearest: bool,
) -> None:
    fill(empty, revision)
    write(empty, "CREATE SCHEMA mine")
    before = [
        source
        for source in sources(empty)
        if source.name.endswith(schema.NEAREST_SUFFIX) is nearest
    ]
    made = list(dependents(before))
    for one in made:
        write(empty, one.create)
    write(empty, "CREATE TABLE mine.prices (image uuid REFERENCES vecsearch.images, price int)")
    write(empty, f"INSERT INTO mine.prices VALUES ({ID}, 3)")
    known = answers(empty, made)

    assert empty.upgrade() == []

    rewritten = scalar(empty, "SELECT pg_get_functiondef(to_regprocedure('images_nearest(text)'))")
    assert ("images_distances(" in rewritten) if nearest else rewritten is None
    gone = {source.name for source in before} - {source.name for source in sources(empty)}
    hidden = {name for number, names in HIDDEN.items() if number > revision for name in names}
    assert gone <= hidden
    # A text that names a table finds it where it was.
    kept = [one for one in made if one.described or one.source.name not in gone]
    known = {one.ask: known[one.ask] for one in kept}
    assert None not in known.values()
    assert answers(empty, kept) == known
    for one in kept:
        if one.create.startswith("CREATE materialized"):
            write(empty, f"REFRESH MATERIALIZED VIEW {one.ask.split()[-3]}")
    assert answers(empty, kept) == known
    assert scalar(empty, "SELECT sum(price) FROM mine.prices JOIN images ON id = image") == 3
    assert empty.collection().index_status().index == "compact"
    assert len(empty.query(id=scalar(empty, f"SELECT {ID}"), k=ROWS).hits) == ROWS

    of_collection = [
        one for one in kept if one.source.name.startswith("images") and one.described is not None
    ]
    with pytest.raises(InvalidInput) as caught:
        empty.collection().drop()
    named = {str(one.described) for one in of_collection}
    named.add("constraint prices_image_fkey on table mine.prices")
    said = str(caught.value).removeprefix("Collection 'images' is used by ")
    assert named == {*said.split(". Drop those first")[0].split(", ")}
    assert answers(empty, kept) == known

    with database.writing(empty.engine) as connection:
        renaming.rename(connection, "images", "pictures")
        functions.refresh(connection)
    assert answers(empty, of_collection) == {one.ask: known[one.ask] for one in of_collection}
    write(empty, "DROP SCHEMA mine CASCADE")
    empty.collection("pictures").drop()
    assert empty.collections() == []


@pytest.fixture
def roles(server_url: str, empty: Library) -> Iterator[list[str]]:
    """Two roles that may do nothing yet."""
    names = ["reader_of_all", "reader_of_views"]
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE ROLE {name}".encode())
        yield names
        write(empty, f"DROP OWNED BY {', '.join(names)}")
        for name in names:
            connection.execute(f"DROP ROLE {name}".encode())


def count_as(library: Library, role: str, source: str) -> int:
    """Return the rows of a source, as a role sees them."""
    with database.writing(library.engine) as connection:
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        found = connection.exec_driver_sql(f"SELECT count(*) FROM {source}").scalar()
        connection.exec_driver_sql("RESET ROLE")
    return int(found or 0)


def test_roles_can_read_after_an_upgrade_what_they_could_before(
    empty: Library, roles: list[str]
) -> None:
    fill(empty, FIRST)
    of_all, of_views = roles
    for statement in (
        "GRANT USAGE ON SCHEMA vecsearch TO reader_of_all, reader_of_views",
        "GRANT SELECT ON ALL TABLES IN SCHEMA vecsearch TO reader_of_all",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA vecsearch GRANT SELECT ON TABLES TO reader_of_all",
        "GRANT SELECT ON images_view, images_tags TO reader_of_views",
    ):
        write(empty, statement)
    empty.upgrade()
    write(empty, "CREATE TABLE vecsearch_internal.of_a_later_version (number int)")
    assert count_as(empty, of_all, "vecsearch_internal.of_a_later_version") == 0
    assert count_as(empty, of_all, "vecsearch_internal.images_compact_1") == ROWS
    functions = (f"images_distances({ID})", f"images_search({ID}::text, {ROWS})")
    for source in ("images", "images_view", "images_tags", *functions):
        assert count_as(empty, of_all, source) == ROWS
    assert count_as(empty, of_all, "vecsearch_internal.thumbnails") == 1
    assert count_as(empty, of_views, "(SELECT * FROM images_view) AS whole") == ROWS
    assert count_as(empty, of_views, "images_tags") == ROWS
    for hidden in (
        "(SELECT embedding FROM images) AS e",
        "vecsearch_internal.thumbnails",
        *functions,
    ):
        with pytest.raises(DatabaseError, match="permission denied"):
            count_as(empty, of_views, hidden)
    make_corpus(empty, "later", clustered(20, DIMS, seed=0))
    empty.collection("later").create_index("compact", dims=2)
    for called in ("distances((SELECT id FROM later LIMIT 1))", "search('/corpus/00000.png', 30)"):
        assert count_as(empty, of_all, f"later_{called}") == 20
    # Row-level security of a table applies to its views.
    write(empty, "ALTER TABLE images ENABLE ROW LEVEL SECURITY")
    write(empty, f"CREATE POLICY one ON images TO reader_of_all USING (id = {ID})")
    for source in ("images", "images_view", "images_tags", *functions):
        assert count_as(empty, of_all, source) == 1


def test_a_dump_of_before_the_tables_moved_is_restored(empty: Library, tmp_path: Path) -> None:
    fill(empty, FIRST)
    empty.dump(tmp_path / "old.dump")
    write(empty, "DROP SCHEMA vecsearch CASCADE")
    assert empty.restore(tmp_path / "old.dump").names == ["images"]
    assert scalar(empty, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 1
    assert scalar(empty, "SELECT count(*) FROM images_tags") == ROWS
    assert empty.collection().index_status().index == "compact"
    image = scalar(empty, f"SELECT {ID}")
    assert empty.query(id=image, k=ROWS).hits[0].id == image


def test_hits_gain_a_column_while_others_depend_on_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(library, "images", clustered(ROWS, DIMS, seed=0))
    library.configure(library.missing_settings())
    write(library, "CREATE SCHEMA mine")
    image = "(SELECT id FROM images ORDER BY path LIMIT 1)"
    made = [
        one
        for one in dependents(sources(library))
        if one.source.name in {"images_search", "images_distances"}
    ]
    assert len(made) == 2 * 3 * 5
    for one in made:
        write(library, one.create.replace(ID, image))
    known = answers(library, made)

    monkeypatch.setattr(functions, "HIT", (*columns.HIT, columns.BY_NAME["file_size"]))
    write(library, "ALTER TYPE vecsearch.hit ADD ATTRIBUTE file_size bigint")
    with database.writing(library.engine) as connection:
        functions.refresh(connection)

    assert answers(library, made) == known
    for called in (f"images_search({image}, 3)", f"images_distances({image})"):
        assert scalar(library, f"SELECT min(file_size) FROM {called}") == 1
