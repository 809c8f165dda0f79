"""STFPM: a student that has learnt to see good parts as its teacher does sees odd ones otherwise.

A small network, the student, gets the images and learns to give the feature maps of a few layers
of a frozen backbone, the teacher. It has only seen good parts, so where a part deviates the two
differ. With the vectors of both brought to length one, the difference of a cell is half their
squared distance, 1 - cosine. Those of the layers are enlarged to the image and multiplied: a place
is odd where all layers say so.

The anomaly map is the root of that product, of as high an order as there are layers: their
geometric mean, which orders places as the product does. The image score is its maximum.

References
----------
Wang, Han, Ding, Zhou 2021, Student-Teacher Feature Pyramid Matching for Anomaly Detection, BMVC,
arXiv 2103.04257, section 3: the loss is equations 1 to 3, the map the product of section 3.3.
Deviations: the teacher is EfficientNet-Lite0 instead of a ResNet18, each of its channels
standardised by its mean and deviation in good images; the student is a few plain convolutions
instead of the teacher's architecture, whose depthwise convolutions take ten times as long to train;
the root, without which maps would span many decades; Adam instead of SGD; the epoch is the one that
rendered defects choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ..errors import OptionError
from ..images import Framing
from .blocks import Blocks
from .gradient import Tensors
from .heads import highest
from .maps import IMAGES, MapDetector, grids, mean_over

_LITTLE = 1e-6
# Of the student: channels at half the size, a quarter, and so on.
_WIDTHS = (32, 48, 96, 128, 160)


class STFPM(MapDetector):
    """Student-teacher feature pyramid matching.

    Parameters
    ----------
    framing, patch_size, seed, backbone, blur
        See `MapDetector`.
    layers : sequence of str
        From the finest to the coarsest; the cells of each are those of an image that is halved one
        to five times, each time rounded up.
    """

    learning_rate = 1e-3
    batch_size = 8
    keeps_images = True  # the student sees them

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
        self.networks = {"student": _student(framing, layers, self.shapes, seed)}

    def differences(self, features: Tensors, *, training: bool) -> list[keras.KerasTensor]:
        """Half the squared distance of the vectors in each cell of each map, (B, h, w)."""
        found = self.networks["student"](features[IMAGES], training=training)
        found = found if isinstance(found, (list, tuple)) else [found]
        return [
            ops.sum(ops.square(_unit(standard(features)) - _unit(own)), axis=-1) / 2
            for standard, own in zip(self.standards, found, strict=True)
        ]

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The means of the maps, summed over the layers: equations 1 to 3."""
        differences = self.differences(x, training=training)
        losses = [
            mean_over(each[..., None], standard.shares(ops, x))
            for standard, each in zip(self.standards, differences, strict=True)
        ]
        return sum(losses[1:], losses[0])

    def outputs(self, features: Tensors) -> Tensors:
        """The geometric mean of the enlarged maps."""
        maps = self.enlarged(self.differences(features, training=False), features)
        product = maps[0]
        for each in maps[1:]:
            product = product * each
        anomaly_map = ops.power(ops.maximum(product, 0), 1 / len(maps))
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


def _unit(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Vectors along the last axis, brought to length one."""
    return vectors / ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + _LITTLE)


def _student(
    framing: Framing, layers: Sequence[str], shapes: Sequence[tuple[int, int, int]], seed: int
) -> keras.Model:
    """Images (B, H, W, C) in 0..255 -> maps of these shapes."""
    blocks = Blocks(seed, slope=0.0)
    images = keras.Input(framing.shape, dtype="uint8")
    x = ops.cast(images, "float32") / 128.0 - 1.0
    wanted, found = list(shapes), []
    for level, width in enumerate(_WIDTHS):
        x = blocks.block(x, width, 3, strides=2)
        if wanted and wanted[0][:2] == tuple(x.shape[1:3]):
            x = blocks.block(x, width, 3) if level < 2 else x
        while wanted and wanted[0][:2] == tuple(x.shape[1:3]):
            found.append(blocks.conv(x, wanted.pop(0)[2], 1))
    if wanted:
        raise OptionError(
            "stfpm takes layers from the finest to the coarsest, the cells of each those of the "
            f"image halved 1 to {len(_WIDTHS)} times, rounded up. Received, of an image of "
            f"{framing.height}x{framing.width}: {grids(layers, shapes)}."
        )
    return keras.Model(images, found)
