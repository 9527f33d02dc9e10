"""Write the analysts' function NAME_nearest as the collection's own searches rank."""

import sqlalchemy as sa

from vecsearch.postgres import analysts, schema
from vecsearch.postgres.catalog import StoredCollection
from vecsearch.postgres.columns import NEAREST, names
from vecsearch.search import plan
from vecsearch.search.indexes import serving
from vecsearch.search.indexes.base import Expression
from vecsearch.vocabulary import Ranking, ranked


def replace(connection: sa.Connection, stored: StoredCollection) -> None:
    """Replace NAME_nearest by the form that the collection's index serves, in its ranking."""
    if stored.ranking is Ranking.full and not stored.expansion:
        order = serving(stored).analysts_order()
    else:
        dims = None if stored.compact is None else stored.compact.dimensions
        order = _ranked(stored), f"; {ranked(stored.ranking, dims, stored.expansion)}"
    analysts.replace_nearest(connection, stored.table, order)


def _ranked(stored: StoredCollection) -> str:
    source = schema.sql_name(stored.table)

    def image(column: sa.Column[object]) -> Expression:
        value = f"t.{column.name}"
        if column.table.name != stored.table.name:
            vectors = schema.sql_name(column.table)
            value = f"(SELECT c.{column.name} FROM {vectors} AS c WHERE c.id = t.id)"
        return sa.literal_column(f"({analysts.embedding_of('image', source, value)})", column.type)

    return plan.nearest_body(stored, names(NEAREST), image)
