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


class Variances:
    """Sums over images at each of P positions, in float64, around a first mean."""

    def __init__(self, count=0, seen=0.0, start=0.0, sums=0.0, squares=0.0):
        self.count, self.seen, self.start = count, seen, start  # images; where they count; (P, C)
        self.sums, self.squares = sums, squares

    def update(self, vectors, shares=None):
        """Add a batch (B, P, C); with padding, `shares` (B, P) is how much of each cell counts."""
        counts = np.ones(vectors.shape[:2]) if shares is None else (shares > 0).astype(float)
        counts = counts[..., None]
        start = vectors.mean(axis=(0, 1), dtype=np.float64, keepdims=True)[0]
        centred = (vectors - start) * counts
        sums = (counts.sum(axis=0), start, centred.sum(axis=0), np.square(centred).sum(axis=0))
        return self.merge(Variances(len(vectors), *sums))

    def _around(self, start):
        """The sums as if they started at another value."""
        step = self.start - start
        squares = self.squares + 2 * step * self.sums + self.seen * step * step
        return self.sums + self.seen * step, squares

    def merge(self, other):
        """Add what another has seen."""
        if not self.count:
            self.start = other.start
        sums, squares = other._around(self.start)
        self.sums, self.squares = self.sums + sums, self.squares + squares
        self.count, self.seen = self.count + other.count, self.seen + other.seen
        return self

    def without(self, other):
        """What is left when that which another has seen is taken out."""
        sums, squares = other._around(self.start)
        left = (self.seen - other.seen, self.start, self.sums - sums, self.squares - squares)
        return Variances(self.count - other.count, *left)

    def gaussian(self, floor):
        """Mean (P, C), and one over the deviation, to which `floor` of the mean one is added."""
        centre, squares = (part / np.maximum(self.seen, 1) for part in (self.sums, self.squares))
        deviation = np.sqrt(np.maximum(squares - centre * centre, 0))
        return self.start + centre, 1 / (deviation + floor * deviation.mean(axis=0) + 1e-9)


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
class VariancesMethod(GridDetector):
    """The distance of each cell's features from their mean, in standard deviations."""

    def __init__(self, framing, patch_size, seed, *, backbone, layers, blur, floor):
        super().__init__(framing, backbone, layers, blur)
        self.floor = floor
        self.statistic = self.new_statistic()

    def new_statistic(self):
        return Variances()

    def distances(self, statistic):
        mean, inverse = statistic.gaussian(self.floor)
        return lambda vectors, _: {"cells": np.sqrt(np.mean(((vectors - mean) * inverse) ** 2, -1))}

    def layer(self, vectors, shares):
        mean, inverse = (np.float32(array) for array in self.statistic.gaussian(self.floor))
        return {"cells": ops.sqrt(ops.mean(((vectors - mean) * inverse) ** 2, axis=-1))}

    def state(self):
        return {name: np.asarray(value) for name, value in vars(self.statistic).items()}

    def restore(self, state):
        cells, channels = self.grid[0] * self.grid[1], sum(self.groups)
        shapes = {"seen": (cells, 1), "start": (1, channels)}
        shapes |= dict.fromkeys(("sums", "squares"), (cells, channels))
        check_state(state, {"count": (), **shapes})
        self.statistic = Variances(int(state["count"]), *(state[name] for name in shapes))
        return self


if __name__ == "__main__":
    AD("variances", sys.argv[1], name="variances").train().evaluate(sys.argv[1])
