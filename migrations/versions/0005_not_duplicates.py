"""Pairs of images that somebody has said are no near-duplicates."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "not_duplicates",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection of both images"),
        sa.Column("image", sa.Uuid, primary_key=True, comment="Id of the one, the smaller id"),
        sa.Column("other", sa.Uuid, primary_key=True, comment="Id of the other"),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="When that was said",
        ),
        sa.CheckConstraint("image < other", name="not_duplicates_ordered"),
        comment="Pairs of images that are no near-duplicates, however near they are",
        schema="vecsearch",
    )
