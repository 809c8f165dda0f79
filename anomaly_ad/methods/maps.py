"""What methods have in common that are trained by gradient on feature maps of a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import feature_maps
from ..images import Framing
from .base import TrainingRecord
from .features import Features
from .gradient import GradientDetector, Items, Tensors
from .heads import MapHead, joined, model_input
from .plateau import MISSED
from .standard import Standard

IMAGES = "images"  # by the name of the input, which they are


class MapDetector(GradientDetector):
    """Feature maps of a few layers of a frozen backbone, each on a grid of its own.

    Each channel is standardised by its mean and deviation in the images that are learnt from.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str
        Whose features are taken.
    blur : float
        Standard deviation of the map's blur in pixels.

    Attributes
    ----------
    standards : list of Standard
        Of each map, in their order: features, as `frozen` gives them -> the map, standardised.
    shapes : list of (int, int, int)
        (height, width, channels) of each map.
    keeps_images : bool
        Whether `frozen` gives "images" as well, for networks that see these.
    """

    monitored = MISSED
    least_per_epoch = 160
    keeps_images = False

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model,
        layers: Sequence[str],
        blur: float,
    ) -> None:
        self.framing = framing
        self.seed = seed
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        maps = self.maps(feature_maps(images, framing, backbone, layers))
        found = {**maps, IMAGES: images} if self.keeps_images else {**maps}
        if inside is not None:
            found["inside"] = inside
        self._frozen = keras.Model(joined(images, inside), found)
        self.shapes = [tuple(each.shape[1:]) for each in maps.values()]
        self.standards = [
            Standard(name, MapHead(framing.size, shape[:2], blur), shape[2])
            for name, shape in zip(maps, self.shapes, strict=True)
        ]

    def maps(self, layers: Sequence[keras.KerasTensor]) -> Tensors:
        """The maps that are learnt from by name, made of those of the layers."""
        return {f"map_{number}": each for number, each in enumerate(layers)}

    def frozen(self) -> keras.Model:
        """Images -> the maps (B, height, width, C), the images where they are kept, `inside`."""
        return self._frozen

    def learn_before(self, items: Items) -> None:
        """Mean and deviation of the channels of each map."""
        Standard.learn(self.standards, items)

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and scale of the channels of each map."""
        return {n: array for each in self.standards for n, array in each.arrays().items()}

    def again(self, images: NDArray[np.uint8], features: Features) -> Features:
        """What `frozen` gives of the images of `features` after a change, where `fit` runs.

        Parameters
        ----------
        images : ndarray of uint8, shape (B, height, width, C)
            Changed; what does not count is taken from the unchanged ones.
        features : dict of ndarray
            Of the unchanged images, with "images".
        """
        inside = features.get("inside")
        if inside is None:
            return self.engine.run_all(images)
        images = np.where(inside[..., None] > 0, images, features[IMAGES])
        return self.engine.run_all(np.concatenate([images, inside[..., None]], axis=-1))

    def enlarged(
        self, cells: Sequence[keras.KerasTensor], features: Tensors
    ) -> list[keras.KerasTensor]:
        """The values of each map's cells (B, h, w), enlarged and blurred: (B, height, width)."""
        inside = features.get("inside")
        return [
            standard.head(ops, values, inside)
            for standard, values in zip(self.standards, cells, strict=True)
        ]


def mean_over(values: keras.KerasTensor, shares: keras.KerasTensor | None) -> keras.KerasTensor:
    """The mean of the cells' values (B, height, width, n) over those of which anything counts."""
    if shares is None:
        return ops.mean(values)
    counts = ops.zeros_like(values) + ops.sign(shares)
    return ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1)


def grids(layers: Sequence[str], shapes: Sequence[tuple[int, int, int]]) -> str:
    """The layers with the cells of their grids, for messages."""
    return ", ".join(f"{name} {h}x{w}" for name, (h, w, _) in zip(layers, shapes, strict=True))
