"""The index method `none`: every search compares all images and is exact."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.base import Index
from vecsearch.vocabulary import IndexMethod, Metric

if TYPE_CHECKING:
    from vecsearch.search.indexes.build import Build


class NoIndex(Index):
    """The absence of an index."""

    method = IndexMethod.none

    def reranks(self, metric: Metric) -> bool:  # noqa: ARG002 - the same for every metric
        """Return False: nothing chooses candidates faster than the metric compares them all."""
        return False

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:  # noqa: ARG003
        """Return False: there is nothing to build."""
        return False

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> None:
        """Do nothing."""
