"""Thumbnails may be JPEG."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        "COMMENT ON COLUMN vecsearch.thumbnails.image IS"
        " 'JPEG, or WebP as it once was, at most 320 x 320 pixels, upright'"
    )
