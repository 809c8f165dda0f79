"""DFM: features that principal components of good images cannot give back are odd.

Two linear models of pretrained features are learnt. Of the vectors of all cells of all good images
one, wherever the cell lies: its reconstruction error is the anomaly map. And one of whole images,
from a deeper layer, each as the means over about 16 parts of it in a row: a Gaussian whose
covariance has the principal components' variances and, next to them, that of what is left over.
Its Mahalanobis distance is the image score.

References
----------
Ahuja, Ndiour, Kalyanpur, Tickoo 2019, Probabilistic Modeling of Deep Features for
Out-of-Distribution and Adversarial Detection, arXiv 1909.11786, sections 2 and 3: Gaussian density
of the reduced features, and the feature reconstruction error. Deviations: the Gaussian keeps the
directions outside the principal components, with the variance that the asked share leaves to them
(probabilistic principal component analysis: Tipping, Bishop 1999, J. R. Statist. Soc. B 61(3),
section 3.2, but for that variance), for a defect shows there; the score is the distance instead of
the negative log-likelihood, which rises with it; the map's model is one for all cells, and of
another layer. docs/quality.md holds the trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..errors import ModelError, OptionError
from ..images import Framing
from ..layers.gaussian import SubspaceErrors
from ..statistics.moments import Moments
from ..statistics.pca import Subspace
from ..statistics.pool import VectorPool
from .base import Arrays, check_state
from .features import Features
from .grid import Distances, GridDetector
from .heads import image_vector

_PARTS = 16  # of an image, about
_IMAGES = 2000  # whose vectors are kept, at most
_FOLDS = 60  # that unseen scores come from
_CHANNELS = 640  # at most; the vectors of images then take 80 MB


class DFM(GridDetector):
    """DFM.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; the seed chooses which images score
        others, of more than 2,000.
    backbone, layers, blur
        See `GridDetector`; the layers are those of the map.
    image_layers : sequence of str
        Layers of the backbone that whole images are scored by.
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
        image_layers: Sequence[str],
        variance: float,
        blur: float,
    ) -> None:
        self.variance = variance
        self.seed = seed
        super().__init__(framing, backbone, layers, blur, further=image_layers)
        for channels in (sum(self.groups), sum(each.shape[-1] for each in self.further_maps)):
            if channels > _CHANNELS:
                raise OptionError(
                    f"dfm takes layers of {_CHANNELS} channels together at most, and image_layers "
                    "likewise, since its time and memory grow with them. "
                    f"Received: {channels} channels. Choose others."
                )
        outputs = self._features.output
        parts = parts_of(framing.size)
        image = image_vector(self.further_maps, framing, outputs.get("inside"), parts)
        self._features = keras.Model(self._features.input, {**outputs, "image": image})
        self.statistic = self.new_statistic()

    def new_statistic(self) -> CellsAndImages:
        """One that has seen nothing."""
        length = self._features.output["image"].shape[-1]
        return CellsAndImages(Moments(1, sum(self.groups)), VectorPool(length, _IMAGES, self.seed))

    def learn(self, statistic: CellsAndImages, features: Features) -> None:
        """Add a batch of features: cells of which anything counts, and images."""
        vectors, shares = self.vectors(features)
        counted = vectors.reshape(-1, vectors.shape[-1]) if shares is None else vectors[shares > 0]
        statistic.cells.update(counted[:, None])
        statistic.images.update(features["image"][:, None])

    def folds(self, count: int) -> int:
        """A fit takes some hundredths of a second: of small sets each image is left out alone."""
        return min(_FOLDS, count)

    def scorer(self, statistic: CellsAndImages) -> Callable[[Features], dict[str, NDArray]]:
        """The graph's formula in numpy."""
        cells, images = super().scorer(statistic), self._images(statistic)

        def score(features: Features) -> dict[str, NDArray]:
            left, inside = images.errors(features["image"])
            return {**cells(features), "score": np.sqrt(inside + left / images.residual)}

        return score

    def graph(self) -> keras.Model:
        """The map of `GridDetector`, with the distance of the image as the score."""
        graph, images = super().graph(), self._images(self.statistic)
        left, inside = SubspaceErrors(images.mean, images.basis, images.variances)(
            self._features.output["image"]
        )
        score = ops.sqrt(inside + left / images.residual)
        return keras.Model(graph.input, {**graph.output, "score": score})

    def distances(self, statistic: CellsAndImages) -> Distances:
        """Reconstruction errors of the cells."""
        cells = Subspace.of(statistic.cells, self.variance)
        return lambda vectors, shares: {"cells": np.sqrt(cells.errors(vectors)[0])}

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Reconstruction errors of the cells."""
        cells = Subspace.of(self.statistic.cells, self.variance)
        outside, _ = SubspaceErrors(cells.mean, cells.basis, cells.variances)(vectors)
        return {"cells": ops.sqrt(outside)}

    def _images(self, statistic: CellsAndImages) -> Subspace:
        images = statistic.images
        return Subspace.of_vectors(images.vectors, images.times, self.variance)

    def state(self) -> dict[str, NDArray[Any]]:
        """Moments of the cells, and the vectors of the images."""
        return self.statistic.arrays()

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        if "images_covariance" in state:
            raise ModelError(
                "This dfm model was trained before dfm kept what images are added to. It predicts "
                "as ever; to add images, train it again with all of them."
            )
        check_state(state, self.new_statistic().shapes())
        self.statistic = self.new_statistic().restore(state)
        return self


def parts_of(size: tuple[int, int]) -> tuple[int, int]:
    """How many parts an image of (height, width) has along each axis, nearly square ones."""
    height, width = size
    rows, columns = math.sqrt(_PARTS * height / width), math.sqrt(_PARTS * width / height)
    return max(round(rows), 1), max(round(columns), 1)


class CellsAndImages:
    """Moments of all cells' vectors together, and the vectors of whole images.

    These are kept, for principal components of fewer images than dimensions cost little, and those
    without some of them as little. Of more images than the pool holds, a random sample is kept.

    Parameters
    ----------
    cells : Moments
    images : VectorPool
    """

    def __init__(self, cells: Moments, images: VectorPool) -> None:
        self.cells = cells
        self.images = images

    @property
    def count(self) -> int:
        """Number of views of images."""
        return self.images.count

    def merge(self, other: CellsAndImages) -> Self:
        """Add what another has seen; `other` is not changed."""
        self.cells.merge(other.cells)
        self.images.merge(other.images)
        return self

    def without(self, other: CellsAndImages) -> CellsAndImages:
        """What is left when that which another has seen is taken out; neither is changed."""
        return CellsAndImages(self.cells.without(other.cells), self.images.without(other.images))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored."""
        return {**_named("cells", self.cells.arrays()), **_named("images", self.images.arrays())}

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of what is stored; None stands for any length."""
        cells = {name: array.shape for name, array in self.cells.arrays().items()}
        return {**_named("cells", cells), **_named("images", self.images.shapes())}

    def restore(self, arrays: Arrays) -> Self:
        """The inverse of `arrays`."""
        self.cells = Moments.from_arrays(_of("cells", arrays))
        self.images.restore(_of("images", arrays))
        return self


def _named(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind}_{name}": value for name, value in values.items()}


def _of(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    start = f"{kind}_"
    return {name.removeprefix(start): values[name] for name in values if name.startswith(start)}
