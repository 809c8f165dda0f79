"""FastFlow: the density of pretrained features, by flows that see a cell's surroundings.

For each of a few layers of a frozen backbone a normalising flow learns to map the vectors of all
cells of good images to standard Gaussians. Its couplings are convolutions over the grid, of 3 x 3
and 1 x 1 in turn, so what is likely in a cell depends on what is around it. How improbable a cell
is makes the anomaly map, the mean over the layers, and the map's maximum is the image score.

With z the vectors of the Gaussian and J the Jacobian of the flow, the density of a cell of C
channels is log p = -C/2 log 2 pi - |z|² / 2 + log |det J|, and the loss the mean of -log p. A cell
of the map is 1 - sigmoid(log p / C).

References
----------
Yu, Zheng, Wang, Li, Zhao, Wu 2021, FastFlow: Unsupervised Anomaly Detection and Localization via 2D
Normalizing Flows, arXiv 2111.07677, section 3: density, loss, couplings of convolutions.
Deviations: the backbone is EfficientNet-Lite0, each of its channels standardised by its mean and
deviation in good images; log scales are bounded by a hyperbolic tangent; the map is made of the
sigmoid of the log density per channel, where the paper takes the density, which a computer rounds
to zero long before it stops to differ; the epoch is the one that rendered defects choose.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
from keras import layers as kl

from .flows import FlowDetector, Subnet


class FastFlow(FlowDetector):
    """FastFlow; parameters of `FlowDetector`."""

    learning_rate = 1e-3
    batch_size = 8
    clamp = 2.0

    def subnets(self, shape: tuple[int, int, int], seeds: Iterator[int]) -> Subnet:
        """Two convolutions each, of 3 x 3 in every other coupling."""

        def subnet(number: int, kept: tuple[int, int, int], channels: int) -> keras.Model:
            size = 1 if number % 2 else 3
            start = keras.initializers.HeNormal(seed=next(seeds))
            x = maps = keras.Input(kept)
            x = kl.Conv2D(
                kept[2], size, padding="same", activation="relu", kernel_initializer=start
            )(x)
            x = kl.Conv2D(channels, size, padding="same", kernel_initializer="zeros")(x)
            return keras.Model(maps, x)

        return subnet

    def optimizer(self) -> keras.optimizers.Optimizer:
        """As in the paper."""
        return keras.optimizers.AdamW(self.learning_rate, weight_decay=1e-5)

    def loss(self, log_p: keras.KerasTensor, channels: int) -> keras.KerasTensor:
        """The negative logarithm of the density."""
        return -log_p
