"""A collection's precision, and the models that were quantised for collections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    connection = op.get_bind()
    op.add_column(
        "collections",
        sa.Column(
            "precision",
            sa.Text,
            nullable=False,
            server_default="fp32",
            comment="Of the encoder's numbers: fp32, or int8-HASH, which names its "
            "quantized_models",
        ),
        schema="vecsearch",
    )
    op.create_table(
        "quantized_models",
        sa.Column(
            "precision",
            sa.Text,
            primary_key=True,
            comment="int8- and how the SHA-256 of model and tensors begins, in hex",
        ),
        sa.Column("model", sa.LargeBinary, nullable=False, comment="OpenVINO's graph, XML"),
        sa.Column("tensors", sa.LargeBinary, nullable=False, comment="Its weights"),
        sa.Column("dimensions", sa.Integer, nullable=False, comment="Numbers in one embedding"),
        sa.Column(
            "layer_shape",
            ARRAY(sa.Integer),
            nullable=False,
            comment="The layer's output for one picture, before it is averaged",
        ),
        sa.Column(
            "made_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.now(),
            comment="When it was calibrated",
        ),
        schema="vecsearch",
        comment="Encoders in eight-bit integers, each calibrated on its collection's own pictures",
    )
    # Who may search may read what searches need.
    grantees = connection.scalars(
        sa.text(
            "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee))"
            " END FROM pg_class, aclexplode(relacl) AS held"
            " WHERE oid = 'vecsearch.collections'::regclass AND privilege_type = 'SELECT'"
            " AND grantee <> relowner"
        )
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON vecsearch.quantized_models TO {grantee}")
