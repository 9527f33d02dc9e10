"""Principal components: embeddings made compact, so that few numbers find the candidates."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# More columns than are asked for, and rounds of multiplication, make the subspace exact enough.
OVERSAMPLING = 16
POWER_ITERATIONS = 2


@dataclass(frozen=True)
class Projection:
    """A linear map of normalised embeddings onto their principal components.

    There is no whitening: the nearest by compact vectors are candidates, which the full embeddings
    re-rank, and to give faint components the weight of strong ones only makes candidates worse.

    Attributes:
        mean: of the sample's normalised embeddings, shape (dimensions,), float32.
        components: orthonormal rows, strongest first, shape (compact dimensions, dimensions),
            float32.
        sample: how many embeddings it was fitted to.
        variance_kept: share of their variance that compact vectors keep, from 0 to 1.

    """

    mean: "NDArray[np.float32]"
    components: "NDArray[np.float32]"
    sample: int
    variance_kept: float

    def project(self, embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return compact vectors, shape (rows, compact dimensions).

        Between normalised embeddings L2 distance orders as cosine does, and a projection onto
        orthogonal axes keeps most of it.

        Args:
            embeddings: as they are stored, shape (rows, dimensions).

        """
        # By linearity: mean and norms come off the short vectors.
        compact = embeddings @ self.components.T
        compact /= _norms(embeddings)
        compact -= self._origin
        return compact

    @cached_property
    def _origin(self) -> "NDArray[np.float32]":
        origin: NDArray[np.float32] = self.components @ self.mean
        return origin

    def kept(self, embeddings: "NDArray[np.float32]") -> float:
        """Return the share of these embeddings' variance about the mean that is kept.

        Args:
            embeddings: as they are stored, shape (rows, dimensions).

        """
        centred = np.subtract(normalised(embeddings), self.mean, dtype=np.float32)
        return _share(centred @ self.components.T, centred)


def fit(embeddings: "NDArray[np.float32]", dimensions: int, *, seed: int = 0) -> Projection:
    """Fit a projection by randomised subspace iteration.

    Halko, Martinsson and Tropp, Finding Structure with Randomness (2011), algorithm 4.4: some
    products with the data instead of an eigendecomposition, which takes minutes at 4,096.

    Args:
        embeddings: a fair sample, as stored, shape (rows, dimensions); at least two rows.
        dimensions: of compact vectors; fewer if there are not so many rows less one, or so many
            dimensions.
        seed: of the starting subspace.

    """
    rows, full = embeddings.shape
    kept = max(min(dimensions, rows - 1, full), 1)
    centred = normalised(embeddings)
    mean = centred.mean(axis=0)
    centred -= mean
    random = np.random.default_rng(seed)
    start = random.standard_normal((full, min(kept + OVERSAMPLING, rows, full)), np.float32)
    basis = _orthonormal(centred @ start)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(centred @ _orthonormal(centred.T @ basis))
    # The right singular vectors of what is left, strongest first.
    components = np.ascontiguousarray(_orthonormal((basis.T @ centred).T).T[:kept])
    return Projection(mean, components, rows, _share(centred @ components.T, centred))


def normalised(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return embeddings of length 1."""
    return embeddings / _norms(embeddings)


def _orthonormal(columns: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return the left singular vectors of a tall matrix, strongest first; those of nothing are 0.

    By the eigenvectors of its small Gram matrix, in double precision: a QR decomposition spends
    most of its time on threads that wait for each other.
    """
    wide = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Of rounding alone.
    least = max(values[0], 0.0) * len(values) * np.finfo(np.float32).eps ** 2
    scale = np.where(values > least, 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    found: NDArray[np.float32] = (wide @ (vectors * scale)).astype(np.float32)
    return found


def _norms(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return lengths, shape (rows, 1); 1 for zero, which has no direction."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return np.asarray(norms, np.float32)


def _share(kept: "NDArray[np.float32]", whole: "NDArray[np.float32]") -> float:
    total = float(np.square(whole, dtype=np.float64).sum())
    return float(np.square(kept, dtype=np.float64).sum()) / total if total > 0 else 1.0
