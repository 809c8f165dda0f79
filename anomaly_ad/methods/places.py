"""What values are usual at each place of a map, learnt from good images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

_LITTLE = 1e-6


class Places:
    """Mean and deviation of values at each place.

    Parameters
    ----------
    shape : (int, int)
        (height, width) of a map.
    prefix : str
        Of the names in `arrays`.
    """

    def __init__(self, shape: tuple[int, int], prefix: str = "") -> None:
        self.mean, self.deviation = np.empty((2, *shape), np.float32)
        self.prefix = prefix
        self.forget()

    def forget(self) -> None:
        """As at first: all places alike."""
        self.mean[:], self.deviation[:] = 0, 1

    def learn(self, batches: Iterable[tuple[NDArray[Any], NDArray[np.bool_] | None]]) -> None:
        """Take values (B, height, width) and where they count; None where all do."""
        count, total, squares = (np.zeros(self.mean.shape) for _ in range(3))
        for values, counted in batches:
            found = np.asarray(values, np.float64)
            counts = np.ones(found.shape, bool) if counted is None else counted
            count += counts.sum(axis=0)
            total += (found * counts).sum(axis=0)
            squares += (found**2 * counts).sum(axis=0)
        mean = total / np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        for own, learnt in ((self.mean, mean), (self.deviation, deviation)):
            # Where no good image counts, a place is taken for a usual one.
            own[:] = np.where(count > 0, learnt, learnt[count > 0].mean())

    def exceeded(self, values: keras.KerasTensor) -> keras.KerasTensor:
        """By how many deviations values exceed their mean; 0 where they do not.

        The mean deviation is added to each: noise is not a defect where good images hardly differ.
        """
        scale = 1 / (self.deviation + max(float(self.deviation.mean()), _LITTLE))
        return ops.relu(values - self.mean) * scale

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Mean and deviation by name; restored in place."""
        return {f"{self.prefix}mean": self.mean, f"{self.prefix}deviation": self.deviation}
