"""Clusters of similar images, by k-means of their normalised embeddings, named by concepts."""

import math
import warnings

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.errors import InvalidInput
from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.rows import copy_rows
from vecsearch.search.indexes import vectors
from vecsearch.search.indexes.build import OnProgress
from vecsearch.search.indexes.projection import normalised
from vecsearch.search.tags import classifier_of

# Images by which the centres are chosen; enough for hundreds of clusters, and bounded memory.
SAMPLE = 20_000


def refresh(
    connection: sa.Connection,
    collection: StoredCollection,
    wanted: int | None,
    *,
    on_progress: OnProgress,
) -> int:
    """Cluster all images anew, the same way each time, and return their number.

    Args:
        connection: in a transaction on one snapshot.
        collection: the collection.
        wanted: number of clusters; None is the square root of half the number of images (Mardia,
            Kent and Bibby, Multivariate Analysis, 1979).
        on_progress: called after each chunk of images.

    Raises:
        InvalidInput: there are fewer images than clusters, or scikit-learn is not installed.

    """
    images = int(connection.scalar(sa.select(sa.func.count()).select_from(collection.table)) or 0)
    table = tables.clusters
    connection.execute(sa.delete(table).where(table.c.collection == collection.name))
    if images == 0:
        return 0
    if wanted is not None and wanted > images:
        raise InvalidInput(
            f"{wanted:,} clusters of {images:,} images. Give --clusters at most {images:,}."
        )
    on_progress("Clusters", 0, images)
    number = wanted or max(round(math.sqrt(images / 2)), 1)
    sample = vectors.sample(connection, collection.table, max(SAMPLE, number))
    centres = _centres(normalised(sample), number)
    classifier = classifier_of(connection, collection.name)
    names = [None] * number if classifier is None else classifier.nearest(centres)
    ids, nearest, distances = [], [], []
    for chunk, embeddings in vectors.chunks(connection, schema.sql_name(collection.table)):
        similar = normalised(embeddings) @ centres.T
        ids += chunk
        nearest.append(similar.argmax(axis=1))
        distances.append(1 - similar.max(axis=1))
        on_progress("Clusters", len(ids), images)
    found = np.concatenate(nearest)
    clusters = _by_size(found, number)
    named = [names[centre] for centre in found]
    rows = zip(ids, clusters.tolist(), np.concatenate(distances).tolist(), named, strict=True)
    copy_rows(
        connection,
        table.fullname,
        "text uuid int4 float8 text",
        (
            (collection.name, id_, cluster, max(distance, 0.0), name)
            for id_, cluster, distance, name in rows
        ),
    )
    return images


def _centres(sample: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Return the directions of the clusters' centres, shape (number, dimensions)."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InvalidInput(
            "Clusters need the extra 'clusters', which is not installed. "
            "Run: pip install 'vecsearch[clusters]'"
        ) from error
    # One thread: sums of floats depend on their order.
    with warnings.catch_warnings(), threadpool_limits(1):
        # There may be fewer different images than clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(number, random_state=0).fit(sample)
    return normalised(fitted.cluster_centers_.astype(np.float32))


def _by_size(clusters: NDArray[np.intp], number: int) -> NDArray[np.intp]:
    """Return clusters numbered from 1, the largest first."""
    order = np.argsort(-np.bincount(clusters, minlength=number), kind="stable")
    numbers = np.empty(number, np.intp)
    numbers[order] = np.arange(1, number + 1)
    return numbers[clusters]
