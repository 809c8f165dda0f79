"""How far what one engine says is from what another says of the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Parity:
    """How far a converted graph is from the one it was made of, over real images.

    Parameters
    ----------
    n_images : int
        Number of images compared.
    tolerance : float
        Largest deviation that is accepted.
    deviation : dict of str to float
        For each output the largest absolute difference, divided by the `extent` of the output in
        the original over these images.
    """

    n_images: int
    tolerance: float
    deviation: dict[str, float]

    @property
    def odd(self) -> dict[str, float]:
        """The outputs that deviate by more."""
        return {name: v for name, v in self.deviation.items() if not v <= self.tolerance}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the manifest."""
        return asdict(self)


def compared(
    expected: Mapping[str, NDArray[Any]],
    received: Mapping[str, NDArray[Any]],
    n_images: int,
    tolerance: float,
) -> Parity:
    """Compare the outputs of both, which have the same names; first axis: images."""
    deviation = {
        name: _deviation(expected[name], received[name], extent(expected, name))
        for name in sorted(expected)
    }
    return Parity(n_images, tolerance, deviation)


def extent(outputs: Mapping[str, NDArray], name: str) -> float:
    """The range that deviations of an output are measured by: its largest minus its least value.

    For the score that of the map, where there is one and it is larger: a score mostly is a value on
    the map's scale, and the range of a few scores of good images says little. Where all values are
    the same there is no range, and their own size takes its place.
    """
    names = {name, "anomaly_map"} if name == "score" else {name}
    values = [outputs[each] for each in names if each in outputs]
    largest = max(float(np.ptp(array)) for array in values)
    return largest or max(float(np.abs(array).max()) for array in values) or 1.0


def _deviation(expected: NDArray, received: NDArray, scale: float) -> float:
    if expected.shape != received.shape or not np.isfinite(received).all():
        return float("inf")
    return float(np.abs(expected.astype(np.float64) - received).max()) / scale
