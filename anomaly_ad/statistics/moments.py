"""Mean and covariance of features at each position, exactly, however the images come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    Attributes
    ----------
    count : int
        Number of images.
    seen : ndarray of float64, shape (P,)
        In how many of them each position counted; the same for all but where images have padding.

    References
    ----------
    Chan, Golub, LeVeque 1983, Algorithms for Computing the Sample Variance, The American
    Statistician 37(3), equations 2.1.
    """

    def __init__(self, positions: int, channels: int) -> None:
        self.count = 0
        self.seen = np.zeros(positions)
        self.mean = np.zeros((positions, channels))
        self.scatter = np.zeros((positions, channels, channels))

    def update(
        self, features: NDArray[np.floating], shares: NDArray[np.float32] | None = None
    ) -> Self:
        """Add a batch.

        Parameters
        ----------
        features : ndarray of float, shape (B, P, C)
            Not changed.
        shares : ndarray of float32, shape (B, P), optional
            How much of each position counts; where nothing does, that image is left out there.
        """
        if features.shape[1:] != self.mean.shape:
            raise ValueError(
                f"features have the shape (B, {self.mean.shape[0]}, {self.mean.shape[1]}). "
                f"Received: {features.shape}."
            )
        if len(features):
            counts = np.ones(features.shape[:2]) if shares is None else (shares > 0).astype(float)
            seen = counts.sum(axis=0)
            if shares is None:
                mean = features.mean(axis=0, dtype=np.float64)
                centred = features - mean
            else:
                total = (features * counts[..., None]).sum(axis=0)
                mean = total / np.maximum(seen, 1)[:, None]
                centred = (features - mean) * counts[..., None]
            centred = np.ascontiguousarray(centred.transpose(1, 0, 2))
            scatter = np.matmul(centred.transpose(0, 2, 1), centred)
            self._merge(len(features), seen, mean, scatter)
        return self

    def merge(self, other: Moments) -> Self:
        """Add what another has seen; `other` is not changed."""
        if other.count:
            self._merge(other.count, other.seen, other.mean, other.scatter.copy())
        return self

    def _merge(
        self,
        count: int,
        seen: NDArray[np.float64],
        mean: NDArray[np.float64],
        scatter: NDArray[np.float64],
    ) -> None:
        """Add images; `scatter` is taken over."""
        if not self.count:
            self.count, self.seen, self.mean, self.scatter = count, seen, mean.copy(), scatter
            return
        total = self.seen + seen
        step = mean - self.mean
        self.scatter += scatter
        _add_outer(self.scatter, step, self.seen * seen / np.maximum(total, 1))
        self.mean = self.mean + step * (seen / np.maximum(total, 1))[:, None]
        self.count += count
        self.seen = total

    def without(self, other: Moments) -> Moments:
        """What is left when that which another has seen is taken out; the inverse of `merge`.

        Parameters
        ----------
        other : Moments
            Of a part of the same images. Neither is changed.
        """
        out = Moments(*self.mean.shape)
        out.count = self.count - other.count
        if out.count < 1:
            raise ValueError(f"{other.count} of {self.count} images cannot be taken out.")
        out.seen = self.seen - other.seen
        sums = self.seen[:, None] * self.mean - other.seen[:, None] * other.mean
        out.mean = sums / np.maximum(out.seen, 1)[:, None]
        out.scatter = self.scatter - other.scatter
        factors = -out.seen * other.seen / np.maximum(self.seen, 1)
        _add_outer(out.scatter, other.mean - out.mean, factors)
        return out

    @property
    def degrees(self) -> NDArray[np.float64]:
        """Degrees of freedom of each position's scatter, shape (P,); 1 at least."""
        return np.maximum(self.seen - 1, 1)

    def covariance(self) -> NDArray[np.float64]:
        """The unbiased covariance matrices, shape (P, C, C); two images at least."""
        return self.scatter / self.degrees[:, None, None]

    def means(self) -> NDArray[np.float64]:
        """The means, shape (P, C); where a position never counted, that of all the others."""
        if self.seen.all():
            return self.mean
        everywhere = np.average(self.mean, axis=0, weights=self.seen)
        return np.where(self.seen[:, None] > 0, self.mean, everywhere)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored: float32, of the symmetric matrices only one triangle."""
        lower = np.tril_indices(self.mean.shape[1])
        packed = self.scatter[:, *lower] / self.degrees[:, None]
        out: dict[str, NDArray[Any]] = {
            "count": np.array(self.count, np.int64),
            "mean": self.mean.astype(np.float32),
            "covariance": packed.astype(np.float32),
        }
        if (self.seen != self.count).any():
            out["seen"] = self.seen
        return out

    def shapes(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
        """Shapes of what is stored; `seen` only where `arrays` has it."""
        out = {name: array.shape for name, array in self.arrays().items()}
        return out | ({"seen": self.seen.shape} if "seen" in arrays else {})

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
        seen = arrays.get("seen", np.full(len(mean), float(count)))
        if not ((seen >= 0) & (seen <= count)).all() or not (seen > 1).any():
            raise ModelError(
                "The statistics do not belong together: positions that count in more images than "
                "there are, or in none. Restore the model directory from a copy."
            )
        out.seen = np.asarray(seen, np.float64)
        out.mean = mean.astype(np.float64)
        out.scatter[:, *lower] = packed
        out.scatter[:, *lower[::-1]] = packed
        out.scatter *= out.degrees[:, None, None]
        return out


def _add_outer(
    matrices: NDArray[np.float64], vectors: NDArray[np.float64], factors: NDArray[np.float64]
) -> None:
    """Add factor * v vᵀ at each position, a few at a time: what is small stays in the cache."""
    for start in range(0, len(vectors), 16):
        part, factor = vectors[start : start + 16], factors[start : start + 16, None, None]
        matrices[start : start + 16] += (factor * part[:, :, None]) * part[:, None, :]


def regularized(moments: Moments, regularization: float, prior: float = 0.0) -> NDArray[np.float64]:
    """Covariance matrices that can be inverted, for fewer images than channels too.

    (S + prior * P) / (n - 1 + prior) + regularization * V, with S the scatter of a position, P the
    covariance averaged over all positions, and V the variances of the channels, averaged over the
    positions, on its diagonal. It is the covariance that Friedman's regularized discriminant
    analysis shrinks towards the pooled one, the weight of which falls as images are added.

    Parameters
    ----------
    moments : Moments
        Of at least two images that are not all alike.
    regularization : float
        > 0, relative to the mean variance of each channel.
    prior : float
        How many images the pooled covariance counts for, >= 0.

    Returns
    -------
    ndarray of float64, shape (P, C, C)

    References
    ----------
    Friedman 1989, Regularized Discriminant Analysis, JASA 84(405), equations 16 to 18; the pooled
    covariance takes the place of a share of the images instead of a share that is tuned.
    """
    return _regularized(moments, moments.degrees, regularization, prior)


def _regularized(
    moments: Moments, degrees: NDArray[np.float64], regularization: float, prior: float
) -> NDArray[np.float64]:
    """As `regularized`, with `degrees` (P,) in place of n - 1."""
    if (moments.seen == moments.count).all():
        pooled = moments.scatter.mean(axis=0) / moments.degrees[0]
    else:  # positions that hardly ever count say little of the others
        pooled = moments.scatter.sum(axis=0) / np.maximum(moments.seen - 1, 0).sum()
    covariance = moments.scatter + prior * pooled
    covariance /= (degrees + prior)[:, None, None]
    variances = np.diag(pooled)
    # A channel that never varies anywhere gets a little of what the others have.
    floor = 1e-6 * variances.mean()
    diagonal = np.arange(len(pooled))
    covariance[:, diagonal, diagonal] += regularization * np.maximum(variances, floor)
    return covariance


def whitening(covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Matrices W with which |W (x - mean)| is the Mahalanobis distance at each position.

    W = L⁻¹ with L Lᵀ the covariance.

    Parameters
    ----------
    covariance : ndarray of float64, shape (P, C, C)
        Invertible, such as `regularized` gives.

    Returns
    -------
    ndarray of float32, shape (P, C, C)
        Lower triangular.
    """
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.tril(inverse).astype(np.float32)


def mahalanobis(
    features: NDArray[np.floating], mean: NDArray[np.floating], covariance: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The distance of each feature vector from the mean of its position, in standard deviations.

    d² = (x - mean)ᵀ covariance⁻¹ (x - mean), by solving for the vectors at hand: to score a few
    hundred, that takes a third of the time of inverting the matrices.

    Parameters
    ----------
    features : ndarray of float, shape (B, P, C)
    mean : ndarray of float, shape (P, C)
    covariance : ndarray of float64, shape (P, C, C)

    Returns
    -------
    ndarray of float32, shape (B, P)
    """
    centred = np.ascontiguousarray((features - mean).transpose(1, 2, 0))
    solved = np.linalg.solve(covariance, centred)
    return np.sqrt(np.einsum("pcb,pcb->bp", centred, solved)).astype(np.float32)


def mahalanobis_unseen(
    moments: Moments, regularization: float, prior: float = 0.0
) -> Callable[[NDArray[np.floating]], NDArray[np.float32]]:
    """Distances of images that the moments have seen, each as if they had not seen it.

    With u = x - mean, A the regularized covariance with n - 2 in place of n - 1, q = uᵀ A⁻¹ u and
    c = n / ((n - 1) (n - 2 + prior)), the distance of x from the moments without x is
    d² = (n / (n - 1))² q / (1 - c q). P and V, see `regularized`, stay those of all images.

    Parameters
    ----------
    moments : Moments
        Of at least three images.
    regularization, prior : float
        See `regularized`.

    Returns
    -------
    callable
        Features of such images, float (B, P, C) -> float32 (B, P).

    References
    ----------
    Sherman, Morrison 1950, Adjustment of an Inverse Matrix Corresponding to a Change in One Element
    of a Given Matrix, The Annals of Mathematical Statistics 21(1), of a matrix less an outer
    product.
    """
    count = np.maximum(moments.seen, 3)  # fewer are scored nowhere
    degrees = count - 2
    covariance = _regularized(moments, degrees, regularization, prior)
    share = count / ((count - 1) * (degrees + prior))
    mean = moments.means()

    def measure(features: NDArray[np.floating]) -> NDArray[np.float32]:
        squared = mahalanobis(features, mean, covariance).astype(np.float64) ** 2
        left = np.maximum(1 - share * squared, 1e-9)  # above zero but for rounding
        return (count / (count - 1) * np.sqrt(squared / left)).astype(np.float32)

    return measure
