"""The collection that a run writes to: found, or created with the first chunk to be stored."""

from collections.abc import Iterator
from uuid import UUID

import sqlalchemy as sa

from vecsearch.encoders.base import Encoder, averaging
from vecsearch.errors import EncoderMismatch
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.thumbnails import Thumbnail
from vecsearch.ingest import pending, writes
from vecsearch.ingest.stages.chunk import Chunk
from vecsearch.ingest.stages.places import MadeBy, Product
from vecsearch.ingest.writes import Embedded
from vecsearch.postgres import catalog, tables, thumbnails
from vecsearch.postgres.rows import writing
from vecsearch.search import collections
from vecsearch.vocabulary import counted


class Target:
    """A collection that need not exist yet.

    Args:
        connection: a session of the run's own, outside any transaction.
        name: the collection.
        encoder: used, and so loaded, only if there is new content.
        index_method: of a new collection; None: hnsw.

    Attributes:
        collection: None until there is one.
        has_created: whether the run, or another at the same time, created it.

    """

    def __init__(
        self, connection: sa.Connection, name: str, encoder: Encoder, index_method: str | None
    ) -> None:
        self.collection: catalog.StoredCollection | None = None
        self.has_created = False
        self._connection = connection
        self._name = name
        self._encoder = encoder
        self._index_method = index_method
        self._not_drawn: list[Unreadable] = []
        self._note_of_layer: str | None = None

    @property
    def table(self) -> sa.Table | None:
        """The collection's table; None until there is one."""
        return None if self.collection is None else self.collection.table

    def made_by(self) -> MadeBy:
        """Return the collection's encoder, or that of the new one, which is loaded for it."""
        stored = self.collection
        identity = self._encoder.identity if stored is None else stored.identity
        return MadeBy(identity, self._encoder.weights)

    def find(self) -> None:
        """Look for the collection; the connection is in a transaction.

        Raises:
            InvalidInput: it has another index than the one that is asked for.

        """
        exists = self._connection.scalar(
            sa.select(sa.func.to_regclass(tables.collections.fullname))
        )
        # A dry run may meet a database that has no tables yet.
        if exists:
            self.collection = catalog.find_collection(self._connection, self._name)
        if self.collection is not None:
            collections.require_index_method(self.collection, self._index_method)

    def store(self, chunk: Chunk) -> dict[UUID, str]:
        """Wait for what a chunk's contents become, and store all of it or nothing.

        Returns:
            Why files turned out to be unreadable, by id.

        """
        product = Product({}, {}) if chunk.making is None else chunk.making.result()
        drawn = [item.thumbnail for item in product.encoded.values()]
        drawn += [item for item in product.drawn if isinstance(item, Thumbnail)]
        self._not_drawn += [item for item in product.drawn if isinstance(item, Unreadable)]
        if product.added and not drawn and not chunk.unreadable:
            is_stored = all(item.id in product.added for item in chunk.decisions)
            if is_stored:
                return {}
        with writing(self._connection, self._name):
            thumbnails.hold(self._connection)
            failed = self._write(chunk, product)
            if drawn:
                thumbnails.store(self._connection, drawn)
            unreadable = [
                Unreadable(item.file.path, failed[item.id])
                for item in chunk.decisions
                if item.id in failed
            ]
            writes.write_errors(
                self._connection,
                self._name,
                [*chunk.unreadable, *unreadable],
                [item.file.path for item in chunk.decisions if item.id not in failed],
            )
        return failed

    def _write(self, chunk: Chunk, product: Product) -> dict[UUID, str]:
        """Write the rows that are not stored yet; return why files fail, by id."""
        encoded = product.encoded
        failed = pending.record_failures(self._connection, chunk.number, product.reasons)
        if encoded and self.collection is None:
            self._create()
        if self.table is None:
            return failed
        chunk.overtake(
            pending.record_overtaken(self._connection, self.table, chunk.number, product.added)
        )
        done = failed.keys() | product.added
        left = [item for item in chunk.decisions if item.is_written and item.id not in done]
        embedded = [
            Embedded(item.file, encoded[item.sha256].facts, encoded[item.sha256].embedding)
            for item in left
            if item.source is None
        ]
        known = [item for item in left if item.source is not None]
        writes.write_files(self._connection, self.table, embedded, known)
        return failed

    def _create(self) -> None:
        encoder = self._encoder
        self.collection = collections.create(
            self._connection,
            self._name,
            encoder.identity,
            encoder.weights,
            encoder.dimensions,
            index_method=self._index_method,
        )
        self.has_created = True
        if self.collection.identity != encoder.identity:
            raise EncoderMismatch(
                f"Another command has just made collection {self._name!r} with another encoder. "
                "Use a collection of its own: --collection NAME"
            )
        self._note_of_layer = averaging(encoder)

    def remarks(self) -> Iterator[str]:
        """Yield notes for the user."""
        if self._note_of_layer is not None:
            yield self._note_of_layer
        if self._not_drawn:
            item = self._not_drawn[0]
            yield (
                f"No thumbnail could be made of {counted(len(self._not_drawn), 'stored image')}. "
                f"The first is {item.path}: {item.reason}"
            )
