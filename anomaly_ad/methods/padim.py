"""PaDiM: a Gaussian of pretrained features at each position; what is far from it is odd.

The feature maps of a few layers of a pretrained network are put together into one vector per
position, of which the principal components over all positions and good images are kept. Good images
give each position a mean and a covariance of these. The anomaly map is the Mahalanobis distance at
each position, enlarged to the image and slightly blurred; the image score is the mean of the
highest of these distances.

References
----------
Defard, Setkov, Loesch, Audigier 2020, PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization, arXiv 2011.08785, section III, equations 1 and 2. Deviations: principal
components of the layers, each scaled to the same total variance, take the place of channels chosen
at random; positions are cells of about 16 x 16 pixels, to which finer feature maps are averaged
down and coarser ones enlarged, instead of the finest map's; the covariance is drawn towards the
mean covariance of all positions, the more so the fewer images there are; the regularization is
relative to each component's variance instead of the same 0.01 for all; the image score is a mean
of some positions instead of the map's maximum; the backbone is EfficientNet-Lite0. With
``basis="random"`` and ``top_share=0`` channels and score are the paper's. docs/quality.md holds the
trials.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
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
    mahalanobis_of_few,
    mahalanobis_unseen,
    regularized,
    whitening,
)
from ..statistics.pca import balanced_basis
from .base import Arrays, check_state
from .features import Features, FeatureSet
from .grid import Distances, GridDetector
from .heads import counting, top_mean

_CELL = 16  # pixels; larger ones are enlarged
_FEW, _FOLDS = 100, 60
_ROWS = 8192  # vectors that are added at a time


class Padim(GridDetector):
    """PaDiM.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; `seed` chooses channels, where they
        are chosen at random.
    backbone, layers, blur
        See `GridDetector`.
    basis : {"principal", "random"}
        What is kept of the channels of all layers: their principal components, over all positions
        and the images of the first training; or channels at random, on the grid of the coarsest
        layer.
    channels : int
        How many are kept; all if there are no more. Memory and file grow with their square.
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
        basis: str,
        channels: int,
        prior: float,
        regularization: float,
        top_share: float,
        blur: float,
    ) -> None:
        self.prior = prior
        self.regularization = regularization
        self.top_share = top_share
        is_principal = basis == "principal"
        cells = (framing.height // _CELL, framing.width // _CELL) if is_principal else (1, 1)
        super().__init__(framing, backbone, layers, blur, at_least=cells)
        features = self._features.output["features"]
        total = features.shape[-1]
        self._channels = min(channels, total)
        # (C, K), None until all features were seen or where channels are chosen.
        self.basis: NDArray[np.float32] | None = None
        self._is_principal = is_principal
        self._seen: Moments | None = None  # what the basis is taken from, where it is of this fit
        if not is_principal and total > channels:
            kept = np.sort(np.random.default_rng(seed).permutation(total)[:channels])
            features = ops.take(features, kept.astype(np.int32), axis=-1)
            self.set_features(self._features.input, features)
        self.statistic = self.new_statistic()

    def new_statistic(self) -> Moments:
        """Moments that have seen nothing."""
        return Moments(self.grid[0] * self.grid[1], self._channels)

    def prepare(self, features: FeatureSet) -> None:
        """Take the principal components of all cells of all images."""
        if self._is_principal:
            self._seen = self._cells(features)
            self.basis = balanced_basis(self._seen, self.groups, self._channels)

    def _cells(self, batches: Iterable[Features]) -> Moments:
        """Moments of the vectors of all cells together."""
        moments = Moments(1, sum(self.groups))
        for batch in batches:
            vectors, shares = self.vectors(batch)
            counted = vectors.reshape(-1, vectors.shape[-1])
            if shares is not None:
                counted = counted[shares.reshape(-1) > 0]
            for start in range(0, len(counted), _ROWS):
                moments.update(counted[start : start + _ROWS, None])
        return moments

    def reduced(self, xp: Any, vectors: Any) -> Any:
        """Their principal components."""
        return vectors if self.basis is None else xp.matmul(vectors, self.basis)

    def distances(self, statistic: Moments) -> Distances:
        """Mahalanobis distances, and the mean of the highest."""
        mean, white = statistic.means(), self._whitening(statistic)
        return lambda vectors, shares: self._found(np, mahalanobis(vectors, mean, white), shares)

    def folds(self, count: int) -> int:
        """A fit takes about a second."""
        return count if count < _FEW else _FOLDS

    def scorer_without(
        self, features: FeatureSet, left_out: NDArray[np.intp]
    ) -> Callable[[Features], dict[str, NDArray]]:
        """By a fit to the others, in a basis of their own; see `StatisticalDetector`."""
        if self._seen is None:  # the basis is not of these images
            return super().scorer_without(features, left_out)
        other = copy.copy(self)
        seen = self._seen.without(self._cells(features.batches(left_out)))
        other.basis = balanced_basis(seen, self.groups, self._channels)
        rest, statistic = np.setdiff1d(np.arange(len(features)), left_out), self.new_statistic()
        for batch in features.batches(rest):
            other.learn(statistic, batch)
        mean, covariance = statistic.means(), other._covariance(statistic)
        return other._scorer(
            lambda vectors, shares: other._found(
                np, mahalanobis_of_few(vectors, mean, covariance), shares
            )
        )

    def unseen_distances(self, statistic: Moments) -> Distances | None:
        """Those from the moments without the image, in the basis of all images.

        Of few images an odd one has its say in that basis: its distances are up to 1.4 times what
        they are in a basis without it, with 100 images less than 1.1 times. So few are fitted
        again.
        """
        if self.framing.n_views > 1:
            return None  # the other views of an image would tell of it
        if self._seen is not None and statistic.count < _FEW:
            return None
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
        return whitening(self._covariance(statistic))

    def _covariance(self, statistic: Moments) -> NDArray[np.float64]:
        return regularized(statistic, self.regularization, self.prior)

    def state(self) -> dict[str, NDArray[Any]]:
        """The moments and, where there is one, the basis that they are taken in."""
        own = {} if self.basis is None else {"basis": self.basis}
        return {**self.statistic.arrays(), **own}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        shapes: dict[str, tuple[int | None, ...]] = {**self.new_statistic().shapes(state)}
        if self._is_principal:
            shapes["basis"] = (sum(self.groups), self._channels)
        check_state(state, shapes)
        self.basis = state["basis"] if self._is_principal else None
        self.statistic = Moments.from_arrays(state)
        return self
