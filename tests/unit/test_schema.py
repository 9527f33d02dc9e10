"""Names of collections, and the table that is made for each."""

import re
from dataclasses import fields

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from vecsearch.errors import InvalidInput
from vecsearch.imaging.decode import Facts
from vecsearch.imaging.scan import File
from vecsearch.ingest.formats import parquet_files
from vecsearch.postgres import columns, schema, tables
from vecsearch.postgres.columns import CARRIED, COLUMNS, OF_CONTENT, OF_FILE, names
from vecsearch.search.gallery import StoredImage

# Postgres cuts longer identifiers short without an error, so that two names become one.
LONGEST_IDENTIFIER = 63


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.from_regex(r"[a-z][a-z0-9_]{0,39}", fullmatch=True))
@example("a" * 40)
def test_a_plain_name_is_taken_as_it_is_and_its_indexes_fit_postgres(name: str) -> None:
    if name in schema.RESERVED_NAMES:
        return
    assert schema.require_collection_name(name) == name
    table = schema.collection_table(name, 8)
    assert table.fullname == f"vecsearch.{name}"
    names = [*(str(index.name) for index in table.indexes), schema.hnsw_index(name)]
    assert all(len(index) <= LONGEST_IDENTIFIER for index in names)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(max_size=60))
@example("")
@example("a" * 41)
@example("images\n")
@example("Images")
@example("1images")
@example("_images")
@example('a"; DROP TABLE images; --')
@example("vecsearch.images")
@example("été")
@example("a١")  # an Arabic digit is a digit to many a regular expression
def test_any_other_name_is_refused_and_shown(name: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        return
    with pytest.raises(InvalidInput) as caught:
        schema.require_collection_name(name)
    assert repr(name) in str(caught.value)
    with pytest.raises(InvalidInput):
        schema.collection_table(name, 8)


@pytest.mark.parametrize(
    "name",
    [
        "collections",
        "ingest_errors",
        "not_duplicates",
        "projections",
        "quantized_models",
        "thumbnails",
        "alembic_version",
    ],
)
def test_the_names_of_our_own_tables_are_taken(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"uses that name itself"):
        schema.require_collection_name(name)


def test_an_embedding_is_stored_as_halfvec_of_its_dimensions() -> None:
    column = schema.collection_table("images", 16).c.embedding
    assert column.type.compile(postgresql.dialect()) == "HALFVEC(16)"  # type: ignore[no-untyped-call]  # untyped there
    assert not column.nullable


@pytest.mark.parametrize(
    "table",
    [*tables.metadata.tables.values(), schema.collection_table("images", 16)],
    ids=lambda table: table.name,
)
def test_every_table_and_column_is_commented_for_analysts(table: sa.Table) -> None:
    assert table.comment
    assert [column.name for column in table.columns if not column.comment] == []


def test_the_columns_are_those_that_analysts_were_promised() -> None:
    promised = """id path sha256 width height format file_size modified_at taken_at latitude
        longitude label exif metadata ingested_at embedding"""
    assert [column.name for column in schema.collection_table("images", 16).columns] == (
        promised.split()
    )


def test_the_analysts_view_and_functions_show_the_columns_they_promised() -> None:
    assert names(columns.VIEW) == (
        """label width height format file_size taken_at modified_at latitude longitude metadata
        path id ingested_at sha256""".split()
    )
    assert names(columns.HIT) == (
        "id path label width height taken_at latitude longitude metadata".split()
    )
    for place in ("view", "hit"):
        places = sorted(getattr(column, place) or 0 for column in COLUMNS)
        shown = [number for number in places if number]
        assert shown == list(range(1, len(shown) + 1))


def test_every_column_has_the_attribute_that_its_origin_names() -> None:
    assert {field.name for field in fields(Facts)} == {*names(OF_CONTENT)} - {"embedding"}
    assert all(hasattr(File, name) or name in File.__annotations__ for name in names(OF_FILE))
    assert {field.name for field in fields(StoredImage)} == {*names(COLUMNS)} - {"embedding"}


def test_every_column_that_exports_carry_has_a_type_in_parquet() -> None:
    assert {column.kind for column in CARRIED} <= parquet_files.ARROW_TYPES.keys()
