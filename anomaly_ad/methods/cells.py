"""What methods have in common that are trained by gradient on the vectors of a grid's cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import feature_maps, on_the_coarsest_grid
from ..images import Framing
from .base import Arrays, TrainingRecord, check_state
from .gradient import GradientDetector, Items, Tensors
from .heads import MapHead, joined, model_input
from .plateau import MISSED

_CELL = 8  # pixels
_LEAST_DEVIATION = (
    0.01  # of a channel, as a share of the mean one: one that is constant says little
)


class CellDetector(GradientDetector):
    """A vector of pretrained features per cell of a grid of about 8 x 8 pixels each.

    The maps of a few layers, averaged over 3 x 3 of their cells, lie on one grid; each channel is
    standardised by its mean and deviation in the images that are learnt from.

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
    """

    monitored = MISSED

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
        maps = [
            ops.average_pool(each, 3, 1, padding="same")
            for each in feature_maps(images, framing, backbone, layers)
        ]
        grid = (max(framing.height // _CELL, 1), max(framing.width // _CELL, 1))
        found = {"features": on_the_coarsest_grid(maps, at_least=grid)}
        if inside is not None:
            found["inside"] = inside
        self._frozen = keras.Model(joined(images, inside), found)
        self.shape = tuple(found["features"].shape[1:])
        self.head = MapHead(framing.size, self.shape[:2], blur)
        self.mean = np.zeros(self.shape[2], np.float32)
        self.scale = np.ones(self.shape[2], np.float32)

    def frozen(self) -> keras.Model:
        """Images -> {"features": (B, height, width, channels)}, and `inside`."""
        return self._frozen

    def shares(self, xp: Any, features: Any) -> Any:
        """How much of each cell counts, (B, height, width, 1); None for all."""
        shares = self.head.shares(xp, features.get("inside"))
        return None if shares is None else xp.reshape(shares, (-1, *self.shape[:2], 1))

    def standardised(self, features: Any) -> Any:
        """The cells' vectors, each channel by its mean and deviation."""
        return (features["features"] - self.mean) * self.scale

    def learn_before(self, items: Items) -> None:
        """Mean and deviation of each channel, over all that counts."""
        channels = self.shape[2]
        count = 0.0
        total, squares = np.zeros(channels), np.zeros(channels)
        for batch in items:
            for n, features in enumerate(batch["features"]):
                cells = features.reshape(-1, channels).astype(np.float64)
                shares = self.shares(np, {k: v[n : n + 1] for k, v in batch.items()})
                weights = np.ones(len(cells)) if shares is None else np.sign(shares).ravel()
                if not weights.sum():
                    continue
                mean = weights @ cells / weights.sum()
                share = weights.sum() / (count + weights.sum())
                squares += weights @ np.square(cells - mean)
                squares += np.square(mean - total) * share * count  # Chan et al., as in Moments
                total += share * (mean - total)
                count += weights.sum()
        deviation = np.sqrt(squares / count)
        self.mean = total.astype(np.float32)
        least = _LEAST_DEVIATION * deviation.mean() or 1.0
        self.scale = (1 / np.maximum(deviation, least)).astype(np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights, mean and scale of the channels, and what training goes on from."""
        return {**super().state(), **self.constants()}

    def constants(self) -> dict[str, NDArray[Any]]:
        """What is learnt before the weights."""
        return {"mean": self.mean, "scale": self.scale}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = self.constants()
        shapes = {name: array.shape for name, array in own.items()}
        check_state({name: state[name] for name in own if name in state}, shapes)
        for name in own:
            setattr(self, name, np.array(state[name]))
        return super().restore(state)


def mean_over(values: keras.KerasTensor, shares: keras.KerasTensor | None) -> keras.KerasTensor:
    """The mean of the cells' values (B, height, width, n) over those of which anything counts."""
    if shares is None:
        return ops.mean(values)
    counts = ops.zeros_like(values) + ops.sign(shares)
    return ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1)


__all__ = ["CellDetector", "Tensors", "mean_over"]
