"""A method of one's own, a Gaussian per channel at each position; docs/methods.md explains it.

python examples/my_statistical_method.py Dataset/Washer
"""

import sys

import numpy as np
from keras import ops

from anomaly_ad import AD
from anomaly_ad.methods import Name, Names, Number, Preset, register
from anomaly_ad.methods.base import check_state
from anomaly_ad.methods.grid import GridDetector
from anomaly_ad.statistics.moments import Moments

OPTIONS = (
    Name("backbone", "efficientnet_lite0", "the pretrained network, by its name"),
    Names("layers", ["stage2", "stage4"], "layers of the backbone"),
    Number("blur", 4.0, "standard deviation of the map's smoothing in pixels", 0, 100),
)


@register("variances", Preset("Small and quick", options=OPTIONS, adds_images=True))
class Variances(GridDetector):
    """The distance of each cell's features from their mean, in standard deviations."""

    def __init__(self, framing, patch_size, seed, **options):
        super().__init__(framing, **options)
        self.statistic = self.new_statistic()

    def new_statistic(self):
        return Moments(self.grid[0] * self.grid[1], sum(self.groups))

    def gaussian(self, statistic):
        """Mean (P, C), and one over the deviation, to which half of the mean one is added."""
        deviation = np.sqrt(np.diagonal(statistic.covariance(), axis1=1, axis2=2))
        inverse = 1 / (deviation + deviation.mean(axis=0) / 2 + 1e-9)
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
