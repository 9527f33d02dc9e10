"""A question: its parts are found where they are stored, embedded where not, and added up."""

from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.encoders import registry
from vecsearch.errors import ImageNotFound, InvalidInput, Unclear
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search import gallery
from vecsearch.search.lookup import asked_id, image_by_sha256, missing
from vecsearch.search.query import Query
from vecsearch.search.questions import concepts, labels, phrases
from vecsearch.search.questions.concepts import Unmatched, Words
from vecsearch.search.questions.embedder import Embedder, Embedders
from vecsearch.search.questions.originals import open_original
from vecsearch.search.questions.pictures import Picture
from vecsearch.search.questions.terms import Term

# A sum is nothing if it is so much shorter than its largest part: stored numbers are rounded.
NOTHING = 1e-3


@dataclass
class Part:
    """A term of a question, and what is known of it so far.

    Attributes:
        term: the term.
        picture: its picture, unless it is an id or words.
        image: the stored image whose vector is used.
        own: the stored image with its picture, of which only a part may be used.
        words: the concepts that its words mean.
        unmatched: its words, if they are no concept's.
        shares: the concepts that such words may mean, by number, with their shares.
        vectors: its embeddings, shape (n, dimensions), of which the nearest counts.

    """

    term: Term
    picture: Picture | None
    image: UUID | None = None
    own: UUID | None = None
    words: Words | None = None
    unmatched: Unmatched | None = None
    shares: list[tuple[int, float]] | None = None
    vectors: NDArray[np.float32] | None = None

    @property
    def is_found(self) -> bool:
        """Whether its vectors are known, or can be read from the database."""
        return any(each is not None for each in (self.image, self.words, self.shares, self.vectors))

    @property
    def wanted(self) -> Picture | str:
        """The picture or the sentence to embed."""
        return str(self.term.text) if self.picture is None else self.picture


class Question:
    """The parts of a query.

    Attributes:
        parts: the parts.
        labelled: labels that its words name, each with its number of images.

    Raises:
        InvalidInput: a picture cannot be read, or the query names nothing to search for.

    """

    def __init__(self, query: Query) -> None:
        self.parts = []
        self.labelled: dict[str, int] = {}
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
            ImageNotFound: no image has the id or the path.
            InvalidInput: the words are unknown.

        """
        first = self.first_picture
        for part in self.parts:
            term, picture = part.term, part.picture
            if term.text is not None:
                if registry.reads_text(collection.identity):
                    continue
                try:
                    found = concepts.matching(connection, collection, term.text)
                except Unclear as error:
                    table = collection.table
                    raise labels.with_labels(connection, table, error, term.text) from None
                if isinstance(found, Words):
                    part.words = found
                else:
                    part.unmatched = found
            elif picture is None:
                part.image = asked_id(connection, collection.table, term.id or "")
                part.own = part.image
                if term.crop is not None:
                    part.picture = _original(connection, collection, part.image, term)
                    part.image = None
            else:
                table = collection.table
                part.own = (
                    known
                    if picture is first
                    else image_by_sha256(connection, table, picture.sha256, picture.path)
                )
                part.image = part.own if picture.crop is None else None
        texts = [part.term.text for part in self.parts if part.term.text is not None]
        self.labelled = labels.named(connection, collection.table, texts)

    def recall(self, embedder: Embedder) -> bool:
        """Take what the embedder remembers; return whether all parts are found."""
        for part in self.parts:
            if not part.is_found and part.unmatched is None:
                known = embedder.remembered(part.wanted)
                part.vectors = None if known is None else known[np.newaxis]
        return all(part.is_found for part in self.parts)

    def embed(self, embedder: Embedder, embedders: Embedders) -> None:
        """Embed pictures that are not stored, and sentences; hold no connection meanwhile.

        Args:
            embedder: the collection's.
            embedders: whose sentence encoder finds the concepts that a phrase may mean.

        Raises:
            ImageUnreadable: a picture cannot be decoded, or its embedding cannot be compared.
            InvalidInput: a phrase cannot be understood.
            EncoderError: an encoder cannot be loaded.

        """
        for part in self.parts:
            if part.is_found:
                continue
            if part.unmatched is not None:
                part.shares = phrases.nearest(part.unmatched, embedders.sentences)
            elif isinstance(part.wanted, str):
                part.vectors = embedder.embed_text(part.wanted)[np.newaxis]
            else:
                part.vectors = embedder.embed(part.wanted)[np.newaxis]

    def unknown(
        self, connection: sa.Connection, collection: StoredCollection, error: Unclear
    ) -> Unclear:
        """Return the error of `embed` about words, with the labels that may be meant."""
        [text, *_] = [p.unmatched.text for p in self.parts if p.unmatched and p.shares is None]
        return labels.with_labels(connection, collection.table, error, text)

    def target(
        self, connection: sa.Connection, collection: StoredCollection
    ) -> NDArray[np.float32] | UUID:
        """Return a stored image's id or embeddings, as `vecsearch.search.plan.Search` takes.

        Raises:
            ImageNotFound: no image has one of several ids.
            InvalidInput: the parts cancel each other out.

        """
        for part in self.parts:
            if part.shares is not None:
                part.words = concepts.weighted(connection, collection, part.shares)
            if part.words is not None:
                part.vectors = part.words.vectors
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
    def own(self) -> tuple[UUID, ...]:
        """The stored images that the question names, whole or in part."""
        return tuple(part.own for part in self.parts if part.own is not None)

    @property
    def names(self) -> list[str]:
        """The concepts that its words mean."""
        return [name for part in self.parts if part.words for name in part.words.names]

    @property
    def meaning(self) -> str | None:
        """What its words were taken for; None if there are none, or the encoder read them."""
        spoken = [part.words for part in self.parts if part.words is not None]
        if not spoken:
            return None
        if len(self.parts) == 1:
            return spoken[0].meaning
        said = []
        for part in self.parts:
            weight = abs(part.term.weight)
            # In a sum, several concepts are one vector.
            named = f"image {part.term.name}" if part.term.id is not None else part.term.name
            what = named if part.words is None else part.words.mean
            times = "" if weight == 1 else f"{weight:g} × "
            said.append(f"{'like' if part.term.weight > 0 else 'unlike'} {times}{what}")
        return f"Searched for what is {'; '.join(said)}."

    def _stored(
        self, connection: sa.Connection, collection: StoredCollection
    ) -> dict[UUID, NDArray[np.float32]]:
        """Return the embeddings of the stored images, each of shape (1, dimensions)."""
        table = collection.table
        images = [part.image for part in self.parts if part.image is not None]
        wanted = sa.any_(sa.literal(images, sa.ARRAY(sa.Uuid)))
        rows = connection.execute(
            sa.select(table.c.id, table.c.embedding).where(table.c.id == wanted)
        )
        found = {row.id: np.array([row.embedding], np.float32) for row in rows}
        for image in images:
            if image not in found:
                raise missing(collection.name, image)
        return found


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors, shape (…, dimensions), scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths))


def _given(vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert vectors is not None  # noqa: S101 - `embed` has set it
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
