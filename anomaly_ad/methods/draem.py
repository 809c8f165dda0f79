"""DRAEM: a head that marks made-up defects, on pretrained features.

Half of the images that training shows are changed: within a patch of irregular shape something
foreign is blended in, coloured noise, stripes, or the image's own parts in disorder and other
light. The features of a few layers of a frozen backbone go into a small head, which learns to mark
that patch. How sure it is makes the anomaly map, and the map's maximum is the image score.

An image I is changed to I (1 - M) + (b I + (1 - b) S) M, with M the mask, S what is foreign and b
how much of the image stays. With p the probability that the head gives to the right answer for a
cell, the loss is the mean of -(1 - p)² log p.

References
----------
Zavrtanik, Kristan, Skočaj 2021, DRAEM: A Discriminatively Trained Reconstruction Embedding for
Surface Anomaly Detection, ICCV, arXiv 2108.07610: section 3.2 for how images are changed (equation
2, without its rotated noise), 3.3 for the focal loss. Deviations: the networks that
rebuild an image and compare it (about 200 GMAC) are a head on the features of a frozen
EfficientNet-Lite0; what is foreign is computed, where the paper takes photographs of textures; a
place that the change leaves as it was is not marked; the map is smoothed by a Gaussian instead of a
box; the epoch is the one that other rendered defects, on other images, choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .blocks import Blocks, cropped
from .gradient import Batches, Items, Tensors
from .heads import highest
from .maps import IMAGES, MapDetector, mean_over
from .perlin import perlin_mask, perlin_noise

_MASK = "mask"
_CHANGED = 0.5  # share of the images
_KEPT = 0.8  # of an image where it is changed, at most
_VISIBLE = 8.0  # gray levels that a change has at least, where it is marked
_COVERED = 0.3  # share of a cell that is changed, where it is marked
_WIDTHS = (32, 64)  # channels of the head, at the finest map and elsewhere


class DRAEM(MapDetector):
    """A head on pretrained features that marks made-up defects.

    Parameters
    ----------
    framing, patch_size, seed, backbone, blur
        See `MapDetector`.
    layers : sequence of str
        From the finest to the coarsest; the finest one's cells are marked.
    """

    learning_rate = 1e-3
    batch_size = 8
    keeps_images = True  # they are changed

    def __init__(self, framing: Framing, patch_size: int, seed: int, **parameters: Any) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        self.networks = {"head": _head(self.shapes, seed)}

    def batches(self, items: Items) -> Batches:
        """The features of images of which half are changed, and "mask" (B, h, w, 1)."""
        return _ChangedBatches(self, items)

    def answers(self, features: Tensors, *, training: bool) -> keras.KerasTensor:
        """Logits of the cells of the finest map, (B, h, w, 1)."""
        maps = [standard(features) for standard in self.standards]
        return self.networks["head"](maps, training=training)

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The focal loss."""
        logits = self.answers(x, training=training)
        right = logits * (2 * x[_MASK] - 1)
        losses = ops.square(ops.sigmoid(-right)) * ops.softplus(-right)
        return mean_over(losses, self.standards[0].shares(ops, x))

    def outputs(self, features: Tensors) -> Tensors:
        """-log of the probability that a cell is good, enlarged."""
        cells = ops.softplus(self.answers(features, training=False)[..., 0])
        anomaly_map = self.standards[0].head(ops, cells, features.get("inside"))
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


def _head(shapes: Sequence[tuple[int, int, int]], seed: int) -> keras.Model:
    """Maps of these shapes, from the finest on -> logits of the cells of the finest."""
    blocks = Blocks(seed, slope=0.0)
    maps = [keras.Input(shape) for shape in shapes]
    x = blocks.block(maps[-1], _WIDTHS[1], 1)
    for level in range(len(maps) - 2, -1, -1):
        finer, width = maps[level], _WIDTHS[min(level, 1)]
        size = tuple(finer.shape[1:3])
        while x.shape[1] < size[0] or x.shape[2] < size[1]:
            x = blocks.active(blocks.doubled(x, width))
        x = cropped(x, size)
        x = keras.layers.Concatenate()([x, blocks.block(finer, width, 1)])
        x = blocks.block(x, width, 3)
    return keras.Model(maps, blocks.conv(blocks.block(x, _WIDTHS[0], 3), 1, 1))


class _ChangedBatches(Batches):
    def __init__(self, detector: DRAEM, items: Items) -> None:
        super().__init__(items, detector.batch_size, detector.seed, detector.least_per_epoch)
        self.detector = detector

    def __getitem__(self, index: int) -> Any:
        features, random = self.chosen(index), self.random(index)
        images, grid = features[IMAGES], self.detector.shapes[0][:2]
        masks = np.zeros((len(images), *grid, 1), np.float32)
        places = np.flatnonzero(random.random(len(images)) < _CHANGED)
        changed = []
        for n in places:
            other = images[random.integers(len(images))]
            picture, mask = with_foreign(images[n], other, random)
            changed.append(picture)
            mask = mask & (features["inside"][n] > 0) if "inside" in features else mask
            share = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
            masks[n, ..., 0] = share >= _COVERED
        if changed:
            same = {name: values[places] for name, values in features.items()}
            for name, values in self.detector.again(np.stack(changed), same).items():
                features[name][places] = values
        return {**features, _MASK: masks}


def with_foreign(
    image: NDArray[np.uint8], other: NDArray[np.uint8], random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image with something foreign blended in, and where that is seen.

    Parameters
    ----------
    image, other : ndarray of uint8, shape (height, width, channels)
        The image, and one whose parts may be what is foreign.
    random : Generator
        Where all comes from.
    """
    source = _SOURCES[random.integers(len(_SOURCES))](other, random)
    mask = perlin_mask(image.shape[:2], random)
    kept = np.float32(random.uniform(0, _KEPT))
    blended = np.where(mask[..., None], kept * image + (1 - kept) * source, image)
    changed = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    differs = np.abs(changed.astype(np.float32) - image).max(axis=-1)
    return changed, mask & (differs >= _VISIBLE)


def _coloured_noise(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise between two colours, coarse or fine."""
    size = image.shape[:2]
    waves = [min(2 ** int(random.integers(1, 7)), n) for n in size]
    share = np.clip(perlin_noise(size, (waves[0], waves[1]), random) + 0.5, 0, 1)
    return _between_colours(share, image.shape[2], random)


def _stripes(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """Stripes of two colours in any direction."""
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    angle, period = random.uniform(0, np.pi), random.uniform(4, max(min(rows.shape) / 4, 5))
    along = rows * np.sin(angle) + columns * np.cos(angle)
    share = 0.5 + 0.5 * np.sin(along * np.float32(2 * np.pi / period))
    return _between_colours(share, image.shape[2], random)


def _own_parts(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """Another place of an image, mirrored or upside down, brighter or darker."""
    height, width = image.shape[:2]
    down, right = random.integers(height), random.integers(width)
    moved = np.roll(image, (down, right), axis=(0, 1)).astype(np.float32)
    moved = moved[:: -1 if random.random() < 0.5 else 1, :: -1 if random.random() < 0.5 else 1]
    return (moved - 128) * np.float32(random.uniform(0.6, 1.6)) + (
        128 + np.float32(random.uniform(-40, 40))
    )


_SOURCES = (_coloured_noise, _stripes, _own_parts)


def _between_colours(
    share: NDArray[np.floating], channels: int, random: np.random.Generator
) -> NDArray[np.float32]:
    one, other = random.uniform(0, 255, (2, channels))
    return (one + (other - one) * share[..., None]).astype(np.float32)
