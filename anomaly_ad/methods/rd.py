"""Reverse distillation: a decoder that has learnt to give good features back fails on odd ones.

The feature maps of a few layers of a frozen backbone are squeezed through a one-class bottleneck, a
coarse map of few channels, and a decoder rebuilds each of them from it. It has only seen good
parts, so where a part deviates it gives back what a good one would have, and the angle between the
two vectors there is the anomaly map: 1 - cosine, of each layer in standard deviations of good
images, summed over the layers, enlarged to the image and blurred. The image score is the map's
maximum.

References
----------
Deng, Li 2022, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR, arXiv
2201.10703, section 3: the loss is equation 2 in its flattened form (1 - cosine of the whole maps,
summed over the layers), the map equations 1 and 3. Deviations: the backbone is EfficientNet-Lite0
instead of a WideResNet50, of which the layers of strides 8, 16 and 32 are taken instead of 4, 8 and
16, each channel standardised by its mean and deviation in good images; the angles of each layer are
divided by their standard deviation in good images before they are summed, since a fine layer whose
good cells differ a lot would drown the others; the decoder is a few plain
convolutions instead of a mirrored ResNet, and the bottleneck keeps the grid of the coarsest layer
instead of halving it; the epoch is the one that rendered defects choose, instead of the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..errors import OptionError
from ..images import Framing
from .blocks import Blocks, cropped
from .features import Features
from .gradient import Batches, Items, Tensors
from .heads import highest
from .maps import MapDetector, grids
from .standard import Standard

_LITTLE = 1e-6
_BOTTLENECK = 256  # channels
_DECODER = (192, 128, 96)  # channels of the decoder, from the coarsest layer on


class ReverseDistillation(MapDetector):
    """Reverse distillation.

    Parameters
    ----------
    framing, patch_size, seed, backbone, blur
        See `MapDetector`.
    layers : sequence of str
        From the finest to the coarsest, each with half of the cells of the one before along each
        axis, rounded up.
    """

    learning_rate = 2e-3
    batch_size = 8

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        layers: Sequence[str],
        **parameters: Any,
    ) -> None:
        super().__init__(framing, patch_size, seed, layers=layers, **parameters)
        cells = [shape[:2] for shape in self.shapes]
        halves = [tuple(-(-n // 2) for n in grid) for grid in cells[:-1]]
        if not 1 <= len(cells) <= len(_DECODER) or halves != cells[1:]:
            raise OptionError(
                f"rd takes one to {len(_DECODER)} layers, each with half of the cells of the one "
                f"before along each axis. Received: {grids(layers, self.shapes)}."
            )
        self.networks = {"decoder": _network(self.shapes, seed)}
        self.angles = [
            Standard(f"angle_{number}", standard.head, 1)
            for number, standard in enumerate(self.standards)
        ]

    def fit(self, *args: Any, **parameters: Any) -> Any:
        """See `GradientDetector.fit`; epochs are compared by angles that are not scaled."""
        for angle in self.angles:
            angle.forget()
        return super().fit(*args, **parameters)

    def optimizer(self) -> keras.optimizers.Optimizer:
        """As in the paper."""
        return keras.optimizers.Adam(self.learning_rate, beta_1=0.5)

    def _pairs(
        self, features: Tensors, *, training: bool
    ) -> list[tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor | None]]:
        """Of each layer its map, the map that is rebuilt, and how much of each cell counts."""
        maps = [standard(features) for standard in self.standards]
        rebuilt = self.networks["decoder"](maps, training=training)
        rebuilt = rebuilt if isinstance(rebuilt, (list, tuple)) else [rebuilt]
        shares = [standard.shares(ops, features) for standard in self.standards]
        return [*zip(maps, rebuilt, shares, strict=True)]

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """1 - the cosine of whole maps, summed over the layers: equation 2."""
        losses = []
        for wanted, rebuilt, shares in self._pairs(x, training=training):
            if shares is not None:
                wanted, rebuilt = wanted * ops.sign(shares), rebuilt * ops.sign(shares)
            losses.append(ops.mean(1 - _cosine(wanted, rebuilt, (1, 2, 3))))
        return sum(losses[1:], losses[0])

    def _angles(self, features: Tensors) -> list[keras.KerasTensor]:
        """Of each layer 1 - cosine of the cells' vectors, (B, h, w): equation 1."""
        pairs = self._pairs(features, training=False)
        return [1 - _cosine(wanted, rebuilt, -1) for wanted, rebuilt, _ in pairs]

    def learn_after(self, items: Items, validation: Items) -> None:
        """The deviation of each layer's angles, in good images."""
        sets = (Batches(each, self.batch_size) for each in (items, validation))
        batches = (some[number] for some in sets for number in range(len(some)))
        Standard.learn(self.angles, map(self._named_angles, batches))

    def _named_angles(self, features: Features) -> Features:
        """The angles as maps of one channel, with `inside` where there is one."""
        angles = [np.asarray(values)[..., None] for values in self._angles(features)]
        named = {own.name: each for own, each in zip(self.angles, angles, strict=True)}
        return {**named, **{key: features[key] for key in ("inside",) if key in features}}

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and scale of the channels, and of the angles."""
        own = {n: array for angle in self.angles for n, array in angle.arrays().items()}
        return {**super().constants(), **own}

    def outputs(self, features: Tensors) -> Tensors:
        """The angles in deviations of good images, enlarged and summed: equation 3."""
        angles = [
            values * own.scale[0]
            for values, own in zip(self._angles(features), self.angles, strict=True)
        ]
        maps = self.enlarged(angles, features)
        anomaly_map = sum(maps[1:], maps[0])
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


def _cosine(one: keras.KerasTensor, other: keras.KerasTensor, axis: Any) -> keras.KerasTensor:
    """The cosine of the angle between vectors along one or more axes."""
    product = ops.sum(one * other, axis=axis)
    lengths = ops.sum(ops.square(one), axis=axis) * ops.sum(ops.square(other), axis=axis)
    return product / ops.sqrt(ops.maximum(lengths, _LITTLE))


def _network(shapes: Sequence[tuple[int, int, int]], seed: int) -> keras.Model:
    """Maps of these shapes, from the finest on -> the same maps, rebuilt from a bottleneck."""
    blocks = Blocks(seed, slope=0.0)
    maps = [keras.Input(shape) for shape in shapes]
    coarsest = len(maps) - 1
    paths = []
    for level, x in enumerate(maps):
        for step in range(coarsest - level):
            width = 128 if step == coarsest - level - 1 else 64
            x = blocks.block(x, width, 3, strides=2)
        paths.append(x)
    x = keras.layers.Concatenate()(paths) if len(paths) > 1 else paths[0]
    x = blocks.block(x, _BOTTLENECK, 1)
    x = blocks.block(x, _BOTTLENECK, 3)
    x = blocks.block(x, _BOTTLENECK, 3)
    rebuilt = []
    for level in range(coarsest, -1, -1):
        height, width, channels = shapes[level]
        filters = _DECODER[coarsest - level]
        if level < coarsest:
            x = blocks.active(cropped(blocks.doubled(x, filters), (height, width)))
        else:
            x = blocks.block(x, filters, 3)
        x = blocks.block(x, filters, 3)
        rebuilt.append(blocks.conv(x, channels, 1))
    return keras.Model(maps, rebuilt[::-1])
