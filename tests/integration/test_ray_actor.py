"""What runs on a node of a Ray cluster, without Ray."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import once, picture, save_weights, scalar

from vecsearch import __version__
from vecsearch.config import Settings
from vecsearch.errors import CollectionNotFound, EncoderError, InvalidInput
from vecsearch.imaging import scan
from vecsearch.imaging.reading import Source
from vecsearch.imaging.scan import File
from vecsearch.ingest.stages.actor import Actor, Setup, Task
from vecsearch.ingest.stages.places import MadeBy, Order
from vecsearch.library import Library
from vecsearch.postgres import catalog, database
from vecsearch.postgres.rows import image_id

pytestmark = once


@pytest.fixture
def setup(library: Library, photos: Path, small_model: str, weights: Path) -> Setup:
    """What an actor is told of a collection that holds half of the photos."""
    library.collection().ingest(photos / "dogs", model=small_model, weights=weights)
    return Setup(__version__, library.url, "images", [str(photos)], library.settings)


@pytest.fixture
def actor(setup: Setup) -> Iterator[Actor]:
    made = Actor(setup)
    yield made
    made.close()


def made_by(library: Library) -> MadeBy:
    with database.reading(library.engine) as connection:
        stored = catalog.get_collection(connection, "images")
    return MadeBy(stored.identity, stored.weights)


def task(
    actor: Actor, library: Library, paths: Sequence[Path], *, is_repeated: bool = False
) -> Task:
    """Have files read as chunk 0, and return the task of adding them."""
    files = {file.path: file for file in scan.Walk(paths)}
    sources = [item for item in actor.read(0, [*files], keep=True) if isinstance(item, Source)]
    with database.reading(library.engine) as connection:
        now = connection.scalar(sa.select(sa.func.now()))
    assert now is not None
    new: list[tuple[File, str]] = [(files[source.path], source.sha256) for source in sources]
    order = Order(sources, [], new, frozenset(), now)
    return Task(order, made_by(library), is_repeated)


def test_new_files_are_added_where_they_are_embedded(
    library: Library, actor: Actor, photos: Path
) -> None:
    actor.check()
    cats = sorted((photos / "cats").iterdir())
    product = actor.embed(0, task(actor, library, cats))
    assert product.added == {image_id(str(cat)) for cat in cats}
    assert (product.encoded, product.reasons) == ({}, {})
    assert scalar(library, "SELECT count(*) FROM images") == 12
    assert counts_of_one_more_run(library, photos) == {"unchanged": 12}


def counts_of_one_more_run(library: Library, photos: Path) -> dict[str, int]:
    summary = library.collection().ingest(photos)
    return {name: count for name, count in summary.counts().items() if count}


def test_what_an_actor_added_before_it_ended_counts_for_the_next_one(
    library: Library, actor: Actor, photos: Path
) -> None:
    cats = sorted((photos / "cats").iterdir())
    first = task(actor, library, cats[:4])
    added = actor.embed(0, first).added
    again = task(actor, library, cats, is_repeated=True)
    again = replace(again, order=replace(again.order, since=first.order.since))
    assert added < actor.embed(0, again).added
    assert scalar(library, "SELECT count(*) FROM images") == 12


def test_what_another_run_added_is_left_to_the_driver(
    library: Library, actor: Actor, photos: Path
) -> None:
    cats = sorted((photos / "cats").iterdir())
    mine = task(actor, library, cats)
    library.collection().ingest(cats[:4])
    picture(99).save(cats[0])
    library.collection().ingest(cats[:1])
    product = actor.embed(0, mine)
    assert product.added == {image_id(str(cat)) for cat in cats[4:]}
    assert product.encoded.keys() == {digest for _, digest in mine.order.new[:4]}
    # Nor is it taken for an earlier attempt's if its content differs.
    repeated = actor.embed(0, replace(mine, is_repeated=True))
    assert repeated.added == {image_id(str(cat)) for cat in cats[1:]}


def test_a_file_that_cannot_be_decoded_costs_no_other(
    library: Library, actor: Actor, photos: Path
) -> None:
    (photos / "cats" / "none.png").write_text("no picture")
    cats = sorted((photos / "cats").iterdir())
    product = actor.embed(0, task(actor, library, cats))
    assert len(product.added) == 6
    assert [*product.reasons.values()] == ["Not an image, or an unsupported format."]


def test_files_that_another_actor_has_read_are_read_again(
    library: Library, actor: Actor, photos: Path
) -> None:
    cats = sorted((photos / "cats").iterdir())
    read = task(actor, library, cats)
    actor.forget(0)
    picture(99).save(cats[0])
    product = actor.embed(1, read)
    assert product.added == {image_id(str(cat)) for cat in cats[1:]}
    assert [*product.reasons.values()] == ["It changed while it was being read; ingest it again."]


def test_a_node_with_other_weights_is_refused(
    library: Library, actor: Actor, photos: Path, small_model: str, tmp_path: Path
) -> None:
    cats = sorted((photos / "cats").iterdir())
    other = save_weights(tmp_path / "other.safetensors", small_model, seed=1)
    asked = task(actor, library, cats)
    identity = replace(asked.made_by.identity, weights_sha256="1" * 64)
    weights = replace(asked.made_by.weights, source=str(other))
    with pytest.raises(EncoderError) as caught:
        actor.embed(0, replace(asked, made_by=MadeBy(identity, weights)))
    assert str(caught.value).startswith(
        f"Node {platform.node()} cannot make this run's encoder: The weights file {other} has "
    )
    assert scalar(library, "SELECT count(*) FROM images") == 6


def test_a_dropped_collection_is_not_written_to(
    library: Library, actor: Actor, photos: Path
) -> None:
    asked = task(actor, library, sorted((photos / "cats").iterdir()))
    library.collection().drop()
    with pytest.raises(CollectionNotFound):
        actor.embed(0, asked)


def test_a_node_that_cannot_do_its_part_says_why(setup: Setup, photos: Path) -> None:
    node = platform.node()
    refused = {
        f"Node {node} has vecsearch {__version__}, and this command is 0.0.1. Install": replace(
            setup, version="0.0.1"
        ),
        f"Node {node} does not see {photos}/nowhere. Put": replace(
            setup, roots=[f"{photos}/nowhere"]
        ),
        f"Node {node} cannot use the database: ": replace(
            setup, url="postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"
        ),
    }
    for message, told in refused.items():
        made = Actor(told)
        with pytest.raises(InvalidInput) as caught:
            made.check()
        made.close()
        assert str(caught.value).startswith(message)


def test_a_password_is_not_in_what_an_actor_is_called(setup: Setup) -> None:
    settings = Settings.load(database_url="postgresql://somebody:secret@host/database")
    told = replace(setup, url="postgresql://somebody:secret@host/database", settings=settings)
    assert "secret" not in repr(told)
