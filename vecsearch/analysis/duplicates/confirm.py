"""Confirm candidate pairs of near-duplicates by their stored thumbnails."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import sqlalchemy as sa

from vecsearch.imaging import alignment
from vecsearch.postgres import thumbnails

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Thumbnails to read from the database at once: about 15 MB.
BATCH = 1_000
# The largest difference of two pictures, and the brightness of white.
UNALIKE, BRIGHTEST = 2.0, 255


class Confirmer:
    """Compares images by their thumbnails; keeps 1 kB of memory for each image.

    Attributes:
        unconfirmed: the images that cannot be compared, for want of a thumbnail.

    """

    def __init__(
        self, connection: sa.Connection, table: sa.Table, ids: Iterable[UUID], *, mirrored: bool
    ) -> None:
        """Read the thumbnails of these images; `mirrored` compares mirrored pictures, too."""
        self._connection = connection
        self._table = table
        self._mirrored = mirrored
        wanted = list(dict.fromkeys(ids))
        self._pictures, self._number = self._read(wanted, alignment.SMALL)
        flat = alignment.is_flat(self._pictures)
        # Pictures of one colour have no structure; their brightness is compared.
        self._brightness = {
            id_: float(self._pictures[number].mean())
            for id_, number in self._number.items()
            if flat[number]
        }
        self.unconfirmed = set(wanted) - self._number.keys()

    def differences(self, pairs: Iterable[tuple[UUID, UUID]]) -> list[float | None]:
        """Return the difference of each pair, 0 to 2; None if one of them is unconfirmed."""
        every = list(pairs)
        known = [pair for pair in every if self.unconfirmed.isdisjoint(pair)]
        structured = [pair for pair in known if self._brightness.keys().isdisjoint(pair)]
        found = self._compared(structured, mirrored=False)
        if self._mirrored:
            found = np.minimum(found, self._compared(structured, mirrored=True))
        differences: dict[tuple[UUID, UUID], float] = {
            pair: UNALIKE if pair[0] not in self._brightness else self._of_colour(*pair)
            for pair in known
        }
        differences |= dict(zip(structured, found.tolist(), strict=True))
        return [differences.get(pair) for pair in every]

    def _of_colour(self, one: UUID, other: UUID) -> float:
        """Return the difference of two pictures, of which the first is of one colour."""
        if other not in self._brightness:
            return UNALIKE
        apart = abs(self._brightness[one] - self._brightness[other])
        return UNALIKE * apart / BRIGHTEST

    def _compared(self, pairs: list[tuple[UUID, UUID]], *, mirrored: bool) -> "NDArray[np.float64]":
        numbers = np.array(
            [[self._number[id_] for id_ in pair] for pair in pairs], np.intp
        ).reshape(-1, 2)
        others = self._pictures[:, :, ::-1] if mirrored else self._pictures
        screened = alignment.screen(self._pictures, others, *numbers.T)
        found = screened.difference
        near = np.flatnonzero(found <= alignment.UNRELATED)
        for start in range(0, len(near), BATCH):
            chunk = near[start : start + BATCH]
            ids = dict.fromkeys(id_ for number in chunk for id_ in pairs[number])
            pictures, number_of = self._read(list(ids), alignment.LARGE)
            one, other = (
                pictures[[number_of[pairs[number][side]] for number in chunk]] for side in (0, 1)
            )
            if mirrored:
                other = other[:, :, ::-1]
            swapped = screened.of_other[chunk, None, None]
            found[chunk] = alignment.fit(
                np.where(swapped, other, one),
                np.where(swapped, one, other),
                screened.edges[chunk],
            )
        return found

    def _read(self, ids: list[UUID], side: int) -> "tuple[NDArray[np.uint8], dict[UUID, int]]":
        """Return thumbnails (n, side, side), and the number of each image that has one."""
        pictures = np.empty((len(ids), side, side), np.uint8)
        number_of: dict[UUID, int] = {}
        # Decoders release the GIL.
        with ThreadPoolExecutor() as pool:
            for stored in self._stored(ids):
                squeezed = pool.map(partial(alignment.squeezed, side=side), stored.values())
                for id_, picture in zip(stored, squeezed, strict=True):
                    pictures[len(number_of)] = picture
                    number_of[id_] = len(number_of)
        return pictures[: len(number_of)], number_of

    def _stored(self, ids: list[UUID]) -> Iterator[dict[UUID, bytes]]:
        for start in range(0, len(ids), BATCH):
            yield thumbnails.find(self._connection, self._table, ids[start : start + BATCH])
