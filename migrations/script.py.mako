"""${message}."""

import sqlalchemy as sa
from alembic import op

from vecsearch.migrate import collection_names

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    # A change to collections' tables applies to each:
    # for name in collection_names(op.get_bind()):
    #     op.add_column(name, sa.Column(…), schema="vecsearch")
    ${upgrades if upgrades else "pass"}


# There is no downgrade(): the way down would drop rows that users made.
