"""Anomaly maps in a page: they go there as gray pictures, which it colours for any threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..drawing import HEAT
from ..model import Limit
from ..web import asset
from .regions import NEAR_PEAK

_ZERO = 64  # the gray level of the median


def packed(anomaly_map: NDArray[np.floating], limit: Limit) -> NDArray[np.uint8]:
    """A map as gray levels: 64 is the median of good images, from there on the score up to 255.

    Below the median levels fall the slower the farther down, so that a map of low values is not
    blank: with t = (median - raw) / (limit - median), the level is 64 * 2 / (2 + t).

    Parameters
    ----------
    anomaly_map : ndarray of float, shape (h, w)
        Raw, finite.
    limit : Limit
        Of the maps.

    Returns
    -------
    ndarray of uint8, shape (h, w)
    """
    below = np.maximum((limit.median - anomaly_map) / (limit.limit - limit.median), 0)
    score = limit.score(anomaly_map)
    levels = np.where(below > 0, _ZERO * 2 / (2 + below), _ZERO + (255 - _ZERO) * score)
    return np.rint(levels).astype(np.uint8)


def script() -> str:
    """What the scripts of pages share: thresholds, colours of packed maps, copying and saving."""
    facts = {**HEAT, "zero": _ZERO, "near": NEAR_PEAK}
    heat = f"const HEAT = {json.dumps(facts)};\n" + asset("heat.js")
    return asset("limit.js") + heat + asset("hand.js")


def fitted(size: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) of a picture whose longer side is at most `side`."""
    scale = min(side / max(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
