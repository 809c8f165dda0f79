"""DFKDE: how improbable an image is among good ones, by a density of its pretrained features.

The feature maps of a few layers are averaged over the image, so an image is one vector wherever
its part lies. Its principal components are kept, and a Gaussian around each training image gives
the density. The image score is the negative log density. There is no anomaly map: what is averaged
over the image has no place in it.

References
----------
Deep feature kernel density estimation, as inspection toolkits name it; Parzen 1962, On Estimation
of a Probability Density Function and Mode, Ann. Math. Statist. 33(3), equation 1.7 (the
estimate), and the references of `statistics.density`. Deviations from the usual form: the
components hold a share of the variance instead of being 16, features are not scaled to a length,
and they are standardised with their covariance. docs/quality.md holds the trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import feature_maps
from ..errors import OptionError
from ..images import Framing
from ..layers.density import LogDensity
from ..statistics.density import KernelDensity
from ..statistics.moments import Moments
from ..statistics.pca import Subspace
from ..statistics.pool import VectorPool
from .base import Arrays, StatisticalDetector, TrainingRecord, check_state
from .features import Features
from .heads import image_vector, joined, model_input

_IMAGES = 20_000  # that the density is made of, at most; a random sample of more
_FOLDS = 60  # that unseen scores come from
_CHANNELS = 4096  # at most; their covariance then takes 130 MB


class DFKDE(StatisticalDetector):
    """Deep feature kernel density estimation.

    Parameters
    ----------
    framing, patch_size, seed
        See `Detector`. `patch_size` has no meaning here; the seed chooses which images are kept of
        more than 20,000.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str
        Layers of the backbone.
    variance : float
        Share of the variance that the principal components hold, from 0.5 to 0.9999.
    bandwidth : {"scott", "silverman", "cross_validation"} or float
        Width of the Gaussians; see `statistics.density.KernelDensity`. A number is in standard
        deviations, from 0.01 to 100.
    """

    scores_are_logs = True

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model,
        layers: Sequence[str],
        variance: float,
        bandwidth: str | float,
    ) -> None:
        self.variance = variance
        self.bandwidth = bandwidth
        self.seed = seed
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        maps = feature_maps(images, framing, backbone, layers)
        features = image_vector(maps, framing, inside)
        if features.shape[-1] > _CHANNELS:
            raise OptionError(
                f"dfkde takes layers of {_CHANNELS} channels together at most, since its memory "
                f"grows with their square. Received: {features.shape[-1]}. Choose others."
            )
        self._features = keras.Model(joined(images, inside), {"features": features})
        self.statistic = self.new_statistic()

    def features(self) -> keras.Model:
        """Images -> {"features": (B, channels)}."""
        return self._features

    def new_statistic(self) -> VectorPool:
        """A pool of no images."""
        return VectorPool(self._features.output["features"].shape[-1], _IMAGES, self.seed)

    def folds(self, count: int) -> int:
        """A fit takes milliseconds: of usual sets each image is left out alone."""
        return min(_FOLDS, count)

    def scorer(self, statistic: VectorPool) -> Callable[[Features], dict[str, NDArray]]:
        """The graph's formula in numpy."""
        subspace, density = self._learnt(statistic)

        def score(features: Features) -> dict[str, NDArray]:
            inside = (features["features"] - subspace.mean) @ subspace.basis
            return {"score": -density.log_density(inside)}

        return score

    def graph(self) -> keras.Model:
        """Backbone, principal components and density as one graph."""
        subspace, density = self._learnt(self.statistic)
        features = self._features.output["features"]
        inside = ops.matmul(features - subspace.mean, subspace.basis)
        return keras.Model(self._features.input, {"score": -LogDensity(**vars(density))(inside)})

    def _learnt(self, statistic: VectorPool) -> tuple[Subspace, KernelDensity]:
        moments = Moments(1, statistic.vectors.shape[1])
        for start in range(0, len(statistic.vectors), 1024):
            moments.update(statistic.vectors[start : start + 1024, None])
        subspace = Subspace.of(moments, self.variance)
        inside = (statistic.vectors - subspace.mean) @ subspace.basis
        return subspace, KernelDensity.of(inside, self.bandwidth)

    def state(self) -> dict[str, NDArray[Any]]:
        """The features of the images: with them images can be added exactly."""
        return self.statistic.arrays()

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        check_state(state, self.statistic.shapes())
        self.statistic = self.new_statistic().restore(state)
        return self
