"""The patch autoencoder: rebuild the part as a good one would look; what cannot be rebuilt is odd.

A fully convolutional network squeezes the image through a narrow code and rebuilds it. In training,
patches up to `patch_size` are spoilt and have to be rebuilt from their surroundings, so that a
defect of that size is not copied but replaced by what good parts have in its place.

The image and its reconstruction are compared in two ways: absolute difference, which sees a change
of tone, and structural dissimilarity, which sees a change of texture at any contrast. Each error is
smoothed over the patch window and standardised by the mean and the standard deviation that it has
in good images at that place, z = (error - mean) / deviation, and the anomaly map is the length of
both, (max(z1, 0)^2 + max(z2, 0)^2)^(1/2). The image score is the map's maximum.

References
----------
Bergmann et al. 2019, Improving Unsupervised Defect Segmentation by Applying Structural Similarity
to Autoencoders, arXiv 1807.02011: reconstruction error as anomaly map, structural similarity as
loss. Zavrtanik et al. 2021, Reconstruction by Inpainting for Visual Anomaly Detection, Pattern
Recognition 112: squares that are hidden and rebuilt. Deviations: hidden squares are filled with
content of other places as well as with flat colour, the image is not hidden at inference (one pass
instead of many), and the error is standardised at each place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import cv2
import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from ..errors import OptionError
from ..images import ImageSet, ImageSpec
from ..layers.maps import LinearMap, gaussian_matrix
from ..layers.similarity import CELL, cell_mean, structural_dissimilarity
from .base import Arrays, Detector, TrainingRecord, check_state

STRIDE = 16  # of the code, in pixels
WIDTHS = (48, 64, 96)  # channels at strides 4, 8 and 16
BATCH = 8
LEARNING_RATE = 2e-3


class Autoencoder(Detector):
    """Patch autoencoder.

    Parameters
    ----------
    spec, patch_size, seed
        See `Detector`. `patch_size` is the side of the largest patch that training spoils and of
        the window that the error is smoothed over; it should exceed the largest defect.
    code_channels : int
        Width of the code; a narrower one rebuilds less detail, defects included. 1 to 64.
    hidden_share : float
        Share of an image that is spoilt in training, on average. 0 to 0.5.
    """

    def __init__(
        self,
        spec: ImageSpec,
        patch_size: int,
        seed: int,
        *,
        code_channels: int = 4,
        hidden_share: float = 0.15,
    ) -> None:
        if not isinstance(code_channels, int) or not 1 <= code_channels <= 64:
            raise OptionError(
                f"code_channels is a whole number from 1 to 64. Received: {code_channels!r}."
            )
        if not isinstance(hidden_share, (int, float)) or not 0 <= hidden_share <= 0.5:
            raise OptionError(
                f"hidden_share is a number from 0 to 0.5. Received: {hidden_share!r}."
            )
        self.spec = spec
        self.patch_size = patch_size
        self.seed = seed
        self.hidden_share = float(hidden_share)
        self.network = _network(spec, code_channels, seed)
        self.mean = np.zeros((2, *spec.size), np.float32)
        self.deviation = np.ones((2, *spec.size), np.float32)
        self.record = TrainingRecord()

    def fit(
        self,
        images: ImageSet,
        *,
        validation: ImageSet,
        epochs: int,
        progress: Callable[[str], None],
    ) -> Self:
        """Train the network, keep its best weights, then measure the error of good images."""
        trainer = _on_bytes(self.network)
        trainer.compile(keras.optimizers.Adam(LEARNING_RATE), loss=_loss)
        best = keras.callbacks.EarlyStopping(
            "val_loss", patience=max(20, epochs // 3), restore_best_weights=True
        )
        history = trainer.fit(
            _SpoiltBatches(images, self.patch_size, self.hidden_share, self.seed),
            validation_data=_Batches(validation),
            epochs=epochs,
            verbose=0,
            shuffle=False,  # the batches shuffle themselves, seeded
            callbacks=[
                keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=5),
                best,
                keras.callbacks.LambdaCallback(
                    on_epoch_end=lambda _, logs: progress(f"val_loss {logs['val_loss']:.4f}")
                ),
            ],
        ).history
        trainer.set_weights(best.best_weights)
        self.record = TrainingRecord(
            len(history["loss"]),
            {name: [float(v) for v in history[name]] for name in ("loss", "val_loss")},
        )
        self.mean, self.deviation = self._errors_of_good(images, validation)
        return self

    def graph(self) -> keras.Model:
        """The network, the error, its smoothing and its standardisation as one graph."""
        images = keras.Input(self.spec.shape, dtype="uint8", name="images")
        pictures = _pictures(images)
        rebuilt = self.network(pictures)
        # The mean deviation is added so that noise is no defect where good images hardly err.
        floor = np.maximum(self.deviation.mean(axis=(1, 2), keepdims=True), 1e-6)
        errors = self._smoothed_errors(pictures, rebuilt)
        excess = ops.relu((errors - self.mean) * (1 / (self.deviation + floor)))
        anomaly_map = ops.sqrt(ops.sum(excess * excess, axis=1))
        return keras.Model(
            images,
            {
                "anomaly_map": anomaly_map,
                "score": ops.max(anomaly_map, axis=(1, 2)),
                "reconstruction": rebuilt * 255.0,
            },
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """The network's weights, and mean and deviation of the error of good images."""
        weights = {f"weight_{i:03d}": w for i, w in enumerate(self.network.get_weights())}
        return {**weights, "error_mean": self.mean, "error_deviation": self.deviation}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        check_state(state, {name: array.shape for name, array in self.state().items()})
        names = sorted(name for name in state if name.startswith("weight_"))
        self.network.set_weights([state[name] for name in names])
        self.mean = np.array(state["error_mean"], np.float32)
        self.deviation = np.array(state["error_deviation"], np.float32)
        return self

    def _smoothed_errors(
        self, pictures: keras.KerasTensor, rebuilt: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Both reconstruction errors, smoothed over the patch window: shape (B, 2, H, W)."""
        # The patch is the Gaussian's width from -3 to +3 standard deviations.
        sigma = max(self.patch_size / 6, CELL / 2)
        blur = LinearMap(*(gaussian_matrix(size, sigma, CELL) for size in self.spec.size))
        errors = (ops.mean(error, axis=-1) for error in _errors(pictures, rebuilt))
        return ops.stack([blur(error) for error in errors], axis=1)

    def _errors_of_good(self, *sets: ImageSet) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of both errors at each place, (2, height, width) each."""
        inputs = keras.Input(self.spec.shape, dtype="uint8")
        pictures = _pictures(inputs)
        model = keras.Model(inputs, self._smoothed_errors(pictures, self.network(pictures)))
        count = 0
        mean = np.zeros(self.mean.shape, np.float64)
        squares = np.zeros(self.mean.shape, np.float64)
        for images in sets:
            for batch in images:
                for errors in np.asarray(model(batch), np.float64):
                    count += 1  # Welford's update, which does not cancel
                    step = errors - mean
                    mean += step / count
                    squares += step * (errors - mean)
        return mean.astype(np.float32), np.sqrt(squares / count).astype(np.float32)


def _errors(
    pictures: keras.KerasTensor, rebuilt: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Absolute difference and structural dissimilarity; the loss and the map are made of them.

    Shape (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C) each.
    """
    return cell_mean(ops.abs(pictures - rebuilt)), structural_dissimilarity(pictures, rebuilt)


def _loss(images: keras.KerasTensor, rebuilt: keras.KerasTensor) -> keras.KerasTensor:
    difference, dissimilarity = _errors(_pictures(images), rebuilt)
    return ops.mean(difference + dissimilarity)


def _pictures(images: keras.KerasTensor) -> keras.KerasTensor:
    """Map 0..255 to [0, 1]."""
    return ops.cast(images, "float32") / 255.0


def _on_bytes(network: keras.Model) -> keras.Model:
    """The network as it is trained: fed with bytes, a quarter of what would be moved else."""
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    return keras.Model(images, network(_pictures(images)))


# ------------------------------------------------------------------------------ the network


def _network(spec: ImageSpec, code_channels: int, seed: int) -> keras.Model:
    """Pictures (B, H, W, C) in [0, 1] -> the same, rebuilt.

    Full resolution is left in one step (stride 4) and reached again in one (each cell gives 4 x 4
    pixels): most of the time of a plain network goes into its few channels at full resolution.
    """
    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def conv(x: keras.KerasTensor, filters: int, size: int, strides: int = 1) -> keras.KerasTensor:
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        layer = kl.Conv2D(filters, size, strides, padding="same", kernel_initializer=initializer)
        return layer(x)

    def block(x: keras.KerasTensor, filters: int, size: int, strides: int = 1) -> keras.KerasTensor:
        x = kl.BatchNormalization(momentum=0.9)(conv(x, filters, size, strides))
        return kl.LeakyReLU(negative_slope=0.1)(x)

    padding = tuple(_halves(-size % STRIDE) for size in spec.size)
    pictures = keras.Input(spec.shape)
    x = kl.ZeroPadding2D(padding)(pictures)
    x = block(x, WIDTHS[0], 4, strides=4)
    x = block(x, WIDTHS[1], 3, strides=2)
    x = block(x, WIDTHS[2], 3, strides=2)
    x = block(x, WIDTHS[2], 3)
    code = conv(x, code_channels, 1)
    x = block(code, WIDTHS[2], 3)
    x = block(kl.UpSampling2D(2)(x), WIDTHS[1], 3)
    x = block(kl.UpSampling2D(2)(x), WIDTHS[0], 3)
    x = _cells_to_pixels(conv(x, spec.channels * 16, 3), 4, spec.channels)
    x = kl.Cropping2D(padding)(kl.Activation("sigmoid")(x))
    return keras.Model(pictures, x)


def _halves(size: int) -> tuple[int, int]:
    return size // 2, size - size // 2


def _cells_to_pixels(x: keras.KerasTensor, side: int, channels: int) -> keras.KerasTensor:
    """Shape (B, h, w, side * side * channels) -> (B, side * h, side * w, channels)."""
    height, width = x.shape[1:3]
    x = ops.reshape(x, (-1, height, width, side, side, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, side * height, side * width, channels))


# --------------------------------------------------------------------------- training images


class _Batches(keras.utils.PyDataset):
    """Images as they are, each its own target."""

    def __init__(self, images: ImageSet) -> None:
        super().__init__()
        self.images = images

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images = self.images[slice(index * BATCH, (index + 1) * BATCH)]
        return images, images


class _SpoiltBatches(_Batches):
    """Shuffled, slightly varied images with spoilt patches; the target is without them."""

    def __init__(self, images: ImageSet, patch_size: int, share: float, seed: int) -> None:
        super().__init__(images)
        self.patch_size = patch_size
        self.share = share
        self.random = np.random.default_rng(seed)
        self.order = self.random.permutation(len(images))

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self.order = self.random.permutation(len(self.images))

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        target = np.stack([_vary(image, self.random) for image in self.images[chosen]])
        return spoil(target, self.patch_size, self.share, self.random), target


def _vary(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Shift by up to 2 % and change the lighting by up to 5 %; parts are not turned or mirrored."""
    height, width, _ = image.shape
    shift_y, shift_x = random.integers(-2, 3, 2) * (height // 100, width // 100)
    matrix = np.array([[1, 0, shift_x], [0, 1, shift_y]], np.float32)
    shifted = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    light = _light(random.uniform(0.95, 1.05), random.uniform(-0.025, 0.025))
    return np.asarray(cv2.LUT(shifted, light), np.uint8).reshape(image.shape)


def _light(gain: float, offset: float) -> NDArray[np.uint8]:
    """The table that brings bytes to other light; the offset is a part of the range."""
    return np.clip(np.arange(256) * gain + 255 * offset + 0.5, 0, 255).astype(np.uint8)


def spoil(
    images: NDArray[np.uint8], patch_size: int, share: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Spoil rectangles with sides from a third of a patch to a whole one.

    Each gets a flat colour, content of another place in the batch, or its own content in other
    light.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, H, W, C)
        Not changed.
    patch_size : int
        In pixels.
    share : float
        Mean share of the area that is spoilt.
    random : Generator
        Where chance comes from.

    Returns
    -------
    ndarray of uint8, shape (B, H, W, C)
    """
    out = images.copy()
    _, height, width, channels = images.shape
    largest = np.minimum((patch_size, patch_size), (height, width))
    for image in out:
        area = random.uniform(0, 2 * share) * height * width
        while area > 0:
            h, w = random.integers(np.maximum(largest // 3, 1), largest + 1)
            y, x = random.integers(height - h + 1), random.integers(width - w + 1)
            place = image[y : y + h, x : x + w]
            kind = random.integers(3)
            if kind == 0:
                place[:] = random.integers(0, 256, channels)
            elif kind == 1:
                other = images[random.integers(len(images))]
                y, x = random.integers(height - h + 1), random.integers(width - w + 1)
                place[:] = other[y : y + h, x : x + w]
            else:
                place[:] = _light(random.uniform(0.4, 1.6), random.uniform(-0.2, 0.2))[place]
            area -= h * w
    return out
