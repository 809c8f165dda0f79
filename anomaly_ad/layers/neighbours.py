"""Distance to the nearest of a bank of feature vectors."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@keras.saving.register_keras_serializable("anomaly_ad")
class NearestNeighbour(keras.layers.Layer):
    """The distance of each vector to the nearest of a bank, and which that is.

    d² = |a - b|² + noise, Euclidean but for a constant that keeps rounding from being seen.
    The winner is found through |b|² - 2ab, one matrix product. Its distance is then computed again
    from the difference, since |a|² - 2ab + |b|² loses its digits where a is near b.

    Parameters
    ----------
    bank : ndarray of float32, shape (K, C)
    noise : float
        >= 0.

    Call with a tensor of shape (B, P, C); returns distances of float32 and indices of int32, both
    of shape (B, P).
    """

    def __init__(self, bank: NDArray, noise: float, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.noise = float(noise)
        self.bank = np.ascontiguousarray(bank, np.float32)
        self.transposed = np.ascontiguousarray(self.bank.T)
        self.half_squares = (np.einsum("kc,kc->k", self.bank, self.bank) / 2).astype(np.float32)

    def call(self, vectors: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Shape (B, P, C) -> (B, P), (B, P)."""
        similarity = ops.matmul(vectors, self.transposed) - self.half_squares
        # argmax does not convert; top_k does.
        indices = ops.top_k(similarity, 1)[1][..., 0]
        difference = vectors - ops.take(self.bank, indices, axis=0)
        return ops.sqrt(ops.sum(difference * difference, axis=-1) + self.noise), indices

    def compute_output_spec(
        self, vectors: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Shapes and types of the results."""
        shape = vectors.shape[:-1]
        return keras.KerasTensor(shape, "float32"), keras.KerasTensor(shape, "int32")
