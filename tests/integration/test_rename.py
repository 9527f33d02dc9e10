"""`rename`: everything that has the collection's name has the new one."""

import pytest
from support import Corpus, clustered, every_server, make_corpus, run_command, scalar, write

from vecsearch.errors import CollectionNotFound, InvalidInput
from vecsearch.library import Library
from vecsearch.search.query import Answer

pytestmark = every_server


@pytest.fixture
def filled(library: Library) -> Corpus:
    return make_corpus(library, "images", clustered(300, 16, seed=1))


def found(answer: Answer) -> list[tuple[str, float]]:
    return [(hit.path, hit.distance) for hit in answer.hits]


@pytest.mark.parametrize("method", ["hnsw", "compact"])
def test_a_renamed_collection_answers_as_before(
    library: Library, filled: Corpus, method: str
) -> None:
    images = library.collection()
    images.create_index(method, dims=8 if method == "compact" else None)
    images.refresh()
    images.not_duplicates(filled.ids[0], filled.ids[1])
    write(library, "CREATE VIEW vecsearch.wide AS SELECT path FROM vecsearch.images")
    before = found(images.query(id=filled.ids[5]))
    in_sql = "SELECT array_agg(path ORDER BY distance, path) FROM {}_search('{}', 5)"
    rows = scalar(library, in_sql.format("images", filled.ids[5]))
    assert images.rename("photos") == []
    photos = library.collection("photos")
    assert found(photos.query(id=filled.ids[5])) == before
    assert scalar(library, in_sql.format("photos", filled.ids[5])) == rows
    assert scalar(library, "SELECT count(*) FROM vecsearch.wide") == 300
    for view in ("view", "neighbours", "duplicates", "tags", "changes"):
        assert scalar(library, f"SELECT count(*) FROM vecsearch.photos_{view}") is not None
    assert scalar(library, "SELECT count(*) FROM vecsearch.photos_neighbours") > 0
    assert photos.index_status().index == method
    assert library.repair() == []
    with pytest.raises(CollectionNotFound, match="There is no collection 'images'"):
        images.query(id=filled.ids[5])
    # The name is free, and the feed goes on.
    changes = "SELECT count(*) FROM vecsearch.photos_changes"
    known = scalar(library, changes)
    write(library, "DELETE FROM vecsearch.photos WHERE id = :id", id=filled.ids[9])
    assert scalar(library, changes) == known + 1
    make_corpus(library, "images", clustered(20, 16, seed=2))
    assert library.collection_names() == ["images", "photos"]
    write(library, "DROP VIEW vecsearch.wide")
    assert photos.drop() == []


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("Photos", "cannot name a collection"),
        ("images_view", "cannot name a collection"),
        ("images", "is taken"),
        ("tags", "cannot name a collection"),
    ],
)
def test_names_that_cannot_be(library: Library, filled: Corpus, new: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        library.collection().rename(new)
    assert len(library.collection().query(id=filled.ids[0]).hits) == 10


def test_the_command(library: Library, filled: Corpus) -> None:
    code, _, err = run_command(library, "rename", "images", "photos")
    assert (code, err) == (
        0,
        "Collection 'images' is now 'photos'. Use --collection photos from now on.\n",
    )
    code, _, err = run_command(library, "rename", "images", "photos")
    assert code == 1
    assert "There is no collection 'images'" in err
