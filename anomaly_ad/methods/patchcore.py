"""PatchCore: a cell that resembles no cell of any good image is odd.

Each cell of a grid is described by pretrained features of a few layers. A coreset of the cells of
all good images stands for what is good, wherever it lies in the image; so parts may lie anywhere
and in any rotation. The anomaly map is each cell's distance to the nearest of the coreset, enlarged
to the image and slightly blurred. The image score is the mean of the highest of these distances.

References
----------
Roth et al. 2022, Towards Total Recall in Industrial Anomaly Detection, arXiv 2106.08265, sections
3.1 to 3.3, equations 6 and 7. Deviations: features lie on the grid of the coarsest layer, in cells
of 16 x 16 pixels at most, instead of the finest; only finer layers are averaged over 3 x 3 cells,
since cells of the coarsest cover more than that; each layer is scaled to the same total variance; a
small constant is added to squared distances; the image score is the mean of some cells, where the
paper takes the distance of the oddest, weighted down, by a ninth at most, where the coreset is
dense (``top_share=0``); those of `statistics.neighbours`; the backbone is EfficientNet-Lite0.
docs/quality.md holds the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from ..layers.neighbours import NearestNeighbour
from ..statistics.neighbours import NOISE, FeatureBank, closest, nearest
from .base import Arrays, check_state
from .grid import Distances, GridDetector, usual_grid
from .heads import counting, top_mean

_SUPPORT = 9  # b of equation 7, the value of the authors' own program
_FEW, _FOLDS = 100, 20


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
    top_share : float
        Share of the cells whose mean is the image score, those of the greatest distances; one cell
        at least. 0: the distance of the oddest cell, weighted by equation 7 of the paper.
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
        top_share: float,
        blur: float,
    ) -> None:
        self.neighbours = neighbours
        self.pool = pool
        self.top_share = top_share
        self.seed = seed
        super().__init__(framing, backbone, layers, blur, at_least=usual_grid(framing), pooled=True)
        self.statistic = self.new_statistic()

    def new_statistic(self) -> FeatureBank:
        """A bank that has seen nothing."""
        return FeatureBank(self.groups, self.pool, self.neighbours, self.seed)

    def distances(self, statistic: FeatureBank) -> Distances:
        """Distances to the nearest, and the score."""
        coreset = statistic.coreset()
        bank = coreset.scaled(coreset.vectors)
        weigh = None if self.top_share else _weighing(bank)

        def measure(
            vectors: NDArray[np.float32], shares: NDArray[np.float32] | None
        ) -> dict[str, NDArray]:
            scaled = coreset.scaled(vectors)
            cells, winners = nearest(scaled.reshape(-1, bank.shape[1]), bank)
            shape = vectors.shape[:2]
            cells = counting(np, cells.reshape(shape), shares)
            if weigh is None:
                return {"cells": cells, "score": top_mean(np, cells, self.top_share)}
            return {"cells": cells, "score": weigh(scaled, cells, winners.reshape(shape))}

        return measure

    def folds(self, count: int) -> int:
        """More of them of few images, where leaving out a fifth tells and fits are quick."""
        return min(_FOLDS, count) if count < _FEW else super().folds(count)

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Distances to the nearest, and the score."""
        coreset = self.statistic.coreset()
        bank = coreset.scaled(coreset.vectors)
        scaled = (vectors - coreset.mean) * coreset.scale
        cells, winners = NearestNeighbour(bank, NOISE * bank.shape[1])(scaled)
        cells = counting(ops, cells, shares)
        if self.top_share:
            return {"cells": cells, "score": top_mean(ops, cells, self.top_share)}
        return {"cells": cells, "score": _weighted(bank, scaled, cells, winners)}

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


def _weighing(
    bank: NDArray[np.float32],
) -> Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]], NDArray[np.float32]]:
    """The formula of `_weighted` in numpy: scaled vectors, cells and winners -> scores."""
    support = closest(bank, _SUPPORT)
    noise = NOISE * bank.shape[1]

    def weigh(
        scaled: NDArray[np.float32], cells: NDArray[np.float32], winners: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        every = np.arange(len(cells))
        oddest = cells.argmax(axis=1)
        others = bank[support[winners[every, oddest]]]
        around = np.sqrt(np.square(scaled[every, oddest, None] - others).sum(axis=-1) + noise)
        distance = cells[every, oddest]
        largest = around.max(axis=1)
        share = np.exp(distance - largest) / np.exp(around - largest[:, None]).sum(axis=1)
        return (1 - share) * distance

    return weigh


def _weighted(
    bank: NDArray[np.float32],
    scaled: keras.KerasTensor,
    cells: keras.KerasTensor,
    winners: keras.KerasTensor,
) -> keras.KerasTensor:
    """The distance of the oddest cell, weighted.

    Equation 7: s = (1 - exp(s*) / sum of exp(|x - m|) over the neighbours m of the winner) s*.
    The exponents are in the unit in which a channel varies by one on average.
    """
    support = closest(bank, _SUPPORT).astype(np.int32)
    distance, oddest = ops.top_k(cells, 1)
    # A sum over one place; TensorFlow's own way to take along an axis complains on stderr.
    place = ops.one_hot(oddest[:, 0], cells.shape[1])
    cell = ops.sum(place[..., None] * scaled, axis=1, keepdims=True)
    winner = ops.sum(ops.cast(place, "int32") * winners, axis=1)
    others = ops.take(bank, ops.take(support, winner, axis=0), axis=0)
    around = ops.sqrt(ops.sum(ops.square(cell - others), axis=-1) + NOISE * bank.shape[1])
    largest = ops.max(around, axis=1, keepdims=True)
    total = ops.sum(ops.exp(around - largest), axis=1, keepdims=True)
    share = ops.exp(distance - largest) / total
    return ((1 - share) * distance)[:, 0]
