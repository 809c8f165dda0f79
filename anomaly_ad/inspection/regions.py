"""Regions: an anomaly map -> which of its pixels deviate, and where that is in the photograph.

One mask says what is marked of an image; colours, boxes, regions and outlines all come from it.
Boxes are those of a grid of square patches: a patch with a marked pixel is a cell that deviates.
The grid begins at the upper left corner, and patches at the right and lower border are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import Taken
from ..model import Limit

MOST = 100  # regions of one image
NEAR_PEAK = 0.9  # of the peak's score: what belongs to it where nothing exceeds the limit
_SMOOTHED = 0.7  # pixels of the map by which an outline may leave the pixels' edges


@dataclass(frozen=True, eq=False)
class Region:
    """A connected part of an image that deviates.

    Parameters
    ----------
    box : (int, int, int, int)
        xyxy in pixels of the photograph, x2 and y2 exclusive.
    area : int
        In pixels of the photograph.
    score : float
        The highest calibrated map value in it, in [0, 1); see `Prediction.anomaly_map`.
    contour : ndarray of int32, shape (K, 2)
        The corners of its outline, x and y in pixels of the photograph; holes are not told.
    """

    box: tuple[int, int, int, int]
    area: int
    score: float
    contour: NDArray[np.int32]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a record."""
        return {
            "box": list(self.box),
            "area": self.area,
            "score": self.score,
            "contour": self.contour.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        x1, y1, x2, y2 = (int(value) for value in values["box"])
        contour = np.array(values["contour"], np.int32).reshape(-1, 2)
        return cls((x1, y1, x2, y2), int(values["area"]), float(values["score"]), contour)


def marked(
    anomaly_map: NDArray[np.floating], limit: Limit, threshold: float, *, is_anomalous: bool
) -> NDArray[np.bool_]:
    """Which pixels of an image deviate.

    Those above the threshold, in raw units. The verdict has a limit of its own: nothing is marked
    of an image that it calls good, and where nothing exceeds the threshold of one that it calls
    anomalous, what comes near the map's peak is (from 0.9 of its score on).

    Parameters
    ----------
    anomaly_map : ndarray of float, shape (H, W)
        Raw; -inf where nothing counts.
    limit : Limit
        Of the maps.
    threshold : float
        Score in [0, 1].
    is_anomalous : bool
        The verdict.

    Returns
    -------
    ndarray of bool, shape (H, W)
    """
    if not is_anomalous:
        return np.zeros(anomaly_map.shape, np.bool_)
    above: NDArray[np.bool_] = anomaly_map > limit.raw(threshold)
    if above.any():
        return above
    peak = anomaly_map.max()
    near = limit.raw(NEAR_PEAK * float(limit.score(peak)))
    return anomaly_map >= min(near, float(peak))


def deviating_cells(marks: NDArray[np.bool_], patch_size: int) -> NDArray[np.int32]:
    """Boxes of the patches with a marked pixel.

    Parameters
    ----------
    marks : ndarray of bool, shape (H, W)
        See `marked`.
    patch_size : int
        Side of a patch in pixels of the map.

    Returns
    -------
    ndarray of int32, shape (N, 4)
        xyxy in pixels of the map, x2 and y2 exclusive, row by row; (0, 4) when there are none.
    """
    height, width = marks.shape
    starts = (np.arange(0, height, patch_size), np.arange(0, width, patch_size))
    by_rows = np.maximum.reduceat(marks, starts[0], axis=0)
    rows, columns = np.nonzero(np.maximum.reduceat(by_rows, starts[1], axis=1))
    x1, y1 = columns * patch_size, rows * patch_size
    x2 = np.minimum(x1 + patch_size, width)
    y2 = np.minimum(y1 + patch_size, height)
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.int32)


def regions(
    marks: NDArray[np.bool_],
    anomaly_map: NDArray[np.floating],
    limit: Limit,
    taken: Taken,
) -> tuple[Region, ...]:
    """The connected regions (neighbours touch at a side or a corner), the highest peak first.

    Parameters
    ----------
    marks : ndarray of bool, shape (H, W)
        See `marked`.
    anomaly_map, limit
        As there.
    taken : Taken
        The way back into the photograph.

    Returns
    -------
    tuple of Region
        At most `MOST`.
    """
    if not marks.any():
        return ()
    count, found, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8))
    labels = np.asarray(found, np.int32)
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, labels[marks], anomaly_map[marks].astype(np.float64))
    out = []
    for label in sorted(range(1, count), key=lambda n: -peaks[n])[:MOST]:
        x, y, width, height, pixels = stats[label].tolist()
        inside = labels[y : y + height, x : x + width] == label
        (outline,) = outlines(inside)
        box = taken.boxes_to_original(np.array([[x, y, x + width, y + height]]))[0]
        x1, y1, x2, y2 = box.tolist()
        area = max(round(pixels * taken.pixel_area), 1)
        contour = taken.points_to_original(outline + np.array([x, y]))
        out.append(Region((x1, y1, x2, y2), area, float(limit.score(peaks[label])), contour))
    return tuple(out)


def outlines(marks: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """The outer outline of each connected region of marked pixels, along the pixels' edges.

    Returns
    -------
    list of ndarray of float64, shape (K, 2)
        Corners, x and y in pixels of the map; a little smoothed.
    """
    # Each pixel is drawn as two by two, so that the outline of a single one has an extent.
    double = marks.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    edges = [((contour + 1) // 2).astype(np.int32) for contour in found]
    smooth = [cv2.approxPolyDP(edge, _SMOOTHED, closed=True) for edge in edges]
    return [contour.reshape(-1, 2).astype(np.float64) for contour in smooth]
