"""The extension and the register of collections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    op.create_table(
        "collections",
        sa.Column(
            "name", sa.Text, primary_key=True, comment="Name of the collection and of its table"
        ),
        sa.Column(
            "model", sa.Text, nullable=False, comment="timm model with its tag, or autoencoder"
        ),
        sa.Column("layer", sa.Text, nullable=False, comment="Layer whose output is the embedding"),
        sa.Column(
            "weights_sha256",
            sa.Text,
            nullable=False,
            comment="SHA-256 of the loaded tensors, whatever file format they came in",
        ),
        sa.Column(
            "preprocessing",
            JSONB,
            nullable=False,
            comment="How a picture becomes the encoder's input: "
            "size, crop, interpolation, mean, std",
        ),
        sa.Column(
            "weights_source",
            sa.Text,
            comment="File the weights were read from; NULL: the model hub",
        ),
        sa.Column("weights_file_sha256", sa.Text, comment="SHA-256 of that file when it was read"),
        sa.Column("dimensions", sa.Integer, nullable=False, comment="Numbers in one embedding"),
        sa.Column(
            "default_metric",
            sa.Text,
            nullable=False,
            server_default="cosine",
            comment="Metric of a query that names none: cosine, l2, l1 or ip",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="When the collection was made",
        ),
        comment="One row per collection: a table of images made by one encoder",
        schema="vecsearch",
    )
