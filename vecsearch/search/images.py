"""What can be read of a collection: its images, labels, thumbnails, errors and state."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.encoders.registry import reads_text
from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog, drop, migrate, thumbnails
from vecsearch.search import gallery
from vecsearch.search.filters import NO_FILTERS, Filters
from vecsearch.search.gallery import Cluster, Label, Map, StoredImage
from vecsearch.search.lookup import asked_id, has_rows, image_by_sha256, missing
from vecsearch.search.questions import concepts, labels
from vecsearch.search.questions.pictures import Picture
from vecsearch.search.status import (
    CollectionStatus,
    IndexStatus,
    IngestError,
    collection_status,
    index_status,
    list_errors,
)
from vecsearch.search.store import Store
from vecsearch.vocabulary import Axes, Colouring, Metric, parse

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

    from vecsearch.postgres.catalog import StoredCollection

# Labels or clusters of a map that are counted.
MOST_GROUPS = 100


class Images:
    """The images of a collection; the part of `vecsearch.collection.Collection` that only reads."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def image(self, image: UUID | str) -> StoredImage:
        """Return the stored image with this id, path, or ending of its path.

        Raises:
            ImageNotFound: there is none.
            Unclear: several paths end so.

        """
        with self._reading() as (connection, stored):
            found = gallery.find_image(
                connection, stored.table, asked_id(connection, stored.table, image)
            )
        if found is None:
            raise missing(self.name, image)
        return found

    def image_of(self, picture: Picture) -> StoredImage | None:
        """Return the stored image with a picture's content; None if there is none."""
        with self._reading() as (connection, stored):
            found = image_by_sha256(connection, stored.table, picture.sha256, picture.path)
            return None if found is None else gallery.find_image(connection, stored.table, found)

    def browse(
        self,
        filters: Filters = NO_FILTERS,
        *,
        after: UUID | None = None,
        before: UUID | None = None,
        limit: int,
    ) -> list[StoredImage]:
        """Return a page of images in order of id; ids are hashes, so the order looks random.

        Args:
            filters: conditions on the images.
            after: the last id of the previous page; None returns the first page.
            before: the first id of the next page; None returns the first page.
            limit: the largest number of images.

        """
        with self._reading() as (connection, stored):
            return gallery.browse(
                connection, stored.table, filters, limit, after=after, before=before
            )

    def count(self, filters: Filters = NO_FILTERS, *, most: int) -> int:
        """Return the number of images that pass the filters, at most `most`."""
        with self._reading() as (connection, stored):
            return gallery.count(connection, stored.table, filters, most)

    def labels(self, limit: int) -> list[Label]:
        """Return the most frequent labels, the most frequent first. Reads every row."""
        with self._reading() as (connection, stored):
            return gallery.list_labels(connection, stored.table, limit)

    def has_label(self, label: str) -> bool:
        """Return whether any image has this label."""
        with self._reading() as (connection, stored):
            return gallery.has_label(connection, stored.table, label)

    def near_labels(self, text: str) -> tuple[dict[str, int], list[str]]:
        """Return labels that a text names in any case, with their images, and others near it."""
        with self._reading() as (connection, stored):
            return labels.suggested(connection, stored.table, text)

    def map(
        self,
        axes: str = Axes.likeness,
        colouring: str = Colouring.label,
        *,
        points: int,
        groups: int = MOST_GROUPS,
    ) -> Map:
        """Return the collection's map; without images if `refresh(["map"])` never made it.

        Args:
            axes: likeness, or place for those that have a latitude and a longitude.
            colouring: label or cluster.
            points: the largest number of points.
            groups: the largest number of groups.

        """
        with self._reading() as (connection, stored):
            return gallery.read_map(
                connection,
                stored.table,
                parse(Axes, axes),
                parse(Colouring, colouring),
                points=points,
                groups=groups,
            )

    def has_place(self) -> bool:
        """Return whether any image has a latitude and a longitude."""
        with self._reading() as (connection, stored):
            return gallery.has_place(connection, stored.table)

    def cluster(self, number: int, *, offset: int = 0, limit: int) -> Cluster:
        """Return a cluster with a page of its images, nearest to its centre first.

        Args:
            number: of the cluster, from 1.
            offset: the number of images to skip.
            limit: the largest number of images.

        Raises:
            InvalidInput: no image is in it.

        """
        with self._reading() as (connection, stored):
            found = gallery.find_cluster(
                connection, stored.table, number, offset=offset, limit=limit
            )
        if found is None:
            raise InvalidInput(
                f"Collection {self.name!r} has no cluster {number}. Clusters are numbered anew "
                "by each vecsearch refresh clusters."
            )
        return found

    def thumbnail(self, image_id: UUID) -> tuple[str, bytes] | None:
        """Return an image's SHA-256 and thumbnail; None if there is no such image or thumbnail."""
        with self._reading() as (connection, stored):
            return thumbnails.get(connection, stored.table, image_id)

    def thumbnails(self, ids: Iterable[UUID]) -> dict[UUID, bytes]:
        """Return thumbnails by id; ids without a stored image or thumbnail are left out."""
        with self._reading() as (connection, stored):
            return thumbnails.find(connection, stored.table, ids)

    def is_empty(self) -> bool:
        """Return whether the collection has no image."""
        with self._reading() as (connection, stored):
            return not has_rows(connection, stored.table, 1)

    def status(self) -> CollectionStatus:
        """Return the size of the collection and the state of its index. Counts every row."""
        with self._reading() as (connection, stored):
            return collection_status(connection, stored)

    def index_status(self) -> IndexStatus:
        """Return the state of the index, and the resources that a build would use."""
        with self._reading() as (connection, stored):
            return index_status(connection, stored, self._store.resources())

    def dependents(self) -> list[str]:
        """Describe the views, functions and constraints of others that depend on the table."""
        with self._reading() as (connection, _):
            return drop.dependents(connection, self.name)

    def errors(self) -> list[IngestError]:
        """Return the files that could not be ingested, with the reasons."""
        with migrate.reading_current(self._store.reader) as connection:
            return list_errors(connection, self.name)

    def default_metric(self) -> Metric:
        """Return the metric of a query that names none."""
        with self._reading() as (_, stored):
            return stored.default_metric

    def reads_text(self) -> bool:
        """Return whether `query(text=…)` takes any sentence, instead of `concepts`."""
        with self._reading() as (_, stored):
            return reads_text(stored.identity)

    def has_compact(self) -> bool:
        """Return whether compact vectors can rank the hits of searches by cosine."""
        with self._reading() as (_, stored):
            return stored.has_ranking_compact

    def has_concepts(self) -> bool:
        """Return whether `query(text=…)` finds stored concepts; see `Collection.concepts`."""
        with self._reading() as (connection, stored):
            return concepts.has_any(connection, stored)

    def warm(self) -> None:
        """Load the encoder now, so that the first query with a new picture need not wait.

        Raises:
            EncoderError: it cannot be loaded.

        """
        with self._reading() as (_, stored):
            embedder = self._store.embedders.of(stored)
        embedder.warm()

    def _reading(self) -> "AbstractContextManager[tuple[sa.Connection, StoredCollection]]":
        return catalog.reading(self._store.reader, self.name)
