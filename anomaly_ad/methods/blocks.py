"""Pieces of convolutional networks, their first weights drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers as kl


class Blocks:
    """Makes the layers of one network; the same calls with the same seed give the same weights.

    Parameters
    ----------
    seed : int
        Of the weights.
    slope : float
        Of the activation below zero; 0 for ReLU.
    """

    def __init__(self, seed: int, slope: float = 0.1) -> None:
        self._seeds = iter(range(1000 * seed, 1000 * seed + 1000))
        self._slope = slope

    def _weights(self) -> dict[str, object]:
        start = keras.initializers.HeNormal(seed=next(self._seeds))
        return {"padding": "same", "kernel_initializer": start}

    def dense(self, x: keras.KerasTensor, units: int) -> keras.KerasTensor:
        """A dense layer with a bias."""
        start = keras.initializers.HeNormal(seed=next(self._seeds))
        return kl.Dense(units, kernel_initializer=start)(x)

    def conv(self, x: keras.KerasTensor, filters: int, size: int) -> keras.KerasTensor:
        """A convolution with a bias."""
        return kl.Conv2D(filters, size, **self._weights())(x)

    def block(
        self, x: keras.KerasTensor, filters: int, size: int, strides: int = 1
    ) -> keras.KerasTensor:
        """A convolution and `active`; a grid that does not divide by the strides is rounded up.

        Without a bias, which the normalisation takes out: its gradient is rounding errors, and
        Adam makes whole steps of them.
        """
        return self.active(kl.Conv2D(filters, size, strides, use_bias=False, **self._weights())(x))

    def doubled(self, x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        """A transposed convolution of twice the size, without a bias: `active` is to follow."""
        return kl.Conv2DTranspose(filters, 4, 2, use_bias=False, **self._weights())(x)

    def active(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Batch normalisation and activation."""
        return kl.LeakyReLU(negative_slope=self._slope)(kl.BatchNormalization(momentum=0.9)(x))


def cropped(x: keras.KerasTensor, size: Sequence[int]) -> keras.KerasTensor:
    """Without the rows and columns at the end that `size` has not."""
    beyond = [(0, longer - wanted) for longer, wanted in zip(x.shape[1:3], size, strict=True)]
    return kl.Cropping2D(beyond)(x) if np.any(beyond) else x
