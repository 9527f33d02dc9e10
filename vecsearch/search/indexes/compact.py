"""The index method `compact`: HNSW on principal components; embeddings re-rank its candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from vecsearch.errors import InvalidInput
from vecsearch.postgres import schema, tables
from vecsearch.postgres.catalog import Compact, StoredCollection
from vecsearch.postgres.rows import analyze
from vecsearch.postgres.sessions import distributed
from vecsearch.search.indexes import ddl, projection, vectors
from vecsearch.search.indexes.base import (
    MAXIMUM_EF_SEARCH,
    Expression,
    Facts,
    Index,
    Target,
    distance,
)
from vecsearch.search.indexes.none import NoIndex
from vecsearch.search.lookup import count, has_rows
from vecsearch.vocabulary import DIMS, MINIMUM_EF_SEARCH, IndexMethod, Metric, Ranking, counted

if TYPE_CHECKING:
    from uuid import UUID

    from vecsearch.search.indexes.build import Build

OPERATORS = {Metric.l2: "halfvec_l2_ops", Metric.cosine: "halfvec_cosine_ops"}
SAMPLE = 10_000
# With fewer images, an exact search is as fast, and the principal components are unreliable.
LEAST_IMAGES = 1_000


@dataclass(frozen=True)
class CompactIndex(Index):
    """An HNSW index on compact vectors.

    Attributes:
        compact: the projection in use, which has the table of compact vectors.
        ranking: what orders the hits by cosine.

    """

    method = IndexMethod.compact

    compact: Compact
    ranking: Ranking = Ranking.full

    @classmethod
    def of(cls, stored: StoredCollection) -> Any:
        """Return the index, or `NoIndex` if the compact vectors do not exist yet."""
        if stored.compact is None:
            return NoIndex.of(stored)
        return cls(stored.name, stored.dimensions, stored.compact, stored.ranking)

    @property
    def _operator(self) -> str:
        return self.compact.metric.sql

    @property
    def name(self) -> str:
        """The name of the HNSW index on the compact vectors."""
        return self.compact.index

    @property
    def namespace(self) -> str:
        """The schema of the compact vectors."""
        return tables.INTERNAL

    def ranks(self, metric: Metric) -> bool:
        """Return whether the compact vectors themselves order the hits."""
        return self.ranking is Ranking.compact and metric is Metric.cosine

    def reranks(self, metric: Metric) -> bool:
        """Return whether compact vectors choose candidates: for all metrics they do not rank by."""
        return not self.ranks(metric)

    def serves(self, metric: Metric) -> bool:  # noqa: ARG002 - the same for every metric
        """Return True: compact vectors choose candidates, or rank."""
        return True

    def ef_search(self, candidates: int | None, k: int, chosen: int | None) -> int:
        """Return the number of candidates as ef_search, within its bounds.

        A higher ef_search costs less than more candidates, and gives as much recall.
        """
        if candidates is None:
            return super().ef_search(candidates, k, chosen)
        return min(max(MINIMUM_EF_SEARCH, candidates), MAXIMUM_EF_SEARCH)

    def chosen_by(self) -> sa.Column[Any]:
        """Return the column of compact vectors."""
        return self.compact.table.c.compact

    def ranked_by(self, metric: Metric) -> sa.Column[Any]:
        """Return the column of compact vectors if they rank, otherwise that of embeddings."""
        return self.chosen_by() if self.ranks(metric) else super().ranked_by(metric)

    def ranked(
        self, found: sa.Select[Any], images: sa.FromClause, metric: Metric
    ) -> tuple[sa.Select[Any], Expression]:
        """Join the compact vectors if they rank."""
        if not self.ranks(metric):
            return super().ranked(found, images, metric)
        aliased = self._vectors()
        return found.join_from(images, aliased, images.c.id == aliased.c.of), aliased.c.compact

    def _vectors(self) -> sa.FromClause:
        """Return the compact vectors under names that neither a condition nor a collection has."""
        stored = self.compact.table.c
        return sa.select(stored.id.label("of"), stored.compact).subquery("_vectors")

    def choose(
        self, found: sa.Select[Any], images: sa.FromClause, target: Target, *, by_id: bool
    ) -> sa.Select[Any]:
        """Join the compact vectors, and order by their distance."""
        aliased = self._vectors()
        place = target(self.chosen_by())
        found = found.join_from(images, aliased, images.c.id == aliased.c.of)
        if by_id:
            # A query image without a compact vector would give a NULL sort key; return nothing,
            # so that the exact search runs.
            found = found.where(place.is_not(None))
        return found.order_by(distance(self.compact.metric, aliased.c.compact, place))

    def vectors(
        self,
        connection: sa.Connection,
        embeddings: Sequence[NDArray[np.float32]],
        metric: Metric,
        *,
        candidates: bool,
    ) -> list[NDArray[np.float32]]:
        """Return the embeddings, or their compact vectors if these rank, or both for candidates."""
        if not candidates and not self.ranks(metric):
            return list(embeddings)
        fitted = vectors.read_projection(connection, self.compact)
        projected = list(fitted.project(np.stack(embeddings)))
        return projected if self.ranks(metric) else [*embeddings, *projected]

    def neighbours(
        self, images: str, where: str, place: str | None, number: int
    ) -> tuple[str, str]:
        """Return SQL that selects twice as many candidates as requested neighbours."""
        source = schema.sql_name(self.compact.table)
        place = place or f"(SELECT q.compact FROM {source} AS q WHERE q.id = i.id)"
        candidates = f"""
            (SELECT o.id, o.embedding FROM {source} AS c JOIN {images} ON o.id = c.id
            WHERE {where} ORDER BY c.compact {self._operator} {place}
            LIMIT {2 * number}) AS o"""
        return candidates, "true"

    def facts(self, connection: sa.Connection, rows: int) -> Facts:  # noqa: ARG002 - counts vectors
        """Return the facts about the projection and the compact vectors."""
        fitted = vectors.read_projection(connection, self.compact)
        return Facts(
            indexed=count(connection, self.compact.table),
            dimensions=self.compact.dimensions,
            version=self.compact.version,
            variance_kept=fitted.variance_kept,
            sample=fitted.sample,
            fitted_at=self.compact.fitted_at,
            compact_bytes=ddl.table_bytes(connection, self.compact.table),
        )

    def bytes_beside(self, connection: sa.Connection) -> int:
        """Return the bytes of the compact vectors and their indexes."""
        return distributed.total_bytes(connection, schema.sql_name(self.compact.table))

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:
        """Return whether there are enough images, and the index is missing or invalid."""
        if stored.compact is None:
            return has_rows(connection, stored.table, LEAST_IMAGES)
        return not cls.of(stored).is_ready(connection)

    @classmethod
    def waiting(cls, stored: StoredCollection) -> str | None:
        """Return a note that there are too few images; None if the index has been built."""
        if stored.compact is not None:
            return None
        return (
            f"The compact index will be built at {LEAST_IMAGES:,} images; until then every search "
            "compares all images. To build it now: vecsearch index create --method compact "
            f"--collection {stored.name}"
        )

    @classmethod
    def wanted_dimensions(cls, stored: StoredCollection) -> int:
        """Return the dimensions of the compact vectors: existing, requested or default."""
        if stored.compact is not None:
            return stored.compact.dimensions
        return min(stored.index_options.get(DIMS.name, DIMS.default), stored.dimensions)

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> Compact:
        """Fit a projection, project every image, and index the compact vectors."""
        connection, stored = build.connection, build.collection
        if rows < 2:  # noqa: PLR2004 - one image has no components
            raise InvalidInput(
                f"Collection {stored.name!r} has {counted(rows, 'image')}; a compact index needs "
                "at least 2. Ingest some first."
            )
        build.on_progress("Fitting", 0, None)
        sample = vectors.sample(connection, stored.table, SAMPLE)
        asked = options.get(DIMS.name, DIMS.default)
        fitted = projection.fit(sample, asked)
        del sample
        if build.metric is Metric.cosine and not fitted.components.any():
            raise InvalidInput(
                f"The images of collection {stored.name!r} have equal embeddings, so there are no "
                "principal components to rank by. Ingest other images first."
            )
        found = len(fitted.components)
        if found < min(asked, stored.dimensions):
            build.notes.append(
                f"{rows:,} images have at most {counted(found, 'principal component')}. "
                "Build the index again when there are more images."
            )
        with build.writing():
            made = vectors.register(connection, stored.name, fitted, build.metric)
        # Two passes: a copy written during the first may have found no compact vector to copy.
        done = 0
        for _ in range(2):
            after: UUID | None = None
            while True:
                with build.writing():
                    source = schema.sql_name(stored.table)
                    added, after = vectors.fill(connection, source, made, after)
                done += added
                build.on_progress("Projecting", done, rows)
                if after is None:
                    break
        with build.writing():
            vectors.delete_orphans(connection, stored.table, made)
        analyze(connection, made.table)
        build.graph(made.index, made.table, "compact", OPERATORS[made.metric], options, rows, found)
        return made
