"""A collection's encoder family."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    column = sa.Column(
        "backend",
        sa.Text,
        comment="Encoder family: timm or autoencoder; "
        "unknown: imported vectors whose weights are not known",
    )
    op.add_column("collections", column, schema="vecsearch")
    op.execute(
        "UPDATE vecsearch.collections SET backend = CASE"
        " WHEN weights_sha256 IS NULL THEN 'unknown'"
        " WHEN model = 'autoencoder' THEN 'autoencoder'"
        " ELSE 'timm' END"
    )
    op.alter_column("collections", "backend", nullable=False, schema="vecsearch")
