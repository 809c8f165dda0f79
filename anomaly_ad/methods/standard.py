"""Channels of feature maps brought to one scale: by their mean and deviation in good images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.moments import Moments
from .features import Features
from .heads import MapHead

_LEAST_DEVIATION = 0.01  # of a channel, as a share of the mean one


class Standard:
    """Mean and deviation of each channel of a feature map, over all that counts.

    Parameters
    ----------
    name : str
        Of the map, as the frozen graph gives it: (B, height, width, C).
    head : MapHead
        Of its grid.
    channels : int
        C.
    """

    def __init__(self, name: str, head: MapHead, channels: int) -> None:
        self.name = name
        self.head = head
        self.mean, self.scale = np.empty((2, channels), np.float32)
        self.forget()

    def forget(self) -> None:
        """As at first: the map as it is."""
        self.mean[:], self.scale[:] = 0, 1

    def __call__(self, features: Any) -> Any:
        """The map, standardised: of ndarrays or of tensors."""
        return (features[self.name] - self.mean) * self.scale

    def shares(self, xp: Any, features: Any) -> Any:
        """How much of each cell counts, (B, height, width, 1); None for all."""
        shares = self.head.shares(xp, features.get("inside"))
        return None if shares is None else xp.reshape(shares, (-1, *self.head.grid, 1))

    def _look(self, moments: Moments, batch: Features) -> None:
        """Add what counts of the map."""
        shares = self.shares(np, batch)
        for n, features in enumerate(batch[self.name]):
            cells = features.reshape(-1, len(self.mean))
            if shares is not None:
                cells = cells[shares[n].ravel() > 0]
            if len(cells):
                moments.update(cells[:, :, None])

    def _take(self, moments: Moments) -> None:
        """Take mean and deviation."""
        deviation = np.sqrt(moments.covariance()[:, 0, 0])
        least = _LEAST_DEVIATION * deviation.mean() or 1.0
        self.mean[:] = moments.means()[:, 0]
        self.scale[:] = 1 / np.maximum(deviation, least)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What is stored, by the name of the map."""
        return {f"{self.name}_mean": self.mean, f"{self.name}_scale": self.scale}

    @staticmethod
    def learn(standards: Sequence[Standard], batches: Iterable[Features]) -> None:
        """Take mean and deviation of several maps in one pass over their features."""
        moments = [Moments(len(each.mean), 1) for each in standards]
        for batch in batches:
            for standard, own in zip(standards, moments, strict=True):
                standard._look(own, batch)
        for standard, own in zip(standards, moments, strict=True):
            standard._take(own)
