"""Thumbnails, one a content, so that pages need no originals."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "thumbnails",
        sa.Column(
            "sha256",
            sa.Text,
            primary_key=True,
            comment="SHA-256 of the file that it was made of, in hex, as in the collections",
        ),
        sa.Column("width", sa.Integer, nullable=False, comment="Pixels of the thumbnail"),
        sa.Column("height", sa.Integer, nullable=False, comment="Pixels of the thumbnail"),
        sa.Column(
            "image",
            sa.LargeBinary,
            nullable=False,
            comment="WebP, at most 320 x 320 pixels, upright",
        ),
        comment="One small picture per file content, whichever collections hold it",
        schema="vecsearch",
    )
    # It is compressed already.
    op.execute("ALTER TABLE vecsearch.thumbnails ALTER COLUMN image SET STORAGE EXTERNAL")
