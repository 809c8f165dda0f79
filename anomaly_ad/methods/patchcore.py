"""PatchCore: a cell that resembles no cell of any good image is odd.

Each cell of a grid is described by pretrained features of a few layers. A coreset of the cells of
all good images stands for what is good, wherever it lies in the image; so parts may lie anywhere
and in any rotation. The anomaly map is each cell's distance to the nearest of the coreset, enlarged
to the image and slightly blurred. The image score is the distance of the oddest cell, weighted
down, by a ninth at most, where the coreset is dense.

References
----------
Roth et al. 2022, Towards Total Recall in Industrial Anomaly Detection, arXiv 2106.08265, sections
3.1 to 3.3, equations 6 and 7. Deviations: features lie on the grid of the coarsest layer instead of
the finest; only finer layers are averaged over 3 x 3 cells, since cells of the coarsest cover more
than that; each layer is scaled to the same total variance; a small constant is added to squared
distances; those of `statistics.neighbours`; the backbone is EfficientNet-Lite0. docs/quality.md
holds the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from ..layers.neighbours import NearestNeighbour
from ..statistics.neighbours import NOISE, FeatureBank, closest, nearest
from .base import Arrays, check_state
from .grid import Distances, GridDetector
from .heads import counting

_SUPPORT = 9  # b of equation 7, the value of the authors' own program


class PatchCore(GridDetector):
    """PatchCore.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; `seed` chooses candidates and the
        projection that they are compared in.
    backbone, layers, blur
        See `GridDetector`.
    neighbours : int
        Size of the coreset, from 10 to 20000. Time per image grows with it.
    pool : int
        How many cells of the good images are candidates for it at most, at random; from 1000 to
        10 million. Training needs about three times their memory: 2 kB each for 176 channels.
    """

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model,
        layers: Sequence[str],
        neighbours: int,
        pool: int,
        blur: float,
    ) -> None:
        self.neighbours = neighbours
        self.pool = pool
        self.seed = seed
        super().__init__(framing, backbone, layers, blur, pooled=True)
        self.statistic = self.new_statistic()

    def new_statistic(self) -> FeatureBank:
        """A bank that has seen nothing."""
        return FeatureBank(self.groups, self.pool, self.neighbours, self.seed)

    def distances(self, statistic: FeatureBank) -> Distances:
        """Distances to the nearest, and the weighted one of the oddest cell."""
        coreset = statistic.coreset()
        bank = coreset.scaled(coreset.vectors)
        support = closest(bank, _SUPPORT)
        noise = NOISE * bank.shape[1]

        def measure(
            vectors: NDArray[np.float32], shares: NDArray[np.float32] | None
        ) -> dict[str, NDArray]:
            scaled = coreset.scaled(vectors).reshape(-1, bank.shape[1])
            cells, winners = nearest(scaled, bank)
            shape = vectors.shape[:2]
            cells = counting(np, cells.reshape(shape), shares)
            winners = winners.reshape(shape)
            every = np.arange(len(vectors))
            oddest = cells.argmax(axis=1)
            cell = scaled.reshape(*shape, -1)[every, oddest]
            others = bank[support[winners[every, oddest]]]
            around = np.sqrt(np.square(cell[:, None] - others).sum(axis=-1) + noise)
            distance = cells[every, oddest]
            largest = around.max(axis=1)
            share = np.exp(distance - largest) / np.exp(around - largest[:, None]).sum(axis=1)
            return {"cells": cells, "score": (1 - share) * distance}

        return measure

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Distances to the nearest, and the weighted one of the oddest cell.

        Equation 7: s = (1 - exp(s*) / sum of exp(|x - m|) over the neighbours m of the winner) s*.
        The exponents are in the unit in which a channel varies by one on average.
        """
        coreset = self.statistic.coreset()
        bank = coreset.scaled(coreset.vectors)
        scaled = (vectors - coreset.mean) * coreset.scale
        support = closest(bank, _SUPPORT).astype(np.int32)
        noise = NOISE * bank.shape[1]
        cells, winners = NearestNeighbour(bank, noise)(scaled)
        cells = counting(ops, cells, shares)
        distance, oddest = ops.top_k(cells, 1)
        # A sum over one place; TensorFlow's own way to take along an axis complains on stderr.
        place = ops.one_hot(oddest[:, 0], cells.shape[1])
        cell = ops.sum(place[..., None] * scaled, axis=1, keepdims=True)
        winner = ops.sum(ops.cast(place, "int32") * winners, axis=1)
        others = ops.take(bank, ops.take(support, winner, axis=0), axis=0)
        around = ops.sqrt(ops.sum(ops.square(cell - others), axis=-1) + noise)
        largest = ops.max(around, axis=1, keepdims=True)
        total = ops.sum(ops.exp(around - largest), axis=1, keepdims=True)
        share = ops.exp(distance - largest) / total
        return {"cells": cells, "score": ((1 - share) * distance)[:, 0]}

    def state(self) -> dict[str, NDArray[Any]]:
        """The coreset."""
        return self.statistic.arrays()

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        channels = sum(self.groups)
        shapes = {"count": (), "coreset": (None, channels), "mean": (channels,)}
        check_state(state, {**shapes, "scale": (channels,)})
        self.statistic = self.new_statistic().restore(state)
        return self
