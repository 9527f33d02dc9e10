"""Say of the column label that it need not be the folder's name."""

from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0023"
down_revision = "0022"

COMMENT = "Name of the folder the file is in, or what ingest --label set"


def upgrade() -> None:
    connection = op.get_bind()
    for name in collection_names(connection):
        quoted = connection.dialect.identifier_preparer.quote
        for table in (name, f"{name}_view"):
            connection.exec_driver_sql(
                f"COMMENT ON COLUMN vecsearch.{quoted(table)}.label IS '{COMMENT}'"
            )
