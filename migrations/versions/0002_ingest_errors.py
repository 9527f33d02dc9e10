"""The record of files that could not be read."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "ingest_errors",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection it was meant for"),
        sa.Column(
            "path", sa.Text, primary_key=True, comment="File or folder that could not be read"
        ),
        sa.Column("error", sa.Text, nullable=False, comment="Why"),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="When it was last tried",
        ),
        comment="Files that could not be ingested, until they can be or are gone",
        schema="vecsearch",
    )
