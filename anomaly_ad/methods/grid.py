"""What methods have in common that score each cell of a grid of pretrained features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..backbones.networks import feature_maps, on_the_coarsest_grid
from ..errors import BackboneError
from ..images import ImageSpec
from ..layers.maps import LinearMap, gaussian_matrix, upsampling_matrix
from .base import StatisticalDetector, TrainingRecord


class GridDetector(StatisticalDetector):
    """A vector of pretrained features per cell of a grid, and a distance for each.

    The feature maps of a few layers are put together on the grid of the coarsest. A subclass learns
    what these vectors are like on good images and says how far each one is from that. The anomaly
    map is the distance of each cell, enlarged to the image and slightly blurred.

    Parameters
    ----------
    spec : ImageSpec
        What the graph takes.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str
        Layers of the backbone, such as stage0 to stage6 of an EfficientNet-Lite. Finer ones find
        smaller defects, coarser ones see more of the surroundings.
    blur : float
        Standard deviation of the map's blur in pixels of the map, from 0 to 100.
    pooled : bool
        See `backbones.networks.on_the_coarsest_grid`.

    Attributes
    ----------
    grid : (int, int)
        Cells along height and width.
    groups : tuple of int
        Channels of each layer.
    """

    def __init__(
        self,
        spec: ImageSpec,
        backbone: str | keras.Model,
        layers: Sequence[str],
        blur: float,
        *,
        pooled: bool = False,
    ) -> None:
        self.spec = spec
        self.blur = blur
        self.record = TrainingRecord()
        images = keras.Input(spec.shape, dtype="uint8", name="images")
        maps = feature_maps(images, spec, backbone, layers)
        features = on_the_coarsest_grid(maps, pooled=pooled)
        self.grid = features.shape[1:3]
        self.groups = tuple(each.shape[-1] for each in maps)
        if min(self.grid) < 2:
            raise BackboneError(
                f"img_size {spec.height}x{spec.width} leaves a grid of {self.grid[0]}x"
                f"{self.grid[1]} features; at least 2x2 are needed. Choose a larger img_size or "
                "finer layers."
            )
        self._features = keras.Model(images, {"features": features})

    def features(self) -> keras.Model:
        """Images -> {"features": (B, grid height, grid width, channels)}."""
        return self._features

    def distances(self, statistic: Any) -> Callable[[NDArray[np.float32]], dict[str, NDArray]]:
        """The formula of `layer` in numpy.

        Returns
        -------
        callable
            Vectors (B, P, C) -> "cells", the distance of each (B, P), and where it is not the
            map's maximum "score" (B,).
        """
        raise NotImplementedError

    def layer(self, vectors: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        """Apply the Keras layer that scores: results as those of `distances`."""
        raise NotImplementedError

    def scorer(self, statistic: Any) -> Callable[[NDArray[np.float32]], dict[str, NDArray]]:
        """The graph's formula in numpy."""
        measure = self.distances(statistic)
        rows, columns = self._enlargement()

        def score(features: NDArray[np.float32]) -> dict[str, NDArray]:
            vectors = features.reshape(len(features), -1, features.shape[-1])
            found = measure(vectors)
            anomaly_map = rows @ found["cells"].reshape(-1, *self.grid) @ columns.T
            highest = anomaly_map.max(axis=(1, 2))
            return {"anomaly_map": anomaly_map, "score": found.get("score", highest)}

        return score

    def graph(self) -> keras.Model:
        """Backbone, distance, enlargement and blur as one graph."""
        features = self._features.output["features"]
        height, width, channels = features.shape[1:]
        found = self.layer(ops.reshape(features, (-1, height * width, channels)))
        cells = ops.reshape(found["cells"], (-1, height, width))
        anomaly_map = LinearMap(*self._enlargement())(cells)
        score = found["score"] if "score" in found else ops.max(anomaly_map, axis=(1, 2))
        return keras.Model(self._features.input, {"anomaly_map": anomaly_map, "score": score})

    def _enlargement(self) -> list[NDArray[np.float32]]:
        """For rows and columns: grid -> pixels, bilinearly and then blurred."""
        matrices = []
        for size, cells in zip(self.spec.size, self.grid, strict=True):
            matrix = upsampling_matrix(size, cells)
            matrices.append(gaussian_matrix(size, self.blur) @ matrix if self.blur else matrix)
        return matrices
