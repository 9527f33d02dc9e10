"""Synthetic vectors like a network's features after its last ReLU, from a seed, in chunks.

A picture has 16 degrees of freedom. Waves of them, with phases that depend on the class, plus the
centre of the class, one of a thousand, give 64 coordinates whose variance falls off as a power. A
fixed random layer with a bias, a little independent noise and a ReLU maps them to 2,048 numbers.

Comparison with real features, VGG16's fc2 of 88 photos in 6 classes, and as many synthetic ones
(mean of ten samples):

                                                                 real  synthetic
    numbers that are zero                                        0.75   0.76
    standard deviation of the norm, of its mean                  0.18   0.16
    cosine to the mean vector                                    0.48   0.50
    variance in the first principal component                    0.09   0.14
    in the first 4                                               0.28   0.43
    in the first 16                                              0.53   0.73
    distance to the nearest, of the median distance              0.51   0.28
    distance to the tenth, of the median distance                0.77   0.61

So the synthetic classes are tighter than those 6, half of which the network was not trained on. 88
photos say nothing about the distribution of a million. Among 100,000 synthetic vectors, the two-NN
estimate of the intrinsic dimension is 13; published values for networks trained on photos are 12 to
25 (Ansuini and others, Intrinsic dimension of data representations in deep neural networks, 2019).
At 28, every graph measured here needs an ef_search several times as high.
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
    """The first `rows` vectors of a seed; they do not depend on `rows`."""

    def __init__(self, rows: int, seed: int = 0, dimensions: int = DIMENSIONS) -> None:
        self.rows = rows
        self.seed = seed
        self.dimensions = dimensions
        random = np.random.default_rng([seed, 0])
        self._layer = random.standard_normal((COORDINATES, dimensions), dtype=np.float32)
        self._bias = (0.3 * random.standard_normal(dimensions) - 0.9).astype(np.float32)
        self._centres = 0.8 * random.standard_normal((CLASSES, COORDINATES)) * _scales(0.2)
        self._waves = random.standard_normal((FREEDOM, COORDINATES)) / np.sqrt(FREEDOM)
        self._phases = random.uniform(0, 2 * np.pi, (CLASSES, COORDINATES))

    def __iter__(self) -> Iterator[Array]:
        """Yield the vectors in chunks: float32, shape (at most CHUNK, dimensions).

        They are rounded to half precision, so that half and single precision store the same values.
        """
        for number, start in enumerate(range(0, self.rows, CHUNK)):
            random = np.random.default_rng([self.seed, 1, number])
            yield self.draw(random, CHUNK)[: self.rows - start]

    def queries(self, count: int) -> Array:
        """Return other vectors of the same distribution, for queries."""
        return self.draw(np.random.default_rng([self.seed, 2]), count)

    def draw(
        self, random: np.random.Generator, count: int, classes: NDArray[np.int64] | None = None
    ) -> Array:
        """Return vectors of the given classes, or of random ones."""
        chosen = random.integers(0, CLASSES, count) if classes is None else classes
        free = random.standard_normal((count, FREEDOM))
        places = np.cos(free @ self._waves + self._phases[chosen])
        places *= np.sqrt(2) * _scales(0.5)
        places += self._centres[chosen]
        vectors = random.standard_normal((count, self.dimensions), dtype=np.float32)
        vectors *= 0.05
        vectors += places.astype(np.float32) @ self._layer
        vectors += self._bias
        np.maximum(vectors, 0, out=vectors)
        return vectors.astype(np.float16).astype(np.float32)


def _scales(power: float) -> NDArray[np.float64]:
    """Return the scales of the coordinates; their squares sum to 1."""
    scales = np.arange(1, COORDINATES + 1) ** -power
    return np.asarray(scales / np.linalg.norm(scales))


class Nearest:
    """The exact nearest neighbours by cosine, in single precision, computed chunk by chunk."""

    def __init__(self, queries: Array, k: int) -> None:
        self._queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        self._similarity = np.full((len(queries), k), -np.inf, dtype=np.float32)
        self._rows = np.full((len(queries), k), -1, dtype=np.int64)
        self._seen = 0

    def add(self, chunk: Array) -> None:
        """Update the neighbours with the next vectors."""
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
        """Return the recall of the answers: the share of the exact neighbours' rows in them."""
        pairs = zip(self._rows.tolist(), answers, strict=True)
        return float(np.mean([len({*exact} & {*found}) / len(exact) for exact, found in pairs]))
