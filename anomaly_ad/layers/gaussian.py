"""Distance from a Gaussian, at each position or in a subspace."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable("anomaly_ad")
class MahalanobisDistance(keras.layers.Layer):
    """How far a feature vector lies from the mean of its position, in standard deviations.

    d = |W (x - mean)| with the whitening matrix W = L⁻¹, L Lᵀ = covariance, so that
    d² = (x - mean)ᵀ covariance⁻¹ (x - mean).

    Parameters
    ----------
    mean : ndarray of float, shape (P, C)
    whitening : ndarray of float16 or float32, shape (P, C, C)
        Lower triangular.

    Call with a tensor of shape (B, P, C); returns (B, P).
    """

    def __init__(self, mean: NDArray, whitening: NDArray, **kwargs: object) -> None:
        super().__init__(**kwargs)
        # Stored as they are multiplied, so that no transposed copy is made at each image. Reading
        # the matrices takes the time; the quarter that is zero is left out.
        self.mean = np.ascontiguousarray(np.asarray(mean, np.float32)[:, None, :])
        columns = whitening.transpose(0, 2, 1)
        length = columns.shape[-1]
        ends = sorted({0, length // 2, length})
        self.parts = [
            np.ascontiguousarray(columns[:, :end, begin:end]) for begin, end in pairwise(ends)
        ]

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Shape (B, P, C) -> (B, P)."""
        centred = ops.transpose(features, (1, 0, 2)) - self.mean
        squared: Any = 0.0
        for part in self.parts:
            white = ops.matmul(centred[..., : part.shape[1]], ops.cast(part, "float32"))
            squared += ops.sum(white * white, axis=-1)
        return ops.transpose(ops.sqrt(squared))

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Shape of the result."""
        return input_shape[:2]


@keras.saving.register_keras_serializable("anomaly_ad")
class SubspaceErrors(keras.layers.Layer):
    """How far vectors lie outside a subspace, and how unusual they are inside it.

    Parameters
    ----------
    mean : ndarray of float, shape (C,)
    basis : ndarray of float, shape (C, K)
        Orthonormal columns.
    variances : ndarray of float, shape (K,)
        Along the columns, > 0.

    Call with a tensor of shape (..., C); returns the squared feature reconstruction error and the
    squared Mahalanobis distance within the subspace, both of shape (...).
    """

    def __init__(self, mean: NDArray, basis: NDArray, variances: NDArray, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.mean = np.asarray(mean, np.float32)
        self.basis = np.ascontiguousarray(basis, np.float32)
        self.inverse = (1 / variances).astype(np.float32)

    def call(self, vectors: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Shape (..., C) -> (...), (...)."""
        centred = vectors - self.mean
        inside = ops.matmul(centred, self.basis)
        outside = centred - ops.matmul(inside, self.basis.T)
        return (
            ops.sum(outside * outside, axis=-1),
            ops.sum(inside * inside * self.inverse, axis=-1),
        )

    def compute_output_shape(self, input_shape: tuple) -> tuple[tuple, tuple]:
        """Shapes of the results."""
        return input_shape[:-1], input_shape[:-1]
