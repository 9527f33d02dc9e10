"""What orders the hits of a collection, the metric of compact vectors, and open_clip."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    for column, comment in {
        "model": "timm model with its tag, open_clip: and a model, or autoencoder",
        "backend": "Encoder family: timm, autoencoder or open_clip; "
        "unknown: imported vectors whose weights are not known",
    }.items():
        op.execute(f"COMMENT ON COLUMN vecsearch.collections.{column} IS '{comment}'")
    op.add_column(
        "collections",
        sa.Column(
            "ranking",
            sa.Text,
            nullable=False,
            server_default="full",
            comment="What orders the hits of a search by cosine: full, the embeddings; compact, "
            "their compact vectors",
        ),
        schema="vecsearch",
    )
    op.add_column(
        "collections",
        sa.Column(
            "expansion",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="Nearest images by which a search by cosine expands its question; 0: none",
        ),
        schema="vecsearch",
    )
    op.add_column(
        "projections",
        sa.Column(
            "metric",
            sa.Text,
            nullable=False,
            server_default="l2",
            comment="Metric by which the compact vectors are indexed: l2, or cosine if they rank",
        ),
        schema="vecsearch",
    )
