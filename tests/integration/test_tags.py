"""Tags: the classifier's best concepts of each image, which follow its row wherever it goes."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import sqlalchemy as sa
from support import (
    PixelEncoder,
    citus,
    clustered,
    counts,
    every_server,
    ingest,
    make_corpus,
    one_server,
    picture,
    scalar,
    store_concepts,
    write,
)
from typer.testing import CliRunner
from web_support import ask, client

from vecsearch.cli import app
from vecsearch.errors import WeightsUnavailable
from vecsearch.library import Library
from vecsearch.postgres import database, renaming
from vecsearch.search.tags import LEAST, MOST, Tag

pytestmark = citus

# As in ImageNet, two have the same name.
NAMES = ["crane", "crane", *(f"thing {number}" for number in range(2, 30))]
random = np.random.default_rng(5)
# Of a size that makes some images certain and others not.
WEIGHTS = random.normal(0, 2e-3, (len(NAMES), PixelEncoder.dimensions)).astype(np.float16)
BIASES = random.normal(0, 0.3, len(NAMES)).astype(np.float32)


def add_concepts(library: Library) -> None:
    store_concepts(library, NAMES, WEIGHTS, BIASES.tolist())


def expected(embedding: Any) -> list[tuple[int, int, str, float]]:
    """Return rank, number, name and probability of an image's tags, by the definition."""
    logits = [
        sum(float(a) * float(b) for a, b in zip(vector, embedding, strict=True)) + float(bias)
        for vector, bias in zip(WEIGHTS, BIASES, strict=True)
    ]
    odds = [np.exp(logit) for logit in logits]
    ranked = sorted(range(len(odds)), key=lambda number: -odds[number])[:MOST]
    found = [(number, float(odds[number] / sum(odds))) for number in ranked]
    return [
        (rank, number, NAMES[number], probability)
        for rank, (number, probability) in enumerate(found, start=1)
        if rank == 1 or probability >= LEAST
    ]


def check(library: Library, name: str = "images") -> int:
    """Check the tags of every row against its embedding, and that there are no others; count."""
    with database.reading(library.engine) as connection:
        rows = connection.execute(
            sa.text(f'SELECT id, path, CAST(embedding AS real[]) FROM vecsearch."{name}"')
        ).all()
        view = (
            f"SELECT id, path, rank, number, name, probability FROM {name}_tags ORDER BY id, rank"
        )
        found: dict[UUID, list[Any]] = {}
        for row in connection.execute(sa.text(view)):
            found.setdefault(row.id, []).append(row)
    assert found.keys() == {row.id for row in rows}
    for row in rows:
        assert {tag.path for tag in found[row.id]} == {row.path}
        wanted = expected(row.embedding)
        assert [tuple(tag[2:5]) for tag in found[row.id]] == [tag[:3] for tag in wanted]
        np.testing.assert_allclose(
            [tag.probability for tag in found[row.id]], [tag[3] for tag in wanted], rtol=1e-3
        )
    return len(rows)


def stored(library: Library) -> int:
    return int(scalar(library, "SELECT count(DISTINCT id) FROM vecsearch_internal.tags"))


@every_server
def test_tags_follow_the_rows_of_an_ingest(library: Library, photos: Path) -> None:
    add_concepts(library)
    ingest(library.engine, [photos], PixelEncoder())
    assert check(library) == 12
    one, two, three, four = sorted((photos / "cats").iterdir())[:4]
    # Changed, moved, copied, swapped, gone, and all at once.
    picture(100).save(one)
    two.rename(two.with_name("moved.png"))
    (photos / "copy.png").write_bytes(three.read_bytes())
    dogs = sorted((photos / "dogs").iterdir())
    first, second = dogs[0].read_bytes(), dogs[1].read_bytes()
    dogs[0].write_bytes(second)
    dogs[1].write_bytes(first)
    four.unlink()
    done = ingest(library.engine, [photos], PixelEncoder(), prune=True)
    assert counts(done)["pruned"] == 1
    assert counts(done)["moved"] >= 1
    assert counts(done)["copied"] >= 1
    assert check(library) == stored(library) == 12


def test_tags_follow_an_import_a_rename_and_a_drop(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    add_concepts(library)
    ingest(library.engine, [photos], PixelEncoder())
    images = library.collection()
    images.export_file(tmp_path / "all.npz")
    write(library, "UPDATE images SET embedding = CAST(array_fill(1, ARRAY[48]) AS halfvec)")
    write(library, "UPDATE vecsearch_internal.tags SET probability = 0")
    images.import_file(tmp_path / "all.npz")
    library.collection("others").import_file(tmp_path / "all.npz")
    assert (check(library), check(library, "others")) == (12, 12)
    with database.writing(library.engine) as connection:
        renaming.rename(connection, "others", "order")
    assert check(library, "order") == 12
    library.collection("order").drop()
    assert (
        scalar(library, "SELECT count(*) FROM vecsearch_internal.tags WHERE collection <> 'images'")
        == 0
    )
    assert scalar(library, "SELECT to_regclass('order_tags') IS NULL")
    assert check(library) == 12


@every_server
def test_what_has_no_tags_gets_them_when_they_are_asked_for(library: Library) -> None:
    make_corpus(library, "images", clustered(20, 48, seed=1) * 32)
    tags = library.collection().tags
    add_concepts(library)
    # A layer that is not the classifier's input.
    write(library, "UPDATE collections SET backend = 'autoencoder', layer = 'latent'")
    assert tags.ensure() is None
    assert scalar(library, "SELECT count(*) FROM images_tags") == 0
    write(library, "UPDATE collections SET backend = 'timm', layer = 'pooled'")
    steps: list[tuple[str, int, int | None]] = []
    assert tags.ensure(on_progress=lambda *step: steps.append(step)) == 20
    assert steps == [("Tagging", 20, None)]
    assert check(library) == 20
    write(library, "DELETE FROM images WHERE width < 5")
    write(
        library,
        "DELETE FROM vecsearch_internal.tags WHERE id IN (SELECT id FROM images WHERE width < 7)",
    )
    assert (tags.ensure(), tags.ensure()) == (2, 0)
    # The view leaves out tags of rows that are gone.
    assert check(library) == 15


def test_more_rows_than_a_chunk_are_tagged(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecsearch.search.indexes.vectors.CHUNK", 10)
    make_corpus(library, "images", clustered(30, 48, seed=1) * 32)
    add_concepts(library)
    assert library.collection().tags.ensure() == 30
    assert check(library) == 30


@one_server
@every_server
def test_a_filter_by_tag_is_a_condition_that_an_index_serves(library: Library) -> None:
    corpus = make_corpus(library, "images", clustered(400, 48, seed=1) * 256)
    add_concepts(library)
    images = library.collection()
    images.tags.ensure()
    name, count = images.tags.counted(limit=1)[0].name, images.tags.counted(limit=1)[0].images
    chosen = f"SELECT id FROM images_tags WHERE name = '{name}' AND probability > 0.3"
    wanted = {
        id_
        for id_, vector in zip(corpus.ids, corpus.vectors, strict=True)
        if any(tag[2] == name and tag[3] > 0.3 for tag in expected(vector))
    }
    assert 10 < len(wanted) <= count
    for index in ("hnsw", "compact", "none"):
        images.create_index(index)
        answer = images.query(id=corpus.ids[0], k=400, where=f"id IN ({chosen})")
        assert {hit.id for hit in answer} == wanted
        few = images.query(id=corpus.ids[0], k=10, where=f"id IN ({chosen})")
        assert {hit.id for hit in few} < wanted
        assert len(few.hits) == 10
    with database.reading(library.engine) as connection:
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.scalars(sa.text(f"EXPLAIN {chosen}")))
    (condition,) = re.findall(r"tags_name.*\n +Index Cond: (.*)", plan)
    assert all(column in condition for column in ("collection", "name", "probability")), plan


def run(library: Library, *words: str) -> tuple[str, str]:
    given = ["tags", *words, "--database-url", library.url]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.stderr
    return done.stdout, done.stderr


def test_the_command_prints_tags_and_says_what_it_did(library: Library, photos: Path) -> None:
    ingest(library.engine, [photos], PixelEncoder())
    write(library, "UPDATE collections SET backend = 'autoencoder'")
    out, err = run(library)
    assert (out, "'images' has no classifier of ImageNet's classes, so" in err) == ("", True)
    write(library, "UPDATE collections SET backend = 'timm'")
    add_concepts(library)
    out, err = run(library, "--format", "ndjson", "--where", "label = 'cats'")
    assert err == "Tagged 12 images that had no tags.\n"
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in rows] == sorted(map(str, (photos / "cats").iterdir()))
    for row in rows:
        wanted = expected(PixelEncoder().expected(Path(row["path"])))
        assert [(tag["number"], tag["name"]) for tag in row["tags"]] == [tag[1:3] for tag in wanted]
    out, err = run(library, "--format", "table", "--limit", "1")
    assert f"{rows[0]['tags'][0]['name']} {rows[0]['tags'][0]['probability']:.2f}" in out
    assert err == ""
    assert run(library, "--format", "paths")[0].splitlines() == sorted(
        str(path) for folder in photos.iterdir() for path in folder.iterdir()
    )
    out, _ = run(library, "--count", "--format", "csv")
    assert out.startswith("name,images\n")
    assert sum(int(line.split(",")[1]) for line in out.splitlines()[1:]) == 12
    assert len(run(library, "--count", "--limit", "1", "--format", "csv")[0].splitlines()) == 2
    refused = CliRunner().invoke(app, ["tags", "--where", "", "--database-url", library.url])
    assert (refused.exit_code, "The condition is empty." in refused.stderr) == (1, True)
    assert run(library, "--where", "label = 'none'") == ("", "No image matches.\n")
    first, *_ = rows
    (found,) = run(library, first["path"], "--format", "ndjson")[0].splitlines()
    assert json.loads(found) == first
    refused = CliRunner().invoke(app, ["tags", first["path"], "--count"])
    assert refused.exit_code == 2
    bad = CliRunner().invoke(
        app, ["tags", "--where", "true) OR (true", "--database-url", library.url]
    )
    assert (bad.exit_code, "syntax error" in bad.stderr) == (1, True)


def test_a_picture_that_is_not_in_the_collection_is_embedded(
    library: Library, photos: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    images = library.collection()
    images.ingest([photos / "cats"], model=small_model, weights=weights)
    before = stored(library)
    assert before == 6
    new = photos / "dogs" / "00.png"
    tagged = images.tags.of_picture(new)
    assert (tagged.path, tagged.id, stored(library)) == (str(new), None, before)
    images.ingest([photos / "dogs"])
    now = images.tags.of_picture(new)
    assert now.id == images.image(new.as_posix()).id
    assert [tag.number for tag in tagged.tags] == [tag.number for tag in now.tags]
    np.testing.assert_allclose(
        [tag.probability for tag in tagged.tags],
        [tag.probability for tag in now.tags],
        rtol=1e-2,
    )


def test_the_api_and_the_page_show_tags(library: Library, photos: Path) -> None:
    add_concepts(library)
    ingest(library.engine, [photos], PixelEncoder())
    api = client(library)
    image = library.collection().browse(limit=1)[0]
    tags = library.collection().tags.of([image.id])[image.id]
    assert len(tags) > 1
    hit, *others = ask(api, id=image.id)["hits"]
    assert [Tag(**tag) for tag in hit["tags"]] == tags
    assert all(other["tags"] for other in others)
    shown = api.get(f"/api/collections/images/images/{image.id}").json()
    assert [Tag(**tag) for tag in shown["tags"]] == tags
    likely = {
        tag.name
        for found in library.collection()
        .tags.of(UUID(one["id"]) for one in ask(api, id=image.id)["hits"])
        .values()
        for tag in found
        if tag.probability >= 0.1
    }
    assert likely
    browsed, answered = (
        api.get("/", params=params).text
        for params in ({}, {"id": str(image.id), "max_distance": "0.5", "k": "12"})
    )
    for page in (browsed, answered):
        links = re.findall(r'<a href="/\?([^"]*text=[^"]*)" title="probability', page)
        assert {link.partition("text=")[2].replace("+", " ") for link in links} >= likely
        # A click asks for the word alone.
        assert not any("id=" in link or "max_distance" in link for link in links)
    about = answered.partition('<div class="about">')[2].partition("</div>")[0]
    assert all(f">{tag.name}</a>" in about for tag in tags)
    write(library, "DELETE FROM vecsearch_internal.tags")
    assert [hit["tags"] for hit in ask(api, id=image.id, k=12)["hits"]] == [[]] * 12
    assert 'class="tags"' not in api.get("/", params={"id": str(image.id)}).text


def test_an_ingest_says_if_older_images_stay_without_tags(
    library: Library,
    photos: Path,
    small_model: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise WeightsUnavailable("The weights have moved. Give them with --weights.")

    images = library.collection()
    images.ingest(photos, model=small_model, weights=weights)
    monkeypatch.setattr("vecsearch.search.tags.ensure", refuse)
    assert images.ingest(photos).notes == (
        "Images without tags were left so. The weights have moved. Give them with --weights.",
    )
    with pytest.raises(WeightsUnavailable):
        library.collection("other").ingest(photos, model=small_model, weights=weights)
