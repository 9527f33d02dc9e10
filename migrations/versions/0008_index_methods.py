"""Which index serves a collection, and the projections that compact ones are made by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"

ADDED = (
    sa.Column(
        "index_method",
        sa.Text,
        nullable=False,
        server_default="hnsw",
        comment="Index that is wanted: hnsw, compact or none",
    ),
    sa.Column(
        "index_options",
        JSONB,
        nullable=False,
        server_default="{}",
        comment="What the index is built with: m, ef_construction, dims; missing: the default",
    ),
    sa.Column(
        "projection",
        sa.Integer,
        comment="Version of the projection whose table NAME_compact_VERSION searches use; "
        "NULL: none",
    ),
    sa.Column(
        "breadths",
        JSONB,
        nullable=False,
        server_default="{}",
        comment="By metric, how broadly the index is searched, as `index tune` found it: "
        "hnsw.ef_search, or the number of candidates where those are re-ranked",
    ),
)


def upgrade() -> None:
    connection = op.get_bind()
    for column in ADDED:
        op.add_column("collections", column, schema="vecsearch")
    op.create_table(
        "projections",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection it was fitted to"),
        sa.Column(
            "version",
            sa.Integer,
            sa.Identity(),
            primary_key=True,
            comment="Higher for later ones, whichever their collection; its table is "
            "NAME_compact_VERSION",
        ),
        sa.Column("dimensions", sa.Integer, nullable=False, comment="Numbers in a compact vector"),
        sa.Column(
            "mean",
            sa.LargeBinary,
            nullable=False,
            comment="Of the sample's normalised embeddings: little-endian float32, one for each "
            "number of an embedding",
        ),
        sa.Column(
            "components",
            sa.LargeBinary,
            nullable=False,
            comment="Principal components of the sample: little-endian float32, row by row, one "
            "row for each number of a compact vector",
        ),
        sa.Column("sample", sa.Integer, nullable=False, comment="Images it was fitted to"),
        sa.Column(
            "variance_kept",
            sa.Double,
            nullable=False,
            comment="Share of the sample's variance that compact vectors keep, from 0 to 1",
        ),
        sa.Column(
            "fitted_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
            comment="When it was fitted",
        ),
        schema="vecsearch",
        comment="Principal components by which embeddings are made compact; of a collection at "
        "most one that is in use and one that is being built",
    )
    # Who may search may read what searches need.
    grantees = connection.scalars(
        sa.text(
            "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee))"
            " END FROM pg_class, aclexplode(relacl) AS held"
            " WHERE oid = 'vecsearch.collections'::regclass AND privilege_type = 'SELECT'"
            " AND grantee <> relowner"
        )
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON vecsearch.projections TO {grantee}")
