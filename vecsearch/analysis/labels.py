"""Read the images' labels and embeddings for evaluation."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import sqlalchemy as sa

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Image:
    """An image with its possible labels; `value` is the metadata value under the chosen key."""

    id: UUID
    path: str
    label: str
    value: str | None

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return os.path.basename(self.path)  # noqa: PTH119 - as strings: this runs per image


def read_images(connection: sa.Connection, table: sa.Table, key: str | None) -> list[Image]:
    """Return every image, in the order of `vecsearch.ingest.staging.read_blocks`.

    Args:
        connection: in a transaction.
        table: the collection's table.
        key: metadata key whose value is also read; None reads no metadata.

    """
    value = sa.null() if key is None else table.c.metadata[key].astext
    columns = (table.c.id, table.c.path, table.c.label, value)
    rows = connection.execute(sa.select(*columns).order_by(table.c.path))
    return [Image(*row) for row in rows]


def read_embeddings(
    connection: sa.Connection, table: sa.Table, ids: Sequence[UUID]
) -> "NDArray[np.float32]":
    """Return the embeddings of these images, in this order, shape (len(ids), dimensions)."""
    rows = connection.execute(
        sa.select(table.c.id, table.c.embedding).where(
            table.c.id == sa.any_(sa.literal(list(ids), sa.ARRAY(sa.Uuid)))
        )
    )
    found = {row.id: row.embedding for row in rows}
    return np.array([found[row_id] for row_id in ids], dtype=np.float32)
