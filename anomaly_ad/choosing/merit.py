"""What methods are chosen by: defects found at the limit, and how well they are told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Estimate, wilson
from ..statistics.ranking import partial_auroc

MOST_ALARMS = 0.05  # up to which the ROC curve counts
_RESAMPLES = 2000
_FEW = 5  # images of a kind
_NOTHING = 1e-12


@dataclass(frozen=True, eq=False)
class Scored:
    """Raw scores of good and defective images that a model has not learnt, and its limit.

    Parameters
    ----------
    good, defective : ndarray of float, shape (n,) and (m,)
        One of each at least.
    limit : float
        What is above it is rejected.
    """

    good: NDArray[np.float64]
    defective: NDArray[np.float64]
    limit: float

    @property
    def found(self) -> int:
        """Defective images above the limit."""
        return int((self.defective > self.limit).sum())

    @property
    def rejected(self) -> int:
        """Good images above the limit."""
        return int((self.good > self.limit).sum())


def merit(scored: Scored) -> float:
    """The mean of the partial AUROC up to 5 % false alarms and the share found at the limit.

    In [0, 1], 1 where every defect is found at the limit and scores higher than any good image.
    """
    share = scored.found / len(scored.defective)
    return (partial_auroc(scored.good, scored.defective, MOST_ALARMS) + share) / 2


def differences(best: Scored, others: list[Scored], seed: int) -> list[Estimate]:
    """By how much the merit of `best` is larger than that of others, on the same images.

    The 95 % intervals are percentiles of the differences over resampled images (2,000 times,
    seeded): good and defective ones are drawn apart, with replacement, each as many as there are,
    and all models get the same draw (paired bootstrap; Efron, Tibshirani 1993, An Introduction to
    the Bootstrap, chapter 8). Limits stay as they are. Where models differ and no draw shows it
    otherwise, nothing of the variance was seen: then, and with fewer than 5 images of a kind, the
    interval is as wide as Wilson's for none of as many cases as there are images of the rarer kind.
    """
    random = np.random.default_rng(seed)
    all_of_them = [best, *others]
    values = np.empty((_RESAMPLES, len(all_of_them)))
    for row in values:
        good = random.integers(len(best.good), size=len(best.good))
        defective = random.integers(len(best.defective), size=len(best.defective))
        row[:] = [
            merit(Scored(one.good[good], one.defective[defective], one.limit))
            for one in all_of_them
        ]
    low, high = np.percentile(values[:, :1] - values[:, 1:], [2.5, 97.5], axis=0)
    own = merit(best)
    fewest = min(len(best.good), len(best.defective))
    out = []
    for other, first, last in zip(others, low, high, strict=True):
        value = own - merit(other)
        wide = 0.0
        if value and (last - first < _NOTHING or fewest < _FEW):
            wide = wilson(0.0, fewest).high
        out.append(Estimate(value, float(min(first, value - wide)), float(max(last, value + wide))))
    return out
