"""The patch autoencoder: rebuild the part as a good one would look; what cannot be rebuilt is odd.

A fully convolutional network squeezes the image through a narrow code and rebuilds it. In training,
patches up to `patch_size` are hidden and have to be rebuilt from their surroundings, so that a
defect of that size is not copied but replaced by what good parts have in its place.

The image and its reconstruction are compared at half their size in two ways: absolute difference,
which sees a change of tone, and structural dissimilarity, which sees a change of texture at any
contrast. Each error is smoothed over the patch window and standardised by the mean and the standard
deviation that it has in good images at that place, z = (error - mean) / deviation, and the anomaly
map is the length of both, (max(z1, 0)^2 + max(z2, 0)^2)^(1/2). The image score is the map's
maximum.

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
from dataclasses import dataclass
from typing import Any, Self

import cv2
import keras
import numpy as np
from keras import layers as kl
from keras import ops
from numpy.typing import NDArray

from ..images import Framing, model_inputs
from ..layers.maps import along_axes, gaussian_matrix, upsampling_matrix
from ..layers.similarity import CELL, cell_mean, structural_dissimilarity
from ..runtime.convert import run_graph
from .base import Arrays, TrainingRecord, check_state
from .blocks import Blocks, cropped
from .gradient import Batches, GradientDetector, Items, without_course
from .heads import highest, joined, masked, model_input, shares_of

STRIDE = 16  # of the code, in pixels
WIDTHS = (64, 96)  # channels at strides 8 and 16

_SHARES = "shares_"
_CELL = 2 * CELL  # pixels of the input; errors are those of the picture at half its size

Conv = Callable[..., keras.KerasTensor]
Tensors = dict[str, keras.KerasTensor]


@dataclass(frozen=True)
class Measured:
    """A network at inference, and how far its images are from what it makes of them.

    Parameters
    ----------
    inputs : tensor of uint8, shape (B, H, W, C), or a list of two
        Images, and `inside` where there is one.
    found : dict of tensor
        What the network makes of them.
    errors : dict of tensor of float32, shape (B, kinds, h, w)
        See `Autoencoder.errors`.
    excess : dict of tensor of float32, shape (B, h, w)
        The same, standardised: (max(z1, 0)^2 + max(z2, 0)^2 ...)^(1/2) over the kinds of an error,
        with z = (error - mean) / deviation. Zero where the image does not count.
    shares : dict of tensor of float32, shape (B, h, w)
        How much of each place counts; empty where all does.
    """

    inputs: Any
    found: Tensors
    errors: Tensors
    excess: Tensors
    shares: Tensors


class Autoencoder(GradientDetector):
    """Patch autoencoder.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of the largest patch that training hides and of
        the window that the error is smoothed over; it should exceed the largest defect.
    code_channels : int
        Width of the code; a narrower one rebuilds less detail, defects included. 1 to 64.
    hidden_share : float
        Share of an image that is hidden in training, on average. 0 to 0.5.
    """

    learning_rate = 4e-3

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        code_channels: int = 4,
        hidden_share: float = 0.15,
    ) -> None:
        self.code_channels = code_channels
        self.hidden_share = hidden_share
        self.framing = framing
        self.patch_size = patch_size
        self.seed = seed
        self.network = _network(framing, seed, self.squeeze)
        self.networks = {"network": self.network}
        pictures = keras.Input(framing.shape)
        errors = self.errors(pictures, self.network(pictures, training=False))
        self.mean = {name: np.zeros(e.shape[1:], np.float32) for name, e in errors.items()}
        self.deviation = {name: np.ones(e.shape[1:], np.float32) for name, e in errors.items()}
        self.record = TrainingRecord()

    def squeeze(self, x: keras.KerasTensor, conv: Conv) -> Tensors:
        """The narrow part of the network: features of stride 16 -> "code", and what belongs to it.

        Parameters
        ----------
        x : KerasTensor, shape (B, h, w, C)
        conv : callable
            `conv(x, filters, size)`: a seeded convolution.
        """
        return {"code": conv(x, self.code_channels, 1)}

    def loss(self, pictures: keras.KerasTensor, found: Tensors) -> keras.KerasTensor:
        """What training makes small.

        Parameters
        ----------
        pictures : tensor of float32, shape (B, H, W, C)
            Without hidden patches, in [0, 1].
        found : dict of tensor
            What the network makes of those with hidden patches.
        """
        difference, dissimilarity = _errors(pictures, found["rebuilt"])
        return ops.mean(difference + dissimilarity)

    def errors(self, pictures: keras.KerasTensor, found: Tensors) -> Tensors:
        """Smoothed errors, shape (B, kinds, h, w) each; the map is made of "error".

        Of each, the mean and the deviation in good images are learnt after the network.
        """
        # The patch is the Gaussian's width from -3 to +3 standard deviations.
        sigma = max(self.patch_size / 6, _CELL / 2)
        blur = [gaussian_matrix(size, sigma, _CELL) for size in self.framing.size]
        kinds = (ops.mean(error, axis=-1) for error in _errors(pictures, found["rebuilt"]))
        return {"error": ops.stack([along_axes(ops, error, *blur) for error in kinds], axis=1)}

    def score(self, measured: Measured) -> keras.KerasTensor:
        """The image score, shape (B,)."""
        return highest(ops, measured.excess["error"])

    def batch_loss(
        self, x: keras.KerasTensor, y: keras.KerasTensor, *, training: bool
    ) -> keras.KerasTensor:
        """The loss of images with hidden patches, `x`, and the same without them, `y`."""
        return self.loss(_pictures(y), self.network(_pictures(x), training=training))

    def batches(self, items: Items) -> Batches:
        """Varied images with hidden patches, and the same without them."""
        return _MaskedBatches(self, items)

    def validation_batches(self, items: Items) -> Batches:
        """Images as they are."""
        return _Batches(self, items)

    def learn_after(self, items: Items, validation: Items) -> None:
        """The mean and the deviation of the errors of good images."""
        self._learn_errors(items, validation)

    def graph(self) -> keras.Model:
        """The network, the error, its smoothing and its standardisation as one graph."""
        measured = self.measured()
        outputs = {
            "anomaly_map": measured.excess["error"],
            "score": self.score(measured),
            "reconstruction": _enlarged(measured.found["rebuilt"], self.framing.size) * 255.0,
        }
        return keras.Model(measured.inputs, outputs)

    def state(self) -> dict[str, NDArray[Any]]:
        """The network's weights, and mean and deviation of the error of good images."""
        means = {f"{name}_mean": mean for name, mean in self.mean.items()}
        deviations = {f"{name}_deviation": array for name, array in self.deviation.items()}
        return {**super().state(), **means, **deviations}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = Autoencoder.state(self)  # a subclass has more, and sees to it
        shapes = {name: array.shape for name, array in without_course(own).items()}
        check_state(without_course(state), shapes)
        super().restore(state)
        for name in self.mean:
            self.mean[name] = np.array(state[f"{name}_mean"], np.float32)
            self.deviation[name] = np.array(state[f"{name}_deviation"], np.float32)
        return self

    def measured(self) -> Measured:
        """The network at inference with its errors, as they stand now."""
        images, inside = model_input(self.framing)
        pictures = _pictures(images)
        found = self.network(pictures, training=False)
        errors = self.errors(pictures, found)
        excess, shares = {}, {}
        for name, error in errors.items():
            # The mean deviation is added: noise is not a defect where good images hardly err.
            deviation = self.deviation[name]
            floor = np.maximum(deviation.mean(axis=(1, 2), keepdims=True), 1e-6)
            z = ops.relu((error - self.mean[name]) * (1 / (deviation + floor)))
            excess[name] = ops.sqrt(ops.sum(z * z, axis=1))
            if inside is not None:
                shares[name] = shares_of(ops, inside, self.framing.size, tuple(error.shape[2:]))
                excess[name] = masked(ops, excess[name], shares[name])
        return Measured(joined(images, inside), found, errors, excess, shares)

    def _learn_errors(self, *sets: Items) -> None:
        """Mean and standard deviation of the errors at each place, over images that count there."""
        measured = self.measured()
        model = keras.Model(measured.inputs, {**measured.errors, **_named(measured.shares)})
        count = {name: np.zeros(array.shape, np.float64) for name, array in self.mean.items()}
        mean = {name: np.zeros(array.shape, np.float64) for name, array in self.mean.items()}
        squares = {name: np.zeros(array.shape, np.float64) for name, array in self.mean.items()}
        for batch in (batch for images in sets for batch in images):
            found = {n: e.astype(np.float64) for n, e in run_graph(model, batch).items()}
            for n in range(len(batch)):
                for name in mean:  # Welford's update, which does not cancel
                    counts = found[_SHARES + name][n] > 0 if measured.shares else 1
                    count[name] += counts
                    step = (found[name][n] - mean[name]) * counts
                    mean[name] += step / np.maximum(count[name], 1)
                    squares[name] += step * (found[name][n] - mean[name])
        for name in mean:
            deviation = np.sqrt(squares[name] / np.maximum(count[name], 1))
            for own, values in ((self.mean, mean[name]), (self.deviation, deviation)):
                # Where no good image counts, a place is taken for a usual one.
                counted = count[name] > 0
                usual = np.average(values, axis=(1, 2), weights=counted, keepdims=True)
                own[name] = np.where(counted, values, usual).astype(np.float32)


def _named(shares: Tensors) -> Tensors:
    return {_SHARES + name: ops.expand_dims(share, 1) for name, share in shares.items()}


def _errors(
    pictures: keras.KerasTensor, rebuilt: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Absolute difference and structural dissimilarity; the loss and the map are made of them.

    Pictures (B, H, W, C), rebuilt (B, ceil(H / 2), ceil(W / 2), C) -> (B, ceil(H / 4),
    ceil(W / 4), C) each. In how much a pixel differs from the next is mostly noise, and full size
    takes four times as long.
    """
    halved = cell_mean(pictures)
    return cell_mean(ops.abs(halved - rebuilt)), structural_dissimilarity(halved, rebuilt)


def _enlarged(halved: keras.KerasTensor, size: tuple[int, int]) -> keras.KerasTensor:
    """Pictures of half a size (B, h, w, C) at all of it (B, *size, C), bilinearly."""
    axes = zip(size, halved.shape[1:3], strict=True)
    matrices = (upsampling_matrix(CELL * cells, cells)[:pixels] for pixels, cells in axes)
    whole = along_axes(ops, ops.transpose(halved, (0, 3, 1, 2)), *matrices)
    return ops.transpose(whole, (0, 2, 3, 1))


def _pictures(images: keras.KerasTensor) -> keras.KerasTensor:
    """Map 0..255 to [0, 1]."""
    return ops.cast(images, "float32") / 255.0


# ------------------------------------------------------------------------------ the network


def _network(
    framing: Framing,
    seed: int,
    squeeze: Callable[[keras.KerasTensor, Conv], dict[str, keras.KerasTensor]],
) -> keras.Model:
    """Pictures (B, H, W, C) in [0, 1] -> "rebuilt", at half their size; what `squeeze` gives.

    And "encoded_8", "encoded_16", "decoded_8", "decoded_16": the layers of these strides, before
    the code and behind it; those of one stride have the same shape.

    Stride 8 is reached in one step and left in one (each cell gives 4 x 4 pixels): a plain network
    spends most of its time on the few channels that it has at full size.
    """
    blocks = Blocks(seed)
    block, conv, doubled, active = blocks.block, blocks.conv, blocks.doubled, blocks.active
    pictures = keras.Input(framing.shape)
    found = {}
    x = found["encoded_8"] = block(pictures, WIDTHS[0], 8, strides=8)
    x = block(x, WIDTHS[1], 3, strides=2)
    x = found["encoded_16"] = block(x, WIDTHS[1], 3)
    found |= squeeze(x, conv)
    x = found["decoded_16"] = block(found["code"], WIDTHS[1], 3)
    x = cropped(doubled(x, WIDTHS[0]), found["encoded_8"].shape[1:3])
    x = found["decoded_8"] = block(active(x), WIDTHS[0], 3)
    x = _cells_to_pixels(conv(x, 16 * framing.channels, 1), 4, framing.channels)
    halved = [-(-pixels // CELL) for pixels in framing.size]
    found["rebuilt"] = kl.Activation("sigmoid")(cropped(x, halved))
    return keras.Model(pictures, found)


def _cells_to_pixels(x: keras.KerasTensor, side: int, channels: int) -> keras.KerasTensor:
    """Shape (B, h, w, side * side * channels) -> (B, side * h, side * w, channels)."""
    height, width = x.shape[1:3]
    x = ops.reshape(x, (-1, height, width, side, side, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, side * height, side * width, channels))


# --------------------------------------------------------------------------- training images


class _Batches(Batches):
    """Images as they are, each its own target; bytes, a quarter of what would be moved else."""

    def __init__(self, detector: Autoencoder, items: Items, seed: int | None = None) -> None:
        super().__init__(items, detector.batch_size, seed)
        self.detector = detector

    def chosen(self, index: int) -> NDArray[np.uint8]:
        """The images of a batch, without their `inside`."""
        return model_inputs(super().chosen(index), self.detector.framing.channels)[0]

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images = self.chosen(index)
        return images, images


class _MaskedBatches(_Batches):
    """Shuffled, slightly varied images with hidden patches; the target is without them."""

    def __init__(self, detector: Autoencoder, items: Items) -> None:
        super().__init__(detector, items, detector.seed)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        random = self.random(index)
        target = np.stack([_vary(image, random) for image in self.chosen(index)])
        hidden = hide(target, self.detector.patch_size, self.detector.hidden_share, random)
        return hidden, target


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


def hide(
    images: NDArray[np.uint8], patch_size: int, share: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Hide rectangles with sides from a third of a patch to a whole one.

    Each gets a flat colour, content of another place in the batch, or its own content in other
    light.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, H, W, C)
        Not changed.
    patch_size : int
        In pixels.
    share : float
        Mean share of the area that is hidden.
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
