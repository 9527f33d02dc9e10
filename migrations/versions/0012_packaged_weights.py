"""Weights may come from a Python package."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.alter_column(
        "collections",
        "weights_source",
        schema="vecsearch",
        existing_type=sa.Text,
        comment="File the weights were read from; package:NAME: a Python package; "
        "NULL: the model hub",
    )
