"""Mean and covariance of features at each position, exactly, however the images come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError

_SOLVED = 16  # images whose distances are solved for at a time
_SOLVED_TO, _STEPS = 1e-5, 60  # where conjugate gradients end: relative residual, squared; steps
_TINY = 1e-300


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
    if (moments.seen == moments.count).all():
        pooled = moments.scatter.mean(axis=0) / moments.degrees[0]
    else:  # positions that hardly ever count say little of the others
        pooled = moments.scatter.sum(axis=0) / np.maximum(moments.seen - 1, 0).sum()
    covariance = moments.scatter + prior * pooled
    covariance /= (moments.degrees + prior)[:, None, None]
    diagonal = np.arange(len(pooled))
    covariance[:, diagonal, diagonal] += regularization * _variances(pooled)
    return covariance


def _variances(pooled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variances of the channels; one that never varies gets a little of what the others have."""
    variances = np.diagonal(pooled, axis1=-2, axis2=-1)
    return np.maximum(variances, 1e-6 * variances.mean(axis=-1, keepdims=True))


def whitening(covariance: NDArray[np.float64]) -> NDArray[np.floating]:
    """Matrices W with which |W (x - mean)| is the Mahalanobis distance at each position.

    W = L⁻¹ with L Lᵀ the covariance. In half precision, if its range is enough: that changes
    distances by a few parts in 10,000, and halves what takes most of a model's file.

    Parameters
    ----------
    covariance : ndarray of float64, shape (P, C, C)
        Invertible, such as `regularized` gives.

    Returns
    -------
    ndarray of float16 or float32, shape (P, C, C)
        Lower triangular.
    """
    inverse = np.tril(np.linalg.inv(np.linalg.cholesky(covariance)))
    fits = np.abs(inverse).max() < np.finfo(np.float16).max
    return inverse.astype(np.float16 if fits else np.float32)


def mahalanobis(
    features: NDArray[np.floating], mean: NDArray[np.floating], whitening: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The distance of each feature vector from the mean of its position, in standard deviations.

    Parameters
    ----------
    features : ndarray of float, shape (B, P, C)
    mean : ndarray of float, shape (P, C)
    whitening : ndarray of float16 or float32, shape (P, C, C)
        See `whitening`.

    Returns
    -------
    ndarray of float32, shape (B, P)
    """
    centred = np.ascontiguousarray((features - mean).transpose(1, 2, 0), np.float32)
    white = np.matmul(whitening.astype(np.float32), centred)
    return np.sqrt(np.square(white).sum(axis=1)).T


def mahalanobis_unseen(
    moments: Moments, regularization: float, prior: float = 0.0
) -> Callable[[NDArray[np.floating], NDArray[np.float32] | None], NDArray[np.float32]]:
    """Distances of images that the moments have seen, each as if they had not seen it.

    They are those of `moments` without the image and what `regularized` makes of these: mean,
    scatter, pooled covariance and variances all change. With u = x - mean and A that covariance,
    d² = (n / (n - 1))² uᵀ A⁻¹ u. The equations are solved by conjugate gradients, preconditioned
    with the covariance of all images, which A hardly differs from: a few steps instead of
    decomposing the matrices of all positions for each image.

    Parameters
    ----------
    moments : Moments
        Of at least three images.
    regularization, prior : float
        See `regularized`.

    Returns
    -------
    callable
        Features of such images, float (B, P, C), and how much of each position counts (B, P) or
        None for all -> float32 (B, P).

    References
    ----------
    Hestenes, Stiefel 1952, Methods of Conjugate Gradients for Solving Linear Systems, Journal of
    Research of the National Bureau of Standards 49(6).
    """
    count = np.maximum(moments.seen, 2)  # where one counts alone, nothing is told of it
    mean, scatter = moments.means(), moments.scatter
    together, degrees = scatter.sum(axis=0), np.maximum(moments.seen - 1, 0).sum()
    near = np.linalg.inv(regularized(moments, regularization, prior))
    least = 1e-6 * _variances(together / max(degrees, 1))  # where all others are alike

    def measure(
        features: NDArray[np.floating], shares: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        counts = np.ones(features.shape[:2]) if shares is None else (shares > 0).astype(float)
        parts = [
            one(features[start : start + _SOLVED], counts[start : start + _SOLVED])
            for start in range(0, len(features), _SOLVED)
        ]
        return np.concatenate(parts)

    def one(features: NDArray[np.floating], counts: NDArray[np.float64]) -> NDArray[np.float32]:
        centred = features - mean
        further = 1 + counts / (count - 1)  # n / (n - 1): the mean moves away as well
        taken = (counts * further)[..., None] * centred
        left = together - np.matmul(centred.transpose(0, 2, 1), taken)
        fewer = degrees - (counts * (moments.seen > 1)).sum(axis=1)
        pooled = left / np.maximum(fewer, 1)[:, None, None]
        variances = np.maximum(_variances(pooled), least)[:, None] * regularization
        weights = 1 / (np.maximum(count - 1 - counts, 1) + prior)[..., None]

        def covariance(x: NDArray[np.float64]) -> NDArray[np.float64]:
            product = _at_each(scatter, x) - taken * (centred * x).sum(axis=-1, keepdims=True)
            return (product + prior * np.matmul(x, pooled)) * weights + variances * x

        solved = _conjugate_gradients(covariance, lambda x: _at_each(near, x), centred)
        squared = np.maximum((centred * solved).sum(axis=-1), 0)
        return (further * np.sqrt(squared)).astype(np.float32)

    return measure


def _at_each(matrices: NDArray[np.floating], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix of each position, (P, C, C), times vectors there, (B, P, C)."""
    columns = np.ascontiguousarray(vectors.transpose(1, 2, 0), matrices.dtype)
    return np.ascontiguousarray(np.matmul(matrices, columns).transpose(2, 0, 1), np.float64)


def _conjugate_gradients(
    matrix: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    inverse: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Solve many positive definite systems, one along each last axis, with a near inverse."""
    solution, residual = np.zeros_like(right), right.copy()
    direction = near = inverse(residual)
    size = first = (residual * near).sum(axis=-1, keepdims=True)
    for _ in range(_STEPS):
        if (size <= _SOLVED_TO * first).all():
            break
        image = matrix(direction)
        step = size / np.maximum((direction * image).sum(axis=-1, keepdims=True), _TINY)
        solution += step * direction
        residual -= step * image
        near = inverse(residual)
        before, size = size, (residual * near).sum(axis=-1, keepdims=True)
        direction = near + size / np.maximum(before, _TINY) * direction
    return solution
