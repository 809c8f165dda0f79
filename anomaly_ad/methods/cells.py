"""What methods have in common that are trained by gradient on the vectors of a grid's cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import feature_maps, on_the_coarsest_grid
from ..images import Framing
from .base import TrainingRecord
from .gradient import GradientDetector, Items
from .heads import MapHead, joined, model_input
from .plateau import MISSED
from .standard import Standard

_CELL = 8  # pixels


class CellDetector(GradientDetector):
    """A vector of pretrained features per cell of a grid of about 8 x 8 pixels each.

    The maps of a few layers lie on one grid, all but the coarsest averaged over 3 x 3 of their own
    cells first, which those of the coarsest see more than anyway; each channel is standardised by
    its mean and deviation in the images that are learnt from.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str
        Whose features are put together.
    blur : float
        Standard deviation of the map's blur in pixels.

    Attributes
    ----------
    shape : (int, int, int)
        (height, width, channels) of the grid.
    head : MapHead
        Cells -> map.
    standard : Standard
        Features -> vectors.
    """

    monitored = MISSED
    least_per_epoch = 160

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
        self.seed = seed
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        maps = feature_maps(images, framing, backbone, layers)
        rows = [each.shape[1] for each in maps]
        maps = [
            each
            if each.shape[1] == min(rows) < max(rows)
            else ops.average_pool(each, 3, 1, padding="same")
            for each in maps
        ]
        grid = (max(framing.height // _CELL, 1), max(framing.width // _CELL, 1))
        found = {"features": on_the_coarsest_grid(maps, at_least=grid)}
        if inside is not None:
            found["inside"] = inside
        self._frozen = keras.Model(joined(images, inside), found)
        self.shape = tuple(found["features"].shape[1:])
        self.head = MapHead(framing.size, self.shape[:2], blur)
        self.standard = Standard("features", self.head, self.shape[2])

    def frozen(self) -> keras.Model:
        """Images -> {"features": (B, height, width, channels)}, and `inside`."""
        return self._frozen

    def learn_before(self, items: Items) -> None:
        """Mean and deviation of each channel."""
        self.standard.learn(items)

    def constants(self) -> dict[str, NDArray[Any]]:
        """Mean and scale of the channels."""
        return {**self.standard.arrays()}


def mean_over(values: keras.KerasTensor, shares: keras.KerasTensor | None) -> keras.KerasTensor:
    """The mean of the cells' values (B, height, width, n) over those of which anything counts."""
    if shares is None:
        return ops.mean(values)
    counts = ops.zeros_like(values) + ops.sign(shares)
    return ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1)
