"""No index: every search compares all images, and is exact."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vecsearch.postgres.catalog import StoredCollection
from vecsearch.search.indexes.base import Index
from vecsearch.vocabulary import IndexMethod

if TYPE_CHECKING:
    from vecsearch.search.indexes.build import Build


class NoIndex(Index):
    """See the module."""

    method = IndexMethod.none

    @classmethod
    def is_missing(cls, connection: sa.Connection, stored: StoredCollection) -> bool:  # noqa: ARG003
        """Return False: nothing is."""
        return False

    @classmethod
    def build(cls, build: "Build", rows: int, options: Mapping[str, int]) -> None:
        """Build nothing."""
