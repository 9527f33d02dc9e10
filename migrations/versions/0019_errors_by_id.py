"""Errors are keyed by the image's id: a long path does not fit into an index."""

import uuid
from pathlib import PurePosixPath

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"

COMMENT = "Id that the image has, or would have"
# Files and folders whose ids are computed and stored at once.
BLOCK = 10_000


def upgrade() -> None:
    column = sa.Column("id", sa.Uuid, comment=COMMENT)
    op.add_column("ingest_errors", column, schema="vecsearch")
    connection = op.get_bind()
    paths = connection.scalars(sa.text("SELECT DISTINCT path FROM vecsearch.ingest_errors")).all()
    for first in range(0, len(paths), BLOCK):
        block = paths[first : first + BLOCK]
        connection.execute(
            sa.text(
                "UPDATE vecsearch.ingest_errors AS stored SET id = made.id"
                " FROM unnest(CAST(:paths AS text[]), CAST(:ids AS uuid[])) AS made (path, id)"
                " WHERE stored.path = made.path"
            ).bindparams(
                sa.bindparam("paths", list(block), postgresql.ARRAY(sa.Text)),
                sa.bindparam("ids", [_id(path) for path in block], postgresql.ARRAY(sa.Uuid)),
            )
        )
    op.drop_constraint("ingest_errors_pkey", "ingest_errors", schema="vecsearch")
    op.create_primary_key(
        "ingest_errors_pkey", "ingest_errors", ["collection", "id"], schema="vecsearch"
    )


def _id(path: str) -> uuid.UUID:
    """Return the id of the image at a path: UUIDv5 of its file URI."""
    normal = PurePosixPath("/", path)
    # One that vecsearch did not write gets an id, too, and no other's.
    return uuid.uuid5(uuid.NAMESPACE_URL, normal.as_uri() if str(normal) == path else path)
