"""DFM: features that principal components of good images cannot give back are odd.

Two linear models of pretrained features are learnt. Of the vectors of all cells of all good images
one, wherever the cell lies: its reconstruction error is the anomaly map. And one of whole images,
each as the vectors of a coarse grid in a row: a Gaussian whose covariance has the principal
components' variances and, next to them, that of what is left over. Its Mahalanobis distance is the
image score.

References
----------
Ahuja, Ndiour, Kalyanpur, Tickoo 2019, Probabilistic Modeling of Deep Features for
Out-of-Distribution and Adversarial Detection, arXiv 1909.11786, sections 2 and 3: Gaussian density
of the reduced features, and the feature reconstruction error. Deviations: the Gaussian keeps the
directions outside the principal components, with the variance that the asked share leaves to them
(probabilistic principal component analysis: Tipping, Bishop 1999, J. R. Statist. Soc. B 61(3),
section 3.2, but for that variance), for a defect shows there; the score is the distance instead of
the negative log-likelihood, which rises with it; the map's model is one for all cells.
docs/quality.md holds the trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..errors import OptionError
from ..images import Framing
from ..layers.gaussian import SubspaceErrors
from ..layers.maps import coarse_grid
from ..statistics.moments import Moments
from ..statistics.pca import Subspace
from .base import Arrays, check_state
from .grid import Distances, GridDetector
from .heads import mean_of

_PARTS = 4  # of the coarse grid along each axis
_CHANNELS = 320  # at most; the covariance of images then takes 210 MB


class DFM(GridDetector):
    """DFM.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; nothing is random.
    backbone, layers, blur
        See `GridDetector`.
    variance : float
        Share of the variance that the principal components hold, from 0.5 to 0.9999.
    """

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model,
        layers: Sequence[str],
        variance: float,
        blur: float,
    ) -> None:
        self.variance = variance
        super().__init__(framing, backbone, layers, blur)
        if sum(self.groups) > _CHANNELS:
            raise OptionError(
                f"dfm takes layers of {_CHANNELS} channels together at most, since its memory "
                f"grows with their square. Received: {sum(self.groups)} channels. Choose others."
            )
        self._parts = coarse_grid(self.grid, _PARTS)
        self.statistic = self.new_statistic()

    def new_statistic(self) -> CellsAndImages:
        """Moments that have seen nothing."""
        return CellsAndImages(self._parts, sum(self.groups))

    def distances(self, statistic: CellsAndImages) -> Distances:
        """Reconstruction errors of the cells, and the distance of the image."""
        cells, images = (Subspace.of(part, self.variance) for part in statistic.parts())

        def measure(
            vectors: NDArray[np.float32], shares: NDArray[np.float32] | None
        ) -> dict[str, NDArray]:
            outside, _ = cells.errors(vectors)
            together = mean_of(np, self._parts, vectors, shares).reshape(len(vectors), -1)
            left, inside = images.errors(together)
            return {"cells": np.sqrt(outside), "score": np.sqrt(inside + left / images.residual)}

        return measure

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Reconstruction errors of the cells, and the distance of the image."""
        cells, images = (Subspace.of(part, self.variance) for part in self.statistic.parts())
        outside, _ = SubspaceErrors(cells.mean, cells.basis, cells.variances)(vectors)
        together = mean_of(ops, self._parts, vectors, shares)
        together = ops.reshape(together, (-1, len(images.mean)))
        left, inside = SubspaceErrors(images.mean, images.basis, images.variances)(together)
        return {"cells": ops.sqrt(outside), "score": ops.sqrt(inside + left / images.residual)}

    def state(self) -> dict[str, NDArray[Any]]:
        """The moments."""
        return self.statistic.arrays()

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        expected = self.new_statistic().arrays()
        check_state(state, {name: array.shape for name, array in expected.items()})
        self.statistic = self.new_statistic().restore(state)
        return self


class CellsAndImages:
    """Moments of all cells' vectors together, and of whole images on a coarse grid.

    Parameters
    ----------
    parts : ndarray of float32, shape (Q, P)
        Weights of the cells in each part of the coarse grid.
    channels : int
        C, length of a cell's vector.
    """

    def __init__(self, parts: NDArray[np.float32], channels: int) -> None:
        self._parts = parts
        self.cells = Moments(1, channels)
        self.images = Moments(1, len(parts) * channels)

    @property
    def count(self) -> int:
        """Number of images."""
        return self.images.count

    def parts(self) -> tuple[Moments, Moments]:
        """Of the cells, of the images."""
        return self.cells, self.images

    def update(
        self, vectors: NDArray[np.floating], shares: NDArray[np.float32] | None = None
    ) -> Self:
        """Add a batch of shape (B, P, C), and how much of each cell counts; it is not changed."""
        counted = vectors if shares is None else vectors[shares > 0]
        self.cells.update(counted.reshape(-1, 1, vectors.shape[-1]))
        means = mean_of(np, self._parts, vectors, shares)
        self.images.update(means.reshape(len(vectors), 1, -1))
        return self

    def merge(self, other: CellsAndImages) -> Self:
        """Add what another has seen; `other` is not changed."""
        self.cells.merge(other.cells)
        self.images.merge(other.images)
        return self

    def without(self, other: CellsAndImages) -> CellsAndImages:
        """What is left when that which another has seen is taken out; neither is changed."""
        out = CellsAndImages(self._parts, self.cells.mean.shape[-1])
        out.cells = self.cells.without(other.cells)
        out.images = self.images.without(other.images)
        return out

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored."""
        return {
            f"{kind}_{name}": array
            for kind, moments in (("cells", self.cells), ("images", self.images))
            for name, array in moments.arrays().items()
        }

    def restore(self, arrays: Arrays) -> Self:
        """The inverse of `arrays`."""
        for kind in ("cells", "images"):
            own = {
                name.removeprefix(f"{kind}_"): array
                for name, array in arrays.items()
                if name.startswith(f"{kind}_")
            }
            setattr(self, kind, Moments.from_arrays(own))
        return self
