"""Principal components: project embeddings to short vectors, which choose candidates."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Extra columns and power iterations make the subspace accurate enough.
OVERSAMPLING = 16
POWER_ITERATIONS = 2


@dataclass(frozen=True)
class Projection:
    """A linear map of normalised embeddings onto their principal components.

    There is no whitening: compact vectors choose candidates, which the embeddings re-rank, and
    scaling weak components up would only give worse candidates.

    Attributes:
        mean: mean of the sample's normalised embeddings, shape (dimensions,), float32.
        components: orthonormal rows, strongest first, shape (compact dimensions, dimensions),
            float32.
        sample: number of embeddings that it was fitted to.
        variance_kept: share of their variance that compact vectors keep, from 0 to 1.

    """

    mean: "NDArray[np.float32]"
    components: "NDArray[np.float32]"
    sample: int
    variance_kept: float

    def project(self, embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return compact vectors, shape (rows, compact dimensions).

        Normalised embeddings have the same order by L2 distance as by cosine distance, and a
        projection onto orthogonal axes keeps most of the L2 distance.

        Args:
            embeddings: stored embeddings, not normalised, shape (rows, dimensions).

        """
        # The map is linear, so norm and mean are applied to the short vectors, which is faster.
        compact = embeddings @ self.components.T
        compact /= _norms(embeddings)
        compact -= self._origin
        return compact

    @cached_property
    def _origin(self) -> "NDArray[np.float32]":
        origin: NDArray[np.float32] = self.components @ self.mean
        return origin

    def kept(self, embeddings: "NDArray[np.float32]") -> float:
        """Return the share of these embeddings' variance that compact vectors keep.

        Args:
            embeddings: stored embeddings, not normalised, shape (rows, dimensions).

        """
        centred = np.subtract(normalised(embeddings), self.mean, dtype=np.float32)
        return _share(centred @ self.components.T, centred)


def fit(embeddings: "NDArray[np.float32]", dimensions: int) -> Projection:
    """Fit a projection by randomised subspace iteration.

    Source: Halko, Martinsson and Tropp, Finding Structure with Randomness (2011), algorithm 4.4. It
    needs a few products with the data; an eigendecomposition takes minutes at 4,096 dimensions.

    Args:
        embeddings: a random sample of stored embeddings, not normalised, shape (rows, dimensions);
            at least two rows.
        dimensions: dimensions of compact vectors; capped at rows - 1 and the dimensions of an
            embedding.

    """
    rows, full = embeddings.shape
    kept = max(min(dimensions, rows - 1, full), 1)
    centred = normalised(embeddings)
    mean = centred.mean(axis=0)
    centred -= mean
    random = np.random.default_rng(0)
    start = random.standard_normal((full, min(kept + OVERSAMPLING, rows, full)), np.float32)
    basis = _orthonormal(centred @ start)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(centred @ _orthonormal(centred.T @ basis))
    # The right singular vectors of the data within the subspace, strongest first.
    components = np.ascontiguousarray(_orthonormal((basis.T @ centred).T).T[:kept])
    return Projection(mean, components, rows, _share(centred @ components.T, centred))


def normalised(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return the embeddings scaled to length 1."""
    return embeddings / _norms(embeddings)


def _orthonormal(columns: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return the left singular vectors of a tall matrix, strongest first; 0 beyond its rank.

    They come from the eigenvectors of its small Gram matrix, in double precision. This is faster
    than a QR decomposition, whose threads mostly wait for each other.
    """
    wide = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Smaller eigenvalues are rounding errors.
    least = max(values[0], 0.0) * len(values) * np.finfo(np.float32).eps ** 2
    scale = np.where(values > least, 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    found: NDArray[np.float32] = (wide @ (vectors * scale)).astype(np.float32)
    return found


def _norms(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Return the lengths, shape (rows, 1); 1 for a zero vector, to avoid a division by zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    norms[norms == 0] = 1
    return np.asarray(norms, np.float32)


def _share(kept: "NDArray[np.float32]", whole: "NDArray[np.float32]") -> float:
    total = float(np.square(whole, dtype=np.float64).sum())
    return float(np.square(kept, dtype=np.float64).sum()) / total if total > 0 else 1.0
