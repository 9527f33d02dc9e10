"""Tags: the concepts that each image shows most probably, by its encoder's own classifier.

They are stored, because computing those of every row for a filter would take minutes. Whoever
writes rows calls `follow`, and `forget` if it deletes some; `ensure` tags the rows that others
wrote. The view NAME_tags leaves out tags of rows that others deleted.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.encoders.base import POOLED
from vecsearch.postgres import catalog, database, schema, tables
from vecsearch.postgres.database import driver_connection, translated
from vecsearch.postgres.rows import analyze, copy_rows, writing
from vecsearch.postgres.sessions.settings import READING_LIMITS
from vecsearch.search import lookup, statement
from vecsearch.search.indexes import vectors
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.indexes.projection import normalised
from vecsearch.search.questions import concepts
from vecsearch.search.questions.pictures import Picture
from vecsearch.search.store import Store

# An image has at most so many tags, of at least this probability; the first whatever it is.
MOST = 5
LEAST = 0.01
_CACHE = "vecsearch.classifier"


@dataclass(frozen=True)
class Tag:
    """A concept that an image shows, and the probability of that among all concepts."""

    name: str
    probability: float
    number: int


@dataclass(frozen=True)
class Tagged:
    """An image with its tags, the most probable first.

    Attributes:
        path: None for the bytes of a picture.
        id: None for a picture that is not in the collection.

    """

    path: str | None
    tags: list[Tag]
    id: uuid.UUID | None


@dataclass(frozen=True)
class Frequency:
    """A concept, and the number of images that show it more probably than any other."""

    name: str
    images: int


@dataclass(frozen=True)
class Classifier:
    """An encoder's last layer, which it was trained with.

    Attributes:
        encoder: as in the table `concepts`.
        numbers, names: of the classes.
        weights: shape (classes, dimensions).
        biases: shape (classes,).

    """

    encoder: str
    numbers: list[int]
    names: list[str]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]

    def tags(self, embeddings: NDArray[np.float32]) -> list[list[Tag]]:
        """Return the tags of images, the most probable first.

        A class's probability is the softmax of its logit over all classes.

        Args:
            embeddings: shape (images, dimensions).

        """
        logits = embeddings @ self.weights.T + self.biases
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        most = min(MOST, len(self.names))
        best = np.argpartition(-probabilities, most - 1, axis=1)[:, :most]
        values = np.take_along_axis(probabilities, best, axis=1)
        order = np.argsort(-values, axis=1)
        best, values = (np.take_along_axis(found, order, axis=1) for found in (best, values))
        return [
            [
                Tag(self.names[position], probability, self.numbers[position])
                for rank, (position, probability) in enumerate(zip(*image, strict=True))
                if rank == 0 or probability >= LEAST
            ]
            for image in zip(best.tolist(), values.tolist(), strict=True)
        ]

    def nearest(self, vectors: NDArray[np.float32]) -> list[str]:
        """Return the name of the concept that is nearest to each vector by cosine.

        Args:
            vectors: of length 1, shape (n, dimensions).

        """
        similar = vectors @ normalised(self.weights).T
        return [self.names[position] for position in similar.argmax(axis=1)]


class Tags:
    """The tags of one collection; creating this object does not access the database.

    Methods raise what those of `vecsearch.collection.Collection` raise.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def ensure(self, *, on_progress: OnProgress = quiet) -> int | None:
        """Tag the images that have no tags; see `ensure`."""
        return ensure(self._store.engine, self._name, on_progress=on_progress)

    def of(self, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[Tag]]:
        """Return the tags of images by id, in one round trip; an empty list where there are none.

        This alone does not find out whether the collection exists.
        """
        found: dict[uuid.UUID, list[Tag]] = {id_: [] for id_ in ids}
        with database.pipelining(self._store.reader) as connection:
            rows = driver_connection(connection).execute(
                f"SELECT id, name, probability, number FROM {tables.tags.fullname}"
                " WHERE collection = %s AND id = ANY(%s) ORDER BY id, rank",
                [self._name, list(found)],
                prepare=True,
            )
            for image, *tag in rows:
                found[image].append(Tag(*tag))
        return found

    def of_picture(self, image: str | Path | bytes | Picture) -> Tagged:
        """Return the tags of a picture, which need not be in the collection.

        Raises:
            InvalidInput: the file cannot be read.
            EncoderError: the picture is not in the collection, and its encoder cannot be loaded.

        """
        picture = Picture.read(image)
        with catalog.reading(self._store.reader, self._name) as (connection, stored):
            known = lookup.image_by_sha256(connection, stored.table, picture.sha256, picture.path)
            classifier = classifier_of(connection, self._name)
        if classifier is None:
            return Tagged(picture.path, [], known)
        if known is not None:
            return Tagged(picture.path, self.of([known])[known], known)
        embedding = self._store.embedders.of(stored).embed(picture)
        return Tagged(picture.path, classifier.tags(embedding[np.newaxis])[0], None)

    def listed(self, *, where: str | None = None, limit: int | None = None) -> list[Tagged]:
        """Return images with their tags, by path.

        Args:
            where: an SQL condition on the collection's columns; only from a trusted user.
            limit: the largest number of images; None for all.

        """
        rows = self._read(
            """
            SELECT i.path, i.id, array_agg(t.name ORDER BY t.rank),
                array_agg(t.probability ORDER BY t.rank), array_agg(t.number ORDER BY t.rank)
            FROM (SELECT id, path FROM {images} ORDER BY path{limit}) AS i
            LEFT JOIN {tags} AS t ON t.id = i.id
            GROUP BY i.path, i.id ORDER BY i.path""",
            where,
            limit,
        )
        return [
            # Without tags, the join has one row of nulls.
            Tagged(path, [Tag(*tag) for tag in zip(*tags, strict=True) if tag[0] is not None], id_)
            for path, id_, *tags in rows
        ]

    def counted(self, *, where: str | None = None, limit: int | None = None) -> list[Frequency]:
        """Return the concepts that are images' first tags, the most frequent first.

        Args:
            where: see `listed`.
            limit: the largest number of concepts; None for all.

        """
        rows = self._read(
            """
            SELECT t.name, count(*)
            FROM (SELECT id FROM {images}) AS i JOIN {tags} AS t ON t.id = i.id AND t.rank = 1
            GROUP BY t.number, t.name ORDER BY count(*) DESC, t.name{limit}""",
            where,
            limit,
        )
        return [Frequency(*row) for row in rows]

    def _read(self, select: str, where: str | None, limit: int | None) -> list[tuple[Any, ...]]:
        with catalog.reading(self._store.reader, self._name) as (connection, stored):
            driver = driver_connection(connection)
            images = f"{schema.sql_name(stored.table)} AS {schema.sql_name(self._name)}"
            if where is not None:
                statement.require_condition(
                    connection, stored.table, where, is_distributed=stored.is_distributed
                )
                database.apply_limits(driver, READING_LIMITS)
                images += f" WHERE (\n{where}\n)"
            text = select.format(
                images=images,
                tags=f"{tables.SCHEMA}.{self._name}{schema.TAGS_SUFFIX}",
                limit="" if limit is None else f" LIMIT {limit}",
            )
            with translated(text):
                return driver.execute(text.encode()).fetchall()


def follow(connection: sa.Connection, collection: str, source: str) -> None:
    """Replace the tags of rows that have just got their embeddings.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`.
        collection: the collection of the rows.
        source: SQL for a table with their columns id and embedding.

    """
    forget(connection, collection, f"SELECT id FROM {source} AS written")
    after: uuid.UUID | None = None
    while True:
        _, after = _fill(connection, collection, source, after)
        if after is None:
            break


def forget(connection: sa.Connection, collection: str, chosen: str, **values: Any) -> None:
    """Delete the tags of the rows whose ids a SELECT with these values gives; see `follow`."""
    connection.execute(
        sa.text(
            f"DELETE FROM {tables.tags.fullname}"
            f" WHERE collection = :collection AND id IN ({chosen})"
        ),
        {"collection": collection, **values},
    )


def ensure(engine: sa.Engine, name: str, *, on_progress: OnProgress = quiet) -> int | None:
    """Tag the rows that have no tags; return how many, or None if the encoder has no concepts.

    These are rows that other programs wrote, or that are older than the collection's concepts,
    which are stored if they are missing.

    Args:
        engine: the database's engine.
        name: the collection.
        on_progress: called after each chunk of rows.

    Raises:
        WeightsUnavailable: the encoder's weights, which have the concepts, cannot be read.

    """
    concepts.ensure(engine, name)
    with catalog.reading(engine, name) as (connection, stored):
        source = schema.sql_name(stored.table)
        if classifier_of(connection, name) is None:
            return None
        # If nothing is missing, the role need not be one that may write.
        untagged = _untagged(name, source, None)
        if not connection.scalar(sa.text(f"SELECT EXISTS ({untagged})")):
            return 0
    done, after = 0, None
    while True:
        with database.session(engine) as connection, writing(connection, name):
            added, after = _fill(connection, name, source, after)
            if after is None:
                analyze(connection, tables.tags)
        done += added
        on_progress("Tagging", done, None)
        if after is None:
            return done


def _untagged(collection: str, source: str, after: uuid.UUID | None) -> str:
    """Return a SELECT of ids and embeddings of the rows after an id that have no tags."""
    start = uuid.UUID(int=0) if after is None else after
    # The same bound on the tags avoids reading those of earlier chunks.
    behind = f"id {'>=' if after is None else '>'} '{start}'"
    tagged = (
        f"SELECT id AS of FROM {tables.tags.fullname}"
        f" WHERE collection = '{collection}' AND rank = 1 AND {behind}"
    )
    # A join, because Citus has no NOT EXISTS from shards to the coordinator's tables.
    return (
        f"SELECT id, embedding FROM {source} AS i LEFT JOIN ({tagged}) AS t ON t.of = i.id"
        f" WHERE i.{behind} AND t.of IS NULL"
    )


def _fill(
    connection: sa.Connection, collection: str, source: str, after: uuid.UUID | None
) -> tuple[int, uuid.UUID | None]:
    """Tag the next chunk of rows that have no tags.

    Args:
        connection: see `follow`.
        collection: likewise.
        source: likewise.
        after: the last id of the previous chunk; None starts with the first row.

    Returns:
        The number of tagged rows, and the last id of the chunk; None if no rows are left.

    """
    classifier = classifier_of(connection, collection)
    if classifier is None:
        return 0, None
    untagged = _untagged(collection, source, after)
    ids, embeddings = vectors.read(connection, f"{untagged} ORDER BY id LIMIT {vectors.CHUNK}")
    if len(ids) == 0:
        return 0, None
    images = [uuid.UUID(bytes=id_.tobytes()) for id_ in ids]
    copy_rows(
        connection,
        tables.tags.fullname,
        "text uuid int2 text int2 float4",
        (
            (collection, image, rank, tag.name, tag.number, tag.probability)
            for image, tags in zip(images, classifier.tags(embeddings), strict=True)
            for rank, tag in enumerate(tags, start=1)
        ),
    )
    return len(ids), images[-1] if len(ids) == vectors.CHUNK else None


def classifier_of(connection: sa.Connection, collection: str) -> Classifier | None:
    """Return the classifier of a collection's encoder; None if its concepts are not stored.

    Each connection caches one, up to 8 MB.
    """
    encoder: str | None = connection.scalar(
        sa.text(
            "SELECT weights_sha256 FROM vecsearch.collections AS own"
            " WHERE name = :collection AND layer = :pooled AND EXISTS"
            " (SELECT FROM vecsearch.concepts WHERE encoder = own.weights_sha256)"
        ),
        {"collection": collection, "pooled": POOLED},
    )
    if encoder is None:
        return None
    cached: Classifier | None = connection.info.get(_CACHE)
    if cached is None or cached.encoder != encoder:
        columns = tables.concepts.c
        rows = connection.execute(
            sa.select(columns.number, columns.name, columns.bias)
            .where(columns.encoder == encoder)
            .order_by(columns.number)
        ).all()
        # What reads embeddings reads an id before each.
        _, weights = vectors.read(
            connection,
            f"SELECT CAST('{uuid.UUID(int=0)}' AS uuid), embedding FROM vecsearch.concepts WHERE"
            f" encoder = (SELECT weights_sha256 FROM vecsearch.collections"
            f" WHERE name = '{collection}') ORDER BY number",
        )
        cached = Classifier(
            encoder,
            [row.number for row in rows],
            [row.name for row in rows],
            weights,
            np.array([row.bias for row in rows], np.float32),
        )
        connection.info[_CACHE] = cached
    return cached
