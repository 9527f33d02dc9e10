"""Words in an encoder's space: stored once for each encoder, found by name."""

import difflib
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from sqlalchemy.dialects.postgresql import ARRAY, insert

from vecsearch.encoders import registry
from vecsearch.encoders.base import POOLED
from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog, database, schema
from vecsearch.postgres.catalog import StoredCollection

NEAREST = 5


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
        if _has_any(connection, collection):
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
            connection.execute(insert(schema.concepts).on_conflict_do_nothing(), rows)


def matching(
    connection: sa.Connection, collection: StoredCollection, text: str
) -> tuple[list[str], NDArray[np.float32]]:
    """Return the concepts that a text names: their names, and embeddings (concepts, dimensions).

    Those of this name or number; if there are none, those with such a synonym; if there are none,
    those that contain the text as whole words; if there are none, the same without a plural's s.

    Raises:
        InvalidInput: there is no such concept.

    """
    wanted = " ".join(text.replace("_", " ").split()).lower()
    found = _found(connection, collection, wanted)
    if not found and len(wanted) > 1:
        found = _found(connection, collection, wanted.removesuffix("s"))
    if not found:
        raise _unknown(connection, collection, text)
    names = Counter(row.name for row in found)
    return [
        row.name if names[row.name] == 1 else f"{row.name} ({row.number})" for row in found
    ], np.array([row.embedding for row in found], np.float32)


def _found(
    connection: sa.Connection, collection: StoredCollection, wanted: str
) -> list[sa.Row[tuple[int, str, list[float], int]]]:
    """Return the concepts that match best, by number."""
    columns = schema.concepts.c
    everything = sa.func.concat_ws(
        "\n", columns.name, sa.func.array_to_string(columns.synonyms, "\n")
    )
    lines = sa.func.string_to_array(sa.func.lower(everything), "\n")
    rank = sa.case(
        (sa.func.lower(columns.name) == wanted, 0),
        (sa.cast(columns.number, sa.Text) == wanted, 0),
        (lines.op("@>")(sa.cast([wanted], ARRAY(sa.Text))), 1),
        (everything.regexp_match(rf"(^|\s){re.escape(wanted)}(\s|$)", flags="i"), 2),
    ).label("rank")
    found = (
        sa.select(columns.number, columns.name, columns.embedding, rank)
        .where(columns.encoder == _encoder(collection))
        .subquery()
    )
    rows = connection.execute(
        sa.select(found).where(found.c.rank.is_not(None)).order_by(found.c.rank, found.c.number)
    ).all()
    return [row for row in rows if row.rank == rows[0].rank]


def listed(connection: sa.Connection, collection: StoredCollection) -> list[Word]:
    """Return the collection's concepts, by number."""
    columns = schema.concepts.c
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


def _has_any(connection: sa.Connection, collection: StoredCollection) -> bool:
    columns = schema.concepts.c
    found = sa.select(sa.literal(1)).where(columns.encoder == _encoder(collection)).limit(1)
    return connection.scalar(found) is not None


def _unknown(connection: sa.Connection, collection: StoredCollection, text: str) -> InvalidInput:
    """Return the error for a text that names no concept."""
    words = listed(connection, collection)
    if not words:
        return InvalidInput(
            f"Collection {collection.name!r} has no concepts, so it cannot be searched by words. "
            f"If its encoder has an ImageNet classifier: vecsearch concepts --collection "
            f"{collection.name}"
        )
    names = {
        part.lower(): name
        for word in words
        for name in [word.name, *word.synonyms]
        for part in [*name.split(), name]
    }
    within = [part for part in text.lower().split() if part in names]
    near = [*within, *difflib.get_close_matches(text.lower(), names, n=NEAREST)]
    closest = ", ".join(list(dict.fromkeys(names[part] for part in near))[:NEAREST])
    closest = f" The closest: {closest}." if near else ""
    return InvalidInput(
        f"{text!r} is none of the {len(words):,} concepts of collection {collection.name!r}."
        f"{closest} To list them: vecsearch concepts --collection {collection.name}"
    )
