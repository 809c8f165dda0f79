"""Principal components of feature vectors, exactly, however the images come in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .moments import Moments

_TINY = 1e-300  # instead of nothing, in a division


@dataclass(frozen=True)
class Subspace:
    """The directions in which feature vectors vary most, and what is left outside them.

    Parameters
    ----------
    mean : ndarray of float32, shape (C,)
        Mean of the vectors.
    basis : ndarray of float32, shape (C, K)
        Orthonormal columns, the one of largest variance first.
    variances : ndarray of float32, shape (K,)
        Variances along them, > 0.
    residual : float
        Variance of each of the other C - K directions, > 0: together they hold what the asked share
        leaves over. Measured on fewer vectors than C it would be far too small, and jump to nothing
        where all directions are kept that those vectors have.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    variances: NDArray[np.float32]
    residual: float

    @classmethod
    def of(cls, moments: Moments, share: float, most: int | None = None) -> Subspace:
        """Principal components, as many as hold a share of the total variance.

        Parameters
        ----------
        moments : Moments
            With one position.
        share : float
            In (0, 1).
        most : int, optional
            How many at most.
        """
        variances, directions = np.linalg.eigh(moments.covariance()[0])
        return cls._of(moments.mean[0], variances, directions, moments.count, share, most)

    @classmethod
    def of_vectors(
        cls, vectors: NDArray[np.float32], times: NDArray[np.int64], share: float
    ) -> Subspace:
        """As `of`, from vectors at hand, where there are not many.

        Where they are fewer than dimensions it takes their Gram matrix (N, N): its eigenvectors
        weigh the vectors into the principal components.

        Parameters
        ----------
        vectors : ndarray of float32, shape (N, C)
        times : ndarray of int, shape (N,)
            How often each came; two altogether at least.
        share : float
            In (0, 1).
        """
        count = int(times.sum())
        mean = np.average(vectors.astype(np.float64), axis=0, weights=times)
        centred = np.sqrt(times)[:, None] * (vectors - mean)
        are_few = len(centred) < len(mean)
        products = centred @ centred.T if are_few else centred.T @ centred
        variances, directions = np.linalg.eigh(products / (count - 1))
        return cls._of(
            mean, variances, directions, count, share, spanned=centred.T if are_few else None
        )

    @classmethod
    def _of(
        cls,
        mean: NDArray[np.float64],
        variances: NDArray[np.float64],
        directions: NDArray[np.float64],
        count: int,
        share: float,
        most: int | None = None,
        *,
        spanned: NDArray[np.float64] | None = None,
    ) -> Subspace:
        """Choose from eigenvalues in ascending order, and eigenvectors as columns.

        `spanned`, shape (C, N), is what eigenvectors of a Gram matrix weigh.
        """
        variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
        together = np.cumsum(variances)
        # Beyond rank n - 1 there is only rounding.
        rank = max(min(count - 1, len(mean) - 1), 1)
        wanted = int(np.searchsorted(together, share * together[-1])) + 1
        kept = min(wanted, rank, most or rank)
        floor = 1e-6 * together[-1] / len(mean) or 1e-12
        rest = (1 - share) * together[-1] / max(len(mean) - kept, 1)
        basis = directions[:, :kept]
        if spanned is not None:
            basis = spanned @ basis
            basis /= np.linalg.norm(basis, axis=0) + _TINY
        return cls(
            mean.astype(np.float32),
            np.ascontiguousarray(basis, np.float32),
            np.maximum(variances[:kept], floor).astype(np.float32),
            float(max(rest, floor)),
        )

    def errors(
        self, vectors: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How far vectors lie outside the subspace, and how unusual they are inside it.

        Parameters
        ----------
        vectors : ndarray of float, shape (..., C)

        Returns
        -------
        (ndarray of float32, ndarray of float32), shape (...) each
            The squared feature reconstruction error |x - mean - B Bᵀ (x - mean)|², and the squared
            Mahalanobis distance within the subspace, sum of ((x - mean) b)² / variance.
        """
        centred = vectors - self.mean
        inside = centred @ self.basis
        outside = centred - inside @ self.basis.T
        return (
            np.square(outside).sum(axis=-1).astype(np.float32),
            (np.square(inside) / self.variances).sum(axis=-1).astype(np.float32),
        )
