"""Collections from which something was dropped by hand: named, and mended; others work."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from support import PixelEncoder, counts, ingest, run_command, scalar, versions, write

from vecsearch.errors import CollectionNotFound, DatabaseError
from vecsearch.library import Library

OBJECTS = """
    SELECT string_agg(name, ' ' ORDER BY name) FROM (
        SELECT relname FROM pg_class WHERE relnamespace = 'vecsearch'::regnamespace
        UNION ALL SELECT pg_describe_object('pg_proc'::regclass, oid, 0) FROM pg_proc
        WHERE pronamespace = 'vecsearch'::regnamespace
        UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('vecsearch.images')
            AND NOT attisdropped) AS found (name)"""


GONE = " is missing"


@pytest.fixture
def both(library: Library, photos: Path) -> Library:
    """A library with the collections `images` and `others`, each with all of the photos."""
    for name in ("images", "others"):
        ingest(library.engine, [photos], PixelEncoder(), collection=name)
    library.collection("images").create_index("compact", dims=4)
    return library


def state(library: Library) -> str:
    """Return the state of `images`, and check that the other collection is fine."""
    found = {each.name: each for each in library.collections()}
    assert not found["others"].is_broken
    other = library.collection("others")
    assert len(other.query(id=other.browse(limit=1)[0].id).hits) >= 6
    assert len(library.status().collections) == len(found)
    return found["images"].state


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DROP VIEW images_tags", "view images_tags is missing"),
        (
            "DROP FUNCTION images_similarity(uuid, uuid), images_similarity(text, text)",
            "function images_similarity is missing",
        ),
        ("DROP TRIGGER changes_delete ON images", "trigger changes_delete is missing"),
        ("DROP INDEX images_path_hash", "index images_path_hash is missing"),
        (
            "ALTER TABLE images DROP COLUMN latitude CASCADE",
            f"column latitude{GONE}; view images_view{GONE}; function images_distances{GONE}",
        ),
        (
            "DROP TABLE vecsearch_internal.images_compact_{version}",
            "its compact vectors are missing",
        ),
        ("DELETE FROM collections WHERE name = 'images'", "its entry in the register is missing"),
    ],
)
def test_what_is_missing_is_named_and_made_again(
    both: Library, photos: Path, statement: str, problem: str
) -> None:
    assert state(both) == "ok"
    assert both.repair() == []
    before = scalar(both, OBJECTS)
    write(both, statement.format(version=versions(both)[0].version))
    assert state(both) == f"broken: {problem}"
    _, out, err = run_command(both, "collections")
    assert json.loads(out.splitlines()[0])["state"] == f"broken: {problem}"
    assert f"images is broken: {problem}. To repair it: vecsearch db repair images\n" in err
    code, out, _ = run_command(both, "db", "repair", "images", "--dry-run")
    assert (code, len(out.splitlines())) == (0, len(problem.split("; ")))
    assert state(both) == f"broken: {problem}"
    code, out, _ = run_command(both, "db", "repair")
    assert code == 0
    assert [json.loads(line)["problem"] for line in out.splitlines()] == problem.split("; ")
    assert state(both) == "ok"
    assert sorted(scalar(both, OBJECTS).split()) == sorted(before.split())
    assert len(both.query(id=both.collection().browse(limit=1)[0].id).hits) == 10
    if "register" not in problem:
        assert counts(ingest(both.engine, [photos], PixelEncoder())) == {"unchanged": 12}


def test_what_is_left_of_a_collection_whose_table_is_gone_is_removed_with_a_yes(
    both: Library, photos: Path
) -> None:
    (photos / "broken.png").write_text("not a picture")
    ingest(both.engine, [photos], PixelEncoder())
    write(both, "DELETE FROM others WHERE path LIKE '%cats%'")
    write(both, "DROP TABLE images CASCADE")
    assert state(both) == "broken: table images is missing"
    for where in (None, "label = 'cats'"):
        with pytest.raises(DatabaseError, match=r"'images' is broken: table .* db repair images"):
            both.collection().query(id=UUID(int=0), where=where)
    stored = both.collection("others").browse(limit=1)[0].id
    with pytest.raises(DatabaseError, match='"nothing" does not exist'):
        both.collection("others").query(id=stored, where="id IN (SELECT id FROM nothing)")
    for broken in (
        lambda: both.collection().labels(10),
        lambda: ingest(both.engine, [photos], PixelEncoder()),
    ):
        with pytest.raises(DatabaseError, match=r"was dropped: .*images.* vecsearch db repair"):
            broken()
    # A prune in another collection still works, and takes thumbnails that nobody has.
    assert len(both.collection().errors()) == 1
    plan = "remove its entry, tags and errors, and thumbnails of no other image"
    code, out, _ = run_command(both, "db", "repair", "images", "--dry-run")
    assert (code, json.loads(out)["done"]) == (0, plan)
    code, out, err = run_command(both, "db", "repair", "images")
    assert (code, json.loads(out)["done"]) == (1, f"nothing: with --yes, {plan}")
    assert f"Not done without a yes: images: table images is missing: {plan}. " in err
    assert state(both) == "broken: table images is missing"
    asked: list[str] = []

    def yes(sentence: str) -> bool:
        asked.append(sentence)
        return True

    assert [each.problem for each in both.repair("images", confirm=yes)] == [
        "table images is missing"
    ]
    assert asked == [f"images: table images is missing. This will {plan}."]
    # A copy of the user's is no collection.
    write(both, "CREATE TABLE vecsearch.kept AS SELECT * FROM others")
    assert [each.name for each in both.collections()] == ["others"]
    assert not both.repair(dry_run=True)
    left = scalar(
        both, "SELECT string_agg(relname, ' ') FROM pg_class WHERE relname LIKE 'images%'"
    )
    assert left is None
    assert scalar(both, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 6
    with pytest.raises(CollectionNotFound):
        both.repair("images")
    assert ingest(both.engine, [photos], PixelEncoder()).added == 12
    # Thumbnails of rows that were deleted by hand.
    write(both, "DELETE FROM images")
    (found,) = both.repair(dry_run=True)
    assert found.problem == "6 thumbnails of no image"
    both.repair(confirm=lambda _: True)
    assert scalar(both, "SELECT count(*) FROM vecsearch_internal.thumbnails") == 6


def test_drop_removes_what_is_left_of_a_broken_collection(both: Library) -> None:
    write(both, "DROP TABLE images CASCADE")
    code, _, err = run_command(both, "drop", "images", "--yes")
    assert (code, err.split(" with ")[0]) == (0, "Dropped collection 'images'")
    assert [each.name for each in both.collections()] == ["others"]


def test_what_cannot_be_made_again_is_said(both: Library, photos: Path) -> None:
    write(both, "ALTER TABLE images DROP COLUMN embedding CASCADE")
    assert state(both).startswith("broken: column embedding is missing")
    (found,) = both.repair("images", confirm=lambda _: True)
    assert found.done == "nothing: drop the collection, and ingest it again"
    with pytest.raises(DatabaseError, match=r"'images' is broken: column embedding is missing\."):
        both.collection().query(photos / "cats" / "01.png")
