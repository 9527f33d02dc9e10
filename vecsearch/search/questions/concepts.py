"""Words in an encoder's space: stored once for each encoder, found by name or definition."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from sqlalchemy.dialects.postgresql import ARRAY, insert

from vecsearch.encoders import registry
from vecsearch.encoders.base import POOLED
from vecsearch.errors import Unclear
from vecsearch.postgres import catalog, database, tables
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.questions.labels import near

# Names that a sentence lists before it counts the rest.
MOST_LISTED = 6


@dataclass(frozen=True)
class Word:
    """A concept as people read it; see `vecsearch.encoders.base.Concept`."""

    number: int
    name: str
    synonyms: list[str]
    definition: str


def ensure(engine: sa.Engine, name: str) -> None:
    """Store the concepts of a collection's encoder, if it has any and they are missing.

    Raises:
        WeightsUnavailable: the encoder's weights cannot be read.

    """
    with catalog.reading(engine, name) as (connection, collection):
        if has_any(connection, collection):
            return
    rows = [
        {
            "encoder": collection.identity.weights_sha256,
            "number": concept.number,
            "name": concept.name,
            "synonyms": list(concept.synonyms),
            "definition": concept.definition,
            "embedding": HalfVector(concept.embedding),
            "bias": concept.bias,
        }
        for concept in registry.concepts(collection.identity, collection.weights.source)
    ]
    if rows:
        with database.writing(engine) as connection:
            connection.execute(insert(tables.concepts).on_conflict_do_nothing(), rows)


@dataclass(frozen=True)
class Words:
    """What a text means in a collection.

    Attributes:
        names: of the concepts, those that count most first.
        weights: the concepts' shares of the one vector, which add up to 1; None if each concept has
            a vector of its own, and the nearest counts.
        vectors: to compare images with by cosine, shape (n, dimensions); (1, dimensions) if there
            are weights.
        meaning: what the text was taken for, as a sentence.

    """

    names: list[str]
    weights: list[float] | None
    vectors: NDArray[np.float32]
    meaning: str

    @property
    def mean(self) -> str:
        """What the mean of the vectors stands for, as a phrase."""
        if len(self.names) == 1:
            return f"the concept {self.names[0]}"
        of = "the mean of" if self.weights is None else "a mixture of"
        return f"{of} {len(self.names)} concepts ({_some_of(self.names)})"


@dataclass(frozen=True)
class Unmatched:
    """A text that no concept's name or definition matches, and the concepts that there are.

    `vecsearch.search.questions.phrases` finds those that it may mean.
    """

    collection: str
    text: str
    words: list[Word]

    def error(self, step: str) -> Unclear:
        """Return the error that says so, names the closest ones and ends with a next step."""
        names = {name: word.name for word in self.words for name in [word.name, *word.synonyms]}
        closest = list(dict.fromkeys(names[name] for name in near(self.text, names)))
        return Unclear(
            f"{self.text!r} is none of the {len(self.words):,} concepts of collection "
            f"{self.collection!r}.",
            step=f"To list the concepts: vecsearch concepts --collection {self.collection}. {step}",
            near={"concepts": closest},
        )


def matching(
    connection: sa.Connection, collection: StoredCollection, text: str
) -> Words | Unmatched:
    """Return what a text means by the concepts' own words.

    Those of this name or number; if there are none, those with such a synonym; if there are none,
    the same without a plural's s; if there are none, those whose name, synonyms and definition
    have all its words, in any form and order.

    Raises:
        Unclear: the collection has no concepts.

    """
    wanted = " ".join(text.replace("_", " ").split()).lower()
    singular = wanted.removesuffix("s")
    found = _named(connection, collection, wanted) or _named(connection, collection, singular)
    says = ""
    if not found:
        found = _described(connection, collection, wanted)
        says = f" that {'matches' if len(found) == 1 else 'match'} {text!r}"
    if not found:
        words = listed(connection, collection)
        if not words:
            raise _without_concepts(collection)
        return Unmatched(collection.name, text, words)
    names = _distinct([(row.number, row.name) for row in found])
    meaning = (
        f"Searched for the concept{says}: {names[0]}."
        if len(names) == 1
        else f"Searched for any of the {len(names)} concepts{says}: {_some_of(names)}."
    )
    return Words(names, None, np.array([row.embedding for row in found], np.float32), meaning)


def weighted(
    connection: sa.Connection, collection: StoredCollection, shares: Sequence[tuple[int, float]]
) -> Words:
    """Return the mean of concepts' normalised vectors.

    Args:
        connection: in a transaction.
        collection: whose concepts.
        shares: the concepts' numbers and weights, which add up to 1.

    Raises:
        Unclear: the collection has no such concepts any more.

    """
    columns = tables.concepts.c
    numbers = sa.any_(sa.literal([number for number, _ in shares], ARRAY(sa.Integer)))
    rows = connection.execute(
        sa.select(columns.number, columns.name, columns.embedding).where(
            columns.encoder == _encoder(collection), columns.number == numbers
        )
    )
    found = {row.number: row for row in rows}
    if len(found) != len(shares):
        raise _without_concepts(collection)
    vectors = np.array([found[number].embedding for number, _ in shares], np.float64)
    weights = [weight for _, weight in shares]
    mean = np.array(weights) @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    names = _distinct([(number, found[number].name) for number, _ in shares])
    parts = [f"{name} {weight:.0%}" for name, weight in zip(names, weights, strict=True)]
    meaning = f"Searched for a mixture of the concepts nearest to the phrase: {', '.join(parts)}."
    return Words(names, weights, mean.astype(np.float32)[np.newaxis], meaning)


class _Found(NamedTuple):
    """A concept that matches."""

    number: int
    name: str
    embedding: list[float]


def _named(connection: sa.Connection, collection: StoredCollection, wanted: str) -> list[_Found]:
    """Return the concepts of this name or number or else those with this synonym, by number."""
    columns = tables.concepts.c
    synonyms = sa.func.string_to_array(
        sa.func.lower(sa.func.array_to_string(columns.synonyms, "\n")), "\n"
    )
    rank = sa.case(
        (sa.func.lower(columns.name) == wanted, 0),
        (sa.cast(columns.number, sa.Text) == wanted, 0),
        (synonyms.op("@>")(sa.cast([wanted], ARRAY(sa.Text))), 1),
    ).label("rank")
    found = (
        sa.select(columns.number, columns.name, columns.embedding, rank)
        .where(columns.encoder == _encoder(collection))
        .subquery()
    )
    rows = connection.execute(
        sa.select(found).where(found.c.rank.is_not(None)).order_by(found.c.rank, found.c.number)
    ).all()
    return [_Found(*row[:3]) for row in rows if row.rank == rows[0].rank]


def _described(
    connection: sa.Connection, collection: StoredCollection, wanted: str
) -> list[_Found]:
    """Return the concepts whose name, synonyms and definition have these words, by number."""
    columns = tables.concepts.c
    english: sa.ColumnElement[Any] = sa.literal_column("CAST('pg_catalog.english' AS regconfig)")
    synonyms = sa.func.array_to_string(columns.synonyms, " ")
    everything = sa.func.concat_ws(" ", columns.name, synonyms, columns.definition)
    asked = sa.func.plainto_tsquery(english, wanted)
    rows = connection.execute(
        sa.select(columns.number, columns.name, columns.embedding)
        .where(
            columns.encoder == _encoder(collection),
            sa.func.to_tsvector(english, everything).op("@@")(asked),
        )
        .order_by(columns.number)
    )
    return [_Found(*row) for row in rows]


def listed(connection: sa.Connection, collection: StoredCollection) -> list[Word]:
    """Return the collection's concepts, by number."""
    columns = tables.concepts.c
    rows = connection.execute(
        sa.select(columns.number, columns.name, columns.synonyms, columns.definition)
        .where(columns.encoder == _encoder(collection))
        .order_by(columns.number)
    )
    return [Word(*row) for row in rows]


def _encoder(collection: StoredCollection) -> str | None:
    """Return the encoder whose concepts are in the collection's space; None if there are none."""
    identity = collection.identity
    return identity.weights_sha256 if identity.layer == POOLED else None


def has_any(connection: sa.Connection, collection: StoredCollection) -> bool:
    """Return whether concepts of the collection's encoder are stored."""
    columns = tables.concepts.c
    found = sa.select(sa.literal(1)).where(columns.encoder == _encoder(collection)).limit(1)
    return connection.scalar(found) is not None


def _without_concepts(collection: StoredCollection) -> Unclear:
    return Unclear(
        f"Collection {collection.name!r} has no concepts, so it cannot be searched by words.",
        step="If its encoder has an ImageNet classifier: vecsearch concepts --collection "
        f"{collection.name}",
    )


def _distinct(concepts: list[tuple[int, str]]) -> list[str]:
    """Return the names of numbered concepts, with the numbers of those that share one."""
    times = Counter(name for _, name in concepts)
    return [name if times[name] == 1 else f"{name} ({number})" for number, name in concepts]


def _some_of(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    listed = ", ".join(names[:MOST_LISTED])
    return f"{listed} and {more} more" if more > 0 else listed
