"""A statistical method of one's own: a Gaussian per channel at each position.

    python examples/my_statistical_method.py Dataset/Washer

It is PaDiM (arXiv 2011.08785) with the variances alone: quick, small, and blind to features that
go together. docs/methods.md explains the parts.
"""

import sys

import numpy as np
from keras import ops

from anomaly_ad import AD
from anomaly_ad.methods import Name, Names, Number, Preset, register
from anomaly_ad.methods.base import check_state
from anomaly_ad.methods.grid import GridDetector
from anomaly_ad.statistics.moments import Moments


@register(
    "variances",
    Preset(
        "Gaussian per channel at each position: small and quick",
        options=(
            Name("backbone", "efficientnet_lite0", "the pretrained network, by its name"),
            Names("layers", ["stage2", "stage4"], "layers of the backbone"),
            Number("blur", 4.0, "standard deviation of the map's smoothing in pixels", 0, 100),
            Number("floor", 0.5, "share of the mean deviation that is added everywhere", 0.01, 10),
        ),
        adds_images=True,
    ),
)
class Variances(GridDetector):
    """The distance of each cell's features from their mean, in standard deviations."""

    def __init__(self, framing, patch_size, seed, *, backbone, layers, blur, floor):
        super().__init__(framing, backbone, layers, blur)
        self.floor = floor
        self.statistic = self.new_statistic()

    def new_statistic(self):
        return Moments(self.grid[0] * self.grid[1], sum(self.groups))

    def gaussian(self, statistic):
        """Mean (P, C), and one over the deviation, to which a part of the mean one is added."""
        deviation = np.sqrt(np.diagonal(statistic.covariance(), axis1=1, axis2=2))
        inverse = 1 / (deviation + self.floor * deviation.mean(axis=0) + 1e-9)
        return np.float32(statistic.means()), np.float32(inverse)

    def distances(self, statistic):
        mean, inverse = self.gaussian(statistic)
        return lambda vectors, _: {"cells": np.sqrt(np.mean(((vectors - mean) * inverse) ** 2, -1))}

    def layer(self, vectors, shares):
        mean, inverse = self.gaussian(self.statistic)
        return {"cells": ops.sqrt(ops.mean(((vectors - mean) * inverse) ** 2, axis=-1))}

    def state(self):
        return self.statistic.arrays()

    def restore(self, state):
        check_state(state, self.new_statistic().shapes(state))
        self.statistic = Moments.from_arrays(state)
        return self


if __name__ == "__main__":
    AD("variances", sys.argv[1], name="variances").train().evaluate(sys.argv[1])
