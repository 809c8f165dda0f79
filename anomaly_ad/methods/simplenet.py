"""SimpleNet: a small network that tells good features from the same with noise.

The vector of each cell of a grid goes through a linear adaptor; Gaussian noise is added to a copy,
and a discriminator of two layers learns to tell the cells with noise from those without. Its answer
is the anomaly map, and the map's maximum the image score.

With D the answer of the discriminator, high for odd cells, the loss is the mean of
max(0, 0.5 + D(good)) + max(0, 0.5 - D(good + noise)).

References
----------
Liu, Zhou, Xu, Wang 2023, SimpleNet: A Simple Network for Image Anomaly Detection and Localization,
CVPR, arXiv 2303.15140, section 3: adaptor, noise in the space of features, discriminator, and the
truncated L1 loss with margins of 0.5. Rolih, Fučka, Skočaj 2024, SuperSimpleNet, ICPR, arXiv
2408.03143, section 3: noise within masks of thresholded Perlin noise. Deviations: the backbone is
EfficientNet-Lite0 on a grid of 8 x 8 pixels, and its channels are standardised, so the noise is in
units of their deviation; adaptor and discriminator share one optimiser and rate; the adaptor begins
as an orthogonal matrix; of SuperSimpleNet neither the second head for the image nor the focal loss
is taken; the epoch is the one that rendered defects choose, instead of the best of the test set.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops

from ..images import Framing
from .cells import CellDetector
from .gradient import Batches, Items, Tensors
from .heads import highest
from .maps import mean_over
from .perlin import perlin_mask

_MARGIN = 0.5


class SimpleNet(CellDetector):
    """SimpleNet.

    Parameters
    ----------
    framing, patch_size, seed, backbone, layers, blur
        See `CellDetector`.
    noise : float
        Standard deviation of the noise in units of the features' own.
    noise_in : {"patches", "everywhere"}
        Where an image gets noise: in patches of irregular shape, or in every cell.
    """

    learning_rate = 2e-4
    batch_size = 8

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        noise: float,
        noise_in: str,
        **parameters: Any,
    ) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        self.noise = noise
        self.noise_in = noise_in
        channels = self.shape[2]
        seeds = iter(range(1000 * seed, 1000 * seed + 3))
        cells = keras.Input(self.shape)
        start = keras.initializers.Orthogonal(seed=next(seeds))
        adaptor = keras.Model(cells, kl.Dense(channels, kernel_initializer=start)(cells))
        # Without a bias, which the normalisation takes out.
        x = kl.Dense(channels, use_bias=False, kernel_initializer=_normal(next(seeds)))(cells)
        x = kl.LeakyReLU(negative_slope=0.2)(kl.BatchNormalization(momentum=0.9)(x))
        x = kl.Dense(1, use_bias=False, kernel_initializer=_normal(next(seeds)))(x)
        self.networks = {"adaptor": adaptor, "discriminator": keras.Model(cells, x)}

    def optimizer(self) -> keras.optimizers.Optimizer:
        """One for both networks."""
        return keras.optimizers.AdamW(self.learning_rate, weight_decay=1e-5)

    def batches(self, items: Items) -> Batches:
        """Features with the noise that is added to a copy of them."""
        return _NoisyBatches(self, items)

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The truncated L1 loss of cells without and with noise.

        Cells without noise should give at most -margin, those with noise at least +margin.
        """
        good = self.networks["adaptor"](self.standard(x), training=training)
        both = ops.concatenate([good, good + x["noise"]], axis=0)
        found = self.networks["discriminator"](both, training=training)
        is_odd = ops.concatenate([ops.zeros_like(x["mask"]), x["mask"]], axis=0)
        shares = self.standard.shares(ops, x)
        shares = None if shares is None else ops.concatenate([shares, shares], axis=0)
        return mean_over(ops.relu(_MARGIN - (2 * is_odd - 1) * found), shares)

    def outputs(self, features: Tensors) -> Tensors:
        """How far a cell's answer is above that of one that is clearly good."""
        adapted = self.networks["adaptor"](self.standard(features), training=False)
        found = self.networks["discriminator"](adapted, training=False)[..., 0]
        inside = features.get("inside")
        # Above zero: the map is zero where nothing counts.
        anomaly_map = self.head(ops, ops.softplus(found), inside)
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


class _NoisyBatches(Batches):
    """Features, "noise" of their shape, and "mask" (B, height, width, 1): 1 where there is any."""

    def __init__(self, detector: SimpleNet, items: Items) -> None:
        super().__init__(items, detector.batch_size, detector.seed, detector.least_per_epoch)
        self.detector = detector

    def __getitem__(self, index: int) -> Any:
        features = self.chosen(index)
        random, detector = self.random(index), self.detector
        shape = features["features"].shape
        mask = np.ones((*shape[:3], 1), np.float32)
        if detector.noise_in == "patches":
            masks = [perlin_mask(shape[1:3], random) for _ in range(shape[0])]
            mask = np.stack(masks)[..., None].astype(np.float32)
        noise = random.standard_normal(shape, np.float32) * np.float32(detector.noise)
        return {**features, "noise": noise * mask, "mask": mask}


def _normal(seed: int) -> keras.Initializer:
    return keras.initializers.GlorotNormal(seed=seed)
