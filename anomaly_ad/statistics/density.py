"""Gaussian kernel density of feature vectors, in the log domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RULES = ("scott", "silverman", "cross_validation")  # for the bandwidth

_CHUNK = 256  # vectors whose distances to all points are in memory at a time
_LEFT_OUT = 2000  # points that cross-validation leaves out, at most
_WIDTHS = np.geomspace(0.1, 10, 41)  # that cross-validation tries, in units of Scott's
_FLOOR = 1e-10  # of a direction's variance, relative to one standard deviation


@dataclass(frozen=True)
class KernelDensity:
    """A density made of one Gaussian around each of many points.

    p(x) = 1/n sum_i N(x; x_i, h² S), with S the covariance of the points: features are standardised
    and decorrelated by it, so neither their units nor their common offset matter. All is computed
    as logarithms of float64, so that what is far from all points has a density too, and not zero.

    Parameters
    ----------
    mean : ndarray of float64, shape (C,)
        Of the points.
    whitening : ndarray of float64, shape (C, C)
        W with W S Wᵀ = 1; z = W (x - mean) is a standardised vector.
    points : ndarray of float64, shape (N, C)
        Standardised.
    bandwidth : float
        h, in standard deviations.
    log_norm : float
        Logarithm of the factor before the sum of exp(-|z - z_i|² / 2 h²).

    References
    ----------
    Silverman 1986, Density Estimation for Statistics and Data Analysis, equations 4.7 (the Gaussian
    kernel with the data's covariance) and 4.14 (bandwidth), section 3.4.4 (cross-validation).
    Scott 1992, Multivariate Density Estimation, equation 6.42 (bandwidth).
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    points: NDArray[np.float64]
    bandwidth: float
    log_norm: float

    @classmethod
    def of(cls, vectors: NDArray[np.floating], bandwidth: str | float = "scott") -> KernelDensity:
        """Estimate the density that vectors come from.

        Parameters
        ----------
        vectors : ndarray of float, shape (N, C)
            Two at least; not changed.
        bandwidth : {"scott", "silverman", "cross_validation"} or float
            "scott": h = N^(-1 / (C + 4)). "silverman": h = (N (C + 2) / 4)^(-1 / (C + 4)).
            "cross_validation": the one of 41 from a tenth of Scott's to ten times it that gives
            the highest likelihood to each point from all others (2,000 points at most are left
            out). A number: h itself.
        """
        vectors = np.asarray(vectors, np.float64)
        count, channels = vectors.shape
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        # Standardised first, so that what is small compared with rounding is the same in any unit.
        deviation = centred.std(axis=0, ddof=1)
        constant = deviation <= 1e-12 * np.abs(mean)
        deviation[constant] = np.maximum(np.abs(mean[constant]), 1.0)
        standard = centred / deviation
        variances, axes = np.linalg.eigh(standard.T @ standard / (count - 1))
        # A direction in which points never vary is given a little, so that leaving it counts.
        variances = np.maximum(variances, _FLOOR)
        whitening = (axes / np.sqrt(variances)).T / deviation
        points = centred @ whitening.T
        if isinstance(bandwidth, str):
            bandwidth = _bandwidth(bandwidth, points)
        log_norm = (
            np.linalg.slogdet(whitening)[1]
            - np.log(count)
            - channels * (np.log(bandwidth) + np.log(2 * np.pi) / 2)
        )
        return cls(mean, whitening, points, float(bandwidth), float(log_norm))

    def log_density(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Logarithm of the density.

        Parameters
        ----------
        vectors : ndarray of float, shape (B, C)
            Not changed.

        Returns
        -------
        ndarray of float64, shape (B,)
        """
        standard = (np.asarray(vectors, np.float64) - self.mean) @ self.whitening.T
        out = np.empty(len(standard))
        for start in range(0, len(standard), _CHUNK):
            squares = _square_distances(standard[start : start + _CHUNK], self.points)
            out[start : start + _CHUNK] = _log_sum_exp(squares / (-2 * self.bandwidth**2))
        return out + self.log_norm


def _bandwidth(rule: str, points: NDArray[np.float64]) -> float:
    """Bandwidth in standard deviations, for standardised points."""
    count, channels = points.shape
    scott = float(count ** (-1 / (channels + 4)))
    if rule == "scott":
        return scott
    if rule == "silverman":
        return scott * float(((channels + 2) / 4) ** (-1 / (channels + 4)))
    if rule != "cross_validation":
        raise ValueError(f"bandwidth is one of {', '.join(RULES)}. Received: {rule!r}.")
    widths = scott * _WIDTHS
    likelihood = np.zeros(len(widths))
    # Evenly over all, whatever their order means.
    left_out = np.linspace(0, count - 1, min(count, _LEFT_OUT)).astype(int)
    for start in range(0, len(left_out), _CHUNK):
        chosen = left_out[start : start + _CHUNK]
        squares = _square_distances(points[chosen], points)
        squares[np.arange(len(chosen)), chosen] = np.inf
        for n, width in enumerate(widths):
            log_sums = _log_sum_exp(squares / (-2 * width**2))
            likelihood[n] += log_sums.sum() - len(chosen) * channels * np.log(width)
    return float(widths[likelihood.argmax()])


def _square_distances(
    vectors: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shape (B, C), (N, C) -> (B, N)."""
    lengths = np.einsum("bc,bc->b", vectors, vectors)
    squares = lengths[:, None] + np.einsum("nc,nc->n", points, points) - 2 * vectors @ points.T
    return np.maximum(squares, 0)


def _log_sum_exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row: shape (B, N) -> (B,)."""
    largest = values.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = largest[:, 0] + np.log(np.exp(values - largest).sum(axis=1))
    return out
