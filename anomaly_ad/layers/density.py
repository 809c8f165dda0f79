"""Gaussian kernel density, in the log domain."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable("anomaly_ad")
class LogDensity(keras.layers.Layer):
    """The logarithm of a density made of one Gaussian around each of many points.

    log p(x) = log_norm + log sum_i exp(-|z - z_i|² / 2 h²) with z = W (x - mean), as
    `statistics.density.KernelDensity` describes it. The largest exponent is taken out of the sum,
    so that the density of what is far from all points is not the logarithm of zero.

    Parameters
    ----------
    mean : ndarray of float, shape (C,)
    whitening : ndarray of float, shape (C, C)
        W.
    points : ndarray of float, shape (N, C)
        z_i.
    bandwidth : float
        h > 0.
    log_norm : float

    Call with a tensor of shape (B, C); returns (B,).
    """

    def __init__(
        self,
        mean: NDArray,
        whitening: NDArray,
        points: NDArray,
        bandwidth: float,
        log_norm: float,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.mean = np.asarray(mean, np.float32)
        self.whitening = np.ascontiguousarray(whitening.T / bandwidth, np.float32)
        scaled = points / bandwidth
        self.points = np.ascontiguousarray(scaled.T, np.float32)
        self.half_squares = (np.einsum("nc,nc->n", scaled, scaled) / 2).astype(np.float32)
        self.log_norm = float(log_norm)

    def call(self, vectors: keras.KerasTensor) -> keras.KerasTensor:
        """Shape (B, C) -> (B,)."""
        z = ops.matmul(vectors - self.mean, self.whitening)
        # -|z - z_i|² / 2 + |z|² / 2
        exponents = ops.matmul(z, self.points) - self.half_squares
        largest = ops.max(exponents, axis=-1, keepdims=True)
        log_sum = ops.log(ops.sum(ops.exp(exponents - largest), axis=-1))
        return largest[:, 0] - ops.sum(z * z, axis=-1) / 2 + log_sum + self.log_norm

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Shape of the result."""
        return input_shape[:1]
