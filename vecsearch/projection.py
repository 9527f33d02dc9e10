"""Principal components: embeddings made compact, so that few numbers find the candidates."""

from dataclasses import dataclass
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
        compact -= self.components @ self.mean
        return compact

    def kept(self, embeddings: "NDArray[np.float32]") -> float:
        """Return the share of these embeddings' variance about the mean that is kept.

        Args:
            embeddings: as they are stored, shape (rows, dimensions).

        """
        centred = normalised(embeddings) - self.mean
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
    basis = np.linalg.qr(centred @ start)[0]
    for _ in range(POWER_ITERATIONS):
        basis = np.linalg.qr(centred @ np.linalg.qr(centred.T @ basis)[0])[0]
    components = np.linalg.svd(basis.T @ centred, full_matrices=False)[2][:kept]
    components = np.ascontiguousarray(components, np.float32)
    return Projection(mean, components, rows, _share(centred @ components.T, centred))


def normalised(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return embeddings of length 1."""
    return embeddings / _norms(embeddings)


def _norms(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return lengths, shape (rows, 1); 1 for zero, which has no direction."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return np.asarray(norms, np.float32)


def _share(kept: "NDArray[np.float32]", whole: "NDArray[np.float32]") -> float:
    total = float(np.square(whole, dtype=np.float64).sum())
    return float(np.square(kept, dtype=np.float64).sum()) / total if total > 0 else 1.0
