"""A collection made by a layer, from its first ingest to a query."""

from pathlib import Path

import pytest
from support import PixelEncoder, counts, ingest, once

from vecsearch.encoders.base import LazyEncoder
from vecsearch.errors import EncoderMismatch, InvalidInput
from vecsearch.library import Library

NOTE = "Layer layer2 of test_resnet.r160_in1k gives 48 × 20 × 20, averaged to 48 numbers."


@once
def test_a_new_collection_of_a_layer_says_its_shape_once_and_remembers_the_layer(
    library: Library, photos: Path, weights: Path
) -> None:
    model = "test_resnet.layer2"
    summary = library.collection().ingest([photos / "cats"], model=model, weights=weights)
    assert summary.notes == (NOTE,)
    again = library.collection().ingest([photos])
    assert counts(again) == {"added": 6, "unchanged": 6}
    assert again.notes == ()
    [collection] = library.collections()
    assert (collection.model, collection.dimensions) == ("test_resnet.r160_in1k.layer2", 48)
    cat = photos / "cats" / "01.png"
    # As bytes of another file, so that the encoder is asked and not the table.
    [nearest] = library.query(cat.read_bytes() + b"\0", k=1, model=model).hits
    assert nearest.path == str(cat)
    assert nearest.distance < 0.001
    with pytest.raises(EncoderMismatch, match=r"r160_in1k\.layer2, and vectors of test_resnet"):
        library.query(cat, model="test_resnet")
    with pytest.raises(InvalidInput, match="Unknown metric 'nope'"):
        library.query(cat, metric="nope")


@once
def test_the_shape_is_not_asked_for_when_nothing_is_embedded(
    library: Library, photos: Path
) -> None:
    def load() -> PixelEncoder:
        raise AssertionError("the encoder was loaded")

    foretold = ingest(library.engine, [photos], LazyEncoder(load), dry_run=True)
    ingest(library.engine, [photos], PixelEncoder())
    again = ingest(library.engine, [photos], LazyEncoder(load))
    assert foretold.notes == again.notes == ()
