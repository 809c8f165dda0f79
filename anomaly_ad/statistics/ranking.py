"""How well scores tell defects from good images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def partial_auroc(good: ArrayLike, defective: ArrayLike, most: float = 1.0) -> float:
    """The area under the ROC curve up to a share of false alarms, as part of the largest possible.

    1 where every defect is told apart without a false alarm; ``most / 2`` by chance.

    Parameters
    ----------
    good, defective : array_like of float, shape (n,) and (m,)
        Finite scores, higher = more anomalous; one of each at least.
    most : float
        Share of false alarms up to which it is taken, in (0, 1]. 1: the whole area, which is the
        chance that a defect scores higher than a good image.

    References
    ----------
    McClish 1989, Analyzing a Portion of the ROC Curve, Medical Decision Making 9(3): the area up to
    a rate. Here it is divided by that rate, the largest it can be.
    """
    ranked = np.sort(np.asarray(good, np.float64), axis=None)
    scores = np.asarray(defective, np.float64).ravel()
    # The shares of good images that score higher than a defect, and at least as high. Between the
    # two the curve is straight: of a defect that is tied with good ones a growing part is found.
    higher = 1 - np.searchsorted(ranked, scores, "right") / len(ranked)
    as_high = 1 - np.searchsorted(ranked, scores, "left") / len(ranked)
    tied = np.minimum(as_high, most) - np.minimum(higher, most)
    part = np.divide(tied, as_high - higher, out=np.ones_like(tied), where=as_high > higher)
    area = part * (tied / 2 + most - np.minimum(as_high, most))
    return float(area.mean() / most)
