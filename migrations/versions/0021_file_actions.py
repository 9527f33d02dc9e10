"""A journal of what was done to the files of duplicates, so that it can be undone."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "file_actions",
        sa.Column("collection", sa.Text, primary_key=True, comment="Collection of the image"),
        sa.Column(
            "run", sa.Integer, primary_key=True, comment="Run in the collection, from 1: undo RUN"
        ),
        sa.Column("number", sa.Integer, primary_key=True, comment="File in the run, from 1"),
        sa.Column("action", sa.Text, nullable=False, comment="trash, move, hardlink or symlink"),
        sa.Column(
            "state",
            sa.Text,
            nullable=False,
            comment="planned, acting, done, left (alone), undoing or undone",
        ),
        sa.Column("id", sa.Uuid, nullable=False, comment="Id of the image"),
        sa.Column("path", sa.Text, nullable=False, comment="Its file"),
        sa.Column("sha256", sa.Text, nullable=False, comment="SHA-256 of the file, in hex"),
        sa.Column("kept", sa.Uuid, nullable=False, comment="Id of the image that is kept"),
        sa.Column("kept_path", sa.Text, nullable=False, comment="Its file"),
        sa.Column(
            "target",
            sa.Text,
            comment="Where the file was moved to, or is while a link takes its place; "
            "NULL: the trash",
        ),
        sa.Column(
            "facts",
            JSONB,
            nullable=False,
            comment="The file's size, modification time in nanoseconds, and mode",
        ),
        sa.Column("stored", JSONB, comment="Rows of the image that were deleted, by table"),
        sa.Column("given", JSONB, comment="Metadata that the kept image's row was given"),
        sa.Column("reason", sa.Text, comment="Why it was left alone, or not brought back"),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="When the run began",
        ),
        schema="vecsearch_internal",
        comment="What was done to the files of duplicates, and what it takes to undo it",
    )
