"""Functions by which any client searches, and what serves them.

The functions themselves are replaced at the end of every upgrade, by `vecsearch.search.functions`.
"""

import numpy as np
import sqlalchemy as sa
from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0017"
down_revision = "0016"

HIT = (
    "id uuid, path text, label text, width integer, height integer, taken_at timestamp,"
    " latitude double precision, longitude double precision, metadata jsonb,"
    " distance double precision, similarity double precision"
)


def upgrade() -> None:
    connection = op.get_bind()
    # A type of its own, so that a later version can give it another attribute while views and
    # functions depend on it; functions that return TABLE (…) would have to be dropped.
    op.execute(f"CREATE TYPE vecsearch.hit AS ({HIT})")
    op.execute(
        "COMMENT ON TYPE vecsearch.hit IS"
        " 'An image with its distance; what NAME_distances and NAME_search return'"
    )
    _vectors(connection)
    for name in collection_names(connection):
        table = f"vecsearch.{connection.dialect.identifier_preparer.quote(name)}"
        _index(name, table)
        _retire(connection, name)


def _vectors(connection: sa.Connection) -> None:
    """Store projections as vectors instead of bytes, so that SQL can project."""
    pgvector = connection.scalar(
        sa.text(
            "SELECT quote_ident(nspname) FROM pg_extension"
            " JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vector'"
        )
    )
    table = "vecsearch_internal.projections"
    for old in ("mean", "components"):
        op.execute(f"ALTER TABLE {table} RENAME {old} TO {old}_bytes")
    op.execute(
        f"ALTER TABLE {table} ADD mean {pgvector}.vector, ADD components {pgvector}.vector[]"
    )
    rows = connection.exec_driver_sql(
        f"SELECT version, dimensions, mean_bytes, components_bytes FROM {table}"
    ).all()
    for row in rows:
        mean = np.frombuffer(row.mean_bytes, "<f4")
        components = np.frombuffer(row.components_bytes, "<f4").reshape(row.dimensions, -1)
        connection.exec_driver_sql(
            f"UPDATE {table} SET mean = %s::{pgvector}.vector,"
            f" components = %s::text[]::{pgvector}.vector[] WHERE version = %s",
            (str(mean.tolist()), [str(one.tolist()) for one in components], row.version),
        )
    op.execute(
        f"ALTER TABLE {table} ALTER mean SET NOT NULL, ALTER components SET NOT NULL,"
        " DROP mean_bytes, DROP components_bytes"
    )
    for column, comment in {
        "mean": "Of the sample''s normalised embeddings",
        "components": "Principal components of the sample, one for each number of a compact vector",
    }.items():
        op.execute(f"COMMENT ON COLUMN {table}.{column} IS '{comment}'")


def _index(name: str, table: str) -> None:
    """Index what images are named by and filtered by."""
    for index in (
        f"{name}_path_hash ON {table} USING hash (path)",
        f"{name}_label_btree ON {table} (label)",
        f"{name}_metadata_gin ON {table} USING gin (metadata jsonb_path_ops)",
    ):
        op.execute(f"CREATE INDEX {index}")


def _retire(connection: sa.Connection, name: str) -> None:
    """Drop NAME_nearest; if something depends on it, keep it, written by NAME_distances."""
    nearest = f"vecsearch.{name}_nearest(text)"
    depended = connection.scalar(
        sa.text(
            "SELECT EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_proc'::regclass"
            " AND refobjid = to_regprocedure(:nearest) AND deptype = 'n')"
        ),
        {"nearest": nearest},
    )
    if not depended:
        op.execute(f"DROP FUNCTION IF EXISTS {nearest}")
