"""A map of a collection: every image as a point, near those that are similar to it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.errors import InvalidInput
from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import copy_rows
from vecsearch.search.indexes import projection, vectors
from vecsearch.search.indexes.build import OnProgress
from vecsearch.vocabulary import Layout

# Images to which a layout is fitted; the others take their places among them.
SAMPLE = 20_000
# Embeddings are stored in half precision: further digits come from the order of sums.
DIGITS = 6
# UMAP compares each image with its 15 nearest.
LEAST_FOR_UMAP = 20

# Takes the next embeddings in order of id, and the number of those before them; returns places,
# shape (rows, 2).
_Place = Callable[[NDArray[np.float32], int], NDArray[np.float32]]


def refresh(
    connection: sa.Connection,
    collection: StoredCollection,
    layout: Layout,
    *,
    on_progress: OnProgress,
) -> int:
    """Place all images anew, the same way each time, and return their number.

    Args:
        connection: in a transaction on one snapshot.
        collection: the collection.
        layout: how.
        on_progress: called after each chunk of images.

    Raises:
        InvalidInput: there are too few images for UMAP, or it is not installed.

    """
    images = int(connection.scalar(sa.select(sa.func.count()).select_from(collection.table)) or 0)
    table = tables.maps
    connection.execute(sa.delete(table).where(table.c.collection == collection.name))
    if images == 0:
        return 0
    on_progress("Map", 0, images)
    sample = vectors.sample(connection, collection.table, SAMPLE)
    place = _by_umap(sample) if layout is Layout.umap else _by_components(sample)
    done = 0
    for ids, embeddings in vectors.chunks(connection, schema.sql_name(collection.table)):
        places = place(embeddings, done).round(DIGITS)
        copy_rows(
            connection,
            table.fullname,
            "text uuid float4 float4",
            (
                (collection.name, id_, x, y)
                for id_, (x, y) in zip(ids, places.tolist(), strict=True)
            ),
        )
        done += len(ids)
        on_progress("Map", done, images)
    return images


def _by_components(sample: NDArray[np.float32]) -> _Place:
    """Return a function that places embeddings along the sample's two principal components."""
    fitted = projection.fit(sample, 2)
    # A component and its opposite are as good: the largest of its numbers is made positive.
    largest = np.abs(fitted.components).argmax(axis=1)
    signs = np.where(fitted.components[np.arange(len(largest)), largest] < 0, -1, 1)
    components = (fitted.components * signs[:, np.newaxis]).astype(np.float32)
    oriented = replace(fitted, components=components)

    def place(embeddings: NDArray[np.float32], _before: int) -> NDArray[np.float32]:
        places = oriented.project(embeddings)
        # Two images have one component.
        return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))

    return place


def _by_umap(sample: NDArray[np.float32]) -> _Place:
    """Return a function that places embeddings by UMAP (McInnes, Healy and Melville, 2018)."""
    if len(sample) < LEAST_FOR_UMAP:
        raise InvalidInput(
            f"A map by umap needs at least {LEAST_FOR_UMAP} images. Use --layout {Layout.pca}."
        )
    try:
        from umap import UMAP
    except ImportError as error:
        raise InvalidInput(
            "A map by umap needs the extra 'umap', which is not installed. "
            "Run: pip install 'vecsearch[umap]'"
        ) from error
    # One thread: with several, the order of their steps is random.
    fitted = UMAP(metric="cosine", random_state=0, n_jobs=1).fit(sample)

    def place(embeddings: NDArray[np.float32], before: int) -> NDArray[np.float32]:
        # The sample is the first rows in the same order, and has its places already.
        own = fitted.embedding_[before : before + len(embeddings)]
        others = embeddings[len(own) :]
        return np.concatenate([own, fitted.transform(others)]) if len(others) else own

    return place
