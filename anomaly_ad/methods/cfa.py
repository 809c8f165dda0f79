"""CFA: features that are drawn together around a memory of good ones; what stays far off is odd.

For each cell of a grid a descriptor is made of its pretrained features and its place, by one
1 x 1 convolution. The memory holds a centre for each position: the mean of the descriptor over the
good images, before training. Training draws each descriptor towards its nearest centres, so that
good ones lie close around them. The distance to the nearest centre, weighted by how much nearer it
is than the next two, is the anomaly map, and the map's maximum the image score.

With d_k the squared distance of a descriptor to its k-th nearest centre and r a radius that is
trained, the loss is 1000 times the mean of max(0, d_k - r²) over the three nearest (attraction) and
of max(0, r² - d_k - margin) over the three after these (repulsion). A cell of the map is

    exp(-D_1) / (exp(-D_1) + exp(-D_2) + exp(-D_3)) * D_1,    D_k = sqrt(d_k).

References
----------
Lee, Lee, Song 2022, CFA: Coupled-hypersphere-based Feature Adaptation for Target-Oriented Anomaly
Localization, IEEE Access 10, arXiv 2206.04325, section III: descriptor, attraction and repulsion
with K = J = 3, and the score. Deviations: the backbone is EfficientNet-Lite0 on a grid of 8 x 8
pixels, its channels are standardised and the convolution begins as an orthogonal matrix, so that
distances begin as those of the features; squared distances are means over the channels, and the
margin of 0.1 is in that unit; the memory is not compressed; the epoch is the one that rendered
defects choose, instead of the best of the test set.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .cells import CellDetector
from .gradient import Items, Tensors
from .heads import highest
from .maps import mean_over

_NEAREST = 3  # centres that attract, and as many further ones that repel
_MARGIN = 0.1
_RADIUS = 1e-5  # at first
_WEIGHT = 1000.0  # of the loss
_NOISE = 1e-6  # added to squared distances, so that rounding is not seen


class CFA(CellDetector):
    """Coupled-hypersphere-based feature adaptation.

    Parameters
    ----------
    framing, patch_size, seed, backbone, layers, blur
        See `CellDetector`.
    """

    learning_rate = 1e-3
    batch_size = 4

    def __init__(self, framing: Framing, patch_size: int, seed: int, **parameters: Any) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        height, width, channels = self.shape
        axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width))
        self._places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None]
        cells = keras.Input((height, width, channels + 2))
        start = keras.initializers.Orthogonal(seed=seed)
        descriptor = kl.Conv2D(channels, 1, kernel_initializer=start)(cells)
        self.networks = {"descriptor": keras.Model(cells, _Radius()(descriptor))}
        self.centres = np.zeros((height * width, channels), np.float32)

    def optimizer(self) -> keras.optimizers.Optimizer:
        """As in the paper."""
        return keras.optimizers.AdamW(self.learning_rate, weight_decay=5e-4, amsgrad=True)

    def descriptors(
        self, features: Any, *, training: bool
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """The descriptors (B, height, width, C), and the radius."""
        cells = self.standard(features)
        places = ops.zeros_like(cells[..., :2]) + self._places  # for each image of the batch
        return self.networks["descriptor"](
            ops.concatenate([cells, places], axis=-1), training=training
        )

    def distances(self, descriptors: keras.KerasTensor, count: int) -> keras.KerasTensor:
        """Squared distances to the nearest centres per channel: (B, height, width, count)."""
        height, width, channels = self.shape
        vectors = ops.reshape(descriptors, (-1, height * width, channels))
        half = (np.square(self.centres).sum(axis=1) / 2).astype(np.float32)
        near = ops.matmul(vectors, np.ascontiguousarray(self.centres.T)) - half
        # |a|² - 2ab + |b|²: per channel its rounding is about 1e-7, less than what `outputs` adds.
        nearest = _largest(near, count)
        squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True) - 2 * nearest
        squared = ops.maximum(squared / channels, 0)
        return ops.reshape(squared, (-1, height, width, count))

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """Attraction and repulsion."""
        descriptors, radius = self.descriptors(x, training=training)
        squared, shares = self.distances(descriptors, 2 * _NEAREST), self.standard.shares(ops, x)
        limit = ops.square(radius)
        attraction = ops.relu(squared[..., :_NEAREST] - limit)
        repulsion = ops.relu(limit - squared[..., _NEAREST:] - _MARGIN)
        return _WEIGHT * (mean_over(attraction, shares) + mean_over(repulsion, shares))

    def outputs(self, features: Tensors) -> Tensors:
        """Softmin of the nearest distances, times the nearest."""
        descriptors, _ = self.descriptors(features, training=False)
        distances = ops.sqrt(self.distances(descriptors, _NEAREST) + _NOISE)
        cells = ops.softmax(-distances, axis=-1)[..., 0] * distances[..., 0]
        inside = features.get("inside")
        anomaly_map = self.head(ops, cells, inside)
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}

    def learn_before(self, items: Items) -> None:
        """Mean and deviation of the channels, then the centres."""
        super().learn_before(items)
        height, width, channels = self.shape
        total, count = np.zeros((height, width, channels)), np.zeros((height, width, 1))
        for batch in items:
            shares = self.standard.shares(np, batch)
            counts = np.ones((len(batch["features"]), height, width, 1))
            counts = counts if shares is None else np.sign(shares)
            found = np.asarray(self.descriptors(batch, training=False)[0])
            total += (found * counts).sum(axis=0)
            count += counts.sum(axis=0)
        usual = total.sum(axis=(0, 1)) / count.sum()
        centres = np.where(count > 0, total / np.maximum(count, 1), usual)
        self.centres[:] = centres.reshape(-1, channels)

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and scale of the channels, and the centres."""
        return {**super().constants(), "centres": self.centres}


def _largest(values: keras.KerasTensor, count: int) -> keras.KerasTensor:
    """The largest values along the last axis, in their order; equal ones count once.

    In OpenVINO that takes a third of the time of `top_k`.
    """
    found = []
    for _ in range(count):
        found.append(ops.max(values, axis=-1, keepdims=True))
        values = ops.where(values < found[-1], values, np.float32(-1e30))
    return ops.concatenate(found, axis=-1)


class _Radius(kl.Layer):
    """Passes descriptors on, with the radius that is trained."""

    def build(self, input_shape: Any) -> None:
        start = keras.initializers.Constant(_RADIUS)
        self.radius = self.add_weight(shape=(), initializer=start, name="radius")

    def call(self, descriptors: keras.KerasTensor) -> Any:
        return descriptors, ops.convert_to_tensor(self.radius)

    def compute_output_spec(self, descriptors: keras.KerasTensor) -> Any:
        return (
            keras.KerasTensor(descriptors.shape, "float32"),
            keras.KerasTensor((), "float32"),
        )
