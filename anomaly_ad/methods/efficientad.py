"""EfficientAD: a student and an autoencoder that fail, each in its way, to say what a teacher does.

The teacher is a few layers of a frozen backbone. A small student learns to give its features on
good images, and is made to learn by the cells that it gets most wrong. An autoencoder learns the
same through a bottleneck of 64 numbers, so it knows only how images are as a whole; a second half
of the student's channels learns what the autoencoder says. Where teacher and student differ a part
is odd in its detail, where autoencoder and student differ it is odd in its arrangement.

With T, S, A and S' the teacher, the student's two halves and the autoencoder, the loss is the mean
of the largest 0.1 % of (T - S)² in each image and of all of them, plus the means of (T - A)² and
(A - S')² on images in changed colours. The anomaly map is half the sum of both differences, means
over the channels, each in what it exceeds its mean in good images at each place, in units of its
deviation there. The image score is the mean of the highest 1 % of the cells.

Patents
-------
Patent applications on this method have been published, EP4145401A1 and one in Japan. What they
cover is undecided. Ask your lawyers before you use it in a product.

References
----------
Batzner, Heckler, König 2024, EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level
Latencies, WACV, arXiv 2303.14535, section 3: the hard feature loss of 3.2, the autoencoder of 3.3,
the normalisation of 3.4, and its algorithms 1 and 2. Deviations: the teacher is two layers of
EfficientNet-Lite0 instead of a network distilled from a WideResNet101; the student is a few
convolutions of stride 2, and learns from the mean of all differences as well; the autoencoder sees
the teacher's features and learns from the teacher alone; the penalty on pictures that are not of
the part, for which there are none here, is left out; maps are scaled place by place instead of by
their quantiles, so that what the autoencoder never learns to draw counts less; the score is not the
map's maximum; the epoch is the one that rendered defects choose.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .blocks import Blocks, cropped
from .cells import CellDetector
from .gradient import Batches, Items, Tensors
from .heads import counting, top_mean
from .maps import IMAGES, mean_over
from .places import Places

_HARDEST = 0.001  # share of the differences that the student learns from
_LATENT = 64  # numbers of the bottleneck
_CODING = (64, 64)  # channels of the autoencoder, each at half the size of the one before
_SLOPE = 0.1
_DROPPED = 0.2  # share of the autoencoder's cells that training drops
_TOP_SHARE = 0.01  # of the cells whose mean is the score
_JITTER = 0.8, 1.2  # factors of brightness, contrast and saturation
_STUDENT = (32, 64, 96)  # channels, each at half the size of the one before
_JITTERED = "jittered_"


class EfficientAD(CellDetector):
    """EfficientAD; parameters of `CellDetector`."""

    learning_rate = 1e-3
    batch_size = 8
    keeps_images = True  # student and autoencoder see them

    def __init__(self, framing: Framing, patch_size: int, seed: int, **parameters: Any) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        blocks = Blocks(seed)
        self.networks = {
            "student": _student(framing, self.shape, blocks),
            "autoencoder": _autoencoder(self.shape, blocks, seed),
        }
        self.places = [Places(self.shape[:2], name) for name in ("local_", "whole_")]

    def fit(self, *args: Any, **parameters: Any) -> Any:
        """See `GradientDetector.fit`; epochs are compared by differences that are not scaled."""
        for places in self.places:
            places.forget()
        return super().fit(*args, **parameters)

    def batches(self, items: Items) -> Batches:
        """Images and features, and both of the same images in changed colours."""
        return _JitteredBatches(self, items)

    def _said(self, images: Any, *, training: bool) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """What the teacher should say, and what the autoencoder should."""
        found = self.networks["student"](images, training=training)
        channels = self.shape[2]
        return found[..., :channels], found[..., channels:]

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """Hard feature loss, and the two losses of images in changed colours."""
        shares = self.standard.shares(ops, x)
        differences = ops.square(self.standard(x) - self._said(x[IMAGES], training=training)[0])
        if shares is not None:
            differences = differences * ops.sign(shares)
        count = max(1, round(_HARDEST * int(np.prod(self.shape))))
        flat = ops.reshape(differences, (-1, int(np.prod(self.shape))))
        hardest = ops.mean(ops.top_k(flat, count, sorted=False)[0])
        images = x[_JITTERED + IMAGES]
        teacher = self.standard({self.standard.name: x[_JITTERED + self.standard.name]})
        rebuilt = self.networks["autoencoder"](teacher, training=training)
        own = self._said(images, training=training)[1]
        # What the student learns is what the autoencoder says when it is asked, without dropout.
        said = ops.stop_gradient(self.networks["autoencoder"](teacher, training=False))
        return (
            hardest
            + mean_over(differences, None)
            + mean_over(ops.square(teacher - rebuilt), shares)
            + mean_over(ops.square(said - own), shares)
        )

    def differences(self, features: Tensors) -> list[keras.KerasTensor]:
        """Of teacher and student, and of autoencoder and student: (B, h, w) each."""
        local, whole = self._said(features[IMAGES], training=False)
        teacher = self.standard(features)
        rebuilt = self.networks["autoencoder"](teacher, training=False)
        pairs = ((teacher, local), (rebuilt, whole))
        return [ops.mean(ops.square(one - other), axis=-1) for one, other in pairs]

    def outputs(self, features: Tensors) -> Tensors:
        """Half the sum of both, each in deviations from what is usual at its place, enlarged."""
        local, whole = (
            places.exceeded(some)
            for places, some in zip(self.places, self.differences(features), strict=True)
        )
        cells = (local + whole) / 2
        flat = ops.reshape(cells, (-1, int(np.prod(self.shape[:2]))))
        shares = self.standard.shares(ops, features)
        if shares is not None:
            shares = ops.reshape(shares, (-1, int(np.prod(self.shape[:2]))))
        return {
            "anomaly_map": self.head(ops, cells, features.get("inside")),
            "score": top_mean(ops, counting(ops, flat, shares), _TOP_SHARE),
        }

    def learn_after(self, items: Items, validation: Items) -> None:
        """What differences are usual at each place, in good images."""
        found: list[list[Any]] = [[], []]
        for some in (Batches(each, self.batch_size) for each in (items, validation)):
            for batch in (some[n] for n in range(len(some))):
                shares = self.standard.shares(np, batch)
                counts = None if shares is None else shares[..., 0] > 0
                for kept, values in zip(found, self.differences(batch), strict=True):
                    kept.append((np.asarray(values), counts))
        for places, kept in zip(self.places, found, strict=True):
            places.learn(kept)

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and scale of the channels, and what is usual at each place."""
        own = {n: array for places in self.places for n, array in places.arrays().items()}
        return {**super().constants(), **own}


class _JitteredBatches(Batches):
    def __init__(self, detector: EfficientAD, items: Items) -> None:
        super().__init__(items, detector.batch_size, detector.seed, detector.least_per_epoch)
        self.detector = detector

    def __getitem__(self, index: int) -> Any:
        features, random = self.chosen(index), self.random(index)
        images = np.stack([jittered(image, random) for image in features[IMAGES]])
        again = self.detector.again(images, features)
        names = (IMAGES, self.detector.standard.name)
        return {**features, **{_JITTERED + name: again[name] for name in names}}


def jittered(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """An image with one of brightness, contrast and saturation changed by a factor."""
    factor = np.float32(random.uniform(*_JITTER))
    values = image.astype(np.float32)
    kind = random.integers(3 if image.shape[-1] == 3 else 2)
    fixed = (np.float32(0), values.mean(), values.mean(axis=-1, keepdims=True))[kind]
    return np.clip(np.rint(fixed + (values - fixed) * factor), 0, 255).astype(np.uint8)


def _scaled(framing: Framing) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Images (B, H, W, C), and the same in -1 to 1."""
    images = keras.Input(framing.shape, dtype="uint8")
    return images, ops.cast(images, "float32") / 127.5 - 1.0


def _on_grid(x: keras.KerasTensor, shape: tuple[int, int, int]) -> keras.KerasTensor:
    """With as many cells as a grid has."""
    if tuple(x.shape[1:3]) == shape[:2]:
        return x
    return ops.image.resize(x, shape[:2], interpolation="bilinear", data_format="channels_last")


def _student(framing: Framing, shape: tuple[int, int, int], blocks: Blocks) -> keras.Model:
    """Images -> twice the channels of the grid."""
    images, x = _scaled(framing)
    for width in _STUDENT:
        x = blocks.block(x, width, 3, strides=2)
    return keras.Model(images, blocks.conv(_on_grid(x, shape), 2 * shape[2], 1))


def _autoencoder(shape: tuple[int, int, int], blocks: Blocks, seed: int) -> keras.Model:
    """The channels of the grid -> the same, through a bottleneck.

    Nothing is normalised by batches, so that the student learns what is said in inference.
    """
    x = features = keras.Input(shape)
    sizes = []
    for width in _CODING:
        sizes.append(tuple(x.shape[1:3]))
        x = kl.AveragePooling2D(2, padding="same")(x)
        x = kl.LeakyReLU(negative_slope=_SLOPE)(blocks.conv(x, width, 3))
    height, width, filters = x.shape[1:]
    x = blocks.dense(blocks.dense(kl.Flatten()(x), _LATENT), height * width * filters)
    x = kl.Reshape((height, width, filters))(x)
    for size, width in zip(sizes[::-1], _CODING[::-1], strict=True):
        x = cropped(kl.UpSampling2D(2)(x), size)
        x = kl.LeakyReLU(negative_slope=_SLOPE)(blocks.conv(x, width, 3))
        x = kl.Dropout(_DROPPED, seed=seed)(x)
    return keras.Model(features, blocks.conv(x, shape[2], 1))
