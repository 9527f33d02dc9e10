"""Confirm candidate pairs of near-duplicates by their stored thumbnails."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.imaging import alignment
from vecsearch.postgres import thumbnails

# Thumbnails to read from the database at once: about 15 MB.
BATCH = 1_000


class Confirmer:
    """Compares images by their thumbnails: about 2 kB of memory for each image.

    Attributes:
        unconfirmed: the images that cannot be compared: without a thumbnail, or of one colour.

    """

    def __init__(
        self, connection: sa.Connection, table: sa.Table, ids: Iterable[UUID], *, mirrored: bool
    ) -> None:
        """Read the thumbnails of these images; `mirrored` compares mirrored pictures, too."""
        wanted = list(dict.fromkeys(ids))
        self._mirrored = mirrored
        self._pictures = np.empty((len(wanted), alignment.SIDE, alignment.SIDE), np.uint8)
        self._number: dict[UUID, int] = {}
        # Decoders release the GIL.
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(wanted), BATCH):
                stored = thumbnails.find(connection, table, wanted[start : start + BATCH])
                small = pool.map(alignment.small, stored.values())
                for id_, picture in zip(stored, small, strict=True):
                    number = len(self._number)
                    self._pictures[number] = picture
                    self._number[id_] = number
        self._pictures = self._pictures[: len(self._number)]
        flat = alignment.is_flat(self._pictures)
        self._number = {id_: number for id_, number in self._number.items() if not flat[number]}
        self.unconfirmed = set(wanted) - self._number.keys()

    def differences(self, pairs: Iterable[tuple[UUID, UUID]]) -> list[float | None]:
        """Return the difference of each pair, 0 to 2; None if one of them is unconfirmed."""
        numbers = [(self._number.get(one), self._number.get(other)) for one, other in pairs]
        known = np.array([pair for pair in numbers if None not in pair], np.intp).reshape(-1, 2)
        found = iter(
            alignment.differences(self._pictures, *known.T, mirrored=self._mirrored).tolist()
        )
        return [None if None in pair else next(found) for pair in numbers]
