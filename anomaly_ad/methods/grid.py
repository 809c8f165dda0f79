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
from ..images import Framing
from .base import StatisticalDetector, TrainingRecord
from .features import Features
from .heads import MapHead, highest, joined, model_input

# See `GridDetector.distances`.
Distances = Callable[[NDArray[np.float32], NDArray[np.float32] | None], dict[str, NDArray]]

_CELL = 16  # pixels


def usual_grid(framing: Framing) -> tuple[int, int]:
    """Cells of 16 x 16 pixels along height and width, for `at_least`: coarser maps are enlarged."""
    return framing.height // _CELL, framing.width // _CELL


class GridDetector(StatisticalDetector):
    """A vector of pretrained features per cell of a grid, and a distance for each.

    The feature maps of a few layers are put together on the grid of the coarsest. A subclass learns
    what these vectors are like on good images and says how far each one is from that. The anomaly
    map is the distance of each cell, enlarged to the image and slightly blurred.

    Parameters
    ----------
    framing : Framing
        What the graph takes.
    backbone : str or keras.Model
        See `backbones.networks.feature_maps`.
    layers : sequence of str
        Layers of the backbone, such as stage0 to stage6 of an EfficientNet-Lite. Finer ones find
        smaller defects, coarser ones see more of the surroundings.
    blur : float
        Standard deviation of the map's blur in pixels of the map, from 0 to 100.
    at_least, pooled
        See `backbones.networks.on_the_coarsest_grid`.
    further : sequence of str
        Layers whose maps a subclass uses otherwise.

    Attributes
    ----------
    grid : (int, int)
        Cells along height and width.
    groups : tuple of int
        Channels of each layer.
    further_maps : list of tensor
        The maps of the further layers.
    """

    def __init__(
        self,
        framing: Framing,
        backbone: str | keras.Model,
        layers: Sequence[str],
        blur: float,
        *,
        at_least: tuple[int, int] = (1, 1),
        pooled: bool = False,
        further: Sequence[str] = (),
    ) -> None:
        self.framing = framing
        self.record = TrainingRecord()
        images, inside = model_input(framing)
        maps = feature_maps(images, framing, backbone, [*layers, *further])
        maps, self.further_maps = maps[: len(layers)], maps[len(layers) :]
        features = on_the_coarsest_grid(maps, at_least=at_least, pooled=pooled)
        self.grid = features.shape[1:3]
        self.groups = tuple(each.shape[-1] for each in maps)
        if min(self.grid) < 2:
            raise BackboneError(
                f"img_size {framing.height}x{framing.width} leaves a grid of {self.grid[0]}x"
                f"{self.grid[1]} features; at least 2x2 are needed. Choose a larger img_size or "
                "finer layers."
            )
        self.head = MapHead(framing.size, self.grid, blur)
        self.set_features(joined(images, inside), features)

    def set_features(self, inputs: Any, found: keras.KerasTensor) -> None:
        """Choose what the grid's vectors are: (B, grid height, grid width, channels)."""
        outputs = {"features": found}
        if isinstance(inputs, list):
            outputs["inside"] = inputs[1]
        self._features = keras.Model(inputs, outputs)

    def features(self) -> keras.Model:
        """Images -> {"features": (B, grid height, grid width, channels)}, and `inside`."""
        return self._features

    def vectors(self, features: Features) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """A batch of features as vectors (B, P, C), and how much of each cell counts (B, P)."""
        found = features["features"]
        return found.reshape(len(found), -1, found.shape[-1]), self.head.shares(
            np, features.get("inside")
        )

    def reduced(self, xp: Any, vectors: Any) -> Any:
        """What of the vectors (B, P, C) is learnt and scored: all of it."""
        return vectors

    def learn(self, statistic: Any, features: Features) -> None:
        """Add a batch of features to a statistic, with how much of each cell counts."""
        vectors, shares = self.vectors(features)
        statistic.update(self.reduced(np, vectors), shares)

    def distances(self, statistic: Any) -> Distances:
        """The formula of `layer` in numpy.

        Returns
        -------
        callable
            Vectors (B, P, C), and how much of each cell counts (B, P) or None for all -> "cells",
            the distance of each (B, P), and where it is not the map's maximum "score" (B,).
        """
        raise NotImplementedError

    def layer(
        self, vectors: keras.KerasTensor, shares: keras.KerasTensor | None
    ) -> dict[str, keras.KerasTensor]:
        """Apply the Keras layer that scores: arguments and results as those of `distances`."""
        raise NotImplementedError

    def unseen_distances(self, statistic: Any) -> Distances | None:
        """As `distances`, for images that the statistic has learnt: as if it had not learnt each.

        None where there is no such formula.
        """
        return None

    def unseen_scorer(self, statistic: Any) -> Callable[[Features], dict[str, NDArray]] | None:
        """The graph's formula, of `unseen_distances`."""
        measure = self.unseen_distances(statistic)
        return None if measure is None else self._scorer(measure)

    def scorer(self, statistic: Any) -> Callable[[Features], dict[str, NDArray]]:
        """The graph's formula in numpy."""
        return self._scorer(self.distances(statistic))

    def _scorer(self, measure: Distances) -> Callable[[Features], dict[str, NDArray]]:
        def score(features: Features) -> dict[str, NDArray]:
            vectors, shares = self.vectors(features)
            found = measure(self.reduced(np, vectors), shares)
            anomaly_map = self.head(np, found["cells"], features.get("inside"))
            return {
                "anomaly_map": anomaly_map,
                "score": found.get("score", highest(np, anomaly_map)),
            }

        return score

    def graph(self) -> keras.Model:
        """Backbone, distance, enlargement and blur as one graph."""
        features, inside = self._features.output["features"], self._features.output.get("inside")
        vectors = ops.reshape(features, (-1, self.grid[0] * self.grid[1], features.shape[-1]))
        found = self.layer(self.reduced(ops, vectors), self.head.shares(ops, inside))
        anomaly_map = self.head(ops, found["cells"], inside)
        score = found["score"] if "score" in found else highest(ops, anomaly_map)
        return keras.Model(self._features.input, {"anomaly_map": anomaly_map, "score": score})
