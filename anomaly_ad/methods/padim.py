"""PaDiM: a Gaussian of pretrained features at each position; what is far from it is odd.

The feature maps of a few layers of a pretrained network are put together into one vector per
position, which a random projection shortens. Good images give each position a mean and a covariance
of these vectors. The anomaly map is the Mahalanobis distance at each position, enlarged to the
image and slightly blurred; the image score is the mean of the highest of these distances.

References
----------
Defard, Setkov, Loesch, Audigier 2020, PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization, arXiv 2011.08785, section III, equations 1 and 2. Deviations: layers are
scaled to the same total variance and projected onto random orthonormal vectors, instead of keeping
channels at random (Kim, Kim, Yi, Lee 2021, Semi-orthogonal Embedding for Efficient Unsupervised
Anomaly Segmentation, arXiv 2105.14737); positions are cells of about 16 x 16 pixels, to which finer
feature maps are averaged down and coarser ones enlarged, instead of the finest map's; the
covariance is drawn towards the mean covariance of all positions, the more so the fewer images there
are; the regularization is relative to each channel's variance instead of the same 0.01 for all; the
image score is a mean of some positions instead of the map's maximum; the backbone is
EfficientNet-Lite0. With ``projection="channels"`` and ``top_share=0`` channels and score are the
paper's. docs/quality.md holds the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from ..layers.gaussian import MahalanobisDistance
from ..statistics.moments import (
    Moments,
    mahalanobis,
    mahalanobis_unseen,
    regularized,
    whitening,
)
from .base import Arrays, check_state
from .features import Features
from .grid import Distances, GridDetector, usual_grid
from .heads import counting, top_mean

_FOLDS = 60
_ROWS = 8192  # vectors that are added at a time


class Padim(GridDetector):
    """PaDiM.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; `seed` chooses the projection.
    backbone, layers, blur
        See `GridDetector`.
    projection : {"orthogonal", "channels"}
        How the vectors are shortened: by random orthonormal vectors, the layers scaled by their
        variance in the images of the first training; or by keeping channels at random, on the grid
        of the coarsest layer.
    channels : int
        How many are left; all if there are no more. Memory and file grow with their square.
    prior : float
        How many images the mean covariance of all positions counts for; from 0 to 1e6. It makes up
        for few images, and for parts that do not lie alike in all of them.
    regularization : float
        Part of each channel's mean variance that is added to its variance everywhere; from 1e-6
        to 1e6.
    top_share : float
        Share of the positions whose mean is the image score, those of the greatest distances; one
        position at least. 0: the score is the maximum of the map, enlarged and blurred.
    """

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model,
        layers: Sequence[str],
        projection: str,
        channels: int,
        prior: float,
        regularization: float,
        top_share: float,
        blur: float,
    ) -> None:
        self.prior = prior
        self.regularization = regularization
        self.top_share = top_share
        self._projects = projection == "orthogonal"
        cells = usual_grid(framing) if self._projects else (1, 1)
        super().__init__(framing, backbone, layers, blur, at_least=cells)
        features = self._features.output["features"]
        total = features.shape[-1]
        self._channels = min(channels, total)
        self.seed = seed
        # (C, K), None until all features were seen or where channels are chosen.
        self.basis: NDArray[np.float32] | None = None
        if not self._projects and total > channels:
            kept = np.sort(np.random.default_rng(seed).permutation(total)[:channels])
            features = ops.take(features, kept.astype(np.int32), axis=-1)
            self.set_features(self._features.input, features)
        self.statistic = self.new_statistic()

    def new_statistic(self) -> Moments:
        """Moments that have seen nothing."""
        return Moments(self.grid[0] * self.grid[1], self._channels)

    def new_preparation(self) -> Moments | None:
        """Moments of each channel by itself, where vectors are projected."""
        return Moments(sum(self.groups), 1) if self._projects else None

    def look(self, preparation: Moments, features: Features) -> None:
        """Add the cells that count."""
        total = sum(self.groups)
        vectors, shares = self.vectors(features)
        counted = vectors.reshape(-1, total) if shares is None else vectors[shares > 0]
        for start in range(0, len(counted), _ROWS):
            preparation.update(counted[start : start + _ROWS, :, None])

    def prepare(self, preparation: Moments) -> None:
        """Take the variance of each layer, for its scale."""
        total = sum(self.groups)
        layers = np.split(preparation.covariance()[:, 0, 0], np.cumsum(self.groups)[:-1])
        means = np.array([variances.mean() for variances in layers])
        scales = 1 / np.sqrt(np.maximum(means, 1e-12 * means.max() or 1.0) * self.groups)
        self.basis = _orthonormal(total, self._channels, self.seed)
        self.basis *= np.repeat(scales, self.groups)[:, None] * np.sqrt(total / len(layers))

    def reduced(self, xp: Any, vectors: Any) -> Any:
        """Their projections."""
        return vectors if self.basis is None else xp.matmul(vectors, self.basis)

    def distances(self, statistic: Moments) -> Distances:
        """Mahalanobis distances, and the mean of the highest."""
        mean, white = statistic.means(), self._whitening(statistic)
        return lambda vectors, shares: self._found(np, mahalanobis(vectors, mean, white), shares)

    def folds(self, count: int) -> int:
        """For groups of images, which have no formula; a fit takes about a second."""
        return min(_FOLDS, count)

    def unseen_distances(self, statistic: Moments) -> Distances | None:
        """Those from the moments without the image."""
        measure = mahalanobis_unseen(statistic, self.regularization, self.prior)
        return lambda vectors, shares: self._found(np, measure(vectors, shares), shares)

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Mahalanobis distances, and the mean of the highest."""
        distance = MahalanobisDistance(self.statistic.means(), self._whitening(self.statistic))
        return self._found(ops, distance(vectors), shares)

    def _found(self, xp: Any, cells: Any, shares: Any | None) -> dict[str, Any]:
        if not self.top_share:
            return {"cells": cells}
        return {"cells": cells, "score": top_mean(xp, counting(xp, cells, shares), self.top_share)}

    def _whitening(self, statistic: Moments) -> NDArray[np.floating]:
        return whitening(regularized(statistic, self.regularization, self.prior))

    def state(self) -> dict[str, NDArray[Any]]:
        """The moments and, where there is one, the basis that they are taken in."""
        own = {} if self.basis is None else {"basis": self.basis}
        return {**self.statistic.arrays(), **own}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        shapes: dict[str, tuple[int | None, ...]] = {**self.new_statistic().shapes(state)}
        if self._projects:
            shapes["basis"] = (sum(self.groups), self._channels)
        check_state(state, shapes)
        self.basis = state["basis"] if self._projects else None
        self.statistic = Moments.from_arrays(state)
        return self


def _orthonormal(length: int, count: int, seed: int) -> NDArray[np.float32]:
    """Random orthonormal columns, shape (length, count)."""
    normal = np.random.default_rng(seed).normal(size=(length, count))
    return np.linalg.qr(normal)[0].astype(np.float32)
