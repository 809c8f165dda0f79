"""Mean and covariance of features at each position, exactly, however the images come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError


class Moments:
    """Count, mean and scatter matrix of feature vectors, for each position of a grid.

    The scatter matrix is the sum of (x - mean)(x - mean)ᵀ. Sums are float64 over centred data, so
    that a large mean costs no digits. Halves can be merged and parts be taken out again; the result
    is that of one pass, up to rounding.

    Parameters
    ----------
    positions : int
        P, number of positions.
    channels : int
        C, length of a feature vector.

    References
    ----------
    Chan, Golub, LeVeque 1983, Algorithms for Computing the Sample Variance, The American
    Statistician 37(3), equations 2.1.
    """

    def __init__(self, positions: int, channels: int) -> None:
        self.count = 0
        self.mean = np.zeros((positions, channels))
        self.scatter = np.zeros((positions, channels, channels))

    def update(self, features: NDArray[np.floating]) -> Self:
        """Add a batch.

        Parameters
        ----------
        features : ndarray of float, shape (B, P, C)
            Not changed.
        """
        if features.shape[1:] != self.mean.shape:
            raise ValueError(
                f"features have the shape (B, {self.mean.shape[0]}, {self.mean.shape[1]}). "
                f"Received: {features.shape}."
            )
        if len(features):
            batch = Moments(*self.mean.shape)
            batch.count = len(features)
            batch.mean = features.mean(axis=0, dtype=np.float64)
            centred = np.ascontiguousarray((features - batch.mean).transpose(1, 0, 2))
            np.matmul(centred.transpose(0, 2, 1), centred, out=batch.scatter)
            self.merge(batch)
        return self

    def merge(self, other: Moments) -> Self:
        """Add what another has seen; `other` is not changed."""
        count = self.count + other.count
        if count:
            step = other.mean - self.mean
            self.scatter += other.scatter
            self.scatter += (self.count * other.count / count) * _outer(step)
            self.mean = self.mean + step * (other.count / count)
            self.count = count
        return self

    def subtract(self, other: Moments) -> Self:
        """Take out what another has seen, which must be a part of this; the inverse of `merge`."""
        count = self.count - other.count
        if count < 1:
            raise ValueError(f"{other.count} of {self.count} images cannot be taken out.")
        mean = (self.count * self.mean - other.count * other.mean) / count
        self.scatter -= other.scatter
        self.scatter -= (count * other.count / self.count) * _outer(other.mean - mean)
        self.mean, self.count = mean, count
        return self

    def copy(self) -> Moments:
        """An independent one."""
        out = Moments(*self.mean.shape)
        out.count, out.mean, out.scatter = self.count, self.mean.copy(), self.scatter.copy()
        return out

    def covariance(self) -> NDArray[np.float64]:
        """The unbiased covariance matrices, shape (P, C, C); two images at least."""
        return self.scatter / (self.count - 1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored: float32, of the symmetric matrices only one triangle."""
        lower = np.tril_indices(self.mean.shape[1])
        return {
            "count": np.array(self.count, np.int64),
            "mean": self.mean.astype(np.float32),
            "covariance": (self.scatter[:, *lower] / max(self.count - 1, 1)).astype(np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `arrays`, up to the rounding of float32.

        Raises
        ------
        ModelError
            The arrays do not belong together.
        """
        mean, packed = arrays["mean"], arrays["covariance"]
        lower = np.tril_indices(mean.shape[-1])
        count = int(arrays["count"])
        if mean.ndim != 2 or packed.shape != (len(mean), len(lower[0])) or count < 2:
            raise ModelError(
                f"The statistics do not belong together: mean {mean.shape}, covariance "
                f"{packed.shape}, {count} images. Restore the model directory from a copy."
            )
        out = cls(*mean.shape)
        out.count = count
        out.mean = mean.astype(np.float64)
        out.scatter[:, *lower] = packed
        out.scatter[:, *lower[::-1]] = packed
        out.scatter *= count - 1
        return out


def _outer(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors[:, :, None] * vectors[:, None, :]


def whitening(moments: Moments, regularization: float) -> NDArray[np.float32]:
    """Matrices W with which |W (x - mean)| is the Mahalanobis distance at each position.

    W = L⁻¹ with L Lᵀ = covariance + regularization * V, where V holds the variances of the channels
    averaged over the positions on its diagonal: it makes the matrix invertible where there are
    fewer images than channels, or a place that is always the same.

    Parameters
    ----------
    moments : Moments
        Of at least two images that are not all alike.
    regularization : float
        > 0, relative to the mean variance of each channel.

    Returns
    -------
    ndarray of float32, shape (P, C, C)
        Lower triangular.
    """
    covariance = moments.covariance()
    variances = np.einsum("pcc->c", covariance) / len(covariance)
    # A channel that never varies anywhere gets a little of what the others have.
    floor = 1e-6 * variances.mean()
    diagonal = np.arange(covariance.shape[1])
    covariance[:, diagonal, diagonal] += regularization * np.maximum(variances, floor)
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.tril(inverse).astype(np.float32)


def mahalanobis(
    features: NDArray[np.floating], mean: NDArray[np.floating], whitening: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The distance of each feature vector from the mean of its position, in standard deviations.

    Parameters
    ----------
    features : ndarray of float, shape (B, P, C)
    mean : ndarray of float, shape (P, C)
    whitening : ndarray of float32, shape (P, C, C)
        As `whitening` gives it.

    Returns
    -------
    ndarray of float32, shape (B, P)
    """
    centred = (features - mean).astype(np.float32).transpose(1, 2, 0)
    white = np.matmul(whitening, centred)
    return np.sqrt(np.einsum("pcb,pcb->bp", white, white))
