"""Tables that `vecsearch refresh` keeps: neighbours, near-duplicates, clusters."""

import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Corpus, PixelEncoder, clustered, ingest, make_corpus, scalar, write
from typer.testing import CliRunner

from vecsearch.analysis import derived
from vecsearch.cli import app
from vecsearch.config import Settings
from vecsearch.errors import DatabaseBusy, InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import database, renaming
from vecsearch.postgres.rows import claimed
from vecsearch.vocabulary import Derived


def stored(library: Library, view: str, columns: str = "*") -> list[Any]:
    with library.sql(f"SELECT {columns} FROM {view}") as (_, rows, _):
        return sorted(map(tuple, rows))


@pytest.fixture
def corpus(library: Library) -> Corpus:
    return make_corpus(library, "images", clustered(60, 8, seed=4))


def expected(corpus: Corpus, k: int) -> dict[tuple[uuid.UUID, int], float]:
    """Return the distance of each image's neighbours, by the image and the rank."""
    found: dict[tuple[uuid.UUID, int], float] = {}
    for id_, vector in zip(corpus.ids, corpus.vectors, strict=True):
        distances = corpus.distances(vector)
        nearest = sorted(
            distance for other, distance in zip(corpus.ids, distances, strict=True) if other != id_
        )[:k]
        found |= {(id_, rank): distance for rank, distance in enumerate(nearest, start=1)}
    return found


def test_neighbours_are_the_nearest_of_each_image(corpus: Corpus) -> None:
    (done,) = corpus.library.collection().refresh(["neighbours"], neighbours=4)
    assert (done.view, done.rows, done.images) == ("images_neighbours", 240, 60)
    rows = stored(corpus.library, "images_neighbours", "id, rank, distance, neighbour, path")
    wanted = expected(corpus, 4)
    assert {row[:2] for row in rows} == wanted.keys()
    position = {id_: number for number, id_ in enumerate(corpus.ids)}
    for id_, rank, distance, neighbour, _ in rows:
        assert distance == pytest.approx(wanted[id_, rank], abs=1e-5)
        own = corpus.distances(corpus.vectors[position[id_]])[position[neighbour]]
        assert distance == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_what_follows_changes_is_what_is_made_anew(corpus: Corpus, seed: int) -> None:
    """The law, after any series of changes; among equal vectors, and with few images, too."""
    library, chosen = corpus.library, corpus.library.collection()
    choose = random.Random(seed)
    vectors = clustered(40, 8, seed=seed)
    vectors[20:] = corpus.vectors[:20]
    ids = list(corpus.ids)
    chosen.refresh(["neighbours"], neighbours=5, exact=True)
    follow = []
    for step in range(6):
        for _ in range(choose.randint(0, 4)):
            vector = str(choose.choice(list(vectors)).tolist())
            match choose.choice(["add", "update", "delete"]):
                case "add":
                    ids.append(uuid.UUID(int=choose.getrandbits(128)))
                    write(
                        library,
                        "INSERT INTO images (id, path, label, embedding)"
                        " VALUES (:id, CAST(:id AS text), '', CAST(:vector AS halfvec))",
                        id=ids[-1],
                        vector=vector,
                    )
                case "update":
                    change = "UPDATE images SET embedding = CAST(:vector AS halfvec)"
                    write(library, f"{change} WHERE id = :id", id=choose.choice(ids), vector=vector)
                case "delete":
                    gone = ids.pop(choose.randrange(len(ids)))
                    write(library, "DELETE FROM images WHERE id = :id", id=gone)
        if step == 4:
            # Fewer images than neighbours.
            write(library, "DELETE FROM images WHERE id <> ALL(:ids)", ids=ids[-4:])
            ids = ids[-4:]
        (done,) = chosen.refresh(["neighbours"], exact=True)
        follow.append(done.images)
        followed = stored(library, "vecsearch_internal.neighbours")
        chosen.refresh(["neighbours"], exact=True, whole=True)
        assert followed == stored(library, "vecsearch_internal.neighbours"), step
        assert len(followed) == len(ids) * min(5, len(ids) - 1)
    assert 0 < max(follow[:4]) < 60


def test_a_change_that_commits_late_reaches_the_neighbours(corpus: Corpus) -> None:
    library, chosen = corpus.library, corpus.library.collection()
    chosen.refresh(["neighbours"])
    gone = "SELECT count(*) FROM vecsearch_internal.neighbours WHERE :id IN (id, neighbour)"
    with database.writing(library.engine) as late:
        late.exec_driver_sql("DELETE FROM images WHERE width = 0")
        write(library, "DELETE FROM images WHERE width = 1")
        # It is followed at once, though the feed does not show it yet.
        (done,) = chosen.refresh(["neighbours"])
        assert 0 < done.images < 58
        assert count(library, gone, corpus.ids[1]) == 0
        assert count(library, gone, corpus.ids[0]) > 0
    chosen.refresh(["neighbours"])
    assert count(library, gone, corpus.ids[0]) == 0
    followed = stored(library, "images_neighbours")
    chosen.refresh(["neighbours"], whole=True)
    assert followed == stored(library, "images_neighbours")


def count(library: Library, statement: str, id_: uuid.UUID) -> int:
    return int(scalar(library, statement.replace(":id", f"'{id_}'")))


def test_an_index_finds_them_too(corpus: Corpus) -> None:
    chosen = corpus.library.collection()
    chosen.refresh(["neighbours"], exact=True)
    exact = stored(corpus.library, "images_neighbours", "id, neighbour")
    for method, dims in (("hnsw", None), ("compact", 6)):
        chosen.create_index(method, dims=dims)
        # A row that others wrote has no compact vector.
        write(corpus.library, "UPDATE images SET id = id WHERE width = 5")
        chosen.refresh(["neighbours"], whole=True)
        found = stored(corpus.library, "images_neighbours", "id, neighbour")
        assert len({*found} & {*exact}) >= 0.97 * len(exact)


def test_clusters_are_the_same_each_time(library: Library) -> None:
    random_ = np.random.default_rng(5)
    centres = np.eye(4, 16) * 4 + 1
    kinds = np.repeat(np.arange(4), [20, 15, 10, 5])
    vectors = np.maximum(centres[kinds] + random_.normal(0, 0.2, (50, 16)), 0.001)
    corpus = make_corpus(library, "images", vectors.astype(np.float16).astype(np.float64))
    chosen = library.collection()
    (done,) = chosen.refresh(["clusters"], clusters=4)
    assert (done.rows, done.images) == (50, 50)
    first = stored(library, "images_clusters", "id, cluster, distance")
    kind_of = dict(zip(corpus.ids, kinds.tolist(), strict=True))
    assert {(kind_of[id_] + 1, cluster) for id_, cluster, _ in first} == {
        (number, number) for number in range(1, 5)
    }
    assert all(0 <= distance < 0.1 for _, _, distance in first)
    # The number is kept.
    chosen.refresh(["clusters"])
    assert stored(library, "images_clusters", "id, cluster, distance") == first
    with pytest.raises(InvalidInput, match="51 clusters of 50 images"):
        chosen.refresh(["clusters"], clusters=51)
    assert len(stored(library, "images_clusters")) == 50


def test_without_their_extra_clusters_say_what_to_install(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(InvalidInput, match=r"pip install 'vecsearch\[clusters\]'"):
        corpus.library.collection().refresh(["clusters"])


def test_duplicates_are_those_of_the_command(library: Library, photos: Path) -> None:
    for number, file in enumerate(sorted(photos.glob("*/*.png"))[:2]):
        (photos / f"copy {number}.png").write_bytes(file.read_bytes())
    ingest(library.engine, [photos], PixelEncoder())
    words = ["refresh", "duplicates", "--format", "json", "--database-url", library.url]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert '"view": "images_duplicates"' in done.stdout
    wanted = library.collection().duplicates().images
    firsts = {image.group: image.id for image in reversed(wanted)}
    columns = "group_number, id, path, distance, difference, first"
    assert stored(library, "images_duplicates", columns) == sorted(
        (image.group, image.id, image.path, image.distance, image.difference, firsts[image.group])
        for image in wanted
    )
    assert len(wanted) >= 4


def test_two_refreshes_do_not_run_at_once(corpus: Corpus) -> None:
    with (
        claimed(corpus.library.engine, derived.REFRESH_LOCK_KEY, "images", "busy"),
        pytest.raises(DatabaseBusy, match="Another refresh"),
    ):
        corpus.library.collection().refresh()


@pytest.fixture
def elsewhere(empty_database_url: str, tmp_path: Path) -> Iterator[Library]:
    settings = Settings.load(database_url=empty_database_url, data_dir=tmp_path / "elsewhere")
    with Library.open(settings) as opened:
        yield opened


VIEWS = (*Derived, "changes")


def test_they_follow_a_rename_a_restore_and_a_drop(
    library: Library, elsewhere: Library, tmp_path: Path
) -> None:
    corpus = make_corpus(library, "images", clustered(30, 8, seed=4))
    library.collection().refresh([*Derived])
    with database.writing(library.engine) as connection:
        renaming.rename(connection, "images", "order")
    before = [stored(library, f"order_{view}") for view in VIEWS]
    assert [len(rows) for rows in before][:1] == [300]
    library.dump(tmp_path / "all.dump")
    elsewhere.restore(tmp_path / "all.dump")
    assert [stored(elsewhere, f"order_{view}") for view in Derived] == before[:-1]
    write(elsewhere, 'DELETE FROM "order" WHERE id = :id', id=corpus.ids[0])
    (done,) = elsewhere.collection("order").refresh(["neighbours"])
    assert 0 < done.images < 29
    # A dump of one collection begins a feed of its own.
    library.dump(tmp_path / "one.dump", collection="order")
    elsewhere.collection("order").drop()
    left = "SELECT count(*) FROM vecsearch_internal.{}"
    for table in (*VIEWS, "refreshes"):
        assert scalar(elsewhere, left.format(table)) == 0
    elsewhere.restore(tmp_path / "one.dump")
    assert [stored(elsewhere, f"order_{view}") for view in Derived] == before[:-1]
    assert [row[2] for row in stored(elsewhere, "order_changes")] == ["reset"]
    (done,) = elsewhere.collection("order").refresh(["neighbours"])
    assert done.images == 30
