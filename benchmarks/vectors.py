"""Seeded vectors like a network's features after its last ReLU, any number of them, in chunks.

A picture has 16 degrees of freedom; waves of them, in which its class has its own phases, and the
centre of that class, one of a thousand, make 64 coordinates whose variance falls off as a power. A
fixed random layer with a bias and a ReLU makes 2,048 numbers of these, and a little noise before
the ReLU is every number's own.

How that compares with real features, VGG16's fc2 of 88 photos in 6 classes, and as many made ones
(mean of ten samples):

                                                                 real   made
    numbers that are zero                                        0.75   0.76
    standard deviation of the norm, of its mean                  0.18   0.16
    cosine to the mean vector                                    0.48   0.50
    variance in the first principal component                    0.09   0.14
    in the first 4                                               0.28   0.43
    in the first 16                                              0.53   0.73
    distance to the nearest, of the median distance              0.51   0.28
    distance to the tenth, of the median distance                0.77   0.61

So made classes are tighter than those 6, half of which the network was not taught. Of how a million
photos lie, 88 say nothing. Among 100,000 made vectors the nearest neighbours' distances tell of 13
dimensions by the two-NN estimate, for which 12 to 25 are published of networks taught on photos
(Ansuini and others, Intrinsic dimension of data representations in deep neural networks, 2019).
Where it is 28, every graph measured here has to be searched several times as broadly.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 2_048
CHUNK = 10_000
CLASSES = 1_000
COORDINATES = 64
FREEDOM = 16

Array = NDArray[np.float32]


class Vectors:
    """The first `rows` vectors of a seed: the same ones, however many follow."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        self.rows = rows
        self.seed = seed
        random = np.random.default_rng([seed, 0])
        self._layer = random.standard_normal((COORDINATES, DIMENSIONS), dtype=np.float32)
        self._bias = (0.3 * random.standard_normal(DIMENSIONS) - 0.9).astype(np.float32)
        self._centres = 0.8 * random.standard_normal((CLASSES, COORDINATES)) * _scales(0.2)
        self._waves = random.standard_normal((FREEDOM, COORDINATES)) / np.sqrt(FREEDOM)
        self._phases = random.uniform(0, 2 * np.pi, (CLASSES, COORDINATES))

    def __iter__(self) -> Iterator[Array]:
        """Yield them in chunks: float32, shape (at most CHUNK, DIMENSIONS).

        They are rounded to half precision, so that who stores halves and who stores floats store
        the same.
        """
        for number, start in enumerate(range(0, self.rows, CHUNK)):
            random = np.random.default_rng([self.seed, 1, number])
            yield self.draw(random, CHUNK)[: self.rows - start]

    def queries(self, count: int) -> Array:
        """Return vectors of the same distribution that are none of these."""
        return self.draw(np.random.default_rng([self.seed, 2]), count)

    def draw(
        self, random: np.random.Generator, count: int, classes: NDArray[np.int64] | None = None
    ) -> Array:
        """Return vectors of the given classes, or of any."""
        chosen = random.integers(0, CLASSES, count) if classes is None else classes
        free = random.standard_normal((count, FREEDOM))
        places = np.cos(free @ self._waves + self._phases[chosen])
        places *= np.sqrt(2) * _scales(0.5)
        places += self._centres[chosen]
        vectors = random.standard_normal((count, DIMENSIONS), dtype=np.float32)
        vectors *= 0.05
        vectors += places.astype(np.float32) @ self._layer
        vectors += self._bias
        np.maximum(vectors, 0, out=vectors)
        return vectors.astype(np.float16).astype(np.float32)


def _scales(power: float) -> NDArray[np.float64]:
    """Return the coordinates' scales, their squares' sum 1."""
    scales = np.arange(1, COORDINATES + 1) ** -power
    return np.asarray(scales / np.linalg.norm(scales))


class Nearest:
    """The exact nearest neighbours by cosine, in single precision, as chunks come by."""

    def __init__(self, queries: Array, k: int) -> None:
        self._queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        self._similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
        self._rows = np.full((len(queries), k), -1, dtype=np.int64)
        self._seen = 0

    def add(self, chunk: Array) -> None:
        """Look at the next vectors."""
        similarity = self._queries @ chunk.T
        similarity /= np.linalg.norm(chunk, axis=1)
        k = self._rows.shape[1]
        best = np.argpartition(-similarity, min(k, len(chunk) - 1), axis=1)[:, :k]
        similarities = [self._similarity, np.take_along_axis(similarity, best, axis=1)]
        joined = np.concatenate(similarities, axis=1)
        rows = np.concatenate([self._rows, best + self._seen], axis=1)
        order = np.argsort(-joined, axis=1)[:, :k]
        self._similarity = np.take_along_axis(joined, order, axis=1)
        self._rows = np.take_along_axis(rows, order, axis=1)
        self._seen += len(chunk)

    def recall(self, answers: list[list[int]]) -> float:
        """Return the share of the exact neighbours' rows that are in the answers."""
        pairs = zip(self._rows.tolist(), answers, strict=True)
        return float(np.mean([len({*exact} & {*found}) / len(exact) for exact, found in pairs]))
