"""How well maps find what the masks show: area under the ROC curve of pixels, and AUPRO."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError


def pixel_auroc(maps: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_]]) -> float:
    """Area under the ROC curve over all pixels of all images; ties count half.

    Parameters
    ----------
    maps : iterable of ndarray of float, shape (H, W)
        Higher = more anomalous; raw values. Sizes may vary between images.
    masks : iterable of ndarray of bool, shape (H, W)
        True on defects; all False for a good image.

    Raises
    ------
    DataError
        Sizes differ, values are not finite, or there are no defective or no good pixels.
    """
    good, regions = _collect(maps, masks)
    defective = np.concatenate(regions)
    return 1 - float(_share_above(good, defective).mean())


def aupro(
    maps: Iterable[NDArray[np.floating]],
    masks: Iterable[NDArray[np.bool_]],
    limit: float = 0.3,
) -> float:
    """Area under the per-region overlap curve up to a false positive rate, relative to that rate.

    For each threshold, the overlap is the share of a defective region's pixels that exceed it,
    averaged over the regions (8-connected components of the masks), so that a small defect counts
    as much as a large one; the false positive rate is the share of all good pixels. The curve is
    integrated exactly, one step per pixel, instead of over a grid of thresholds.

    Parameters
    ----------
    maps, masks
        As for `pixel_auroc`.
    limit : float
        In (0, 1].

    References
    ----------
    Bergmann et al. 2021, The MVTec Anomaly Detection Dataset, IJCV 129, section 5.
    """
    if not 0 < limit <= 1:
        raise OptionError(f"limit is a false positive rate in (0, 1]. Received: {limit!r}.")
    good, regions = _collect(maps, masks)
    # A region's pixel is found for every rate above that at which its own value is the threshold.
    gains = [np.maximum(limit - _share_above(good, region), 0).mean() for region in regions]
    return float(np.mean(gains)) / limit


def _collect(
    maps: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_]]
) -> tuple[NDArray[np.floating], list[NDArray[np.floating]]]:
    """The values of all good pixels in ascending order, and those of each defective region."""
    good: list[NDArray[np.floating]] = []
    regions: list[NDArray[np.floating]] = []
    for anomaly_map, mask in zip_longest(maps, masks):
        if anomaly_map is None or mask is None:
            raise DataError("Each map needs a mask, and each mask a map; their numbers differ.")
        if mask.dtype != np.bool_:
            raise DataError(f"A mask is bool, such as `mask > 0`. Received: {mask.dtype}.")
        if anomaly_map.shape != mask.shape or not np.isfinite(anomaly_map).all():
            raise DataError(
                f"A map and its mask have one size, and a map is finite. Received a map of "
                f"{anomaly_map.shape} and a mask of {mask.shape}."
            )
        good.append(anomaly_map[~mask])
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions.extend(anomaly_map[labels == label] for label in range(1, count))
    if not regions or not sum(map(len, good)):
        raise DataError("Pixel metrics need defective and good pixels, and one kind is missing.")
    return np.sort(np.concatenate(good)), regions


def _share_above(
    ascending: NDArray[np.floating], values: NDArray[np.floating]
) -> NDArray[np.float64]:
    """For each value the share of good pixels above it, with half of those that equal it."""
    below = np.searchsorted(ascending, values, "left")
    not_above = np.searchsorted(ascending, values, "right")
    return 1 - (below + not_above) / (2 * len(ascending))
