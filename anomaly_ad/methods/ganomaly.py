"""GANomaly: images whose code changes when they are rebuilt.

An encoder makes a code of 100 numbers of an image, a decoder rebuilds the image from it, and a
second encoder makes a code of that. A discriminator learns to tell images from rebuilt ones, and
the decoder to escape it. All have only seen good parts, so the two codes of a defective image
differ: the image score is the mean squared difference. The anomaly map is the absolute difference
of image and rebuilt image, blurred, in what it exceeds its mean in good images at each place, in
units of its deviation there.

With x the image, y the rebuilt one, f the discriminator's features before its answer, and z and z'
the codes, generator and encoders learn from |f(x) - f(y)|² + 50 |x - y| + |z - z'|², means each,
and the discriminator from the cross-entropy of its answers.

It is kept for comparison: nearly every other method here finds more.

References
----------
Akcay, Atapour-Abarghouei, Breckon 2018, GANomaly: Semi-Supervised Anomaly Detection via Adversarial
Training, ACCV, arXiv 1805.06725, section 3: losses are equations 1 to 4, the score equation 5.
Deviations: half of the channels, and at most 256; the discriminator is not started again where it
wins; the map, of which the paper says nothing; the epoch is the one that rendered defects choose.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .base import TrainingRecord
from .blocks import Blocks, cropped
from .gradient import Batches, GradientDetector, Items, Tensors
from .heads import MapHead, joined, masked, model_input
from .maps import IMAGES
from .places import Places
from .plateau import MISSED

_CODE = 100  # numbers
_WIDTHS = (32, 64, 128, 256, 256)  # channels, each at half the size of the one before
_COARSEST = 4  # cells along the shorter side
_REBUILDING = 50.0  # weight of the difference of images
_BLUR = 4.0  # pixels


class GANomaly(GradientDetector):
    """GANomaly.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only.
    """

    learning_rate = 2e-4
    batch_size = 8
    least_per_epoch = 160
    monitored = MISSED

    def __init__(self, framing: Framing, patch_size: int, seed: int) -> None:
        self.framing = framing
        self.seed = seed
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        found = {IMAGES: images} if inside is None else {IMAGES: images, "inside": inside}
        self._frozen = keras.Model(joined(images, inside), found)
        self.head = MapHead(framing.size, framing.size, _BLUR)
        blocks = Blocks(seed, slope=0.2)
        sizes = _sizes(framing.size)
        self.networks = {
            "encoder": _encoder(framing.shape, len(sizes), blocks, _CODE)[0],
            "decoder": _decoder(framing.shape, sizes, blocks),
            "second_encoder": _encoder(framing.shape, len(sizes), blocks, _CODE)[0],
            "discriminator": _encoder(framing.shape, len(sizes), blocks, 1)[1],
        }
        self.places = Places(framing.size)

    def frozen(self) -> keras.Model:
        """Images -> the images, and `inside`."""
        return self._frozen

    def optimizer(self) -> keras.optimizers.Optimizer:
        """One for the generator and one for the discriminator are the same: each has its loss."""
        return keras.optimizers.Adam(self.learning_rate, beta_1=0.5)

    def _taken(self, features: Tensors) -> tuple[keras.KerasTensor, keras.KerasTensor | None]:
        """Images in -1 to 1, zero where they do not count, and where they do."""
        pictures = ops.cast(features[IMAGES], "float32") / 127.5 - 1.0
        inside = features.get("inside")
        if inside is None:
            return pictures, None
        counts = ops.cast(ops.expand_dims(inside, -1) > 0, "float32")
        return pictures * counts, counts

    def _rebuilt(
        self, features: Tensors, *, training: bool
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Images, rebuilt images, and the codes of both."""
        pictures, counts = self._taken(features)
        code = self.networks["encoder"](pictures, training=training)
        rebuilt = self.networks["decoder"](code, training=training)
        rebuilt = rebuilt if counts is None else rebuilt * counts
        return pictures, rebuilt, code, self.networks["second_encoder"](rebuilt, training=training)

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The losses of the generator and of the discriminator; neither moves the other."""
        pictures, rebuilt, code, again = self._rebuilt(x, training=training)
        discriminator = self.networks["discriminator"]
        weights = [ops.stop_gradient(v.value) for v in discriminator.trainable_variables]
        others = [v.value for v in discriminator.non_trainable_variables]

        def features(images: keras.KerasTensor) -> keras.KerasTensor:
            return discriminator.stateless_call(weights, others, images, training=training)[0][0]

        generator = (
            ops.mean(ops.square(features(pictures) - features(rebuilt)))
            + _REBUILDING * ops.mean(ops.abs(pictures - rebuilt))
            + ops.mean(ops.square(code - again))
        )
        real = discriminator(pictures, training=training)[1]
        made = discriminator(ops.stop_gradient(rebuilt), training=training)[1]
        return generator + (ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(made))) / 2

    def outputs(self, features: Tensors) -> Tensors:
        """The difference of the codes; that of the images as map."""
        differences, code, again = self._differences(features)
        anomaly_map = self.places.exceeded(differences)
        return {
            "anomaly_map": masked(ops, anomaly_map, features.get("inside")),
            "score": ops.mean(ops.square(code - again), axis=-1),
        }

    def _differences(
        self, features: Tensors
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Of image and rebuilt image, blurred, (B, height, width); and the codes of both."""
        pictures, rebuilt, code, again = self._rebuilt(features, training=False)
        cells = ops.mean(ops.abs(pictures - rebuilt), axis=-1)
        return self.head(ops, cells, features.get("inside")), code, again

    def learn_after(self, items: Items, validation: Items) -> None:
        """Mean and deviation of the differences at each place, over images that count there."""
        batches = [Batches(some, self.batch_size) for some in (items, validation)]
        self.places.learn(
            (self._differences(batch)[0], batch["inside"] > 0 if "inside" in batch else None)
            for some in batches
            for batch in (some[n] for n in range(len(some)))
        )

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and deviation of the differences at each place."""
        return self.places.arrays()


def _sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Of an image and its halves, rounded up, until the shorter side has few cells."""
    sizes = [size]
    while min(sizes[-1]) > _COARSEST and len(sizes) <= len(_WIDTHS):
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return sizes


def _encoder(
    shape: tuple[int, int, int], n_sizes: int, blocks: Blocks, units: int
) -> tuple[keras.Model, keras.Model]:
    """Images -> so many numbers; and a model that gives the last map before them as well."""
    x = images = keras.Input(shape)
    for width in _WIDTHS[: n_sizes - 1]:
        x = blocks.block(x, width, 4, strides=2)
    numbers = blocks.dense(kl.Flatten()(x), units)
    return keras.Model(images, numbers), keras.Model(images, [x, numbers])


def _decoder(
    shape: tuple[int, int, int], sizes: list[tuple[int, int]], blocks: Blocks
) -> keras.Model:
    """Codes -> images in -1 to 1."""
    widths = _WIDTHS[: len(sizes) - 1]
    code = keras.Input((_CODE,))
    height, width = sizes[-1]
    x = blocks.dense(code, height * width * widths[-1])
    x = blocks.active(kl.Reshape((height, width, widths[-1]))(x))
    for size, filters in zip(sizes[-2::-1], [*widths[-2::-1], widths[0]], strict=True):
        x = blocks.active(cropped(blocks.doubled(x, filters), size))
    return keras.Model(code, ops.tanh(blocks.conv(x, shape[2], 3)))
