"""Quantised encoders, stored in the database of the collections that use them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from vecsearch.encoders.openvino.cache import Exported
from vecsearch.postgres import tables


def find(connection: sa.Connection, precision: str) -> Exported | None:
    """Return the quantised encoder that a collection's precision names, or None."""
    models = tables.quantized_models
    row = connection.execute(sa.select(models).where(models.c.precision == precision)).first()
    if row is None:
        return None
    return Exported(row.model, row.tensors, row.dimensions, tuple(row.layer_shape))


def store(connection: sa.Connection, precision: str, exported: Exported) -> None:
    """Store a quantised encoder under its precision; an existing one is kept."""
    values = {**vars(exported), "layer_shape": list(exported.layer_shape), "precision": precision}
    connection.execute(insert(tables.quantized_models).values(values).on_conflict_do_nothing())
