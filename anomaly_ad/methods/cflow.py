"""CFLOW: the density of pretrained features at their place, by conditional flows.

For each of a few layers of a frozen backbone a normalising flow learns to map the vector of a cell
of good images to a standard Gaussian, given where the cell is: the networks of its couplings get a
code of sines and cosines of the place along with the vector. How improbable a cell is makes the
anomaly map, the mean over the layers, and the map's maximum is the image score.

With log p = -C/2 log 2 pi - |z|² / 2 + log |det J| the density of a cell of C channels, the loss is
the mean of -log sigmoid(log p / C), and a cell of the map 1 - sigmoid(log p / C).

References
----------
Gudovskiy, Ishizaka, Kozuka 2022, CFLOW-AD: Real-Time Unsupervised Anomaly Detection with
Localization via Conditional Normalizing Flows, WACV, arXiv 2107.12571, section 4: conditional
couplings, code of the place; the logarithm of the sigmoid is that of the authors' program.
Deviations: the backbone is EfficientNet-Lite0, each of its channels standardised by its mean and
deviation in good images; log scales are bounded by a hyperbolic tangent; nothing of a set is
subtracted from the map, so the score of an image depends on that image alone; the epoch is the one
that rendered defects choose, instead of the best of the test set.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from .flows import FlowDetector, Subnet

_CODE = 128  # numbers that a place is coded by, half of them for each axis


class CFLOW(FlowDetector):
    """CFLOW; parameters of `FlowDetector`."""

    learning_rate = 1e-3
    batch_size = 4
    clamp = 1.9

    def subnets(self, shape: tuple[int, int, int], seeds: Iterator[int]) -> Subnet:
        """Two dense layers each; the first gets the code of the place as well."""
        height, width, _ = shape
        codes = [position_code(height)[:, None], position_code(width)[None]]

        def subnet(number: int, kept: tuple[int, int, int], channels: int) -> keras.Model:
            inputs = kept[2] + _CODE
            hidden = 2 * inputs
            start = keras.initializers.RandomNormal(
                stddev=float(np.sqrt(2 / inputs)), seed=next(seeds)
            )
            x = cells = keras.Input(kept)
            x = kl.Dense(hidden, kernel_initializer=start)(x)
            # A dense layer of vector and code is the sum of one of each; those of the code are
            # computed once for a row and a column.
            for code in codes:
                again = keras.initializers.RandomNormal(
                    stddev=float(np.sqrt(2 / inputs)), seed=next(seeds)
                )
                x = x + _OfPlace(code, hidden, again)(x)
            x = kl.Dense(channels, kernel_initializer="zeros")(ops.relu(x))
            return keras.Model(cells, x)

        return subnet

    def loss(self, log_p: keras.KerasTensor, channels: int) -> keras.KerasTensor:
        """-log sigmoid(log p / C)."""
        return ops.softplus(-log_p / channels)


class _OfPlace(kl.Layer):
    """A linear layer of constants, the codes of rows or columns, (h, 1, n) or (1, w, n)."""

    def __init__(
        self, code: NDArray[np.float32], units: int, initializer: keras.Initializer
    ) -> None:
        super().__init__()
        self.code, self.units, self.initializer = code, units, initializer

    def build(self, input_shape: object) -> None:
        shape = (self.code.shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer=self.initializer, name="kernel")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return ops.matmul(self.code, self.kernel)[None]

    def compute_output_shape(self, input_shape: object) -> tuple[int, ...]:
        return (1, *self.code.shape[:-1], self.units)


def position_code(count: int) -> NDArray[np.float32]:
    """Sines and cosines of the places along an axis, of wavelengths from 2 pi to 20,000 pi.

    Returns
    -------
    ndarray of float32, shape (count, 64)
    """
    rates = 10_000.0 ** (-np.arange(0, _CODE // 2, 2) / (_CODE // 2))
    angles = np.arange(count)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
