"""PaDiM: a Gaussian of pretrained features at each position; what is far from it is odd.

The feature maps of a few layers of a pretrained network are put together into one vector per
position, some of whose channels are kept at random. Good images give each position a mean and a
covariance. The anomaly map is the Mahalanobis distance at each position, enlarged to the image and
slightly blurred; the image score is its maximum.

References
----------
Defard, Setkov, Loesch, Audigier 2020, PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization, arXiv 2011.08785, section III, equations 1 and 2. Deviations: finer
feature maps are averaged down to the grid of the coarsest one instead of enlarging that one to the
finest (a quarter of the positions with twice the channels take as much memory and found more in our
trials, and averaging forgives small shifts); the regularization is relative to each channel's
variance instead of the same 0.01 for all; the backbone is EfficientNet-Lite0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import DEFAULT_LAYERS, feature_maps
from ..errors import BackboneError, OptionError
from ..images import ImageSpec
from ..layers.gaussian import MahalanobisDistance
from ..layers.maps import LinearMap, gaussian_matrix, upsampling_matrix
from ..statistics.moments import Moments, mahalanobis, regularized, whitening
from .base import Arrays, StatisticalDetector, TrainingRecord, check_state


class Padim(StatisticalDetector):
    """PaDiM.

    Parameters
    ----------
    spec, patch_size, seed
        See `Detector`. `patch_size` is the side of boxes only; `seed` chooses the channels.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str, optional
        Layers of the backbone; None for stages 1, 2 and 4 of an EfficientNet-Lite. Finer ones find
        smaller defects, coarser ones see more of the surroundings.
    channels : int
        How many channels are kept, at random; all if there are no more. Memory and file grow with
        their square.
    regularization : float
        Part of each channel's mean variance that is added to its variance everywhere; from 1e-6
        to 1e6.
    blur : float
        Standard deviation of the blur in pixels of the map, >= 0.
    """

    def __init__(
        self,
        spec: ImageSpec,
        patch_size: int,
        seed: int,
        *,
        backbone: str | keras.Model = "efficientnet_lite0",
        layers: Sequence[str] | None = None,
        channels: int = 128,
        regularization: float = 0.1,
        blur: float = 4.0,
    ) -> None:
        if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= 1024:
            raise OptionError(f"channels is a whole number from 1 to 1024. Received: {channels!r}.")
        if not _is_number(regularization) or not 1e-6 <= regularization <= 1e6:
            raise OptionError(
                f"regularization is a number from 1e-6 to 1e6. Received: {regularization!r}."
            )
        if not _is_number(blur) or not 0 <= blur <= 100:
            raise OptionError(f"blur is in pixels, from 0 to 100. Received: {blur!r}.")
        self.spec = spec
        self.regularization = float(regularization)
        self.blur = float(blur)
        self.record = TrainingRecord()
        images = keras.Input(spec.shape, dtype="uint8", name="images")
        maps = feature_maps(images, spec, backbone, _layer_names(backbone, layers))
        features = _on_the_coarsest_grid(maps)
        self.grid = features.shape[1:3]
        if min(self.grid) < 2:
            raise BackboneError(
                f"img_size {spec.height}x{spec.width} leaves a grid of {self.grid[0]}x"
                f"{self.grid[1]} features; at least 2x2 are needed. Choose a larger img_size or "
                "finer layers."
            )
        total = features.shape[-1]
        if total > channels:
            kept = np.sort(np.random.default_rng(seed).permutation(total)[:channels])
            features = ops.take(features, kept.astype(np.int32), axis=-1)
        self._features = keras.Model(images, {"features": features})
        self.statistic = self.new_statistic()

    def features(self) -> keras.Model:
        """Images -> {"features": (B, grid height, grid width, channels)}."""
        return self._features

    def new_statistic(self) -> Moments:
        """Moments that have seen nothing."""
        height, width, channels = self._features.output["features"].shape[1:]
        return Moments(height * width, channels)

    def scorer(self, statistic: Moments) -> Callable[[NDArray[np.float32]], dict[str, NDArray]]:
        """The graph's formula in numpy."""
        mean, covariance = statistic.mean, regularized(statistic, self.regularization)
        rows, columns = self._enlargement()

        def score(features: NDArray[np.float32]) -> dict[str, NDArray]:
            vectors = features.reshape(len(features), *mean.shape)
            distance = mahalanobis(vectors, mean, covariance).reshape(-1, *self.grid)
            anomaly_map = rows @ distance @ columns.T
            return {"anomaly_map": anomaly_map, "score": anomaly_map.max(axis=(1, 2))}

        return score

    def graph(self) -> keras.Model:
        """Backbone, distance, enlargement and blur as one graph."""
        mean, white = self.statistic.mean, whitening(self.statistic, self.regularization)
        features = self._features.output["features"]
        vectors = ops.reshape(features, (-1, *mean.shape))
        distance = MahalanobisDistance(mean, white)(vectors)
        anomaly_map = LinearMap(*self._enlargement())(ops.reshape(distance, (-1, *self.grid)))
        return keras.Model(
            self._features.input,
            {"anomaly_map": anomaly_map, "score": ops.max(anomaly_map, axis=(1, 2))},
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """The moments."""
        return self.statistic.arrays()

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        expected = self.new_statistic().arrays()
        check_state(state, {name: array.shape for name, array in expected.items()})
        self.statistic = Moments.from_arrays(state)
        return self

    def _enlargement(self) -> list[NDArray[np.float32]]:
        """For rows and columns: grid -> pixels, bilinearly and then blurred."""
        matrices = []
        for size, cells in zip(self.spec.size, self.grid, strict=True):
            matrix = upsampling_matrix(size, cells)
            matrices.append(gaussian_matrix(size, self.blur) @ matrix if self.blur else matrix)
        return matrices


def _layer_names(backbone: str | keras.Model, layers: Sequence[str] | None) -> list[str]:
    if layers is None:
        if isinstance(backbone, str) and backbone.startswith("efficientnet_lite"):
            return list(DEFAULT_LAYERS)
        layers = []  # the error lists those there are
    is_list = isinstance(layers, (list, tuple))
    if not is_list or not all(isinstance(name, str) for name in layers):
        raise OptionError(f"layers is a list of names of layers. Received: {layers!r}.")
    return list(layers) or ["None"]


def _on_the_coarsest_grid(maps: list[keras.KerasTensor]) -> keras.KerasTensor:
    """Average finer maps down and put all channels together."""
    height, width = (min(features.shape[axis] for features in maps) for axis in (1, 2))
    averaged = []
    for features in maps:
        step = (-(-features.shape[1] // height), -(-features.shape[2] // width))
        if step != (1, 1):
            features = ops.average_pool(features, step, step, padding="same")
        if features.shape[1:3] != (height, width):
            raise BackboneError(
                "The feature maps of the chosen layers do not lie on one grid: "
                f"{', '.join('x'.join(map(str, m.shape[1:3])) for m in maps)}. Choose layers whose "
                "sizes are multiples of each other."
            )
        averaged.append(features)
    return averaged[0] if len(averaged) == 1 else ops.concatenate(averaged, axis=-1)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
