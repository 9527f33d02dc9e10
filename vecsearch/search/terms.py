"""The parts of a question: found where they are stored, embedded where not, added up."""

from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.errors import ImageNotFound, InvalidInput
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import concepts, gallery
from vecsearch.search.embedder import Embedder, Picture
from vecsearch.search.lookup import image_by_sha256, missing, parse_id
from vecsearch.search.originals import open_original
from vecsearch.search.query import Query, Term

# A sum is nothing if it is so much shorter than its largest part: stored numbers are rounded.
NOTHING = 1e-3


@dataclass
class Part:
    """A term of a question, and what is known of it so far.

    Attributes:
        term: the term.
        picture: its picture, unless it is an id or words.
        image: the stored image whose vector is used.
        vectors: its embeddings, shape (n, dimensions), of which the nearest counts.
        names: the concepts that its words mean.

    """

    term: Term
    picture: Picture | None
    image: UUID | None = None
    vectors: NDArray[np.float32] | None = None
    names: tuple[str, ...] = ()


class Question:
    """The parts of a query.

    Raises:
        InvalidInput: a picture cannot be read, or the query names nothing to search for.

    """

    def __init__(self, query: Query) -> None:
        self.parts = []
        for term in query.parts:
            picture = None if term.image is None else Picture.read(term.image)
            if picture is not None and term.crop is not None:
                picture = replace(picture, crop=term.crop)
            self.parts.append(Part(term, picture))

    @property
    def first_picture(self) -> Picture | None:
        """The first picture that may be in the collection as it is."""
        pictures = (part.picture for part in self.parts)
        return next((each for each in pictures if each is not None and each.crop is None), None)

    def find(
        self, connection: sa.Connection, collection: StoredCollection, known: UUID | None
    ) -> None:
        """Find what is stored: images by id or content, and words.

        Args:
            connection: in a transaction.
            collection: the collection to search.
            known: the stored image with the content of `first_picture`.

        Raises:
            ImageNotFound: no image has the id.
            InvalidInput: the words are unknown.

        """
        first = self.first_picture
        for part in self.parts:
            term, picture = part.term, part.picture
            if term.text is not None:
                names, part.vectors = concepts.matching(connection, collection, term.text)
                part.names = tuple(names)
            elif picture is None:
                part.image = parse_id(term.id or "")
                if term.crop is not None:
                    part.picture = _original(connection, collection, part.image, term)
                    part.image = None
            elif picture.crop is None:
                table = collection.table
                part.image = (
                    known
                    if picture is first
                    else image_by_sha256(connection, table, picture.sha256, picture.path)
                )

    def embed(self, embedder: Embedder, *, remembered: bool) -> bool:
        """Embed the pictures that are not stored; return whether all parts have vectors or ids.

        Args:
            embedder: the collection's.
            remembered: take only what the embedder remembers.

        Raises:
            ImageUnreadable: a picture cannot be decoded, or its embedding cannot be compared.
            EncoderError: the encoder cannot be loaded.

        """
        for part in self.parts:
            if part.picture is None or part.image is not None or part.vectors is not None:
                continue
            get = embedder.remembered if remembered else embedder.embed
            found = get(part.picture)
            if found is None:
                return False
            part.vectors = found[np.newaxis]
        return True

    def target(
        self, connection: sa.Connection, collection: StoredCollection
    ) -> NDArray[np.float32] | UUID:
        """Return a stored image's id or embeddings, as `vecsearch.search.plan.Search` takes.

        Raises:
            ImageNotFound: no image has one of several ids.
            InvalidInput: the parts cancel each other out.

        """
        if len(self.parts) == 1:
            [part] = self.parts
            vectors = part.vectors
            return part.image if vectors is None and part.image is not None else _given(vectors)
        stored = self._stored(connection, collection)
        total = np.zeros(collection.dimensions)
        for part in self.parts:
            vectors = stored[part.image] if part.image is not None else _given(part.vectors)
            total += part.term.weight * unit(unit(vectors.astype(np.float64)).sum(axis=0))
        if np.linalg.norm(total) <= NOTHING * max(abs(part.term.weight) for part in self.parts):
            names = ", ".join(part.term.name for part in self.parts)
            raise InvalidInput(
                f"The parts of the question cancel each other out, so nothing is left to search "
                f"for: {names}. Change a weight, or leave one out."
            )
        return unit(total).astype(np.float32)

    @property
    def images(self) -> tuple[UUID, ...]:
        """The stored images that the question names."""
        return tuple(part.image for part in self.parts if part.image is not None)

    @property
    def names(self) -> list[str]:
        """The concepts that its words mean."""
        return [name for part in self.parts for name in part.names]

    def _stored(
        self, connection: sa.Connection, collection: StoredCollection
    ) -> dict[UUID, NDArray[np.float32]]:
        """Return the embeddings of the stored images, each of shape (1, dimensions)."""
        table = collection.table
        wanted = sa.any_(sa.literal(list(self.images), sa.ARRAY(sa.Uuid)))
        rows = connection.execute(
            sa.select(table.c.id, table.c.embedding).where(table.c.id == wanted)
        )
        found = {row.id: np.array([row.embedding], np.float32) for row in rows}
        for image in self.images:
            if image not in found:
                raise missing(collection.name, image)
        return found


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors, shape (…, dimensions), scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths))


def _given(vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert vectors is not None  # noqa: S101 - `embed` or `find` has set it
    return vectors


def _original(
    connection: sa.Connection, collection: StoredCollection, image: UUID, term: Term
) -> Picture:
    """Return the file of a stored image, of which a part is wanted.

    Raises:
        ImageNotFound: no image has this id.
        InvalidInput: the file is gone or has changed, or was never ingested.

    """
    stored = gallery.find_image(connection, collection.table, image)
    if stored is None:
        raise missing(collection.name, image)
    try:
        with open_original(stored) as file:
            return Picture(file.read(), stored.path, term.crop)
    except ImageNotFound as error:
        raise InvalidInput(f"No part of this image can be searched by. {error}") from error
